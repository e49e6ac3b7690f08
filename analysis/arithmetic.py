"""Entropy, mutual information and divergence of count tables, in bits, for any number of leading batch axes.

X, Y variable of a joint table. Logarithms in float64 with 0 log 0 = 0; no epsilon anywhere. NaN for a table without counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
LN2 = float(np.log(2.0))


# Each temporary of numpy above 128 KiB is fresh memory from the system, whose page faults cost ten times the arithmetic, until the C
# library has seen one larger block come back: then it keeps blocks up to that size.
_block = np.empty(2**25 - 2**16, np.uint8)
del _block
CELLS_AT_ONCE = 2**18  # of a batch of tables: its temporaries stay in cache


def plogp(p: ArrayLike) -> Float:
    """p log2 p elementwise, 0 at 0; NaN, with numpy's warning, below 0."""
    x = np.asarray(p, np.float64)
    out: Float = np.asarray(np.log2(np.where(x == 0, 1.0, x)))
    out *= x
    return out


def divide(numerator: ArrayLike, denominator: ArrayLike) -> Float:
    """numerator / denominator, NaN where the denominator is 0."""
    bottom = np.asarray(denominator, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Float = np.asarray(np.asarray(numerator, np.float64) / bottom)
    empty = bottom == 0
    return np.where(empty, np.nan, out) if empty.any() else out


def entropy_bits(counts: ArrayLike) -> Float:
    """Plug-in Shannon entropy over the last axis: log2 N - (1/N) sum n log2 n, [0, log2 K]; NaN for no counts."""
    n = np.asarray(counts, np.float64)
    total = n.sum(axis=-1)
    out: Float = np.maximum(divide(plogp(total) - plogp(n).sum(axis=-1), total), 0.0)
    return out


def mutual_information_bits(joint: ArrayLike) -> Float:
    """Plug-in I(X;Y) over the last two axes from counts or probabilities, >= 0; NaN for no counts."""
    n = np.asarray(joint)
    tables = n.reshape(-1, *n.shape[-2:]) if n.size else n
    step = max(1, CELLS_AT_ONCE // max(1, tables[0].size)) if n.size else 1
    if n.ndim > 2 and step < len(tables):
        parts = [mutual_information_bits(tables[i : i + step]) for i in range(0, len(tables), step)]
        return np.concatenate([np.atleast_1d(part) for part in parts]).reshape(n.shape[:-2])
    n = n.astype(np.float64, copy=False)
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
