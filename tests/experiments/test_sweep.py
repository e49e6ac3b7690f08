"""The sweep: an exact grid, a study that refines it, one point chosen by the declared rule and confirmed on test documents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.estimate import Estimate
from experiments.progress import Silent
from experiments.sweep import OBJECTIVES, SweepPoint, SweepQuestion, SweepSpace, choose, read, sweep
from tracking.studies import MAX_TRIES

SPACE = SweepSpace((5, 20, 80, 320), tuple(float(h) for h in np.linspace(0.1, 0.9, 9)), (1, 2), n_trials=32, min_agreement=0.8)

SMALL = SweepSpace((5, 80), (0.2, 0.5, 0.8), (1, 2), n_trials=4, min_agreement=0.8, batch=4)


class Types:
    """Token types with their calibration counts, mean entropies, and how often a table of k experts agrees; points by brute force."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.count = np.sort(rng.zipf(1.6, 400))[::-1].clip(max=2000)
        self.entropy = rng.uniform(0.2, 1.0, 400)
        self.calls = 0

    def __call__(self, knobs: NDArray[np.float64]) -> NDArray[np.float64]:
        self.calls += 1
        out = np.full((len(knobs), 2), np.nan)
        for row, (min_count, max_entropy, k) in enumerate(knobs):
            eligible = (self.count >= min_count) & (self.entropy < max_entropy)
            covered = self.count[eligible]
            out[row, 0] = covered.sum() / self.count.sum()
            if covered.sum():
                out[row, 1] = (covered * (1 - self.entropy[eligible] ** k * 0.5)).sum() / covered.sum()
        return out


def confirm(point: SweepPoint) -> dict[str, Estimate]:
    return {name: Estimate(0.5, 0.4, 0.55, "share", "document", 30, "jackknife") for name in OBJECTIVES}


def test_the_whole_sweep(tmp_path: Path) -> None:
    types = Types(0)
    outcome = sweep(SweepQuestion(types, confirm), SPACE, tmp_path / "sweep", Silent())
    assert types.calls == 3  # the grid in one pass, two batches of sixteen
    assert outcome.n_asked == 32
    assert outcome.n_cells == 72
    assert outcome.reason is None
    grid = np.load(tmp_path / "sweep" / "grid.npz")
    exact = types(SPACE.cells())
    np.testing.assert_array_equal(grid["coverage"].ravel(), exact[:, 0])
    np.testing.assert_array_equal(grid["agreement"].ravel(), exact[:, 1])
    assert outcome.n_undefined == int(np.isnan(exact[:, 1]).sum()) > 0
    assert [one.objective for one in outcome.importances] == list(OBJECTIVES)
    knobs = np.array([[trial[name] for name in ("min_count", "max_entropy", "table_k")] for trial in outcome.trials])
    np.testing.assert_array_equal([[trial[name] for name in OBJECTIVES] for trial in outcome.trials], types(knobs))
    assert any(trial["on_front"] for trial in outcome.trials)


def test_the_choice_is_the_declared_rule_by_brute_force(tmp_path: Path) -> None:
    types = Types(1)
    outcome = sweep(SweepQuestion(types, confirm), SMALL, tmp_path, Silent())
    cells = SMALL.cells()
    rows = [(*cell, *values) for cell, values in zip(cells.tolist(), types(cells).tolist(), strict=True)]
    rows += [tuple(trial[name] for name in ("min_count", "max_entropy", "table_k", *OBJECTIVES)) for trial in outcome.trials]
    best = max((row for row in rows if row[4] >= 0.8), key=lambda row: (row[3], -row[1], row[0], -row[2]))
    chosen = outcome.chosen
    assert (chosen.min_count, chosen.max_entropy, chosen.table_k, chosen.coverage, chosen.agreement) == pytest.approx(best)


def test_optimism_is_calibration_minus_test(tmp_path: Path) -> None:
    outcome = sweep(SweepQuestion(Types(0), confirm), SMALL, tmp_path, Silent())
    at = outcome.chosen.coverage
    optimism = outcome.optimism["coverage"]
    assert (optimism.value, optimism.low, optimism.high) == pytest.approx((at - 0.5, at - 0.55, at - 0.4))
    undefined = sweep(SweepQuestion(Types(0), lambda _: {"coverage": Estimate.undefined("one document")}), SMALL, tmp_path, Silent())
    assert undefined.optimism["coverage"].reason == "one document"


