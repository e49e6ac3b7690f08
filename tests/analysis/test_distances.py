import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import distances
from analysis.distances import silhouette_samples, subsampled_silhouette
from tests.references.cases import case

METRICS = ("cosine", "sqeuclidean", "euclidean")


def slow(vectors, labels, metric):
    """Every pair by its definition; -1 and, under cosine, zero vectors left out."""
    x = np.asarray(vectors, np.float64)
    kept = [i for i in range(len(x)) if labels[i] >= 0 and (metric != "cosine" or np.any(x[i]))]
    clusters = sorted({int(labels[i]) for i in kept})
    out = np.full(len(x), np.nan)
    if len(clusters) < 2:
        return out

    def distance(i, j):
        if metric == "cosine":
            return 0.0 if i == j else 1 - float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))
        squared = float(((x[i] - x[j]) ** 2).sum())
        return squared if metric == "sqeuclidean" else squared**0.5

    for i in kept:
        mean = {}
        for c in clusters:
            others = [distance(i, j) for j in kept if labels[j] == c and j != i]
            mean[c] = np.mean(others) if others else None
        a, b = mean.pop(int(labels[i])), min(mean.values())
        out[i] = 0.0 if a is None or max(a, b) == 0 else (b - a) / max(a, b)
    return out


def test_reference_case_by_cluster_sums():
    given_, expected = case("I02")
    found = silhouette_samples(given_["X"], given_["labels"], given_["metric"])
    assert found == pytest.approx(expected["samples"], abs=1e-9)
    assert found.mean() == pytest.approx(expected["mean"], abs=1e-9)
    assert found[expected["singleton_index"]] == expected["singleton_value"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_samples_are_those_of_sklearn(metric, dtype):
    from sklearn.metrics import silhouette_samples as theirs

    rng = np.random.default_rng(0)
    vectors, labels = (rng.normal(size=(500, 24)) + 2).astype(dtype), rng.integers(0, 9, 500) * 7
    assert np.abs(silhouette_samples(vectors, labels, metric) - theirs(vectors.astype(np.float64), labels, metric=metric)).max() < 2e-14


@pytest.mark.parametrize("metric", METRICS)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_samples_are_those_of_the_definition(metric, n, d, clusters, seed):
    rng = np.random.default_rng(seed)
    vectors, labels = rng.integers(-2, 3, (n, d)), rng.integers(-1, clusters, n)
    found = silhouette_samples(vectors, labels, metric)
    assert np.allclose(found, slow(vectors, labels, metric), rtol=0, atol=1e-12, equal_nan=True)
    assert np.nanmax(np.abs(found), initial=0) <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_tiles_and_blocks_change_nothing(metric, monkeypatch):
    rng = np.random.default_rng(1)
    vectors, labels = rng.normal(size=(300, 5)), rng.integers(0, 4, 300)
    whole = silhouette_samples(vectors, labels, metric)
    monkeypatch.setattr(distances, "TILE", 7)
    monkeypatch.setattr(distances, "BLOCK_VALUES", 1)
    assert np.abs(silhouette_samples(vectors, labels, metric) - whole).max() < 1e-13


@pytest.mark.parametrize("metric", METRICS)
def test_rotation_row_order_labels_and_scale_change_nothing(metric):
    rng = np.random.default_rng(2)
    vectors, labels = rng.normal(size=(80, 6)), rng.integers(0, 5, 80)
    found, order = silhouette_samples(vectors, labels, metric), rng.permutation(80)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert silhouette_samples(vectors @ rotation, labels, metric) == pytest.approx(found, abs=1e-12)
    assert silhouette_samples(vectors[order], labels[order], metric) == pytest.approx(found[order], abs=1e-12)
    assert silhouette_samples(vectors, 9 - labels, metric) == pytest.approx(found, abs=1e-12)
    for scale in (1e-250, 1e250):
        assert silhouette_samples(vectors * scale, labels, metric) == pytest.approx(found, abs=1e-12)
    if metric == "cosine":
        assert silhouette_samples(vectors * rng.uniform(1e-9, 1e9, (80, 1)), labels, metric) == pytest.approx(found, abs=1e-12)
    else:
        assert silhouette_samples(vectors + 1e6, labels, metric) == pytest.approx(found, abs=1e-8)


def test_a_zero_vector_has_no_direction_and_counts_in_no_cluster():
    rng = np.random.default_rng(3)
    vectors, labels = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    with_zero = silhouette_samples(np.vstack([vectors, np.zeros((1, 3))]), np.r_[labels, 1])
    assert np.isnan(with_zero[-1]) and np.array_equal(with_zero[:-1], silhouette_samples(vectors, labels))


@pytest.mark.parametrize("metric", METRICS)
def test_fewer_than_two_clusters_are_undefined(metric):
    for labels in ([2, 2, 2], [-1, -1, -1], [0, 0, -1]):
        assert np.isnan(silhouette_samples(np.eye(3), labels, metric)).all()
    assert silhouette_samples(np.zeros((0, 3)), np.zeros(0, int), metric).shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
def test_copies_are_at_distance_zero(metric):
    row = np.random.default_rng(4).normal(size=(1, 50)) * 1e3
    assert silhouette_samples(np.repeat(row, 9, axis=0), np.arange(9) % 2, metric).tolist() == [0.0] * 9
    two = np.vstack([np.repeat(row, 5, axis=0), np.repeat(-row, 4, axis=0)])
    assert silhouette_samples(two, [0] * 5 + [1] * 4, metric).tolist() == [1.0] * 9


def test_near_pairs_far_from_the_rest_keep_their_distances():
    rng = np.random.default_rng(5)
    vectors = np.vstack([rng.normal(size=(20, 8)) * 1e-7 + 1, rng.normal(size=(20, 8)) * 1e-7 - 1])
    labels = np.arange(40) % 3
    assert np.abs(silhouette_samples(vectors, labels, "euclidean") - slow(vectors, labels, "euclidean")).max() < 1e-8


def test_every_row_alone_is_zero():
    assert silhouette_samples(np.eye(4), np.arange(4)).tolist() == [0.0] * 4


def test_the_subsample_is_unbiased_and_states_its_error():
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 240)
    vectors, documents = rng.normal(size=(240, 4)) + labels[:, None], rng.permutation(np.arange(240) // 20)
    whole = silhouette_samples(vectors, labels, "euclidean")
    taken = [subsampled_silhouette(vectors, labels, documents, 40, np.random.default_rng(seed)) for seed in range(300)]
    for one in taken[:3]:
        assert len(one.rows) == 40 and one.samples == pytest.approx(whole[one.rows], abs=1e-12)
    means, errors = np.array([one.mean for one in taken]), np.array([one.standard_error for one in taken])
    spread = means.std(ddof=1)
    assert abs(means.mean() - whole.mean()) < 4 * spread / 300**0.5  # 4 standard errors
    assert 0.85 < np.sqrt((errors**2).mean()) / spread < 1.15  # sd of a sd over 300 draws: 4 %


def test_a_subsample_of_everything_is_exact():
    rng = np.random.default_rng(7)
    vectors, labels = rng.normal(size=(31, 4)), rng.integers(-1, 3, 31)
    every = subsampled_silhouette(vectors, labels, np.zeros(31, int), 31, rng)
    assert every.standard_error == 0 and every.mean == pytest.approx(np.nanmean(silhouette_samples(vectors, labels, "euclidean")))
    none = subsampled_silhouette(vectors, np.zeros(31, int), np.zeros(31, int), 10, rng)
    assert none.mean is None and none.standard_error is None and none.reason.startswith("no_data")


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.eye(3), [0, 1], "cosine"), "vectors: shape"),
    ((np.eye(3), [0, 1, 1], "manhattan"), "metric: 'manhattan'"),
    ((np.eye(3), [0.0, 1.0, 1.0], "cosine"), "labels: float64"),
    ((np.eye(3), [0, 1, -2], "cosine"), "labels: -2 at row 2"),
    ((np.diag([1, np.nan, 1]), [0, 1, 1], "cosine"), "vectors: a value at row 1 is not finite"),
    ((np.diag([1, 1, np.inf]), [0, 1, 1], "euclidean"), "vectors: a value at row 2 is not finite"),
])
def test_bad_input_is_refused_with_its_place(arguments, message):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("error")
        silhouette_samples(*arguments)


def test_too_many_rows_for_every_pair_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(distances, "EXACT_ROWS", 5)
    with pytest.raises(ValueError, match="take subsampled_silhouette, or metric='cosine'"):
        silhouette_samples(np.eye(6), np.arange(6) % 2, "euclidean")
    with pytest.raises(ValueError, match="n_rows: 3"):
        subsampled_silhouette(np.eye(6), np.arange(6) % 2, np.zeros(6, int), 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="documents: shape"):
        subsampled_silhouette(np.eye(6), np.arange(6) % 2, np.zeros(5, int), 5, np.random.default_rng(0))
