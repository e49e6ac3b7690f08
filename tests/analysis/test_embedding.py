"""Coordinates for pictures: even samples, uncentred axes with a known answer, refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from analysis.embedding import even_rows, tsne, umap, uncentred_axes


def test_orthonormal_vectors_lie_on_their_axes():
    axes = uncentred_axes(np.diag([3.0, 2.0, 5.0]))
    np.testing.assert_allclose(np.sort(np.abs(axes.points), axis=None), [0] * 6 + [1] * 3, atol=1e-12)
    assert axes.share == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_parallel_vectors_stay_apart_from_the_origin():
    """Centring would put them on it; seed 004's own PCA does."""
    axes = uncentred_axes(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]))
    np.testing.assert_allclose(axes.points[:2, 0], 1.0)
    np.testing.assert_allclose(axes.points[:2, 1:], 0.0, atol=1e-12)
    assert np.isnan(axes.points[2]).all()


@pytest.mark.parametrize("most", [7, 30, 100, 10_000])
def test_tokens_are_taken_evenly_over_documents(most):
    document = np.repeat(np.arange(20), [1, 50] * 10)
    rows = even_rows(document, most)
    assert len(rows) <= max(most, 1)
    assert np.array_equal(rows, np.unique(rows))
    taken = np.bincount(document[rows], minlength=20)
    if 20 <= most < len(document):
        assert taken.min() >= 1
        assert np.ptp(taken[taken > 1]) == 0


def test_tsne_is_the_same_twice_and_keeps_clusters_apart():
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[np.repeat([0, 1], 20)] + 0.05 * rng.standard_normal((40, 8))
    points = tsne(vectors, 3)
    assert np.array_equal(points, tsne(vectors, 3))
    within = np.linalg.norm(points[:20] - points[:20].mean(axis=0), axis=1).mean()
    assert np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0)) > 2 * within


@pytest.mark.parametrize("n", [9, 3001])
def test_too_few_and_too_many_tokens_are_refused(n):
    with pytest.raises(ValueError, match="a picture takes 10 to 3,000"):
        tsne(np.ones((n, 2)), 0)


def test_umap_that_is_not_installed_names_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"moe-assay\[umap\]"):
        umap(np.ones((20, 2)), 0)
