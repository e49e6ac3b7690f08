import numpy as np
import pytest

from analysis.metrics.zipf import (
    exponent,
    kolmogorov_smirnov,
    log_log_fit,
    top_coverage,
    top_m_coverage,
    top_m_types,
    zipf_exponent,
    zipf_ks,
    zipf_r2,
)
from tests.references.cases import case


def test_rank_frequency_fit_e13():
    given, expected = case("E13")
    for law in ("zipf", "geometric"):
        made = log_log_fit(given[f"counts_{law}"])
        assert (made.r2, made.slope) == pytest.approx((expected[f"r2_{law}"], expected[f"slope_{law}"]), abs=1e-7)


@pytest.mark.parametrize("s", [0.7, 1.0, 1.6])
def test_exponent_of_an_exact_law_is_its_exponent_and_its_distance_is_zero(s):
    counts = 1e6 * np.arange(1, 301.0) ** -s
    assert exponent(counts) == pytest.approx(s, abs=1e-9) and kolmogorov_smirnov(counts, s) == pytest.approx(0, abs=1e-12)


def test_exponent_maximises_the_likelihood():
    counts = np.array([50, 20, 18, 9, 3, 1.0])
    ranks = np.arange(1, 7)

    def likelihood(s):
        return counts @ np.log(ranks**-s / (ranks**-s).sum())

    s = exponent(counts)
    assert likelihood(s) > max(likelihood(s - 1e-4), likelihood(s + 1e-4))


def test_coverage_of_the_most_frequent_types():
    assert top_coverage([5, 0, 3, 2], 2) == 0.8 and top_coverage([1, 1], 10) == 1.0 and np.isnan(top_coverage([0], 1))


def test_a_fit_of_constant_counts_is_undefined():
    with pytest.raises(ValueError, match="differ"):
        log_log_fit([2, 2, 2])
    assert exponent([2, 2, 2]) == pytest.approx(0, abs=1e-12)


def test_the_most_frequent_types_are_ordered_by_count_then_id():
    counts = np.array([5, 9, 5, 0, 9, 5])
    assert top_m_types(counts, 3).tolist() == [1, 4, 0] and top_m_types(counts, 99).tolist() == [1, 4, 0, 2, 5]
    held_out = np.array([1, 0, 100, 7, 2, 0])
    assert top_m_coverage(counts, 3, held_out) == pytest.approx(3 / 110)  # type 2 ties with type 0 and loses
    assert top_m_coverage(counts, 3) == pytest.approx(23 / 33) == top_coverage(counts, 3)
    assert np.isnan(top_m_coverage([0, 0], 1)) and top_m_coverage([4, 1], 0) == 0
    assert top_m_types([2**40, 2**40 + 1], 1).tolist() == [1]
    with pytest.raises(ValueError, match="same vocabulary"):
        top_m_coverage(counts, 3, held_out[:2])


def test_registered_forms_are_undefined_where_a_fit_is():
    assert np.isnan(zipf_r2([2, 2, 2])) and np.isnan(zipf_exponent([5, 0])) and np.isnan(zipf_ks([5]))
    counts = 1e5 * np.arange(1, 101.0) ** -1.2
    assert zipf_r2(counts) == pytest.approx(1) and zipf_exponent(counts) == pytest.approx(1.2, abs=1e-9) and zipf_ks(counts) < 1e-12


def test_a_larger_support_takes_the_unseen_ranks_into_account():
    """The score equation sum n ln r / N = E_s ln r over all ranks of the support."""
    counts, support = np.array([50, 20, 18, 9, 3.0]), 40
    s, log_rank = exponent(counts, support), np.log(np.arange(1, support + 1))
    p = np.exp(-s * log_rank)
    assert p @ log_rank / p.sum() == pytest.approx(counts @ log_rank[:5] / counts.sum(), abs=1e-10) and s > exponent(counts)
    with pytest.raises(ValueError, match="at least as many"):
        exponent(counts, 4)
