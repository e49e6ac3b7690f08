"""Rank correlation over token types: Spearman, its partial form, and batched versions for replicates.

B replicate, m type, L layer. A type that a replicate does not hold is masked there and drops out of its ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.gates import NO_DATA
from analysis.kernels import Float
from analysis.registry import metric

Mask = NDArray[np.bool_]
MIN_COUNT = 50  # occurrences of a type below which its mean entropy is noise (metrics specification 2.4)


def midranks(values: Float) -> Float:
    """Ranks 1..m along the last axis, ties sharing their mean rank; NaN ranks last."""
    m = values.shape[-1]
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    new = np.ones(ordered.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=ordered.size)
    ranks = np.empty(ordered.shape)
    shared = np.repeat(starts % max(m, 1) + (lengths + 1) / 2, lengths)
    np.put_along_axis(ranks, order, shared.reshape(ordered.shape), axis=-1)
    return ranks


def spearman(x: Float, y: Float, mask: Mask | None = None) -> Float:
    """Spearman's rho along the last axis with mid-ranks; NaN with fewer than 3 types or a constant side."""
    mask = np.isfinite(x) & np.isfinite(y) if mask is None else mask
    return correlate(midranks(np.where(mask, x, np.nan)), midranks(np.where(mask, y, np.nan)), mask)


def spearman_layers(x: Float, y: Float) -> Float:
    """spearman of x [b, m] and each layer of y [L, b, m], the same bits [b, L]; x is ranked once where all layers hold the same types."""
    mask = np.isfinite(x) & np.isfinite(y[0])
    if not all(np.array_equal(mask, np.isfinite(x) & np.isfinite(layer)) for layer in y[1:]):
        return np.stack([spearman(x, layer) for layer in y], axis=-1)
    constant = x.strides[0] == 0 and bool((mask == mask[:1]).all())  # null draws share their frequencies
    ranks = midranks(np.where(mask, x, np.nan)[:1] if constant else np.where(mask, x, np.nan))
    return np.stack([correlate(ranks, midranks(np.where(mask, layer, np.nan)), mask) for layer in y], axis=-1)


def correlate(x: Float, y: Float, mask: Mask) -> Float:
    """Pearson correlation along the last axis over masked-in entries; NaN with fewer than 3 or a constant side."""
    n = mask.sum(axis=-1)
    kept = mask.astype(np.float64)
    count = np.maximum(n, 1)[..., None]
    dx = (x - (x * kept).sum(axis=-1, keepdims=True) / count) * kept
    dy = (y - (y * kept).sum(axis=-1, keepdims=True) / count) * kept
    scale = np.sqrt((dx * dx).sum(axis=-1) * (dy * dy).sum(axis=-1))
    usable = (n >= 3) & (scale > 0)
    rho: Float = np.divide((dx * dy).sum(axis=-1), scale, out=np.full(scale.shape, np.nan), where=usable)
    return np.clip(rho, -1, 1)


def residuals(y: Float, given: Float) -> Float:
    """y [..., m] minus its least-squares fit on an intercept and the rows of `given` [c, m]."""
    design = np.vstack([np.ones(given.shape[-1]), given]).T
    left, scale, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, scale > scale[0] * 1e-10]
    fitted: Float = y - (y @ basis) @ basis.T
    return fitted


def partial_spearman(x: Float, y: Float, given: Float, mask: Mask) -> Float:
    """Spearman of x [m] and y [L, m] given covariates [c, m] (already ranks or dummies), over the types of `mask` [m].

    NaN with fewer than 3 types, or where the covariates leave nothing of a side.
    """
    if mask.sum() < 3:
        return np.full(len(y), np.nan)
    ranks = midranks(np.vstack([x, y])[:, mask])
    left = residuals(ranks, given[:, mask])
    spread = (left**2).sum(axis=1) > 1e-9 * ((ranks - ranks.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    left = np.where(spread[:, None], left, 0)
    return correlate(np.broadcast_to(left[0], left[1:].shape), left[1:], np.ones(left[1:].shape, bool))


def spearman_p(rho: float, n_types: int) -> float | None:
    """Two-sided p of rho by the t approximation, as scipy.stats.spearmanr gives it; it accompanies, never decides."""
    from scipy.special import stdtr

    if n_types < 3 or not math.isfinite(rho):
        return None
    if abs(rho) >= 1:
        return 0.0
    t = rho * math.sqrt((n_types - 2) / (1 - rho**2))
    return float(2 * stdtr(n_types - 2, -abs(t)))


@dataclass(frozen=True)
class FrequencyEntropy:
    """Rank correlation over the n_types types that reach the floor, and its p, which accompanies and never decides.

    rho None with `reason` where undefined; n_types is printed beside every p.
    """

    rho: float | None
    p: float | None
    n_types: int
    reason: str | None = None


def frequency_entropy(counts_V: ArrayLike, entropy_V: ArrayLike, min_count: int = MIN_COUNT,
                      frequency_V: ArrayLike | None = None) -> FrequencyEntropy:
    """Spearman's rho of frequency and mean entropy over types with at least min_count occurrences.

    counts_V: occurrences behind the entropies; entropy_V: mean routing entropy, NaN where the type was not seen; frequency_V: counts from
    other documents (by default the same: then few tokens make both).
    """
    counts, entropy = np.asarray(counts_V, np.float64), np.asarray(entropy_V, np.float64)
    frequency = counts if frequency_V is None else np.asarray(frequency_V, np.float64)
    if counts.ndim != 1 or not counts.shape == entropy.shape == frequency.shape:
        raise ValueError(f"counts_V {counts.shape}, entropy_V {entropy.shape}, frequency_V {frequency.shape}: give one number of each per type")
    kept = (counts >= min_count) & np.isfinite(entropy) & np.isfinite(frequency) & (counts > 0)
    n = int(kept.sum())
    rho = float(spearman(frequency, entropy, kept))
    if np.isnan(rho):
        reason = f"{NO_DATA}: {n} types with {min_count} occurrences, 3 needed" if n < 3 else "one side is constant: its ranks do not vary"
        return FrequencyEntropy(None, None, n, reason)
    return FrequencyEntropy(rho, spearman_p(rho, n), n)


@metric("freq_entropy_rho", unit="rho", bounds=(-1.0, 1.0), undefined="fewer than 3 types reach the floor, or one side is constant",
        source="seed 003; metrics specification 2.4", takes=("counts_V", "entropy_V"), additive=False, estimator="two-way, documents x types",
        invariant=("monotone maps", "type order"), seed="Spearman rho")
def freq_entropy_rho(counts_V: ArrayLike, entropy_V: ArrayLike, min_count: int = MIN_COUNT) -> float:
    """Spearman's rho of frequency and mean routing entropy over types with at least 50 occurrences, mid-ranks, [-1, 1]."""
    rho = frequency_entropy(counts_V, entropy_V, min_count).rho
    return float("nan") if rho is None else rho


@metric("freq_entropy_rho_seed", unit="rho", bounds=(-1.0, 1.0), undefined="fewer than 3 types, or one side is constant", source="seed 003",
        takes=("counts_V", "entropy_V"), additive=False, estimator="none: shown, never judged", seed="Spearman rho", seed_form=True)
def freq_entropy_rho_seed(counts_V: ArrayLike, entropy_V: ArrayLike) -> float:
    """Seed 003's rho: Spearman of frequency and mean entropy over every type seen, [-1, 1].

    The noise of types seen a few times pulls it to 0 (true -0.67, observed -0.39), and p is tiny at any rho with many types.
    """
    return freq_entropy_rho(counts_V, entropy_V, 1)
