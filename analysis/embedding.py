"""Vectors in two or three dimensions, for pictures: t-SNE and UMAP of tokens, uncentred axes of expert directions. Never evidence.

T token, E expert, d dimension, A axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.kernels import Float, Int

MOST_TOKENS = 3_000
LEAST_TOKENS = 10
PERPLEXITY = 30.0
UMAP_REMEDY = "UMAP needs the package umap-learn: pip install 'moe-assay[umap]'; t-SNE is drawn without it"


def tsne(vectors_Td: ArrayLike, seed: int) -> Float:
    """t-SNE of at most 3,000 vectors under cosine distance [T, 2], PCA start (scikit-learn; van der Maaten & Hinton 2008).

    Perplexity 30, or a third of the tokens where there are fewer than 90. ValueError for fewer than 10 vectors, or more than 3,000: choose
    them by document first.
    """
    from sklearn.manifold import TSNE

    rows = _checked(vectors_Td)
    made = TSNE(n_components=2, perplexity=min(PERPLEXITY, len(rows) / 3), metric="cosine", init="random" if rows.shape[1] < 2 else "pca",
                random_state=seed, n_jobs=1)
    return np.asarray(made.fit_transform(rows.astype(np.float32)), np.float64)


def umap(vectors_Td: ArrayLike, seed: int) -> Float:
    """UMAP of at most 3,000 vectors under cosine distance [T, 2] (McInnes, Healy & Melville 2018).

    Raises ModuleNotFoundError with the remedy where umap-learn is not installed; ValueError as tsne.
    """
    from importlib import import_module

    rows = _checked(vectors_Td)
    try:
        module: Any = import_module("umap")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(UMAP_REMEDY) from missing
    made = module.UMAP(n_components=2, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(made.fit_transform(rows.astype(np.float32)), np.float64)


def _checked(vectors_Td: ArrayLike) -> Float:
    rows = np.asarray(vectors_Td, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"vectors_Td has shape {rows.shape}: give one finite vector per token, [T, d]")
    if not LEAST_TOKENS <= len(rows) <= MOST_TOKENS:
        raise ValueError(f"vectors_Td: {len(rows)} tokens; a picture takes {LEAST_TOKENS} to {MOST_TOKENS:,}, choose them evenly over documents")
    return rows


def even_rows(document_T: ArrayLike, most: int = MOST_TOKENS) -> Int:
    """Rows of at most `most` tokens, evenly over documents: each document's rows at even steps, every document's share the same or all it has.

    document_T: number of each row's document, the rows of one together. Returns row numbers, ascending; the same for the same rows.
    """
    document = np.asarray(document_T)
    if len(document) <= most:
        return np.arange(len(document))
    _, first, size = np.unique(document, return_index=True, return_counts=True)
    share = np.searchsorted(np.array([np.minimum(size, n).sum() for n in range(1, int(size.max()) + 1)]), most, side="right")
    if share == 0:  # more documents than tokens wanted
        return np.sort(first)[np.linspace(0, len(first) - 1, most).astype(np.int64)]
    rows = [start + np.unique(np.linspace(0, n - 1, min(n, int(share))).astype(np.int64)) for start, n in zip(first.tolist(), size.tolist())]
    chosen: Int = np.sort(np.concatenate(rows))
    return chosen


@dataclass(frozen=True)
class Axes:
    """Unit vectors on the axes with the largest sums of squares. points: [E, A], NaN for a zero vector; share: of all squares, per axis [A]."""

    points: Float
    share: tuple[float, ...]


def uncentred_axes(vectors_Ed: ArrayLike, n_axes: int = 3) -> Axes:
    """Directions of vectors [E, d] on their first principal axes without centring, so that arrows start at the true origin.

    Singular value decomposition of the unit vectors; each axis is signed so that its largest entry is positive. Axes beyond the rank are 0.
    ValueError for vectors that are not finite.
    """
    rows = np.asarray(vectors_Ed, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"vectors_Ed has shape {rows.shape}: give one finite vector per expert, [E, d]")
    norm = np.linalg.norm(rows, axis=1)
    known = norm > 0
    points, share = np.full((len(rows), n_axes), np.nan), np.zeros(n_axes)
    if known.any():
        u, size, _ = np.linalg.svd(rows[known] / norm[known, None], full_matrices=False)
        found = (u * size)[:, :n_axes]
        largest = np.abs(found).argmax(axis=0)
        found = found * np.where(found[largest, np.arange(found.shape[1])] < 0, -1.0, 1.0)
        placed = np.zeros((int(known.sum()), n_axes))
        placed[:, : found.shape[1]] = found
        points[known] = placed
        share[: found.shape[1]] = (found**2).sum(axis=0) / known.sum()
    return Axes(points, tuple(share.tolist()))
