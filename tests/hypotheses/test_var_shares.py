"""Shares over documents that all agree still have an interval."""

import pytest
from scipy.stats import binomtest

from hypotheses.var_shares import alike_interval


@pytest.mark.parametrize("n", [30, 648])
def test_documents_that_all_agree_get_the_exact_binomial_end(n: int) -> None:
    none, every = binomtest(0, n).proportion_ci(0.95, "exact"), binomtest(n, n).proportion_ci(0.95, "exact")  # Clopper & Pearson 1934
    assert alike_interval(0.0, n, 0.95) == pytest.approx((none.low, none.high))
    assert alike_interval(1.0, n, 0.95) == pytest.approx((every.low, every.high))
