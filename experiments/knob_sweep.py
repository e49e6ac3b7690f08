"""The sweep of analysis knobs, on calibration documents only: every knob's exact grid, a stored study over all of them, the best of both.

It shows where the declared settings stand; no criterion and no setting is moved by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.progress import Progress
from experiments.sweep import OUTCOME_FILE, STUDY_FILE
from tracking.atomic import write_json
from tracking.studies import Knob, Params, StudyDesign, TrialTable, Value, open_study

GIVEN = 25  # points of the grid that the study is given
USED_FOR = ("shown beside the declared settings. The criteria are judged with the declared ones; to judge with another, declare it, and the finding "
            "says post hoc")

Function = Callable[..., float | None]


@dataclass(frozen=True)
class KnobGrid:
    """One objective with the knobs that it depends on. grid: values of each knob, ascending; kinds: as in tracking.studies.Knob."""

    objective: str
    function: Function
    grid: Mapping[str, Sequence[Value]]
    kinds: Mapping[str, str]

    def cells(self) -> list[dict[str, Value]]:
        """Every combination, the last knob fastest."""
        out: list[dict[str, Value]] = [{}]
        for name, values in self.grid.items():
            out = [{**cell, name: value} for cell in out for value in values]
        return out


@dataclass(frozen=True)
class Cell:
    """A point of one objective."""

    knobs: Mapping[str, Value]
    value: float


def sweep(grids: Sequence[KnobGrid], n_trials: int, seed: int, directory: Path, progress: Progress) -> dict[str, Any]:
    """Exact grids, then the study of `directory` up to n_trials trials of its own, over all lives; returns what sweep.json holds.

    An objective that is undefined on its whole grid is left out, with its knobs.
    """
    directory.mkdir(parents=True, exist_ok=True)
    exact = {one.objective: [(cell, one.function(**cell)) for cell in one.cells()] for one in grids}
    kept = [one for one in grids if any(value is not None for _, value in exact[one.objective])]
    table: TrialTable | None = None
    trials: list[dict[str, Any]] = []
    importances: list[dict[str, Any]] = []
    if kept:
        with open_study(directory / STUDY_FILE, _design(kept, exact, seed)) as study, progress.stage("sweep", n_trials, "trials") as task:
            study.add_finished(_given(kept, exact, seed))
            study.refine(n_trials, lambda asked: [_values(kept, one) for one in asked], done=task.advance)
            table, front = study.table(), set(study.pareto().tolist())
            importances = [asdict(study.importances(one.objective, list(one.grid))) for one in kept if len(one.grid) > 1]
        trials = _rows(kept, table, front)
    outcome = {
        "objectives": [one.objective for one in kept], "knobs": {one.objective: list(one.grid) for one in grids},
        "grid": {one.objective: [{**cell, "value": value} for cell, value in exact[one.objective]] for one in grids},
        "undefined": [one.objective for one in grids if one not in kept], "trials": trials, "importances": importances,
        "chosen": {one.objective: asdict(best(one, exact[one.objective], trials)) for one in kept}, "n_trials": n_trials,
        "n_asked": sum(trial["origin"] == "asked" for trial in trials), "used_for": USED_FOR}
    write_json(directory / OUTCOME_FILE, outcome)
    return outcome


def best(one: KnobGrid, exact: Sequence[tuple[Mapping[str, Value], float | None]], trials: Sequence[Mapping[str, Any]]) -> Cell:
    """The point of largest value among grid and trials; ties to the smaller knobs, in their order."""
    cells = [Cell(cell, value) for cell, value in exact if value is not None]
    cells += [Cell({name: trial[name] for name in one.grid}, trial[one.objective]) for trial in trials]
    return min(cells, key=lambda cell: (-round(cell.value, 12), *(cell.knobs[name] for name in one.grid)))


def _design(kept: Sequence[KnobGrid], exact: Mapping[str, Sequence[tuple[Mapping[str, Value], float | None]]], seed: int) -> StudyDesign:
    """The knobs within the box of the grid's points that are defined."""
    knobs = []
    for one in kept:
        for name in one.grid:
            defined = sorted({cell[name] for cell, value in exact[one.objective] if value is not None}, key=float)
            knobs.append(_knob(name, one.kinds[name], defined))
    return StudyDesign("analysis knobs", tuple(knobs), tuple(one.objective for one in kept), seed)


def _knob(name: str, kind: str, defined: Sequence[Value]) -> Knob:
    if kind == "choice" or defined[0] == defined[-1]:
        return Knob(name, "choice", choices=tuple(defined))
    low, high = float(defined[0]), float(defined[-1])
    return Knob(name, "int", low, high) if kind == "int" else Knob(name, "float", low, high, log=kind == "log")


def _given(kept: Sequence[KnobGrid], exact: Mapping[str, Sequence[tuple[Mapping[str, Value], float | None]]],
           seed: int) -> list[tuple[Params, Sequence[float]]]:
    """Points of the grids for the study, each value of a knob as often as any other (a Latin hypercube)."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, GIVEN]))
    columns = []
    for one in kept:
        defined = [(cell, value) for cell, value in exact[one.objective] if value is not None]
        order = rng.permutation(np.resize(np.arange(len(defined)), max(GIVEN, len(defined))))[:GIVEN]
        columns.append([defined[place] for place in order])
    return [({name: value for cell, _ in row for name, value in cell.items()}, [value for _, value in row]) for row in zip(*columns)]


def _values(kept: Sequence[KnobGrid], params: Params) -> list[float] | None:
    found = [one.function(**{name: params[name] for name in one.grid}) for one in kept]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _rows(kept: Sequence[KnobGrid], table: TrialTable, front: set[int]) -> list[dict[str, Any]]:
    names = [name for one in kept for name in one.grid]
    return [{**{name: table.params[name][row].item() for name in names},
             **{one.objective: float(table.values[row, place]) for place, one in enumerate(kept)},
             "origin": "grid" if table.given[row] else "asked", "on_front": int(number) in front} for row, number in enumerate(table.number)]
