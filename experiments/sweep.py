"""The threshold sweep, on calibration documents only: an exact grid, refined by a stored study, confirmed once on test documents.

C minimum counts, H entropy thresholds, K table sizes, P points. It chooses a point to look at; it never moves a declared criterion.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from experiments.progress import Progress
from tracking.atomic import write_bytes, write_json
from tracking.studies import Importances, Knob, Params, StudyDesign, TrialTable, open_study

OBJECTIVES = ("coverage", "agreement")
KNOBS = ("min_count", "max_entropy", "table_k")
SUBSET = 121  # grid cells given to the study: 441 took 4.4 s in sqlite (ecosystem facts §2)
GRID_FILE, STUDY_FILE, OUTCOME_FILE = "grid.npz", "study.db", "sweep.json"

Points = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class SweepSpace:
    """What is turned. min_counts: int, ascending; max_entropies: shares of ln E, ascending; table_sizes: experts in a table's entry.

    n_trials: complete ask/tell trials, over all lives of the run. min_agreement: the declared rule's bound. seed: of the sampler.
    """

    min_counts: tuple[int, ...]
    max_entropies: tuple[float, ...]
    table_sizes: tuple[int, ...]
    n_trials: int = 32
    min_agreement: float = 0.9
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_counts", "max_entropies", "table_sizes"):
            values = getattr(self, name)
            if not values or any(low >= high for low, high in zip(values, values[1:], strict=False)):
                raise ValueError(f"SweepSpace.{name} must be ascending and not empty, not {values}; correct [sweep] of the declaration")

    @classmethod
    def between(cls, counts: tuple[int, int], entropies: tuple[float, float], table_sizes: tuple[int, ...], **rest: Any) -> SweepSpace:
        """Up to 25 counts in equal ratios, 41 thresholds in equal steps, ends included; `rest` are the other fields."""
        spread = np.unique(np.rint(np.geomspace(*counts, 25)).astype(int))
        return cls(tuple(int(n) for n in spread), tuple(float(h) for h in np.linspace(*entropies, 41)), table_sizes, **rest)

    def cells(self) -> NDArray[np.float64]:
        """Every cell of the grid [C * H * K, 3], in the order of KNOBS, table size fastest."""
        axes = np.meshgrid(self.min_counts, self.max_entropies, self.table_sizes, indexing="ij")
        return np.stack([axis.ravel().astype(np.float64) for axis in axes], axis=1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, K)."""
        return len(self.min_counts), len(self.max_entropies), len(self.table_sizes)


@dataclass(frozen=True)
class SweepPoint:
    """One point: knobs, and both objectives on calibration documents."""

    min_count: int
    max_entropy: float
    table_k: int
    coverage: float
    agreement: float


@dataclass(frozen=True)
class SweepQuestion:
    """What a sweep asks. points: knobs [P, 3] in the order of KNOBS -> (coverage, agreement) [P, 2], NaN where undefined.

    confirm: the chosen point on test documents, keys OBJECTIVES. grid: objectives [C * H * K, 2] of SweepSpace.cells, if known already.
    """

    points: Points
    confirm: Callable[[SweepPoint], Mapping[str, Estimate]] | None = None
    grid: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SweepOutcome:
    """What came out; plain values, as sweep.json holds them.

    trials: one row per complete trial of the study in the order asked, origin "grid" or "asked". chosen: None with `reason`.
    confirmed: the chosen point on test documents; optimism: calibration minus test.
    """

    space: SweepSpace
    n_cells: int
    n_undefined: int
    trials: tuple[Mapping[str, Any], ...]
    importances: tuple[Importances, ...]
    chosen: SweepPoint | None
    reason: str | None = None
    confirmed: Mapping[str, Estimate] = field(default_factory=dict)
    optimism: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def n_asked(self) -> int:
        """Complete trials that the sampler proposed."""
        return sum(trial["origin"] == "asked" for trial in self.trials)


def sweep(question: SweepQuestion, space: SweepSpace, directory: Path, progress: Progress) -> SweepOutcome:
    """Compute the whole grid, refine it in the study of `directory`, choose by the declared rule, confirm; everything is stored there.

    A killed sweep is called again with the same arguments: the study goes on where it was, with the declared total.
    """
    directory.mkdir(parents=True, exist_ok=True)
    cells = space.cells()
    grid = _checked(question.points(cells) if question.grid is None else question.grid, len(cells))
    write_bytes(directory / GRID_FILE, _packed(space, grid))
    defined: NDArray[np.bool_] = np.asarray(np.isfinite(grid).all(axis=1))
    n_trials = space.n_trials if defined.any() else 0
    with open_study(directory / STUDY_FILE, _design(space, cells[defined])) as study, progress.stage("sweep", n_trials, "trials") as task:
        study.add_finished([(_params(cells[at]), grid[at].tolist()) for at in _subset(space)])

        def evaluate(asked: Sequence[Params]) -> list[list[float]]:
            return [list(row) for row in _checked(question.points(_rows(asked)), len(asked)).tolist()]

        n_asked = study.refine(n_trials, evaluate, space.batch, task.advance)
        table, front = study.table(), study.pareto()
        importances = tuple(study.importances(name) for name in OBJECTIVES)
    chosen = choose(_candidates(cells, grid, table), space.min_agreement)
    reason = _shortfall(defined, chosen, n_asked, space)
    confirmed = dict(question.confirm(chosen)) if question.confirm and chosen else {}
    outcome = SweepOutcome(space, len(cells), int((~defined).sum()), _trial_rows(table, front), importances, chosen,
                           reason, confirmed, optimism(chosen, confirmed))
    write_json(directory / OUTCOME_FILE, to_json(outcome))
    return outcome


