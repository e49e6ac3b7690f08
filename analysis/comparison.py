"""Comparisons of few units: training seeds, and correlations of a handful of pairs, by exact enumeration.

S seed (or pair).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import ArrayLike

from analysis.kernels import Float
from analysis.metrics.frequency import midranks
from analysis.resampling import Interval, Statistic, delete_group_jackknife, t_quantile

MAX_SIGN_FLIPS = 20


@dataclass(frozen=True)
class SeedComparison:
    """Mean paired difference over training seeds with its Student interval and exact sign-flip p."""

    mean: float
    t: float
    p_t: float
    low: float
    high: float
    p_signflip: float
    min_p_signflip: float


def seed_comparison(differences: ArrayLike, *, level: float = 0.95) -> SeedComparison:
    """Compare two methods by S paired training seeds (metrics specification 4.5); ValueError below 3 seeds or without spread."""
    from scipy.special import stdtr

    d = np.asarray(differences, np.float64)
    if len(d) < 3:
        raise ValueError(f"{len(d)} training seeds: nothing is said of a method below 3; train more seeds")
    if len(d) > MAX_SIGN_FLIPS:
        raise ValueError(f"{len(d)} differences: sign flips are enumerated up to {MAX_SIGN_FLIPS}")
    se = d.std(ddof=1) / len(d) ** 0.5
    if se == 0:
        raise ValueError("all seeds differ by the same amount: no spread between seeds")
    t, half = d.mean() / se, t_quantile(level, len(d) - 1) * se
    flipped = np.array(list(product((1, -1), repeat=len(d)))) @ d
    p = float(np.mean(np.abs(flipped) >= abs(d.sum()) * (1 - 1e-12)))
    return SeedComparison(float(d.mean()), float(t), float(2 * stdtr(len(d) - 1, -abs(t))), float(d.mean() - half), float(d.mean() + half),
                          p, 2.0 ** (1 - len(d)))


def paired_jackknife(sums_a: Float, sums_b: Float, statistic: Statistic, *, unit: str = "document", level: float = 0.95) -> Interval:
    """Difference a - b of two checkpoints on the same documents: one jackknife over the same groups.

    sums_a, sums_b: additive sums [G, C] of the same groups; statistic: sums [R, C] -> [R, M].
    """
    width = sums_a.shape[1]
    return delete_group_jackknife(np.concatenate([sums_a, sums_b], axis=1),
                                  lambda s: statistic(s[:, :width]) - statistic(s[:, width:]), level=level, unit=unit)


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
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise ValueError("a constant side has no correlation")
    ranks_a, ranks_b = midranks(a), midranks(b)
    centred = ranks_a - ranks_a.mean()
    orders = np.array(list(permutations(range(len(a)))))
    null = ranks_b[orders] @ centred
    observed = ranks_b @ centred
    return SmallCorrelation(float(np.corrcoef(a, b)[0, 1]), float(np.corrcoef(ranks_a, ranks_b)[0, 1]),
                            float(np.mean(null >= observed - 1e-9)))
