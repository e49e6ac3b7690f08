from itertools import combinations, product

import numpy as np
import pytest

from analysis.metrics import usage
from analysis.registry import every
from analysis.uniform_null import UniformRouting, expected, rarefied, rarefied_active, uniform_null, uniform_nulls


def rng():
    return np.random.default_rng(0)


def test_the_seed_s_205_selections_over_128_experts():
    """metrics specification 2.2: E[active] = 102.4, E[CV] = 0.79, E[H] = 6.48."""
    law = expected(UniformRouting.of(205, 128))
    assert round(law["usage_active"], 1) == 102.4 and round(law["usage_cv_rms"], 2) == 0.79 and round(law["usage_entropy_bits"], 2) == 6.48
    assert law["usage_active"] == pytest.approx(128 * (1 - (127 / 128) ** 205), abs=1e-9)
    assert law["usage_cv_squared"] == pytest.approx(127 / 205, abs=1e-9)


@pytest.mark.parametrize(("n_experts", "tokens_K"), [(3, (0, 4)), (4, (0, 0, 3)), (4, (1, 1, 2)), (3, (0, 1, 1, 1)), (2, (0, 0, 3)), (1, (0, 3))])
def test_expectations_are_means_over_all_routings(n_experts, tokens_K):
    sets = [list(combinations(range(n_experts), size)) for size, tokens in enumerate(tokens_K) for _ in range(tokens)]
    loads = np.array([np.bincount([e for one in routing for e in one], minlength=n_experts) for routing in product(*sets)])
    law = expected(UniformRouting(n_experts, tokens_K))
    for id, function in (("usage_active", usage.active), ("usage_entropy_bits", usage.entropy_bits), ("usage_gini", usage.gini),
                         ("collapse_rate", usage.collapse_rate), ("usage_diversity", usage.diversity), ("usage_mean", usage.mean)):
        assert law[id] == pytest.approx(function(loads).mean(), abs=1e-12), id
    assert law["usage_cv_squared"] == pytest.approx((usage.cv(loads) ** 2).mean(), abs=1e-12)


@pytest.mark.parametrize(("n", "experts", "k"), [(300, 16, 1), (301, 16, 4), (64, 8, 8)])
def test_draws_follow_the_law(n, experts, k):
    routing = UniformRouting.of(n, experts, k)
    loads = routing.draw(20_000, rng())
    values, law = routing.load_law()
    assert (loads.sum(axis=1) == n).all() and loads.max() <= -(-n // k)
    for expert in (0, experts - 1):
        seen = np.bincount(loads[:, expert], minlength=values[-1] + 1)[values] / len(loads)
        assert np.abs(seen - law).max() < 0.02
    assert np.cov(loads[:, 0], loads[:, -1])[0, 1] == pytest.approx(-loads[:, 0].var() / (experts - 1), abs=0.3)


def test_k_equal_to_e_is_constant_and_large_counts_keep_their_digits():
    assert expected(UniformRouting.of(80, 8, 8))["usage_cv_squared"] == 0
    law = expected(UniformRouting.of(2**33, 256, 2))
    assert law["usage_cv_squared"] == pytest.approx(254 / 2**33, rel=1e-6)
    assert law["usage_gini"] == pytest.approx(law["usage_cv_rms"] * np.sqrt(255 / 256 / np.pi), rel=1e-6)


def test_a_statistic_beside_its_null():
    found = uniform_null("usage_cv", np.random.default_rng(1).multinomial(2000, np.full(64, 1 / 64)), rng())
    assert not found.closed and found.low < found.observed < found.high and abs(found.excess) < 0.05
    collapsed = uniform_null("usage_entropy_bits", np.array([200, 1, 0, 0]), rng(), k=1)
    assert collapsed.closed and collapsed.excess < -1.8 and collapsed.high < 2
    assert uniform_null("usage_cv", np.zeros(3, int), rng()).reason.startswith("no_data")
    assert "undefined under uniform" in uniform_null("usage_skewness", np.array([5, 3]), rng(), k=2).reason  # k = E: constant loads


def test_a_closed_null_agrees_with_its_draws():
    loads = np.random.default_rng(1).multinomial(500, np.full(32, 1 / 32))
    for id in ("usage_entropy_bits", "usage_active", "usage_gini", "collapse_rate"):
        found = uniform_null(id, loads, rng(), draws=2000)
        assert found.closed and found.low - 1e-4 <= found.null <= found.high + 1e-4


@pytest.mark.parametrize("size", [1, 3, 8])
def test_rarefied_active_is_the_mean_over_all_subsets(size):
    loads = np.array([3, 0, 1, 4])
    chosen = np.repeat(np.arange(4), loads)
    brute = np.mean([len(set(chosen[list(s)])) for s in combinations(range(8), size)])
    assert rarefied_active(loads, size) == pytest.approx(brute, abs=1e-12)
    drawn = rarefied(usage.active, loads, size, rng(), draws=4000)
    assert drawn.value == pytest.approx(brute, abs=5 * drawn.error + 1e-12)


def test_rarefaction_at_all_selections_changes_nothing_and_past_31_bits_it_is_right_or_refused():
    loads = np.array([5, 0, 7])
    assert rarefied(usage.cv, loads, 12, rng()).value == pytest.approx(float(usage.cv(loads)))
    assert rarefied_active([2**33, 5, 1], 2**20) == pytest.approx(1 + 6 * 2**20 / 2**33, rel=1e-6)
    with pytest.raises(ValueError, match="fewer documents"):
        rarefied(usage.cv, [2**33, 5], 100, rng())


@pytest.mark.parametrize("size", [0, 13, 2.5])
def test_a_size_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(ValueError, match="rarefy to"):
        rarefied_active([5, 0, 7], size)


def test_impossible_routings_are_refused():
    with pytest.raises(ValueError, match="cannot choose"):
        UniformRouting.of(12, 3, 4)
    with pytest.raises(ValueError, match="whole numbers"):
        UniformRouting.of(1.5, 3)
    with pytest.raises(ValueError, match="integer"):
        uniform_null("usage_cv", np.array([0.5, 0.5]), rng())
    assert expected(UniformRouting.of(0, 3)) == {}


def test_rarefying_lets_layers_of_unequal_size_be_compared():
    """Two layers of one law, 10x apart in selections: CV differs, rarefied CV does not."""
    p = np.random.default_rng(2).dirichlet(np.full(32, 5.0))
    large, small = (np.random.default_rng(s).multinomial(n, p) for s, n in ((3, 3000), (4, 300)))
    assert usage.cv(small) - usage.cv(large) > 0.05
    assert abs(rarefied(usage.cv, large, 300, rng()).value - usage.cv(small)) < 0.12


def test_every_usage_statistic_has_its_null():
    ids = [id for id in every() if id.startswith("usage_")] + ["collapse_rate"]
    found = uniform_nulls(ids, np.random.default_rng(1).multinomial(2050, np.full(128, 1 / 128)), rng())
    assert set(found) == set(ids) and all(one.excess == one.observed - one.null for one in found.values())
    assert found["usage_skewness"] == uniform_nulls(["usage_skewness"], np.random.default_rng(1).multinomial(2050, np.full(128, 1 / 128)),
                                                    rng())["usage_skewness"]
    assert all(one.low <= one.observed <= one.high for id, one in found.items() if id not in ("usage_skewness", "usage_kurtosis"))
    assert {one.reason is not None for one in uniform_nulls(ids, np.zeros(4, int), rng()).values()} == {True}
