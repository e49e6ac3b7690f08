"""Silhouette of many long vectors under cosine: exact by cluster sums, beside every pair of rows.

N row, d dimension, C cluster, B row of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.distances import silhouette_samples
from tests.bench.measure import Rival, Workload

TOLERANCE, ROUNDED = 2e-6, 2e-5  # float32 sums of 50,000 similarities


def workload(n_rows: int, few: int, dimension: int = 1_024, n_clusters: int = 64) -> Workload:
    """few: rows of the slice on which every pair is taken."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, n_clusters, n_rows)
    vectors = rng.standard_normal((n_rows, dimension), np.float32)
    vectors += 0.3 * rng.standard_normal((n_clusters, dimension), np.float32)[labels]

    def sklearn() -> Any:
        from sklearn.metrics import silhouette_samples as every_pair

        return every_pair(vectors[:few], labels[:few], metric="cosine")

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    members, sizes = np.eye(n_clusters, dtype=np.float32)[labels], np.bincount(labels, minlength=n_clusters)
    some = min(few, 500)

    def blas() -> Any:
        """The first rows against all rows."""
        own, row = labels[:some], np.arange(some)
        sums = ((1 - unit[:some] @ unit.T) @ members).astype(np.float64)
        a, means = sums[row, own] / (sizes[own] - 1), sums / sizes
        means[row, own] = np.inf
        b = means.min(axis=1)
        return (b - a) / np.maximum(a, b)

    def check() -> str:
        assert np.abs(silhouette_samples(vectors[:few], labels[:few]) - sklearn()).max() < TOLERANCE, "sklearn"
        assert np.abs(silhouette_samples(vectors, labels)[:some] - blas()).max() < ROUNDED, "product"
        return f"within {TOLERANCE:g}: sklearn on the slice, the product on its rows within {ROUNDED:g}"

    return Workload(f"silhouette (cosine), {n_rows:,} x {dimension:,}, {n_clusters} labels", lambda: silhouette_samples(vectors, labels), [
        Rival("sklearn silhouette_samples", sklearn, (few / n_rows) ** 2, f"{few:,} rows, scaled by the square", "naive"),
        Rival("similarities (BLAS), sums by label", blas, some / n_rows, f"{some:,} rows against all, float32, scaled; unit rows ready made")],
        check, n_rows, "rows/s",
        "float32 in, float64 within; one thread each")
