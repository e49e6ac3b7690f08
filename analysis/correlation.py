"""Correlations of a handful of pairs, by exact enumeration: few values, and ordered pairs of few domains (quadratic assignment).

D domain, R permutation of domain labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float
from analysis.gates import UNTESTABLE
from analysis.kernels import Int
from analysis.metrics.frequency import midranks
from analysis.resampling import normal_quantile, t_quantile

MOST_ENUMERATED = 8  # domains: 40,320 orders
PAIR_FLOOR = 30  # independent pairs, as documents for an interval (metrics specification 7)


@dataclass(frozen=True)
class SmallCorrelation:
    """Pearson and Spearman of few pairs, with the exact one-sided permutation p of Spearman."""

    pearson: float
    spearman: float
    p_one_sided: float


def small_correlation(x: ArrayLike, y: ArrayLike) -> SmallCorrelation:
    """Correlation of at most 9 pairs with p over all n! orders (metrics specification 2.1); ValueError outside 3..9 or constant sides."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not 3 <= len(a) <= 9 or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values: exact permutation needs 3 to 9 pairs")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is NaN or infinite: leave out pairs where either side is undefined")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise ValueError("a constant side has no correlation")
    ranks_a, ranks_b = midranks(a), midranks(b)
    centred = ranks_a - ranks_a.mean()
    orders = np.array(list(permutations(range(len(a)))))
    null = ranks_b[orders] @ centred
    observed = ranks_b @ centred
    return SmallCorrelation(float(np.corrcoef(a, b)[0, 1]), float(np.corrcoef(ranks_a, ranks_b)[0, 1]),
                            float(np.mean(null >= observed - 1e-9)))


def pearson_interval(r: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Fisher interval tanh(atanh r +- z / sqrt(n - 3)) of a Pearson r of n independent pairs; ValueError for n < 4 or |r| = 1."""
    if n < 4 or not abs(r) < 1:
        raise ValueError(f"r = {r} of {n} pairs: Fisher's interval needs |r| < 1 and at least 4 pairs")
    half = normal_quantile(level) / (n - 3) ** 0.5
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def pearson_for_lower_bound(bound: float, n: int, *, level: float = 0.95) -> float:
    """The r of n pairs whose Fisher interval begins at `bound`: tanh(atanh bound + z / sqrt(n - 3)); .9692 for .8 and 7 pairs."""
    if n < 4 or not abs(bound) < 1:
        raise ValueError(f"bound {bound} with {n} pairs: Fisher's interval needs |bound| < 1 and at least 4 pairs")
    return float(np.tanh(np.arctanh(bound) + normal_quantile(level) / (n - 3) ** 0.5))


def critical_pearson(n: int, *, alpha: float = 0.05) -> float:
    """Least |r| of n pairs with two-sided p <= alpha: t / sqrt(t^2 + n - 2), t of n - 2 degrees of freedom; .754 for 7 pairs."""
    if n < 3:
        raise ValueError(f"{n} pairs: a correlation needs at least 3")
    t = t_quantile(1 - alpha, n - 2)
    return float(t / (t * t + n - 2) ** 0.5)


@dataclass(frozen=True)
class PairCorrelation:
    """Correlation of two matrices over ordered pairs of domains.

    pearson with its Fisher interval (low, high), which takes the pairs for independent; spearman with exact p over permutations of domain
    labels; needed: the Pearson r whose interval would begin at the threshold. Undefined numbers are None with `reason`; gate: why a
    verdict may at best be inconclusive.
    """

    pearson: float | None
    low: float | None
    high: float | None
    spearman: float | None
    p_one_sided: float | None
    p_two_sided: float | None
    needed: float | None
    n_pairs: int
    n_domains: int
    n_orders: int
    reason: str | None = None
    gate: str | None = None


def mi_vs_retention(information_DD: ArrayLike, retention_DD: ArrayLike, *, threshold: float = 0.8, level: float = 0.95) -> PairCorrelation:
    """Spearman of T(A->B) and R(A->B) over ordered pairs, p by permuting domain labels (rows and columns of T together).

    information_DD: complete off its diagonal; retention_DD: NaN where a pair has none (7 of 30 pairs, say). Diagonals are not read. Every
    order of up to 8 domains is enumerated. Pairs share domains, so the Fisher interval is too narrow, and the verdict is gated unless
    each domain is in one pair only and there are 30 of them. ValueError for unlike or non-square matrices, a hole in information_DD, or
    more than 8 domains.
    """
    information, retention = np.asarray(information_DD, np.float64), np.asarray(retention_DD, np.float64)
    n_domains = len(information)
    if information.shape != (n_domains, n_domains) or retention.shape != information.shape or not 2 <= n_domains <= MOST_ENUMERATED:
        raise ValueError(f"matrices {information.shape} and {retention.shape}: two square ones of 2 to {MOST_ENUMERATED} domains are needed")
    off = ~np.eye(n_domains, dtype=bool)
    if not np.isfinite(information[off]).all():
        raise ValueError("information_DD has a hole: labels can only be permuted where T is known for every ordered pair; drop the domain")
    rows, columns = np.nonzero(off & np.isfinite(retention))
    x, y = information[rows, columns], retention[rows, columns]
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        why = f"{len(x)} pairs: at least 4 are needed" if len(x) < 4 else "a constant side has no correlation"
        return PairCorrelation(None, None, None, None, None, None, None, len(x), n_domains, 0, reason=why)
    null = _label_null(information, y, rows, columns)
    pearson, observed = float(np.corrcoef(x, y)[0, 1]), float(null[0])
    low, high = pearson_interval(pearson, len(x), level=level) if abs(pearson) < 1 - 1e-12 else (None, None)
    needed = pearson_for_lower_bound(threshold, len(x), level=level)
    return PairCorrelation(pearson, low, high, observed, float(np.mean(null >= observed - 1e-9)),
                           float(np.mean(np.abs(null) >= abs(observed) - 1e-9)), needed, len(x), n_domains, len(null),
                           gate=_pair_gate(rows, columns, threshold, needed))


def _label_null(information: Float, y: Float, rows: Int, columns: Int) -> Float:
    """Spearman [R] under every order of the labels of `information`, the identity first; 0 where the permuted side is constant."""
    from scipy.stats import rankdata

    orders = np.array(list(permutations(range(len(information)))))
    ranks = rankdata(information[orders[:, rows], orders[:, columns]], axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    other = midranks(y) - midranks(y).mean()
    norm = np.sqrt((ranks**2).sum(axis=1) * (other**2).sum())
    out: Float = np.divide(ranks @ other, norm, out=np.zeros(len(ranks)), where=norm > 0)
    return out


def _pair_gate(rows: Int, columns: Int, threshold: float, needed: float) -> str | None:
    domains = np.concatenate([rows, columns])
    n_pairs, n_domains = len(rows), len(np.unique(domains))
    if n_pairs >= PAIR_FLOOR and n_domains == len(domains):
        return None
    return (f"{UNTESTABLE}: {n_pairs} pairs of {n_domains} domains; a lower bound above {threshold} needs r >= {needed:.3f} even of independent "
            f"pairs, and pairs that share a domain are not; {PAIR_FLOOR} pairs of domains used once would be, and no trace of few domains "
            "has them: this criterion is never supported")
