"""Shares over documents that all agree still have an interval."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from analysis.counts import CountPlan, Units
from analysis.trace import DocumentRow
from hypotheses.var_evidence import VarSettings
from hypotheses.var_shares import Ratio, RatioRule, alike_interval


@pytest.mark.parametrize("n", [30, 648])
def test_documents_that_all_agree_get_the_exact_binomial_end(n: int) -> None:
    none, every = binomtest(0, n).proportion_ci(0.95, "exact"), binomtest(n, n).proportion_ci(0.95, "exact")  # Clopper & Pearson 1934
    assert alike_interval(0.0, n, 0.95) == pytest.approx((none.low, none.high))
    assert alike_interval(1.0, n, 0.95) == pytest.approx((every.low, every.high))


class OneSplit:
    """The little of VarCounts that a ratio over test documents reads."""

    def __init__(self, n_documents: int) -> None:
        documents = tuple(DocumentRow(number, str(number), "d", "test") for number in range(n_documents))
        units = Units.of(documents, CountPlan("test", "0", np.zeros((1, 1))))
        self.test, self.settings = SimpleNamespace(units=units), VarSettings()


def test_layers_that_are_all_or_nothing_do_not_make_an_interval_without_width() -> None:
    tokens = np.full((2, 40), 10)
    below = np.stack([tokens[0], np.zeros(40, np.int64)])  # one layer always below the threshold, one never
    *layers, mean = RatioRule(OneSplit(40)).estimates(Ratio(below, tokens, "share"))  # type: ignore[arg-type]
    assert mean.value == 0.5
    assert mean.low < 0.5 < mean.high
    assert (mean.low + mean.high) / 2 == pytest.approx((layers[0].low + layers[1].low + layers[0].high + layers[1].high) / 4)


def test_documents_that_agree_on_anything_else_have_no_interval() -> None:
    tokens = np.full((1, 40), 10)
    one = RatioRule(OneSplit(40)).estimates(Ratio(tokens // 2, tokens, "share"))[-1]  # type: ignore[arg-type]
    assert (one.value, one.low, one.high) == (0.5, None, None)
