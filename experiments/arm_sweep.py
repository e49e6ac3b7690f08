"""A study over the weights of SPECTRA's losses: information between domain and expert against held-out loss, on calibration documents only.

A trial is trained for a few steps first; one that is then worse than the median of the trials before it in both objectives is stopped. Such a
trial is never on the front. The chosen point is trained again with fresh seeds and measured on test documents; it moves no declared option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.testbed.campaign_spec import LEAST_TRIALS, ArmSweepSpec
from tracking.studies import Importances, Knob, Params, Pruned, StudyDesign, TrialTable, open_study

OBJECTIVES = ("mi_E_D", "minus_loss")
STUDY_FILE, OUTCOME_FILE, CONFIRMED_FILE = "arms.db", "sweep.json", "confirmed.json"
BEFORE_PRUNING = 4  # trials whose short training is known before any is stopped
Measured = tuple[float, float]  # bits, nats per token
Train = Callable[[Params, int], Measured]  # knobs, steps -> I(E;D) and loss on calibration documents


@dataclass(frozen=True)
class ArmSweep:
    """Outcome. trials: knobs, mi_E_D, loss, state, on_front, reason of each; chosen: knobs with both values, None with `reason`."""

    knobs: tuple[str, ...]
    trials: tuple[dict[str, Any], ...]
    chosen: dict[str, float] | None
    importances: tuple[Importances, ...]
    n_complete: int
    n_pruned: int
    reason: str | None = None


def design_of(spec: ArmSweepSpec, seed: int) -> StudyDesign:
    """Knobs on a logarithmic scale, both objectives maximised."""
    ends = {"lambda_ortho": spec.lambda_ortho, "lambda_entropy": spec.lambda_entropy, "eps": spec.eps}
    knobs = tuple(Knob(name, "float", *between, log=True) for name, between in ends.items() if between is not None)
    return StudyDesign("spectra", knobs, OBJECTIVES, seed)


class MedianRule:
    """Stops a trial whose short training is worse than the median of those before it in both objectives."""

    def __init__(self) -> None:
        self._seen: list[Measured] = []

    def stop(self, found: Measured) -> str | None:
        """Why to stop, None to go on; the trial counts among those before the next one either way."""
        before = np.array(self._seen)
        self._seen.append(found)
        if len(before) < BEFORE_PRUNING:
            return None
        bits, nats = np.median(before, axis=0).tolist()
        if found[0] < bits and found[1] > nats:
            return f"after the short training below the median of {len(before)} trials in information ({found[0]:.3f} < {bits:.3f} bits) and " \
                   f"above it in loss ({found[1]:.3f} > {nats:.3f} nats)"
        return None


def sweep(spec: ArmSweepSpec, directory: Path, seed: int, train: Train) -> ArmSweep:
    """Run the study to its declared number of complete trials; a killed one goes on, and trainings that are done are read, not repeated.

    A study that is resumed asks the short trainings of its earlier trials again, which are cached, so that the rule sees the same history.
    """
    design, rule = design_of(spec, seed), MedianRule()
    with open_study(directory / STUDY_FILE, design) as study:
        done = study.table()
        earlier: list[Params] = [_knobs(done, row) for row in range(len(done.number))]
        for knobs in [*earlier, *(knobs for knobs, _ in study.pruned())]:
            rule.stop(train(knobs, spec.rung_steps))

        def evaluate(asked: Sequence[Params]) -> list[Sequence[float] | Pruned | None]:
            return [_trial(knobs, spec, rule, train) for knobs in asked]

        study.refine(spec.n_trials, evaluate, batch=1)
        table, front, stopped = study.table(), set(study.pareto().tolist()), study.pruned()
        importances = tuple(study.importances(name) for name in OBJECTIVES)
    trials = [{**_knobs(table, row), "mi_E_D": float(table.values[row, 0]), "loss": -float(table.values[row, 1]), "state": "complete",
               "on_front": int(number) in front, "reason": ""} for row, number in enumerate(table.number.tolist())]
    trials += [{**dict(knobs), "mi_E_D": one.seen["mi_E_D"], "loss": one.seen["loss"], "state": "pruned", "on_front": False, "reason": one.reason}
               for knobs, one in stopped]
    chosen = choose(trials, spec.margin_nats)
    wanted = max(spec.n_trials, LEAST_TRIALS)
    few = f"{len(table.number)} of {wanted} trials are complete: a sketch of the front" if len(table.number) < wanted else None
    return ArmSweep(tuple(knob.name for knob in design.knobs), tuple(trials), chosen, importances, len(table.number), len(stopped),
                    few or (None if chosen else "no trial is complete"))


def _trial(knobs: Params, spec: ArmSweepSpec, rule: MedianRule, train: Train) -> Sequence[float] | Pruned:
    short = train(knobs, spec.rung_steps)
    why = rule.stop(short)
    if why is not None:
        return Pruned(why, {"mi_E_D": short[0], "loss": short[1]})
    bits, nats = train(knobs, spec.steps)
    return bits, -nats


def _knobs(table: TrialTable, row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in table.params.items()}


def choose(trials: Sequence[Mapping[str, Any]], margin_nats: float) -> dict[str, float] | None:
    """The declared rule: most information among complete trials on the front whose loss is within the margin of the least; then least loss."""
    front = [one for one in trials if one["state"] == "complete" and one["on_front"]]
    if not front:
        return None
    least = min(one["loss"] for one in front)
    best = max((one for one in front if one["loss"] <= least + margin_nats), key=lambda one: (one["mi_E_D"], -one["loss"]))
    return {name: value for name, value in best.items() if name not in ("state", "on_front", "reason")}


def to_json(outcome: ArmSweep) -> dict[str, Any]:
    """Plain values for sweep.json; objectives name the columns of trials."""
    return {"objectives": ["mi_E_D", "loss"], **asdict(outcome)}
