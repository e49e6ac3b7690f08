import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.distances import silhouette_samples
from analysis.metrics import geometry
from analysis.metrics.geometry import (
    centroid_input,
    centroid_input_centred,
    gram_fro_error,
    gram_orthogonality,
    gram_rms,
    probe_bootstrap,
    random_direction_rms,
    random_router,
    repr_output,
    repr_output_centred,
    representations,
    silhouette,
    silhouette_estimate,
    silhouette_report,
    welch_bound,
)
from tests.references.cases import case


def rng(seed=0):
    return np.random.default_rng(seed)


def test_representation_distances_j01():
    given_, expected = case("J01")
    for name in ("orthogonal", "identical", "simplex_centred", "general"):
        rows = given_[name]
        assert repr_output(rows) == pytest.approx(expected[name]["mean_distance"], abs=1e-9)
        assert gram_rms(rows) == pytest.approx(expected[name]["rms_offdiag"], abs=1e-9)
        assert gram_fro_error(rows) == pytest.approx(expected[name]["gram_fro_error"], abs=1e-9)
    assert repr_output(given_["simplex_centred"]) == pytest.approx(expected["max_mean_distance_for_E4"], abs=1e-9)


def test_a_zero_vector_is_left_out_j03():
    given_, expected = case("J03")
    found = representations(given_["R"])
    assert list(found.excluded) == expected["excluded_zero_norm"] and found.distance == pytest.approx(expected["mean_distance"], abs=1e-9)


def test_references_of_orthogonality():
    """A simplex in E - 1 dimensions attains Welch's bound; random directions have r = 1 / sqrt(d) (J02)."""
    for n in (3, 5, 8):
        simplex = np.eye(n) - 1 / n
        assert gram_rms(simplex) == pytest.approx(welch_bound(n, n - 1), abs=1e-12)
    assert welch_bound(64, 16) == pytest.approx(np.sqrt(48 / (16 * 63))) and welch_bound(16, 64) == 0 and welch_bound(1, 1) == 0
    random = np.mean([gram_rms(rng(s).standard_normal((32, 100))) ** 2 for s in range(10)])
    assert np.sqrt(random) == pytest.approx(random_direction_rms(100), rel=0.03)
    for wrong in (lambda: welch_bound(0, 3), lambda: welch_bound(3, 0), lambda: random_direction_rms(0)):
        with pytest.raises(ValueError, match="at least 1"):
            wrong()


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 8), d=st.integers(1, 6), seed=st.integers(0, 999))
def test_bounds_and_invariances(n, d, seed):
    rows = rng(seed).standard_normal((n, d))
    rotation = np.linalg.qr(rng(seed + 1).standard_normal((d, d)))[0]
    order, scale = rng(seed + 2).permutation(n), rng(seed + 3).uniform(0.1, 9, (n, 1))
    for function in (repr_output, gram_rms, gram_orthogonality, gram_fro_error, centroid_input):
        value = float(function(rows))
        for changed in (rows @ rotation, rows[order], rows * scale):
            assert float(function(changed)) == pytest.approx(value, abs=1e-9)
    assert 0 <= repr_output(rows) <= n / (n - 1) + 1e-12 and welch_bound(n, d) - 1e-9 <= gram_rms(rows) <= 1
    centred = float(repr_output_centred(rows))
    for changed in (rows @ rotation, rows[order], rows + rng(seed).standard_normal(d), 3 * rows):
        assert float(repr_output_centred(changed)) == pytest.approx(centred, abs=1e-6, nan_ok=True)


def test_sklearn_agrees_and_a_batch_is_its_members():
    from sklearn.metrics.pairwise import cosine_distances

    rows = rng().standard_normal((3, 6, 4))
    rows[1, 2] = 0
    for member, value in zip(rows, repr_output(rows)):
        used = member[(member != 0).any(axis=1)]
        n = len(used)
        assert value == pytest.approx(cosine_distances(used).sum() / (n * (n - 1)), abs=1e-12)
    assert repr_output_centred(rows) == pytest.approx([float(repr_output_centred(member)) for member in rows], abs=1e-12)


def test_anisotropy_hides_a_simplex_and_centring_shows_it():
    rows = np.eye(5) + 100.0
    assert repr_output(rows) < 1e-3 and repr_output_centred(rows) == pytest.approx(5 / 4, abs=1e-9)


def test_what_has_no_direction_is_undefined():
    for rows in ([[1, 2]], [[1, 0], [0, 0]], np.zeros((3, 2))):
        with np.errstate(all="raise"):
            assert np.isnan(repr_output(rows)) and np.isnan(gram_rms(rows)) and np.isnan(gram_fro_error(rows))
        assert "fewer than two" in representations(rows).reason
    assert np.isnan(repr_output_centred(np.full((3, 4), 0.1)))  # identical: nothing but rounding is left
    assert repr_output([[1e-300, 0], [0, 1e300]]) == 1  # norms neither vanish nor overflow
    with pytest.raises(ValueError, match="finite"):
        representations([[np.nan, 1], [1, 1]])


