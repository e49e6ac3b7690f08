"""Means over pairs of layers, and over ordered pairs of domains, with intervals over the same documents."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.metrics.transfer import transfer_info
from analysis.resampling import t_quantile
from analysis.shift import ShiftPlan, shifted_information
from analysis.transfer_matrix import DomainJoints, transfer_matrix
from tests.analysis.planted import documents, sticky_topics


def groups_of(rng, law, n=12, tokens=400):
    return np.stack([rng.multinomial(tokens, law.ravel()).reshape(law.shape) for _ in range(n)])


def test_the_mean_over_domain_pairs_is_a_stratified_jackknife():
    rng = np.random.default_rng(0)
    domains = [DomainJoints(f"d{i}", [groups_of(rng, rng.dirichlet(np.full(9, 0.5)).reshape(3, 3)) for _ in range(2)], 40) for i in range(3)]
    found = transfer_matrix(domains, smoothing=1.0).overall

    def value(left_out=None):
        sums = [[table.sum(axis=0) - (table[left_out[1]] if left_out and left_out[0] == d else 0) for table in domain.joints_P]
                for d, domain in enumerate(domains)]
        return np.mean([float(transfer_info(sums[a][p], sums[b][p], 1.0)) for a in range(3) for b in range(3) if a != b for p in range(2)])

    whole, bias, variance = value(), 0.0, 0.0
    for d in range(3):
        without = np.array([value((d, g)) for g in range(12)])
        bias += 11 * (without.mean() - whole)
        variance += 11 / 12 * ((without - without.mean()) ** 2).sum()
    half = t_quantile(0.95, 33) * variance**0.5
    assert (found.plug_in, found.value) == (pytest.approx(whole, abs=1e-12), pytest.approx(whole - bias, abs=1e-12))
    assert (found.low, found.high) == (pytest.approx(whole - bias - half, abs=1e-12), pytest.approx(whole - bias + half, abs=1e-12))


def test_one_domain_has_no_mean_over_pairs():
    rng = np.random.default_rng(1)
    one = transfer_matrix([DomainJoints("d", [groups_of(rng, np.full((3, 3), 1 / 9))], 40)], smoothing=1.0).overall
    assert one.value is None and "one domain" in one.reason


def test_the_mean_excess_is_the_mean_with_an_interval_no_wider_than_the_mean_one():
    rng = np.random.default_rng(2)
    x, y = sticky_topics(rng, coupling=0.4)
    z, w = sticky_topics(rng, coupling=0.1)
    group = np.arange(40) % 20
    held = documents(rng, [x, y, z, w], [8] * 4, np.full(40, 64), group=group)
    null = shifted_information(held, [(0, 1), (2, 3)], ShiftPlan(n_draws=99, n_interval_draws=9))
    each, mean = null.estimates(), null.mean().estimates()[0]
    assert mean.value == pytest.approx(np.mean([one.value for one in each]), abs=1e-12)
    assert mean.null == pytest.approx(np.mean([one.null for one in each]), abs=1e-12)
    assert 0 < mean.half_width <= np.mean([one.half_width for one in each]) + 1e-12


def test_the_mean_of_one_pair_is_that_pair():
    rng = np.random.default_rng(3)
    x, y = sticky_topics(rng, coupling=0.3)
    held = documents(rng, [x, y], [8, 8], np.full(40, 64), group=np.arange(40) % 20)
    null = shifted_information(held, [(0, 1)], ShiftPlan(n_draws=39))
    assert null.mean().estimates()[0].low == pytest.approx(null.estimates()[0].low, abs=1e-12)
