import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.arithmetic import mutual_information_bits
from analysis.replicates import (
    WeightedSums,
    WeightPlan,
    document_weights,
    marginal_replicates,
    replicate_interval,
    weighted_joint_information,
    weighted_values,
)
from analysis.resampling import bca_interval, percentile_interval
from tests.analysis.planted import keys_of
from tests.references.cases import case


def test_document_bootstrap_k02():
    given, expected = case("K02")
    counts, weights = np.array(given["doc_counts"]), np.array(given["weights"])
    replicates = weighted_values([counts], mutual_information_bits, weights)
    np.testing.assert_allclose(replicates, expected["replicates"], atol=1e-9)
    assert replicates.std(ddof=1) == pytest.approx(expected["se"], abs=1e-9)
    estimate = mutual_information_bits(counts.sum(axis=0))
    np.testing.assert_allclose(replicate_interval("mi_first_choice", estimate, replicates), expected["basic"], atol=1e-9)
    np.testing.assert_allclose(percentile_interval(replicates), expected["percentile"], atol=1e-9)
    bca = bca_interval(float(estimate), replicates, mutual_information_bits(counts.sum(axis=0) - counts))
    np.testing.assert_allclose([bca.low, bca.high], expected["bca"], atol=1e-8)
    x, y, unit = (np.repeat(i, counts.reshape(-1)) for i in np.broadcast_arrays(
        *(c.reshape(-1) for c in np.indices(counts.shape)[[1, 2, 0]])))
    for backend in ("numpy", "numba"):
        again = weighted_joint_information((x, y), (2, 2), unit, weights.astype(np.uint8), backend=backend)
        np.testing.assert_allclose(again, expected["replicates"], atol=1e-9)


def test_intervals_of_entropy_like_metrics_are_never_percentiles():
    replicates = np.random.default_rng(0).normal(1.2, 0.1, 2000)
    with pytest.raises(ValueError, match="shifted by the plug-in bias"):
        replicate_interval("mi_first_choice", 1.0, replicates, "percentile")
    low, high = replicate_interval("mi_first_choice", 1.0, replicates, "centred")
    assert (low + high) / 2 == pytest.approx(1.0, abs=0.02) and high - low == pytest.approx(0.392, rel=0.1)
    low, high = replicate_interval("mi_first_choice", 1.0, replicates, "basic")
    assert (low + high) / 2 == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("kind", ["multinomial", "poisson"])
def test_weights_depend_on_document_replicate_and_seed_alone(kind):
    keys, strata = keys_of(80), np.repeat(["a", "b"], 40)
    plan, order = WeightPlan(100, 3, kind), np.random.default_rng(0).permutation(80)
    weights = document_weights(keys, plan, range(100), strata)
    np.testing.assert_array_equal(document_weights(keys[order], plan, range(100), strata[order]), weights[:, order])
    np.testing.assert_array_equal(document_weights(keys, plan, range(37, 61), strata), weights[37:61])
    assert (document_weights(keys, WeightPlan(100, 4, kind), range(100), strata) != weights).any()
    if kind == "multinomial":
        assert (weights[:, :40].sum(axis=1) == 40).all() and (weights[:, 40:].sum(axis=1) == 40).all()


@pytest.mark.parametrize("kind", ["multinomial", "poisson"])
def test_weights_have_their_law_and_twins_agree(kind, monkeypatch):
    from analysis import replicates

    keys = keys_of(500)
    made = []
    for compiled_too in (False, True):
        monkeypatch.setattr(replicates, "_compiled", lambda n, yes=compiled_too: yes)
        made.append(document_weights(keys, WeightPlan(400, 1, kind), range(400)))
    np.testing.assert_array_equal(*made)
    weights = made[0].astype(float)
    assert abs(weights.mean() - 1) < 4 / np.sqrt(weights.size) and abs(weights.var() - 1) < 0.03
    assert abs((weights == 0).mean() - np.exp(-1)) < 0.01
    each = np.corrcoef(weights[:, :40].T)[~np.eye(40, dtype=bool)]
    assert abs(each.mean()) < 0.02 and np.abs(each).max() < 5 / np.sqrt(400)