def _shortfall(defined: NDArray[np.bool_], chosen: SweepPoint | None, n_asked: int, space: SweepSpace) -> str | None:
    """What the sweep could not do, and why; None if it did everything."""
    if not defined.any():
        return "nothing is covered at any threshold of the grid, so agreement is undefined everywhere"
    why = []
    if chosen is None:
        why.append(f"no point reaches agreement {space.min_agreement:g} with any coverage")
    if n_asked < space.n_trials:
        why.append(f"{n_asked} of {space.n_trials} trials: the other points asked for are undefined")
    return "; ".join(why) or None


def choose(candidates: NDArray[np.float64], min_agreement: float) -> SweepPoint | None:
    """The declared rule over rows [P, 5] (KNOBS, OBJECTIVES): largest coverage among agreement >= `min_agreement`, None if there is none.

    Ties: the smaller entropy threshold, then the larger minimum count, then the smaller table.
    """
    allowed = candidates[np.isfinite(candidates).all(axis=1)]
    allowed = allowed[(allowed[:, 4] >= min_agreement) & (allowed[:, 3] > 0)]
    if not len(allowed):
        return None
    count, entropy, table_k, coverage, agreement = allowed[np.lexsort((allowed[:, 2], -allowed[:, 0], allowed[:, 1], -allowed[:, 3]))[0]]
    return SweepPoint(int(count), float(entropy), int(table_k), float(coverage), float(agreement))


def _design(space: SweepSpace, defined: NDArray[np.float64]) -> StudyDesign:
    """The knobs within the box of the cells [P, 3] that have both objectives: beyond it nothing is covered and nothing can be learnt."""
    counts, entropies = (defined[:, 0], defined[:, 1]) if len(defined) else (np.array(space.min_counts), np.array(space.max_entropies))
    knobs = (Knob("min_count", "int", int(counts.min()), int(counts.max()), log=True),
             Knob("max_entropy", "float", float(entropies.min()), float(entropies.max())),
             Knob("table_k", "choice", choices=space.table_sizes))
    return StudyDesign("thresholds", knobs, OBJECTIVES, space.seed)


def _checked(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    if values.shape != (n, len(OBJECTIVES)):
        raise ValueError(f"objectives of {n} sweep points have shape {values.shape}, not ({n}, 2): (coverage, agreement) for each point")
    return values


def _subset(space: SweepSpace) -> NDArray[np.int64]:
    """Evenly spread cells, at most SUBSET, ends included."""
    side = max(int(np.sqrt(SUBSET // len(space.table_sizes))), 1)
    index = np.arange(np.prod(space.shape)).reshape(space.shape)
    picks = [np.unique(np.rint(np.linspace(0, n - 1, min(side, n))).astype(int)) for n in space.shape[:2]]
    return np.asarray(index[np.ix_(*picks)].ravel(), dtype=np.int64)


def _params(cell: NDArray[np.float64]) -> Params:
    return {"min_count": int(cell[0]), "max_entropy": float(cell[1]), "table_k": int(cell[2])}


def _rows(asked: Sequence[Params]) -> NDArray[np.float64]:
    return np.array([[float(params[name]) for name in KNOBS] for params in asked], dtype=np.float64)


def _candidates(cells: NDArray[np.float64], grid: NDArray[np.float64], table: TrialTable) -> NDArray[np.float64]:
    asked = ~table.given
    trials = np.column_stack([*(table.params[name][asked].astype(np.float64) for name in KNOBS), table.values[asked]])
    return np.concatenate([np.hstack([cells, grid]), trials.reshape(-1, 5)])


def _trial_rows(table: TrialTable, front: NDArray[np.int64]) -> tuple[dict[str, Any], ...]:
    on_front = set(front.tolist())
    return tuple({**{name: table.params[name][row].item() for name in KNOBS},
                  "coverage": float(table.values[row, 0]), "agreement": float(table.values[row, 1]),
                  "origin": "grid" if table.given[row] else "asked", "on_front": int(number) in on_front}
                 for row, number in enumerate(table.number))


def optimism(chosen: SweepPoint | None, confirmed: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Calibration minus test; the interval is the test estimate's, the chosen calibration value being a fixed number by then."""
    differences = {}
    for name, test in confirmed.items():
        at = getattr(chosen, name, None)
        if at is None:
            continue
        if test.value is None:
            differences[name] = Estimate.undefined(test.reason or "undefined on test documents", unit=test.unit)
            continue
        low, high = (None if end is None else at - end for end in (test.high, test.low))
        differences[name] = Estimate(at - test.value, low, high, test.unit, test.resampled, test.n_units,
                                     f"calibration minus test, {test.method}", test.level)
    return differences


def _packed(space: SweepSpace, grid: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, min_count=np.array(space.min_counts), max_entropy=np.array(space.max_entropies), table_k=np.array(space.table_sizes),
             coverage=grid[:, 0].reshape(space.shape), agreement=grid[:, 1].reshape(space.shape))
    return buffer.getvalue()


def to_json(outcome: SweepOutcome) -> dict[str, Any]:
    """Plain values for sweep.json."""
    return asdict(outcome)


def read(directory: Path) -> SweepOutcome:
    """The outcome stored in `directory`; inverse of what `sweep` writes."""
    fields: dict[str, Any] = json.loads((directory / OUTCOME_FILE).read_text(encoding="utf-8"))
    space: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields["space"].items()}
    fields.update(
        space=SweepSpace(**space), chosen=SweepPoint(**fields["chosen"]) if fields["chosen"] else None, trials=tuple(fields["trials"]),
        importances=tuple(Importances(**entry) for entry in fields["importances"]),
        confirmed={name: Estimate.from_json(value) for name, value in fields["confirmed"].items()},
        optimism={name: Estimate.from_json(value) for name, value in fields["optimism"].items()})
    return SweepOutcome(**fields)
