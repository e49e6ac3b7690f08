"""Adjusted p-values against the references, scipy, and the definitions by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from analysis.multiplicity import (
    CONTROL_OF,
    Family,
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    draws_needed,
    holm,
    max_t,
    resolves,
    simultaneous_level,
)
from analysis.permutation import p_value
from tests.references.cases import case

P_VALUES = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12)


def close(got: list[float | None], wanted: list[float | None]) -> None:
    assert [one is None for one in got] == [one is None for one in wanted]
    np.testing.assert_allclose([x for x in got if x is not None], [x for x in wanted if x is not None], rtol=1e-9, atol=1e-12)


def test_reference_adjustments() -> None:
    inputs, expected = case("L01")
    p = inputs["p_values"]
    close(holm(p), expected["holm"])
    close(benjamini_hochberg(p), expected["bh"])
    close(benjamini_yekutieli(p), expected["by"])
    family = Family("layers", "fwer", tuple("abcdefgh"))
    outcome = family.adjust(dict(zip(family.members, p)))
    assert outcome.n_family == expected["n_family"] and outcome.untestable == ("h",) and outcome.judges
    close(list(outcome.p.values()), expected["holm"])


def test_reference_max_t() -> None:
    inputs, expected = case("L03")
    close(max_t(inputs["observed"], inputs["null"]), expected["p_adjusted"])


@given(P_VALUES)
def test_false_discovery_rates_are_scipys(p: list[float | None]) -> None:
    testable = [x for x in p if x is not None]
    for ours, name in ((benjamini_hochberg, "bh"), (benjamini_yekutieli, "by")):
        got = [x for x in ours(p) if x is not None]
        np.testing.assert_allclose(got, false_discovery_control(testable, method=name) if testable else [], atol=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_with_bonferroni(p: list[float]) -> None:
    """Adjusted p of i: the largest Bonferroni p over the subsets that hold i."""
    for i, got in enumerate(holm(p)):
        subsets = [s for size in range(1, len(p) + 1) for s in combinations(range(len(p)), size) if i in s]
        assert got == pytest.approx(max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets), abs=1e-12)


@given(P_VALUES)
def test_order_of_strictness_and_untestable_members(p: list[float | None]) -> None:
    for raw, bh, by, step, all_at_once in zip(p, benjamini_hochberg(p), benjamini_yekutieli(p), holm(p), bonferroni(p)):
        if raw is None:
            assert bh is by is step is all_at_once is None
        else:
            assert bh is not None and by is not None and step is not None and all_at_once is not None
            assert raw <= bh + 1e-12 and bh <= by + 1e-12 and bh <= step + 1e-12 and step <= all_at_once + 1e-12 <= 1 + 2e-12
    padded = [None, *p, None]
    close(holm(padded)[1:-1], holm(p))


@pytest.mark.parametrize("wrong", [[1.2], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="None"):
        holm(wrong)


def test_max_t_leaves_the_untestable_out_of_the_maximum() -> None:
    null = np.array([[0.0, 9.0], [1.0, 9.0], [3.0, 9.0]])
    assert max_t([2.0, None], null) == [2 / 4, None]
    assert max_t([2.0, 1.0], null) == [1.0, 1.0]
    assert max_t([None, None], null) == [None, None]
    with pytest.raises(ValueError, match="members"):
        max_t([1.0], null)
    for wrong in (null[:0], null * np.nan):
        with pytest.raises(ValueError, match="no NaN"):
            max_t([1.0, 2.0], wrong)


def test_max_t_holds_its_size_and_is_stricter_than_single_tests() -> None:
    rng = np.random.default_rng(3)
    null = rng.normal(size=(199, 5))
    observed = rng.normal(size=5).tolist()
    single = p_value(observed, null)
    assert all(joint >= alone for joint, alone in zip(max_t(observed, null), single))
    rejections = sum(min(x for x in max_t(draw[0].tolist(), draw[1:]) if x is not None) <= 0.05
                     for draw in rng.normal(size=(600, 100, 4)))
    assert rejections <= 0.05 * 600 + 3 * np.sqrt(600 * 0.05 * 0.95)


def test_resolution_and_simultaneous_levels() -> None:
    assert draws_needed(5) == 1999 and resolves(1999, 5) and not resolves(1998, 5)
    assert draws_needed(3, 0.01) == 5999
    assert simultaneous_level(5) == pytest.approx(0.99) and simultaneous_level(0) == 0.95


def test_families_choose_their_method() -> None:
    members = ("a", "b")
    assert Family("f", CONTROL_OF["criteria joined by AND"], members).adjust({"b": 0.04, "a": 0.01}).p == {"a": 0.01, "b": 0.04}
    assert Family("f", CONTROL_OF["some pair"], members).adjust({"a": 0.01, "b": 0.04}).rejected() == ("a", "b")
    cells = Family("f", CONTROL_OF["cells, edges or experts"], members, negative_dependence=True)
    assert cells.method == "by" and cells.interval_level() == 0.95
    assert not Family("f", CONTROL_OF["scan"], members).adjust({"a": 0.5, "b": None}).judges
    assert Family("f", "fwer", members).interval_level() == pytest.approx(0.975)


def test_an_undeclared_family_is_refused() -> None:
    with pytest.raises(ValueError, match="control"):
        Family("f", "maybe", ("a",))
    with pytest.raises(ValueError, match="twice"):
        Family("f", "fdr", ("a", "a"))
    with pytest.raises(ValueError, match="b"):
        Family("f", "fdr", ("a", "b")).adjust({"a": 0.1})
