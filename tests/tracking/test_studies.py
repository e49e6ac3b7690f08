"""Studies: exact totals, no doubled cells, nothing undefined, the same trials after a death as without one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tracking.studies import Knob, Params, StudyDesign, StudyError, open_study

DESIGN = StudyDesign("thresholds", (Knob("n", "int", 1, 500, log=True), Knob("h", "float", 0.1, 0.9), Knob("k", "choice", choices=(1, 2))),
                     ("coverage", "agreement"), seed=3)


def evaluate(asked: Sequence[Params]) -> list[tuple[float, float]]:
    return [(p["h"] / (1 + p["n"] / 100), 1 - p["h"] ** 2 + 0.05 * p["k"]) for p in asked]


def cells(n: int) -> list[tuple[Params, tuple[float, float]]]:
    grid = [{"n": count, "h": float(h), "k": 1} for count in (1, 10, 100) for h in np.linspace(0.1, 0.9, n)]
    return list(zip(grid, evaluate(grid), strict=True))


def test_the_total_is_kept_over_openings(tmp_path: Path) -> None:
    told: list[int] = []
    with open_study(tmp_path / "s.db", DESIGN) as study:
        assert study.refine(20, evaluate, batch=8, done=told.append) == 20
    assert told == [0, 8, 8, 4]
    with open_study(tmp_path / "s.db", DESIGN) as study:
        assert study.refine(20, evaluate, batch=8) == 20
        assert study.refine(24, evaluate, batch=8) == 24
        assert len(study.table().number) == 24


def test_given_cells_are_added_once_and_never_undefined(tmp_path: Path) -> None:
    undefined = [({"n": 2, "h": 0.3, "k": 1}, (0.0, math.nan)), ({"n": 3, "h": 0.3, "k": 1}, (math.inf, 0.5))]
    with open_study(tmp_path / "s.db", DESIGN) as study:
        assert study.add_finished(cells(3) + cells(3)[:2] + undefined) == 9
    with open_study(tmp_path / "s.db", DESIGN) as study:
        assert study.add_finished(cells(3)) == 0
        assert study.add_finished(cells(5)) == 6
        assert study.refine(4, evaluate, batch=4) == 4
        table = study.table()
    assert table.given.sum() == 15
    np.testing.assert_array_equal(table.values, [evaluate([{name: table.params[name][row] for name in ("n", "h", "k")}])[0]
                                                 for row in range(len(table.number))])


def test_table_is_plain_arrays_within_the_knobs(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", DESIGN) as study:
        study.refine(16, evaluate)
        table = study.table()
    assert table.values.shape == (16, 2)
    assert ((table.params["n"] >= 1) & (table.params["n"] <= 500)).all()
    assert ((table.params["h"] >= 0.1) & (table.params["h"] <= 0.9)).all()
    assert set(table.params["k"].tolist()) <= {1, 2}
    assert not table.retried.any()


def test_pareto_front_by_brute_force(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", DESIGN) as study:
        study.add_finished(cells(6))
        study.refine(8, evaluate, batch=8)
        table, front = study.table(), study.pareto()
    beaten = [any((other >= one).all() and (other > one).any() for other in table.values) for one in table.values]
    assert front.tolist() == table.number[~np.array(beaten)].tolist()


def test_importances_find_the_knob_that_matters(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", DESIGN) as study:
        study.add_finished(cells(10))
        study.refine(8, evaluate)
        agreement = study.importances("agreement")
    assert agreement.reason is None
    assert agreement.shares["h"] > 0.6 > agreement.shares["n"] + agreement.shares["k"]
    assert sum(agreement.shares.values()) == pytest.approx(1)


def test_importances_without_spread_are_a_reason(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", DESIGN) as study:
        assert study.importances("coverage").reason == "0 trials without spread in coverage"
        study.refine(4, lambda asked: [(0.5, p["h"]) for p in asked])
        importances = study.importances("coverage")
    assert importances.shares is None
    assert "without spread" in importances.reason


def test_undefined_points_are_asked_again_elsewhere_and_not_for_ever(tmp_path: Path) -> None:
    def partly(asked: Sequence[Params]) -> list[tuple[float, float] | None]:
        return [None if p["h"] > 0.7 else values for p, values in zip(asked, evaluate(asked), strict=True)]

    with open_study(tmp_path / "a.db", DESIGN) as study:
        assert study.refine(12, partly, batch=4) == 12
        assert (study.table().params["h"] <= 0.7).all()
    with open_study(tmp_path / "b.db", DESIGN) as study:
        assert study.refine(6, lambda asked: [(math.nan, 0.1)] * len(asked), batch=4) == 0
        assert study.refine(6, evaluate, batch=4) == 0  # 4 * 6 were tried


def test_an_evaluation_that_raises_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    with open_study(tmp_path / "undisturbed.db", DESIGN) as study:
        study.refine(16, evaluate, batch=8)
        expected = study.table()

    def fails(asked: Sequence[Params]) -> list[tuple[float, float]]:
        raise MemoryError

    with pytest.raises(MemoryError), open_study(tmp_path / "s.db", DESIGN) as study:
        study.refine(16, fails, batch=8)
    with open_study(tmp_path / "s.db", DESIGN) as study:
        assert study.refine(16, evaluate, batch=8) == 16
        table = study.table()
    assert table.retried.sum() == 8
    for name in ("n", "h", "k"):
        np.testing.assert_array_equal(table.params[name], expected.params[name])


def test_another_design_is_refused(tmp_path: Path) -> None:
    with open_study(tmp_path / "s.db", DESIGN):
        pass
    with pytest.raises(StudyError, match=r"s\.db: made for another design.*move the file away"), \
            open_study(tmp_path / "s.db", replace(DESIGN, seed=4)):
        pass
    with pytest.raises(StudyError, match=r"no usable study"), open_study(tmp_path / "s.db", replace(DESIGN, name="other")):
        pass


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StudyError, match=r"s\.db.*move the file away"), open_study(tmp_path / "s.db", DESIGN):
        pass
