import numpy as np
import pytest

from analysis.metrics.zipf import exponent, kolmogorov_smirnov, log_log_fit, top_coverage
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
