"""From single runs to a method: training seeds as units, at both levels, and what makes a comparison confounded.

S training seed, L MoE layer, M component (layers, then their mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.comparison import SEED_FLOOR, SEED_VERDICT_FLOOR, confounded, method_estimate
from analysis.estimate import Estimate
from analysis.gates import CONFOUNDED, TOO_FEW_SEEDS, gated
from analysis.paired_draws import Draws
from analysis.resampling import t_quantile
from hypotheses.spectra_evidence import ArmRun

DrawsOf = Mapping[str, Draws]


@dataclass(frozen=True)
class Pair:
    """Baseline and treatment trained with one seed, each with its draws by metric."""

    seed: int
    baseline: DrawsOf
    treatment: DrawsOf


def confounding(pairs: Sequence[tuple[ArmRun, ArmRun]]) -> str | None:
    """`confounded` with what differs in the first pair that is not matched: conditions, data order, documents; None where all match."""
    for baseline, treatment in pairs:
        reason = confounded(treatment.conditions, baseline.conditions)
        if reason:
            return f"{reason} (seed {baseline.seed})"
        mixed = [run.arm for run in (baseline, treatment) if not run.causal]
        if mixed:
            return (f"{CONFOUNDED}: {' and '.join(mixed)} is not causal in evaluation (seed {baseline.seed}): later tokens decide the experts of "
                    "earlier ones, and its loss is no language model's; evaluate it without the batch")
        if baseline.data_order != treatment.data_order:
            return f"{CONFOUNDED}: the batches came in another order (seed {baseline.seed}); train both arms on the same order"
        ids = [sorted((row.id, row.domain) for row in run.trace.documents if row.split == "test") for run in (baseline, treatment)]
        if ids[0] != ids[1]:
            return f"{CONFOUNDED}: the arms were evaluated on other documents (seed {baseline.seed}); collect both on one corpus"
    return None


def checkpoint_change(pair: Pair, name: str, *, gate: str | None, level: float) -> list[Estimate]:
    """Treatment less baseline on the same documents, per layer and then their mean; one undefined Estimate where one has no such metric."""
    if name not in pair.baseline or name not in pair.treatment:
        return [Estimate.undefined(f"{name} could not be measured on both checkpoints")]
    try:
        found = (pair.treatment[name] - pair.baseline[name]).estimates(level)
    except ValueError as error:
        return [Estimate.undefined(str(error), unit=pair.baseline[name].unit)]
    return [one if one.value is None else gated(one, gate) for one in found]


def values_of(draws: DrawsOf, name: str) -> list[float | None]:
    """Bias-corrected values of a run, per layer and then their mean; None where undefined."""
    return [one.value for one in draws[name].estimates()] if name in draws else []


def method_changes(pairs: Sequence[Pair], name: str, *, gate: str | None, level: float) -> list[Estimate]:
    """Mean change over training seeds with its t interval, per layer and then of the mean over layers.

    A seed whose value is undefined makes the change undefined: leaving it out would choose among trainings. gate: a reason that goes first;
    the gate of a run's own number stays on its mean, for what is biased in every training is biased on average. A gated change has no p.
    """
    unit = next((pair.baseline[name].unit for pair in pairs if name in pair.baseline), "")
    if not pairs:
        reason = f"{TOO_FEW_SEEDS}: no training seed that both arms have"
        return [Estimate.undefined(reason, unit=unit, resampled="seed", method="t over training seeds")]
    rows = [_difference(values_of(pair.treatment, name), values_of(pair.baseline, name)) for pair in pairs]
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        return [Estimate.undefined(f"{name} could not be measured in every run of both arms", unit=unit, resampled="seed", n_units=len(rows))]
    gate = gate or gate_of(pairs, name)
    return [_method([row[place] for row in rows], unit, gate, level) for place in range(len(rows[0]))]


def gate_of(pairs: Sequence[Pair], name: str) -> str | None:
    """The first gate of a metric in any run of the pairs, such as that of a purity which is picked and counted on the same documents."""
    return next((draws[name].gate for pair in pairs for draws in (pair.baseline, pair.treatment) if name in draws and draws[name].gate), None)


def _difference(treatment: Sequence[float | None], baseline: Sequence[float | None]) -> list[float | None]:
    if len(treatment) != len(baseline):
        return []
    return [None if a is None or b is None else a - b for a, b in zip(treatment, baseline, strict=True)]


def _method(differences: Sequence[float | None], unit: str, gate: str | None, level: float) -> Estimate:
    known = [one for one in differences if one is not None]
    if len(known) < len(differences):
        return Estimate.undefined(f"undefined in {len(differences) - len(known)} of {len(differences)} training seeds", unit=unit, resampled="seed",
                                  n_units=len(differences), method="t over training seeds")
    made = method_estimate(known, unit=unit, gate=gate, level=level)
    return replace(made, p=None) if made.gate else made


def p_of_t(pairs: Sequence[Pair], name: str) -> float | None:
    """Two-sided p of the paired t test over training seeds; None below three, without spread, or where a seed is undefined."""
    from scipy.special import stdtr

    rows = [_difference(values_of(pair.treatment, name), values_of(pair.baseline, name)) for pair in pairs]
    known = [row[-1] for row in rows if row and row[-1] is not None]
    if len(known) < max(SEED_FLOOR, len(pairs)) or np.ptp(known) == 0:
        return None
    t = float(np.mean(known)) / (float(np.std(known, ddof=1)) / len(known) ** 0.5)
    return float(2 * stdtr(len(known) - 1, -abs(t)))


def next_training(values: Sequence[float | None], *, unit: str, bound: float, level: float, gate: str | None = None) -> Estimate:
    """Interval for the value of one further training seed: mean +- t_{S-1} sd sqrt(1 + 1/S), at least 0 (a prediction interval).

    A claim that something never happens is about every training, and the mean of the trainings at hand can hide one that went wrong. values:
    one per training seed. Where all are 0 they have no spread: the upper end is then `bound`, what the documents at hand leave possible.
    Below three seeds undefined, below five gated; gate: a reason that goes first.
    """
    known = [one for one in values if one is not None]
    fields: dict[str, Any] = {"unit": unit, "resampled": "seed", "n_units": len(values), "method": "t prediction of a further training seed"}
    if len(known) < len(values):
        return Estimate.undefined(f"undefined in {len(values) - len(known)} of {len(values)} training seeds", **fields)
    if len(known) < SEED_FLOOR:
        return Estimate.undefined(f"{TOO_FEW_SEEDS}: {len(known)} training seeds, {SEED_FLOOR} needed for a number and {SEED_VERDICT_FLOOR} for "
                                  "a verdict on a method", **fields)
    mean, sd = float(np.mean(known)), float(np.std(known, ddof=1))
    if sd == 0 and mean > 0:
        return Estimate.undefined("no spread between training seeds: every seed has the same value", **fields)
    half = t_quantile(level, len(known) - 1) * sd * (1 + 1 / len(known)) ** 0.5
    low, high = (0.0, bound) if mean == 0 else (max(mean - half, 0.0), mean + half)
    made = Estimate(mean, low, high, unit, "seed", len(known), fields["method"], level, plug_in=mean)
    few = f"{TOO_FEW_SEEDS}: {len(known)} training seeds, {SEED_VERDICT_FLOOR} needed for a verdict on a method"
    return gated(made, gate, few if len(known) < SEED_VERDICT_FLOOR else None)


def mean_over_seeds(values: Sequence[float | None], *, unit: str, level: float) -> Estimate:
    """Mean of one arm over its training seeds with its t interval; a single seed or two have no interval, for they say nothing of the method.

    Undefined where a seed is: a mean of the others would be one of chosen trainings.
    """
    known = [one for one in values if one is not None]
    if len(known) < len(values) or not known:
        return Estimate.undefined(f"undefined in {len(values) - len(known)} of {len(values)} training seeds", unit=unit, resampled="seed",
                                  n_units=len(values))
    mean = float(np.mean(known))
    made = Estimate(mean, None, None, unit, "seed", len(known), "mean over training seeds", level, plug_in=mean)
    if len(known) < max(SEED_FLOOR, 2):
        return made
    se = float(np.std(known, ddof=1)) / len(known) ** 0.5
    half = t_quantile(level, len(known) - 1) * se
    return replace(made, low=mean - half, high=mean + half, se=se, method="t over training seeds")