def test_centroids_are_means_and_not_sums():
    """Two experts with many tokens must not pull the centre to themselves."""
    means, counts = rng().standard_normal((4, 3)), np.array([1000, 1, 7, 0])
    means[3] = 0
    assert centroid_input_centred(means * counts[:, None], counts) == pytest.approx(float(repr_output_centred(means)), abs=1e-12)
    assert centroid_input(means * counts[:, None]) == pytest.approx(float(repr_output(means)), abs=1e-12)


def test_silhouette_is_the_mean_of_i02():
    given_, expected = case("I02")
    assert silhouette(given_["X"], given_["labels"]) == pytest.approx(expected["mean"], abs=1e-9)
    report = silhouette_report(given_["X"], given_["labels"], rng(), n_experts=8, draws=3)
    assert report.samples == pytest.approx(expected["samples"], abs=1e-8) and report.singletons == 1 and report.n_clusters == 4


def test_one_cluster_is_undefined_with_its_reason():
    vectors = rng().standard_normal((10, 3))
    assert np.isnan(silhouette(vectors, np.zeros(10, int)))
    report = silhouette_report(vectors, np.zeros(10, int), rng(), n_experts=4)
    assert report.value is None and "two clusters" in report.reason and report.n_clusters == 1
    assert silhouette_estimate(report.samples, np.arange(10), rng()).reason == report.reason
    with pytest.raises(ValueError, match="first choices are 0 to 3"):
        silhouette_report(vectors, np.arange(10), rng(), n_experts=4)


def test_a_random_router_scores_above_permuted_labels():
    """Isotropic noise, E = 4: a linear router's silhouette is above 0, permuted labels are not (metrics specification 2.5)."""
    vectors = rng().standard_normal((1500, 8))
    labels = random_router(vectors, 4, rng(1))
    report = silhouette_report(vectors, labels, rng(2), n_experts=4, draws=5)
    assert report.value > 0.03 and -0.02 < report.permuted < 0 and report.excess == pytest.approx(report.value - report.permuted)
    assert abs(report.above_hyperplane) < 0.03


def test_real_clusters_stand_above_both_references():
    centres = np.eye(4) * 6
    labels = rng().integers(0, 4, 400)
    labels[:10] = -1
    vectors = centres[labels] + rng(1).standard_normal((400, 4))
    report = silhouette_report(vectors, labels, rng(2), n_experts=4, draws=5)
    assert report.excess > 0.5 and report.above_hyperplane > 0.1 and np.isnan(report.samples[:10]).all()


def test_interval_is_that_of_documents():
    generator = rng()
    document = np.repeat(np.arange(50), 40)
    samples = np.repeat(generator.normal(0.2, 0.1, 50), 40) + generator.normal(0, 0.01, 2000)
    found = silhouette_estimate(samples, document, rng(), replicates=500)
    assert found.low < found.value < found.high and found.se == pytest.approx(0.1 / np.sqrt(50), rel=0.3)
    shuffled = generator.permutation(2000)
    again = silhouette_estimate(samples[shuffled], document[shuffled], rng(), replicates=500)
    assert (again.low, again.high) == pytest.approx((found.low, found.high), abs=1e-12)
    alone = silhouette_estimate(samples[:40], document[:40], rng())
    assert alone.value is not None and alone.low is None


def test_probe_documents_are_resampled():
    sums = rng().standard_normal((40, 5, 8)) + 3 * rng(1).standard_normal((5, 8))
    found = probe_bootstrap(sums, gram_rms, rng(), replicates=200)
    assert found.plug_in == pytest.approx(float(gram_rms(sums.sum(axis=0)))) and found.low < found.plug_in < found.high and found.n_units == 40
    geometry_bytes = geometry.WEIGHT_BYTES
    try:
        geometry.WEIGHT_BYTES = 1
        assert probe_bootstrap(sums, gram_rms, rng(), replicates=200).low == pytest.approx(found.low, abs=1e-12)
    finally:
        geometry.WEIGHT_BYTES = geometry_bytes
    assert probe_bootstrap(sums[:1], gram_rms, rng()).low is None
    assert "fewer than two" in probe_bootstrap(np.zeros((4, 3, 2)), gram_rms, rng()).reason


def test_permuted_labels_match_the_kernel():
    vectors, labels = rng().standard_normal((60, 3)), rng(1).integers(0, 3, 60)
    assert silhouette(vectors, labels) == pytest.approx(silhouette_samples(vectors, labels, "cosine").mean())