def test_poisson_weights_of_a_small_stratum_are_refused():
    with pytest.raises(ValueError, match="29 documents"):
        document_weights(keys_of(60), WeightPlan(10, kind="poisson"), range(10), np.repeat([0, 1], [31, 29]))


def test_sums_are_exact_in_either_precision():
    rng = np.random.default_rng(0)
    weights = rng.poisson(1, (20, 300)).astype(np.uint8)
    for high in (9, 2**16, 2**25, 2**40):
        counts = rng.integers(0, high, (300, 7))
        expected = weights.astype(object) @ counts.astype(object)
        assert (WeightedSums(counts)(weights).astype(object) == expected).all()
    with pytest.raises(ValueError, match="2\\*\\*53"):
        WeightedSums(np.full((300, 1), 2**50))(weights)
    with pytest.raises(ValueError, match="fixed point"):
        WeightedSums(np.ones((3, 2)))
    with pytest.raises(ValueError, match="nonnegative"):
        WeightedSums(np.array([[1], [-1]]))


def test_replicates_are_weighted_recounts_however_they_are_cut(monkeypatch):
    from analysis import replicates

    rng = np.random.default_rng(0)
    counts, keys, order = rng.poisson(2, (50, 4, 3)), keys_of(50), rng.permutation(50)
    plan = WeightPlan(90, 2)
    made = marginal_replicates([counts], mutual_information_bits, keys, plan)
    weights = document_weights(keys, plan, range(90))
    np.testing.assert_allclose(made, [mutual_information_bits(np.tensordot(w.astype(float), counts, 1)) for w in weights], atol=1e-12)
    np.testing.assert_array_equal(marginal_replicates([counts[order]], mutual_information_bits, keys[order], plan), made)
    monkeypatch.setattr(replicates, "AT_ONCE", 7)
    np.testing.assert_array_equal(marginal_replicates([counts], mutual_information_bits, keys, plan), made)


@given(st.integers(0, 2**20), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_joint_replicates_are_recounts(seed, ex, ey):
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, 9, 200)
    x, y = rng.integers(-1, ex, 200), rng.integers(-1, ey, 200)
    weights = rng.poisson(1, (5, 9)).astype(np.uint8)
    weights[0] = 0
    made = weighted_joint_information((x, y), (ex, ey), unit, weights, backend="numpy")
    fast = weighted_joint_information((x, y), (ex, ey), unit, weights, backend="numba", threads=2)
    np.testing.assert_array_equal(made, fast)
    both = (x >= 0) & (y >= 0)
    for value, w in zip(made, weights):
        table = np.zeros((ex, ey))
        np.add.at(table, (x[both], y[both]), w[unit[both]])
        expected = float(mutual_information_bits(table))
        assert np.isnan(expected) == np.isnan(value) and (np.isnan(value) or value == pytest.approx(expected, abs=1e-9))


def test_heavy_weights_do_not_overflow_their_bytes():
    weights = np.full((3, 2), 255, np.uint8)
    x = np.repeat([0, 1], 700)
    made = weighted_joint_information((x, x), (2, 2), np.arange(1400) % 2, weights, backend="numba")
    np.testing.assert_allclose(made, 1.0, atol=1e-9)


def test_spread_of_replicates_is_the_influence_error():
    from analysis.influence import influence_errors
    from tests.calibration.worlds import TopicWorld

    sample = TopicWorld(n_experts=6).draw(200, np.random.default_rng(0))
    error = influence_errors([sample.x, sample.y], [6, 6], sample.starts, [[0, 1]]).se[0]
    weights = document_weights(keys_of(200), WeightPlan(400), range(400))
    spread = weighted_joint_information((sample.x, sample.y), (6, 6), sample.document, weights).std(ddof=1)
    assert spread == pytest.approx(error, rel=0.2)


def test_ids_out_of_range_are_named():
    with pytest.raises(ValueError, match="layer 1"):
        weighted_joint_information((np.array([0]), np.array([3])), (2, 3), np.array([0]), np.ones((1, 1), np.uint8))
