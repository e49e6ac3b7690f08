"""Rank-frequency description of a corpus: a property of the text, never a criterion on routing (metrics specification 2.4).

V token type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import divide
from analysis.kernels import Float, Int
from analysis.registry import metric

TOP = 1000  # types of seed 003's "Top 1000 coverage"
SOURCE = "seed 003; metrics specification 2.4"
FEW = "fewer than 3 types, or counts that do not differ"


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


def exponent(counts: ArrayLike, support: int | None = None) -> float:
    """Maximum-likelihood exponent s of p(r) ~ r^-s on the finite support of the V observed ranks; 0 for constant counts.

    support: number of ranks that could occur, by default those observed; ValueError below them.
    """
    from scipy.optimize import brentq

    n = ranked(counts)
    if len(n) < 2:
        raise ValueError("an exponent needs at least 2 types")
    if support is not None and support < len(n):
        raise ValueError(f"support={support}: {len(n)} types occur; give at least as many ranks")
    log_rank = np.log(np.arange(1, (support or len(n)) + 1))
    target = float(n @ log_rank[: len(n)] / n.sum())

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


@metric("zipf_r2", unit="R^2", bounds=(0.0, 1.0), undefined=FEW, source=SOURCE, takes=("counts_V",), additive=False, seed="Zipf R^2", seed_form=True)
def zipf_r2(counts_V: ArrayLike) -> float:
    """Seed 003's Zipf R^2: of the least-squares line of log count on log rank, [0, 1]; NaN for constant counts.

    Ranks are sorted, so that it is high by construction (a geometric law scores 0.83), and it describes the corpus, not the routing.
    """
    try:
        return log_log_fit(counts_V).r2
    except ValueError:
        return float("nan")


@metric("zipf_exponent", unit="exponent", bounds=(0.0, None), undefined="fewer than 2 types", source=SOURCE, takes=("counts_V",), additive=False)
def zipf_exponent(counts_V: ArrayLike) -> float:
    """Maximum-likelihood exponent of p(r) ~ r^-s, r = 1..V of the observed types, s >= 0: `exponent`, NaN for fewer than 2 types."""
    return exponent(counts_V) if len(ranked(counts_V)) > 1 else float("nan")


@metric("zipf_ks", unit="distance", bounds=(0.0, 1.0), undefined="fewer than 2 types", source=SOURCE, takes=("counts_V",), additive=False)
def zipf_ks(counts_V: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance of the observed and the fitted cumulative share over ranks, [0, 1]; NaN for fewer than 2 types."""
    s = zipf_exponent(counts_V)
    return s if np.isnan(s) else kolmogorov_smirnov(counts_V, s)


def top_m_types(counts_V: ArrayLike, m: int = TOP) -> Int:
    """Ids of the m most frequent types that occur, order (-count, id); fewer where fewer occur."""
    counts = np.asarray(counts_V)
    if m < 0 or counts.ndim != 1:
        raise ValueError(f"m={m} of counts of shape {counts.shape}: give m from 0 and one count per type")
    order = np.argsort(-counts.astype(np.float64), kind="stable")[:m]
    return order[counts[order] > 0].astype(np.int64)


@metric("top_m_coverage", unit="share of occurrences", bounds=(0.0, 1.0), undefined="no_data: no occurrences", source=SOURCE,
        takes=("counts_V",), additive=False, seed="Top 1000 coverage")
def top_m_coverage(counts_V: ArrayLike, m: int = TOP, held_out_V: ArrayLike | None = None) -> float:
    """Share of occurrences in the m most frequent types, ties by id, [0, 1].

    held_out_V: counts of other documents, on which the share is taken; by default the counts that choose the types.
    """
    scored = np.asarray(counts_V if held_out_V is None else held_out_V, np.float64)
    if scored.shape != np.shape(counts_V):
        raise ValueError(f"held_out_V has shape {scored.shape}, counts_V {np.shape(counts_V)}: give one count per type of the same vocabulary")
    return float(divide(scored[top_m_types(counts_V, m)].sum(), scored.sum()))
