"""Estimates of registered metrics: what is resampled, what has no interval, and the two weightings."""

import numpy as np
import pytest
from scipy import stats

from analysis.estimation import Groups, document_weighted, estimates

RNG = np.random.default_rng(3)
TABLES = RNG.poisson(3, (12, 4, 4))


@pytest.mark.parametrize("n_groups", [1, 2, 12])
def test_tokens_are_never_resampled_and_the_error_says_why(n_groups):
    with pytest.raises(ValueError, match="resample unit='document'"):
        estimates("mi_first_choice", Groups((TABLES[:n_groups],), 12, unit="token"))


def test_an_error_of_the_metric_itself_is_not_taken_for_a_lack_of_documents():
    def wrong(joint):
        raise ValueError("one document has a negative count")

    with pytest.raises(ValueError, match="negative count"):
        estimates("mi_first_choice", Groups((TABLES,), 12), value=wrong)


def test_no_document_is_undefined_with_its_reason():
    found = estimates("mi_first_choice", Groups((TABLES[:0],), 0)).item()
    assert found.value is None and found.reason.startswith("no_data") and found.n_units == 0


@pytest.mark.parametrize("stratum", [None, np.array([0]), np.array([0, 1])])
def test_without_two_documents_in_a_stratum_the_plug_in_stays_without_interval(stratum):
    size = 1 if stratum is None else len(stratum)
    found = estimates("mi_first_choice", Groups((TABLES[:size],), size, stratum)).item()
    assert found.value == found.plug_in is not None and found.low is None and found.method == "plug-in"


def test_a_domain_of_one_document_adds_no_spread_and_is_gated():
    stratum = np.array([0] * 11 + [1])
    found = estimates("mi_first_choice", Groups((TABLES,), 12, stratum)).item()
    assert found.low is not None and found.gate.startswith("one_document_per_domain")
    assert estimates("mi_first_choice", Groups((TABLES,), 12, np.arange(12) % 2)).item().gate is None
    none = estimates("mi_first_choice", Groups((0 * TABLES,), 12, stratum)).item()
    assert none.value is None and none.gate is None


def test_document_weighted_is_the_mean_of_document_values_and_token_weighted_is_not():
    below, n = np.array([1, 2, 30, 0, 0]), np.array([2, 8, 40, 10, 0])
    found = document_weighted("entropy_share_below", (below, n)).item()
    shares = np.array([0.5, 0.25, 0.75, 0.0])
    low, high = stats.t.interval(0.95, 3, shares.mean(), stats.sem(shares))
    assert (found.value, found.low, found.high) == pytest.approx((0.375, low, high), abs=1e-12)
    assert found.n_units == 4  # the document without tokens has no value
    assert estimates("entropy_share_below", Groups((below, n), 5)).item().plug_in == pytest.approx(33 / 60)


def test_document_weighted_keeps_the_metrics_shape_and_its_reasons():
    found = document_weighted("freq_matrix", (np.array([[[3, 1], [0, 0]], [[1, 1], [0, 0]]]),))
    assert found.shape == (2, 2) and found[0, 0].value == pytest.approx(0.625)
    assert found[1, 0].value is None and found[1, 0].reason.startswith("no_data")
    one = document_weighted("entropy_share_below", (np.array([1]), np.array([4]))).item()
    assert one.value == 0.25 and one.low is None
