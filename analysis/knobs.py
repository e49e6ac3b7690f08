"""What a knob of the topology analysis is chosen by, on documents that no verdict rests on: larger is better, None where undefined.

E expert, X, Y expert at two layers, F half of the documents, G group of documents, T token (row), D document.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import LN2, Float
from analysis.clustering import cluster_experts, mean_silhouette
from analysis.kernels import Int
from analysis.metrics.coactivation import coactivation_jaccard
from analysis.metrics.coupling import first_choice_indicators, phi_cross
from analysis.metrics.transfer import FOLDS, cross_entropy_sum, log2_transition

LEAST_EDGES = 5  # edges in either half below which their agreement is that of single edges


def halves(tables_G: ArrayLike) -> NDArray[np.int64]:
    """Sums over the groups of even and of odd number [2, ...]."""
    tables = np.asarray(tables_G)
    return np.stack([tables[half::2].sum(axis=0, dtype=np.int64) for half in (0, 1)])


def held_out_silhouette(tables_FEE: ArrayLike, n_clusters: int) -> float | None:
    """Silhouette, in one half of the documents, of the clusters that were found in the other; mean of both directions, [-1, 1].

    tables_FEE: co-activation of two halves [2, E, E]. Experts without a selection in either half are left out. None where a half has fewer
    experts in use than clusters, or k = 1.
    """
    tables = np.asarray(tables_FEE, np.float64)
    used = (np.diagonal(tables, axis1=1, axis2=2) > 0).all(axis=0)
    found = []
    for here, there in ((0, 1), (1, 0)):
        made = cluster_experts(tables[here], n_clusters)
        labels = np.asarray(made.labels)
        kept = np.flatnonzero(used & (labels >= 0))
        if made.reason or len(np.unique(labels[kept])) < 2:
            return None
        distance = 1 - coactivation_jaccard(tables[there])[np.ix_(kept, kept)]
        np.fill_diagonal(distance, 0.0)
        one = None if np.isnan(distance).any() else mean_silhouette(distance, labels[kept])
        if one is None:
            return None
        found.append(one)
    return float(np.mean(found))


def held_out_transition_bits(joint_GXY: ArrayLike, smoothing: float) -> float | None:
    """Bits per token that q(y|x) smoothed with b gains over its own marginal on held-out documents of the same domain.

    joint_GXY: tables of groups of documents [G, X, Y]; group g is held out in fold g mod 5. Negative where b is so small that unseen
    pairs cost more than seen ones gain. None for one group, or without a token.
    """
    groups = np.asarray(joint_GXY, np.float64)
    n_folds = min(FOLDS, len(groups))
    if n_folds < 2 or not groups.sum():
        return None
    folds = np.stack([groups[fold::n_folds].sum(axis=0) for fold in range(n_folds)])
    training = folds.sum(axis=0) - folds
    column = training.sum(axis=-2)
    marginal = np.log2((column + 0.5) / (column.sum(axis=-1, keepdims=True) + column.shape[-1] / 2))
    lost = cross_entropy_sum(folds, log2_transition(training, smoothing)).sum()
    without = -(folds.sum(axis=-2) * marginal).sum()
    return float((without - lost) / folds.sum())


def edge_agreement(joint_FXY: ArrayLike, cut: float) -> float | None:
    """Cohen's kappa of the edges, phi >= cut or phi <= -cut, that two halves of the documents show, [-1, 1].

    joint_FXY: first choices of two layers [2, X, Y]. Agreement beyond chance, as most pairs of experts are no edge in either half. None
    where a half has fewer than 5 edges, or nothing but edges.
    """
    phi = phi_cross(first_choice_indicators(joint_FXY))
    known = np.isfinite(phi).all(axis=0)
    edges = np.sign(phi[:, known]) * (np.abs(phi[:, known]) >= cut)
    is_edge = edges != 0
    if not known.any() or is_edge.sum(axis=1).min() < LEAST_EDGES or is_edge.all():
        return None
    observed = float((edges[0] == edges[1]).mean())
    chance = float(sum((edges[0] == kind).mean() * (edges[1] == kind).mean() for kind in (-1, 0, 1)))
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def context_counts(first_T: ArrayLike, starts: Int, windows: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often a token's expert was chosen by the `w` tokens before it in its document [W, T], and how many tokens those are [W, T].

    first_T: expert of every row; starts: first row of each document and the end [D + 1].
    """
    first = np.asarray(first_T, np.int64)
    row = np.arange(len(first))
    document = np.searchsorted(starts, row, side="right") - 1
    begin = starts[document]
    order = np.lexsort((row, first, document))
    run = np.flatnonzero(np.r_[True, (np.diff(first[order]) != 0) | (np.diff(document[order]) != 0)]) if len(row) else np.zeros(0, np.int64)
    run_of = np.repeat(np.arange(len(run)), np.diff(np.r_[run, len(row)]))
    spaced = run_of * (2 * len(row) + 1) + row[order]  # ascending, and runs too far apart for a window to reach another
    place = np.arange(len(row))
    seen, back = np.zeros((2, len(windows), len(row)), np.int64)
    for number, window in enumerate(windows):
        least = run_of * (2 * len(row) + 1) + np.maximum(row[order] - window, begin[order])
        seen[number, order] = place - np.searchsorted(spaced, least, side="left")
        back[number] = np.minimum(row - begin, window)
    return seen, back


def context_bits(counted: tuple[ArrayLike, ArrayLike], marginal_T: ArrayLike, weight: float) -> float | None:
    """Bits per token that a layer's own choices of the last tokens gain over its marginal; weight: tokens that the marginal counts for.

    counted: rows of context_counts for one window, seen [T] and back [T]; marginal_T: probability of each token's expert in other documents.
    q = (seen + weight m) / (back + weight) sums to 1 over experts (a cache model, Kuhn and De Mori 1990). None without a token.
    """
    seen, back = (np.asarray(one, np.float64) for one in counted)
    if not len(seen):
        return None
    m: Float = np.asarray(marginal_T, np.float64)
    return float(np.log((seen + weight * m) / ((back + weight) * m)).mean() / LN2)


def marginal_of_others(first_T: ArrayLike, starts: Int, n_experts: int) -> Float:
    """Probability of each row's expert in the documents of the other half (even against odd places), with half a count for each expert [T]."""
    first = np.asarray(first_T, np.int64)
    half = (np.searchsorted(starts, np.arange(len(first)), side="right") - 1) % 2
    counts = np.stack([np.bincount(first[half == one], minlength=n_experts) for one in (0, 1)]) + 0.5
    share = counts / counts.sum(axis=1, keepdims=True)
    out: Float = share[1 - half, first]
    return out
