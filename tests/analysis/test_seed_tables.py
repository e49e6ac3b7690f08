"""Printed tables against the arithmetic that made them, or could not have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, pearsonr, skew

from analysis.arithmetic import entropy_bits
from analysis.metrics.specialization import affinity
from analysis.seed_tables import (
    UsageRow,
    check_affinity_rows,
    check_usage_row,
    check_usage_table,
    correlation_p,
    count_histograms,
    implied_domain_shares,
    pairs_from_p,
    whole_from_share,
)
from tests.references.cases import case

LAYER_1 = UsageRow(1.60, 1.33, 0.831, 6.40, 95, 0.637, 0.104)


def test_reference_usage_table() -> None:
    inputs, expected = case("A07")
    got = check_usage_table([UsageRow(**{name: row[name] for name in row if name != "layer"}) for row in inputs["rows"]], inputs["n_experts"])
    assert got.total_selections == expected["total_selections"] and got.all_consistent is expected["all_consistent"]
    assert [row.sum_sq_ddof0 for row in got.rows] == expected["sum_sq_ddof0"]
    assert [row.sum_sq_ddof1 for row in got.rows] == expected["sum_sq_ddof1"]
    np.testing.assert_allclose([row.renyi2_bits for row in got.rows], expected["renyi2_bits"], rtol=1e-9)
    np.testing.assert_allclose([row.log2_active for row in got.rows], expected["log2_active"], rtol=1e-9)


def test_the_printed_layer_one_has_exactly_one_histogram() -> None:
    assert list(count_histograms(LAYER_1, 128)) == [{0: 33, 1: 30, 2: 34, 3: 22, 4: 5, 5: 3, 6: 1}]


def printed(counts: np.ndarray) -> UsageRow:
    mean, std = counts.mean(), counts.std()
    return UsageRow(round(mean, 2), round(std, 2), round(std / mean, 3), round(float(entropy_bits(counts)), 2), int((counts > 0).sum()),
                    round(float(skew(counts)), 3), round(float(kurtosis(counts)), 3))


@given(st.lists(st.integers(0, 7), min_size=6, max_size=20))
@settings(deadline=None, max_examples=30)
def test_what_real_counts_print_is_always_possible_and_their_histogram_is_found(counts: list[int]) -> None:
    values = np.array(counts)
    if values.std() == 0:
        return
    row = printed(values)
    check = check_usage_row(row, len(counts), int(values.sum()))
    assert int((values**2).sum()) in check.sums_of_squares_ddof0 and check.consistent
    true = {int(n): int(h) for n, h in zip(*np.unique(values, return_counts=True))}
    assert true in list(count_histograms(row, len(counts)))


def test_impossible_rows_are_named() -> None:
    assert not check_usage_row(UsageRow(1.6, 1.33, 0.831, 5.4, 95), 128).consistent  # entropy below Renyi's
    assert not check_usage_row(UsageRow(1.6, 1.33, 0.831, 6.4, 60), 128).consistent  # entropy above log2 active
    assert not check_usage_row(UsageRow(1.6, 1.33, 0.7, 6.4, 95), 128).consistent  # cv is not std / mean
    assert check_usage_row(UsageRow(0.0, 0.0, 0.0, 0.0, 0), 128).total_selections == 0
    assert not check_usage_table([], 128).all_consistent
    assert check_usage_row(UsageRow(1.0, 1.0, 1.0, 7.4, 160), 256).total_selections is None  # 255, 256 or 257: not one
    assert list(count_histograms(UsageRow(1.6, 1.33, 0.831, 6.4, 95, 0.9, 0.104), 128)) == []


def test_a_search_that_would_not_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.seed_tables.SEARCH_LIMIT", 50)
    with pytest.raises(ValueError, match="check_usage_row"):
        list(count_histograms(LAYER_1, 128))


def test_reference_purity_with_affinity() -> None:
    inputs, expected = case("D09")
    got = implied_domain_shares(inputs["purity"], inputs["affinity"])
    np.testing.assert_allclose(got.implied_p_domain, expected["implied_p_domain"], rtol=1e-9)
    assert got.sum == pytest.approx(expected["sum"], rel=1e-9) and got.feasible is expected["feasible"]


def test_possible_purity_and_affinity_are_feasible() -> None:
    counts = np.array([[80, 10, 10], [10, 70, 20], [10, 20, 70]])
    shares = counts / counts.sum(axis=1, keepdims=True)
    purity = (shares / shares.sum(axis=0)).max(axis=0)
    assert implied_domain_shares(purity.round(2).tolist(), affinity(counts).max(axis=1).round(1).tolist()).feasible
    with pytest.raises(ValueError, match="above 0"):
        implied_domain_shares([0.5], [0.0])


def test_affinity_rows_of_the_seed_are_none() -> None:
    rows = [[3.2, 0.8, 0.5, 0.3, 0.4], [0.6, 3.5, 0.7, 0.2, 0.3], [0.4, 0.9, 3.1, 0.6, 0.5], [0.3, 0.2, 0.4, 3.4, 0.6], [0.5, 0.3, 0.6, 0.5, 2.8]]
    got = check_affinity_rows(rows)
    np.testing.assert_allclose(got.weighted_mean_E, [1.04, 1.06, 1.10, 0.98, 0.94])
    assert got.deviation == pytest.approx(0.1) and not got.valid
    assert check_affinity_rows(rows, decimals=1).valid_E == (True, False, False, True, False)


@given(st.integers(0, 10**6))
def test_affinities_pass_their_identity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = 1 + rng.poisson(3.0, (4, 6))
    counts[:, 2] = 0
    p = rng.dirichlet(np.ones(4))
    assert check_affinity_rows(affinity(counts)).valid and check_affinity_rows(affinity(counts, p), p).valid
    assert check_affinity_rows(affinity(counts).round(2), decimals=2).valid
    assert len(check_affinity_rows(affinity(counts)).valid_E) == 5
    with pytest.raises(ValueError, match="add up to 1"):
        check_affinity_rows(affinity(counts), p * 2)


def test_types_behind_a_printed_p() -> None:
    assert pairs_from_p(-0.6789, 1.23e-145) == 1071
    whole, least, most = whole_from_share(1234, 0.123, 3)
    assert (round(whole), round(least), round(most)) == (10033, 9992, 10073)
    assert correlation_p(0.0115, 50_000) == pytest.approx(0.0101, abs=2e-4)
    with pytest.raises(ValueError, match="above 0"):
        whole_from_share(3, 0.0)
    with pytest.raises(ValueError, match="other than 0"):
        pairs_from_p(0.0, 0.1)
    assert pairs_from_p(1e-9, 1e-300) is None


@given(st.integers(5, 3000), st.floats(0.05, 0.6))
def test_pairs_are_found_back_from_their_p(n: int, rho: float) -> None:
    p = correlation_p(rho, n)
    if 1e-250 < p < 1:
        assert pairs_from_p(rho, p) == n


def test_correlation_p_is_scipys() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 40))
    found = pearsonr(x, y + 0.5 * x)
    assert correlation_p(found.statistic, 40) == pytest.approx(found.pvalue, rel=1e-9)
