"""Entropy, mutual information and divergence of count tables, in bits, for any number of leading batch axes.

X, Y variable of a joint table. Logarithms in float64 with 0 log 0 = 0; no epsilon anywhere. NaN for a table without counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
LN2 = float(np.log(2.0))


def plogp(p: ArrayLike) -> Float:
    """p log2 p elementwise, 0 at 0."""
    from scipy.special import xlogy

    out: Float = xlogy(np.asarray(p, np.float64), np.asarray(p, np.float64)) / LN2
    return out


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Float:
    """numerator / denominator, NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    out: Float = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return out


def entropy_bits(counts: ArrayLike) -> Float:
    """Plug-in Shannon entropy over the last axis: log2 N - (1/N) sum n log2 n, [0, log2 K]; NaN for no counts."""
    n = np.asarray(counts, np.float64)
    total = n.sum(axis=-1)
    out: Float = np.maximum(divide(plogp(total) - plogp(n).sum(axis=-1), total), 0.0)
    return out


def mutual_information_bits(joint: ArrayLike) -> Float:
    """Plug-in I(X;Y) over the last two axes from counts or probabilities, >= 0; NaN for no counts."""
    n = np.asarray(joint, np.float64)
    total = n.sum(axis=(-2, -1))
    cells = plogp(n).sum(axis=(-2, -1)) + plogp(total)
    margins = plogp(n.sum(axis=-1)).sum(axis=-1) + plogp(n.sum(axis=-2)).sum(axis=-1)
    out: Float = np.maximum(divide(cells - margins, total), 0.0)
    return out


def jensen_shannon_bits(a: ArrayLike, b: ArrayLike) -> Float:
    """Jensen-Shannon divergence (not its root) of two count vectors over the last axis, base 2, [0, 1]; NaN where either is empty."""
    p, q = (divide(x, np.sum(x, axis=-1, keepdims=True)) for x in (a, b))
    out: Float = np.clip((plogp(p) + plogp(q)).sum(axis=-1) / 2 - plogp((p + q) / 2).sum(axis=-1), 0.0, 1.0)
    return out