def test_a_grid_that_is_known_is_not_computed_again(tmp_path: Path) -> None:
    types = Types(0)
    grid = types(SMALL.cells())
    types.calls = 0
    outcome = sweep(SweepQuestion(types, confirm, grid), SMALL, tmp_path, Silent())
    assert types.calls == 1
    assert outcome == sweep(SweepQuestion(types, confirm), SMALL, tmp_path / "other", Silent())


def test_what_is_stored_is_what_is_read(tmp_path: Path) -> None:
    outcome = sweep(SweepQuestion(Types(0), confirm), SMALL, tmp_path, Silent())
    assert read(tmp_path) == outcome
    json.loads((tmp_path / "sweep.json").read_text(), parse_constant=pytest.fail)


def test_the_same_seed_gives_the_same_bytes_and_a_second_call_adds_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        sweep(SweepQuestion(Types(0), confirm), SMALL, tmp_path / name, Silent())
    for file in ("sweep.json", "grid.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_no_point_with_enough_agreement_is_a_reason(tmp_path: Path) -> None:
    space = replace(SMALL, min_agreement=0.999)
    outcome = sweep(SweepQuestion(Types(0), confirm), space, tmp_path, Silent())
    assert outcome.chosen is None
    assert outcome.reason == "no point reaches agreement 0.999 with any coverage"
    assert outcome.confirmed == {}
    assert read(tmp_path) == outcome


def test_nothing_covered_anywhere_is_a_reason(tmp_path: Path) -> None:
    def nothing(knobs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([np.zeros(len(knobs)), np.full(len(knobs), np.nan)])

    outcome = sweep(SweepQuestion(nothing, confirm), SMALL, tmp_path, Silent())
    assert (outcome.chosen, outcome.n_asked, outcome.n_undefined) == (None, 0, 12)
    assert outcome.reason.startswith("nothing is covered at any threshold")
    assert [one.shares for one in outcome.importances] == [None, None]
    json.loads((tmp_path / "sweep.json").read_text(), parse_constant=pytest.fail)


def test_too_few_defined_points_is_a_reason(tmp_path: Path) -> None:
    space = SweepSpace((5, 20), (0.1, 0.5), (1,), n_trials=4, batch=4)
    calls = iter(range(10 ** 6))

    def once(knobs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full((len(knobs), 2), 0.95 if next(calls) == 0 else np.nan)

    outcome = sweep(SweepQuestion(once, confirm), space, tmp_path, Silent())
    assert next(calls) == 1 + MAX_TRIES
    assert outcome.reason == "0 of 4 trials: the other points asked for are undefined"


def test_ties_take_the_smaller_threshold_then_the_larger_count_then_the_smaller_table() -> None:
    rows = np.array([[5, .3, 1, .5, .9], [9, .2, 2, .5, .9], [9, .2, 1, .5, .8], [5, .2, 1, .5, .9], [5, .2, 1, .6, .7],
                     [5, .1, 1, np.nan, .9]])
    assert choose(rows, 0.8) == SweepPoint(9, 0.2, 1, 0.5, 0.8)
    assert choose(rows, 0.95) is None
    assert choose(np.array([[5, .3, 1, 0.0, 1.0]]), 0.8) is None


@pytest.mark.parametrize("sizes", [(1,), (1, 2), (1, 2, 4, 8)])
def test_the_study_gets_at_most_121_cells(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    space = SweepSpace.between((5, 500), (0.05, 0.7), sizes, n_trials=1, batch=1)
    assert len(space.min_counts) <= 25
    assert (space.min_counts[0], space.min_counts[-1], space.max_entropies[0], space.max_entropies[-1]) == (5, 500, 0.05, 0.7)
    outcome = sweep(SweepQuestion(lambda knobs: knobs[:, :2] / 1000), space, tmp_path, Silent())
    given = [trial for trial in outcome.trials if trial["origin"] == "grid"]
    assert 90 <= len(given) <= 121


def test_a_space_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SweepSpace.min_counts must be ascending.*\[sweep\]"):
        SweepSpace((5, 5), (0.1,), (1,))
    with pytest.raises(ValueError, match="table_sizes"):
        SweepSpace((5,), (0.1,), ())


def test_objectives_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(12,\), not \(12, 2\)"):
        sweep(SweepQuestion(lambda knobs: knobs[:, 0]), SMALL, tmp_path, Silent())
