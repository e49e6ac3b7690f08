"""Clusters of experts against the reference case, scipy and sklearn, and the null that they must beat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.clustering import choose_n_clusters, cluster_clarity, cluster_experts, mean_silhouette
from analysis.registry import find
from tests.analysis.metrics.test_coactivation import random_ids, reference, slow_table

Int = NDArray[np.int64]


def clustered_ids(seed: int, n_tokens: int, strength: float = 4.0) -> Int:
    """Two of eight experts a token; the experts 0-3 and 4-7 keep to themselves."""
    rng = np.random.default_rng(seed)
    scores = strength * (np.arange(8) // 4 == rng.integers(0, 2, (n_tokens, 1))) + rng.gumbel(size=(n_tokens, 8))
    return np.argsort(-scores, axis=1)[:, :2]


def test_clusters_of_the_reference() -> None:
    counts, expected = reference("G06")
    found = cluster_experts(counts, 2)
    np.testing.assert_allclose(found.heights, expected["merge_heights"], rtol=1e-9)
    assert [list(one) for one in found.partition] == expected["labels_partition"]
    assert found.cophenetic == pytest.approx(expected["cophenetic_correlation"], abs=1e-9)
    assert list(found.unused) == expected["excluded_unused"] and found.labels[4] == -1
    assert sorted(found.leaf_order) == [0, 1, 2, 3]
    assert find("coact_silhouette").function(counts, 2) == found.silhouette


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_is_scipy_on_the_distances_and_ignores_names(seed: int, n_clusters: int) -> None:
    from scipy.cluster.hierarchy import average, cophenet, fcluster
    from scipy.spatial.distance import squareform
    from sklearn.metrics import adjusted_rand_score

    from analysis.metrics.coactivation import coactivation_jaccard

    counts = slow_table(random_ids(seed, 400, 9, 3), 9)
    found = cluster_experts(counts, n_clusters)
    used = np.flatnonzero(np.diag(counts) > 0)
    condensed = squareform(1 - coactivation_jaccard(counts)[np.ix_(used, used)], checks=False)
    np.testing.assert_allclose(found.heights, average(condensed)[:, 2], rtol=1e-9)
    assert found.cophenetic == pytest.approx(cophenet(average(condensed), condensed)[0], abs=1e-9)
    assert len(found.partition) == n_clusters and sorted(e for one in found.partition for e in one) == used.tolist()
    if len(np.unique(condensed)) == len(condensed):
        assert adjusted_rand_score(np.array(found.labels)[used], fcluster(average(condensed), n_clusters, "maxclust")) == pytest.approx(1.0)
        names = np.random.default_rng(seed).permutation(9)
        renamed = np.zeros_like(counts)
        renamed[np.ix_(names, names)] = counts
        again = cluster_experts(renamed, n_clusters)
        assert {frozenset(names[list(one)].tolist()) for one in found.partition} == {frozenset(one) for one in again.partition}


def test_ties_do_not_depend_on_names() -> None:
    counts = slow_table(np.array([[0, 1]] * 3 + [[2, 3]] * 2 + [[4, 5]]), 6)  # three pairs that never meet: all distances are 0 or 1
    for seed in range(5):
        names = np.random.default_rng(seed).permutation(6)
        renamed = np.zeros_like(counts)
        renamed[np.ix_(names, names)] = counts
        one, other = cluster_experts(counts, 2), cluster_experts(renamed, 2)
        assert {frozenset(names[list(part)].tolist()) for part in one.partition} == {frozenset(part) for part in other.partition}


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_silhouette_is_sklearn(seed: int) -> None:
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(seed)
    distance = rng.random((8, 8))
    distance = distance + distance.T
    np.fill_diagonal(distance, 0)
    labels = rng.integers(0, 4, 8)
    if 2 <= len(np.unique(labels)) < 8:
        assert mean_silhouette(distance, labels) == pytest.approx(silhouette_score(distance, labels, metric="precomputed"), abs=1e-12)
    assert mean_silhouette(distance, np.zeros(8)) is None
    assert mean_silhouette(distance, np.arange(8)) == 0.0


def test_leaf_orders_keep_clusters_together() -> None:
    counts = slow_table(clustered_ids(0, 500), 8)
    for optimal in (False, True):
        order = cluster_experts(counts, 2, optimal_order=optimal).leaf_order
        assert {frozenset(order[:4]), frozenset(order[4:])} == {frozenset(range(4)), frozenset(range(4, 8))}


def test_undefined_clusters_say_why() -> None:
    assert cluster_experts(slow_table(np.array([[0], [1]]), 3), 2).reason == "k=1"
    assert str(cluster_experts(np.zeros((4, 4)), 2).reason).startswith("no_data")
    assert str(cluster_experts(slow_table(np.array([[0, 1]] * 3), 5), 3).reason).startswith("too_few_experts: 2 in use, 3 needed")
    everyone = cluster_experts(slow_table(np.array([[0, 1, 2]] * 3), 5), 2)
    assert str(everyone.reason).startswith("constant") and everyone.silhouette is None and everyone.unused == (0, 1, 2, 3, 4)
    assert cluster_experts(slow_table(clustered_ids(1, 50), 8), 1).silhouette is None
    with pytest.raises(ValueError, match="choose_n_clusters"):
        cluster_experts(np.zeros((4, 4)), 0)


def test_the_number_of_clusters_is_found_on_the_calibration_table() -> None:
    assert choose_n_clusters(slow_table(clustered_ids(2, 2000), 8)) == 2
    assert choose_n_clusters(slow_table(clustered_ids(2, 2000), 8), candidates=[3, 5, 99]) in (3, 5)
    assert choose_n_clusters(slow_table(np.array([[0], [1]]), 3)) is None
    assert choose_n_clusters(slow_table(np.array([[0, 1]] * 3), 3)) is None
    assert choose_n_clusters(slow_table(clustered_ids(2, 50), 8), candidates=[1]) is None


def test_planted_clusters_are_clear_and_draws_of_the_law_are_not() -> None:
    counts = slow_table(clustered_ids(3, 1000), 8)
    found = cluster_clarity(counts, 2, np.random.default_rng(0), n_draws=99)
    assert found.clear and found.p == pytest.approx(0.01) and found.n_draws == 99
    again = cluster_clarity(counts, 2, np.random.default_rng(0), n_draws=99)
    assert again == found
    calibrated = cluster_experts(slow_table(clustered_ids(4, 300), 8), 2).labels
    held = cluster_clarity(counts, 2, np.random.default_rng(0), labels_E=calibrated, n_draws=99)
    assert held.clear and held.null_quantile is not None and found.null_quantile is not None and held.null_quantile < found.null_quantile


def test_the_null_keeps_its_size() -> None:
    from analysis.conditional_bernoulli import draw_pair_counts, from_weights

    rng = np.random.default_rng(1)
    p = from_weights([4, 3, 2, 1, 1, 0.5, 0.3], 2)
    found = [cluster_clarity(draw_pair_counts(p, 2, 200, rng), 3, rng, n_draws=39).clear for _ in range(60)]
    assert np.mean([bool(one) for one in found]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


def test_undefined_clarity_says_why() -> None:
    rng = np.random.default_rng(0)
    assert cluster_clarity(slow_table(np.array([[0], [1]]), 3), 2, rng).reason == "k=1"
    one = cluster_clarity(slow_table(clustered_ids(3, 100), 8), 2, rng, labels_E=np.zeros(8, int))
    assert one.clear is None and one.reason == "fewer than two clusters in use"
    assert cluster_clarity(slow_table(clustered_ids(3, 100), 8), 1, rng).reason == "one cluster has no silhouette"
    assert str(cluster_clarity(slow_table(clustered_ids(3, 100), 8), 2, rng, n_draws=0).reason).startswith("no_data")
