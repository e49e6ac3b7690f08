"""Every registered metric is put to the same questions."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.registry import Metric, every, find
from tests.analysis.examples import example

METRICS = list(every().values())
ADDITIVE = [one for one in METRICS if one.additive]


ILL_POSED = "cross_domain_naive_pairing"  # undefined for all arguments


def ids(one: Metric) -> str:
    return one.id


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_says_what_it_is(metric: Metric) -> None:
    assert metric.unit and metric.undefined and metric.source and metric.takes and metric.estimator
    assert metric.definition.endswith((".", ";", ":")) or ":" in metric.definition


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_stays_within_its_bounds(metric: Metric) -> None:
    n_known = 0
    for seed in range(20):
        arguments = example(metric.takes, np.random.default_rng(seed))
        value = np.asarray(metric.function(*arguments), np.float64)
        low, high = metric.range_of(*arguments)
        known = value[np.isfinite(value)]
        n_known += len(known)
        assert low is None or (known >= low - 1e-9).all()
        assert high is None or (known <= high + 1e-9).all()
    assert n_known or metric.id == ILL_POSED


@pytest.mark.parametrize("metric", ADDITIVE, ids=ids)
def test_a_batch_is_its_members(metric: Metric) -> None:
    arguments = example(metric.takes, np.random.default_rng(1), (3,))
    together = np.asarray(metric.function(*arguments))
    for number in range(3):
        alone = np.asarray(metric.function(*(np.asarray(a)[number] for a in arguments)))
        np.testing.assert_allclose(together[number], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", ADDITIVE, ids=ids)
def test_no_counts_are_undefined_never_zero_and_never_a_warning(metric: Metric) -> None:
    arguments = [np.zeros_like(np.asarray(a)) for a in example(metric.takes, np.random.default_rng(2))]
    with np.errstate(all="raise"):
        assert np.isnan(np.asarray(metric.function(*arguments), np.float64)).all()


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="mi_first_choice"):
        find("mi_first_choise")
