"""Silhouette of labelled vectors: exact from cluster sums where the distance allows it, from blocks of distances where not.

N row (token), d dimension, C cluster (distinct label), B row of a block. Everything is computed in float64 whatever comes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Distance = Literal["cosine", "sqeuclidean", "euclidean"]

BLOCK_VALUES = 2**17  # float64 values of a block of rows: 1 MiB stays in the second-level cache
TILE = 1_024  # rows and columns of a tile of distances
EXACT_ROWS = 20_000  # rows up to which every pair's Euclidean distance is computed (metrics specification 2.5, B.3)
ROUNDING = 1e-14  # mean distances below this share of the vectors' size are rounding and count as 0
NEAR = 1e-4  # squared distances below this share of the squared norms are computed again from differences: the product cancels


def silhouette_samples(vectors: ArrayLike, labels: ArrayLike, metric: Distance = "cosine") -> Float:
    """s = (b - a) / max(a, b), a the mean distance to the rest of the own cluster, b the least mean distance to another cluster.

    vectors: [N, d] reals; labels: [N] integers, gaps allowed, -1 where a row has no cluster (slot dropped). [N] in [-1, 1]: 0 for a
    cluster of one row and where a = b = 0; NaN for label -1, for a zero vector under cosine (it has no direction, and counts in no
    cluster), and everywhere with fewer than two clusters. Cosine and squared Euclidean take O(N C d) by cluster sums; Euclidean takes
    every pair, up to EXACT_ROWS rows. ValueError for other shapes, values that are not finite, or too many rows for Euclidean.
    Source: Rousseeuw 1987; metrics specification 2.5, B.3.
    """
    rows, label = _checked(vectors, labels, metric)
    kept = _kept(rows, label, metric)
    out = np.full(len(rows), np.nan)
    if len(kept) == 0:
        return out
    clusters, cluster = np.unique(label[kept], return_inverse=True)
    if len(clusters) < 2:
        return out
    sizes = np.bincount(cluster)
    if metric == "euclidean":
        if len(kept) > EXACT_ROWS:
            raise ValueError(f"vectors: {len(kept)} rows, but Euclidean silhouettes are exact up to {EXACT_ROWS}; "
                             "take subsampled_silhouette, or metric='cosine', which is exact for any number")
        out[kept] = _every_pair(_Rows.of(rows, kept, metric), cluster, sizes)
    else:
        out[kept] = _by_cluster_sums(_Rows.of(rows, kept, metric), cluster, sizes)
    return out


@dataclass(frozen=True)
class SubsampledSilhouette:
    """Silhouettes of sampled rows, each against all rows.

    mean: stratified estimate of the mean over all rows with a label; standard_error: of the sampling of rows only, not of documents.
    Both None with `reason` where undefined.
    """

    rows: Int
    samples: Float
    mean: float | None
    standard_error: float | None
    reason: str | None = None


def subsampled_silhouette(
    vectors: ArrayLike, labels: ArrayLike, documents: ArrayLike, n_rows: int, rng: np.random.Generator
) -> SubsampledSilhouette:
    """Mean Euclidean silhouette estimated from about n_rows rows, each against every row, two drawn from each stratum.

    documents: [N] document of each row; strata are runs of rows in document order, of equal length. The estimate is unbiased, and so is
    the square of its standard error; with n_rows >= N every row is taken and the error is 0. ValueError for n_rows < 4.
    """
    rows, label = _checked(vectors, labels, "euclidean")
    if n_rows < 4:
        raise ValueError(f"n_rows: {n_rows}; two strata of two rows are the least that show a sampling error")
    document = np.asarray(documents)
    if document.shape != label.shape:
        raise ValueError(f"documents: shape {document.shape}, but there are {len(label)} rows")
    kept = _kept(rows, label, "euclidean")
    clusters, cluster = np.unique(label[kept], return_inverse=True)
    if len(clusters) < 2:
        return SubsampledSilhouette(np.zeros(0, np.int64), np.zeros(0), None, None, "no_data: fewer than two clusters")
    order = np.argsort(document[kept], kind="stable")
    n_strata = min(n_rows // 2, len(order) // 2) if n_rows < len(order) else len(order)
    edges = np.linspace(0, len(order), n_strata + 1).round().astype(np.int64)
    drawn = [order[a:b] if b - a <= 2 else order[rng.choice(np.arange(a, b), 2, replace=False)] for a, b in zip(edges[:-1], edges[1:])]
    chosen = np.concatenate(drawn)
    samples = _against_all(_Rows.of(rows, kept, "euclidean"), cluster, np.bincount(cluster), chosen)
    means, variance, start = 0.0, 0.0, 0
    for part, size in zip(drawn, np.diff(edges)):
        values, share = samples[start : start + len(part)], size / len(order)
        start += len(part)
        means += share * float(values.mean())
        if len(part) < size:
            variance += share**2 * float(values.var(ddof=1)) / len(part) * (1 - len(part) / size)
    return SubsampledSilhouette(kept[chosen], samples, means, float(np.sqrt(variance)))


def _checked(vectors: ArrayLike, labels: ArrayLike, metric: str) -> tuple[NDArray[Any], Int]:
    rows, label = np.asarray(vectors), np.asarray(labels)
    if metric not in get_args(Distance):
        raise ValueError(f"metric: {metric!r}; there are {', '.join(get_args(Distance))}")
    if rows.ndim != 2 or label.shape != rows.shape[:1]:
        raise ValueError(f"vectors: shape {rows.shape} with labels of shape {label.shape}; they are [N, d] and [N]")
    if label.size and not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"labels: {label.dtype}; labels are integers, -1 where a row has none")
    if label.size and int(label.min()) < -1:
        raise ValueError(f"labels: {int(label.min())} at row {int(label.argmin())}; labels count from 0, -1 where a row has none")
    return rows, label.astype(np.int64)


def _blocks(n_rows: int, width: int) -> Iterator[slice]:
    step = max(64, BLOCK_VALUES // max(width, 1))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def _kept(rows: NDArray[Any], label: Int, metric: str) -> Int:
    """Rows that count: with a label, and a direction where the metric needs one."""
    counted = label >= 0
    for part in _blocks(*rows.shape):
        largest = np.maximum(rows[part].max(axis=1, initial=0), -rows[part].min(axis=1, initial=0))
        if not np.isfinite(largest).all():
            row = part.start + int(np.flatnonzero(~np.isfinite(largest))[0])
            raise ValueError(f"vectors: a value at row {row} is not finite; leave the row out, or collect it again")
        if metric == "cosine":
            counted[part] &= largest > 0
    return np.flatnonzero(counted)


@dataclass(frozen=True)
class _Rows:
    """Rows in float64, moved and scaled as the silhouette allows.

    Unit vectors for cosine, which is half their squared distance; else less their mean over their largest value, so that squared
    distances neither cancel more than they must nor overflow.
    """

    rows: NDArray[Any]
    kept: Int
    unit: bool
    scale: float = 1.0
    mean: Float | None = None

    @classmethod
    def of(cls, rows: NDArray[Any], kept: Int, metric: str) -> _Rows:
        if metric == "cosine":
            return cls(rows, kept, True)
        largest = max(float(np.abs(rows[kept[part]].astype(np.float64)).max(initial=0)) for part in _blocks(len(kept), rows.shape[1]))
        scaled = cls(rows, kept, False, largest or 1.0)
        total = sum((scaled.block(part)[0].sum(axis=0) for part in scaled.parts()), np.zeros(rows.shape[1]))
        return cls(rows, kept, False, largest or 1.0, total / len(kept))

    def parts(self) -> Iterator[slice]:
        return _blocks(len(self.kept), self.rows.shape[1])

    def block(self, part: slice | Int) -> tuple[Float, Float]:
        """Vectors [B, d] and their squared norms [B]."""
        x = self.rows[self.kept[part]].astype(np.float64)
        if not self.unit:
            x /= self.scale
            if self.mean is not None:
                x -= self.mean
            return x, np.einsum("bd,bd->b", x, x)
        squares = np.einsum("bd,bd->b", x, x)
        odd = ~((squares > 1e-200) & (squares < 1e200))
        if odd.any():
            x[odd] /= np.abs(x[odd]).max(axis=1, keepdims=True)
            squares[odd] = np.einsum("bd,bd->b", x[odd], x[odd])
        x /= np.sqrt(squares)[:, None]
        return x, np.ones(len(x))


def _by_cluster_sums(rows: _Rows, cluster: Int, sizes: Int) -> Float:
    """Silhouettes from sum_j |x - y_j|^2 = n |x|^2 - 2 x . sum y + sum |y|^2."""
    from scipy.sparse import csr_matrix

    sums, squares_C = np.zeros((len(sizes), rows.rows.shape[1])), np.zeros(len(sizes))
    for part in rows.parts():
        x, squares = rows.block(part)
        members = csr_matrix((np.ones(len(x)), cluster[part], np.arange(len(x) + 1)), (len(x), len(sizes)))
        sums += members.T @ x
        squares_C += np.bincount(cluster[part], squares, len(sizes))
    out = np.empty(len(cluster))
    for part in rows.parts():
        x, squares = rows.block(part)
        summed = sizes * squares[:, None] - 2 * (x @ sums.T) + squares_C
        rounding = ROUNDING * (squares[:, None] * sizes + squares_C)
        summed[summed < rounding] = 0
        out[part] = _silhouettes(summed, cluster[part], sizes)
    return out


def _silhouettes(summed: Float, cluster: Int, sizes: Int) -> Float:
    """From the sums of distances to every cluster [B, C], the row itself among its own at distance 0."""
    row = np.arange(len(cluster))
    own = sizes[cluster]
    a = summed[row, cluster] / np.maximum(own - 1, 1)
    means = summed / sizes
    means[row, cluster] = np.inf
    b = means.min(axis=1)
    larger = np.maximum(a, b)
    out: Float = np.divide(b - a, larger, out=np.zeros(len(row)), where=(larger > 0) & (own > 1))
    return out


def _distances(x: Float, squares: Float, y: Float, squares_y: Float) -> Float:
    """Euclidean distances [B, N]; pairs so near that the product cancels are computed from their differences."""
    size = squares[:, None] + squares_y
    squared = size - 2 * (x @ y.T)
    near = np.nonzero(squared < NEAR * size)
    step = max(1, BLOCK_VALUES // max(x.shape[1], 1))
    for start in range(0, len(near[0]), step):
        i, j = (side[start : start + step] for side in near)
        difference = x[i] - y[j]
        squared[i, j] = np.einsum("pd,pd->p", difference, difference)
    return np.sqrt(squared, out=squared)


def _every_pair(rows: _Rows, cluster: Int, sizes: Int) -> Float:
    """Euclidean silhouettes of every row, each pair of rows computed once, rows in order of their cluster."""
    order = np.argsort(cluster, kind="stable")
    ordered, summed = cluster[order], np.zeros((len(cluster), len(sizes)))
    x, squares = rows.block(order)
    tiles = [slice(start, min(start + TILE, len(order))) for start in range(0, len(order), TILE)]
    for place, here in enumerate(tiles):
        for there in tiles[place:]:
            distances = _distances(x[here], squares[here], x[there], squares[there])
            _add_runs(summed[here], distances, ordered[there])
            if there != here:
                _add_runs(summed[there], np.ascontiguousarray(distances.T), ordered[here])
    out = np.empty(len(cluster))
    out[order] = _silhouettes(summed, ordered, sizes)
    return out


def _against_all(rows: _Rows, cluster: Int, sizes: Int, chosen: Int) -> Float:
    """Euclidean silhouettes of the chosen rows only."""
    order = np.argsort(cluster, kind="stable")
    summed = np.zeros((len(chosen), len(sizes)))
    x, squares = rows.block(chosen)
    for start in range(0, len(order), TILE):
        there = order[start : start + TILE]
        _add_runs(summed, _distances(x, squares, *rows.block(there)), cluster[there])
    return _silhouettes(summed, cluster[chosen], sizes)


def _add_runs(summed: Float, distances: Float, ordered: Int) -> None:
    """Add distances [B, N] to the sums of the clusters that the columns, in order of cluster, belong to."""
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    summed[:, ordered[starts]] += np.add.reduceat(distances, starts, axis=1)
