"""Rank-frequency description of a corpus: a property of the text, never a criterion on routing (metrics specification 2.4).

V token type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.kernels import Float


@dataclass(frozen=True)
class LogLogFit:
    """Least squares of log count on log rank: slope and R^2 (0.83 for a geometric law, so R^2 proves no power law)."""

    slope: float
    r2: float


def ranked(counts: ArrayLike) -> Float:
    """Positive counts in descending order."""
    values = np.asarray(counts, np.float64)
    return np.sort(values[values > 0])[::-1]


def log_log_fit(counts: ArrayLike) -> LogLogFit:
    """Fit of seed 003; ValueError with fewer than 3 types or constant counts, where R^2 is undefined."""
    y = np.log(ranked(counts))
    if len(y) < 3 or y[0] == y[-1]:
        raise ValueError("a rank-frequency fit needs at least 3 types and counts that differ")
    x = np.log(np.arange(1, len(y) + 1))
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    return LogLogFit(slope, float((dx @ dy) ** 2 / ((dx @ dx) * (dy @ dy))))


def exponent(counts: ArrayLike) -> float:
    """Maximum-likelihood exponent s of p(r) ~ r^-s on the finite support of the V observed ranks; 0 for constant counts."""
    from scipy.optimize import brentq

    n = ranked(counts)
    if len(n) < 2:
        raise ValueError("an exponent needs at least 2 types")
    log_rank = np.log(np.arange(1, len(n) + 1))
    target = float(n @ log_rank / n.sum())

    def excess(s: float) -> float:
        p = np.exp(-s * (log_rank - log_rank[0]))
        return float(p @ log_rank / p.sum()) - target

    low, high = 0.0, 20.0
    if excess(low) <= 0:
        return 0.0
    return float(brentq(excess, low, high, xtol=1e-12, rtol=1e-14)) if excess(high) < 0 else high


def kolmogorov_smirnov(counts: ArrayLike, s: float) -> float:
    """Largest distance between the observed and the fitted cumulative share over ranks, [0, 1]."""
    n = ranked(counts)
    p = np.arange(1, len(n) + 1, dtype=np.float64) ** -s
    return float(np.abs(np.cumsum(n) / n.sum() - np.cumsum(p) / p.sum()).max())


def top_coverage(counts: ArrayLike, m: int) -> float:
    """Share of occurrences in the m most frequent types; order (-count, id); NaN without occurrences."""
    n = ranked(counts)
    return float(n[:m].sum() / n.sum()) if len(n) else float("nan")
