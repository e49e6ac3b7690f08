"""Two checkpoints, two methods: paired documents for the one, training seeds for the other (metrics specification 4.5).

S training seed, G jackknife group. What documents of one pair of checkpoints show is a fact of those checkpoints; of a method only
training seeds speak, and from five on. A change is a difference in the metric's unit, never a percentage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.correlation import SmallCorrelation as SmallCorrelation
from analysis.correlation import small_correlation as small_correlation
from analysis.estimate import Estimate
from analysis.estimation import Groups, Value, interval_estimates, jackknife
from analysis.gates import CONFOUNDED, ONE_DOCUMENT, TOO_FEW_SEEDS, few_documents, gated
from analysis.kernels import Float
from analysis.registry import find
from analysis.resampling import Interval, Statistic, delete_group_jackknife, refuse_tokens, t_quantile

MAX_SIGN_FLIPS = 20
MAX_SPLITS = 200_000  # arrangements enumerated of an unpaired permutation
SEED_FLOOR, SEED_VERDICT_FLOOR = 3, 5
PARAMETER_TOLERANCE = 0.01  # a router's own parameters are not another model size


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

    d = _finite(differences, "differences")
    if len(d) < SEED_FLOOR:
        raise ValueError(f"{len(d)} training seeds: nothing is said of a method below 3; train more seeds")
    if len(d) > MAX_SIGN_FLIPS:
        raise ValueError(f"{len(d)} differences: sign flips are enumerated up to {MAX_SIGN_FLIPS}")
    se = d.std(ddof=1) / len(d) ** 0.5
    if np.ptp(d) == 0:
        raise ValueError("all seeds differ by the same amount: no spread between seeds")
    t, half = d.mean() / se, t_quantile(level, len(d) - 1) * se
    flipped = np.array(list(product((1, -1), repeat=len(d)))) @ d
    p = float(np.mean(np.abs(flipped) >= abs(d.sum()) * (1 - 1e-12)))
    return SeedComparison(float(d.mean()), float(t), float(2 * stdtr(len(d) - 1, -abs(t))), float(d.mean() - half), float(d.mean() + half),
                          p, 2.0 ** (1 - len(d)))


@dataclass(frozen=True)
class UnpairedSeeds:
    """Difference of means a - b over unpaired training seeds: Welch interval and exact permutation p over all splits."""

    difference: float
    low: float
    high: float
    df: float
    p_permutation: float
    min_p_permutation: float


def unpaired_seeds(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> UnpairedSeeds:
    """Compare two methods by unpaired training seeds: mean(a) - mean(b), Welch t interval, permutation p over C(S_a + S_b, S_a) splits.

    The least two-sided p is 2 / C(2 S, S) for equal arms (5 against 5: .008), 1 / C for unequal ones. ValueError below 3 seeds in an arm,
    without spread, or beyond the enumeration.
    """
    from scipy.special import stdtrit

    x, y = _finite(a, "a"), _finite(b, "b")
    if min(len(x), len(y)) < SEED_FLOOR:
        raise ValueError(f"{len(x)} and {len(y)} training seeds: nothing is said of a method below 3 in each arm; train more seeds")
    n_splits = comb(len(x) + len(y), len(x))
    if n_splits > MAX_SPLITS:
        raise ValueError(f"{n_splits} splits: permutations are enumerated up to {MAX_SPLITS}")
    parts = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    if np.ptp(x) == 0 and np.ptp(y) == 0:
        raise ValueError("the seeds of each arm are equal: no spread between seeds")
    df = float(parts.sum() ** 2 / (parts**2 / [len(x) - 1, len(y) - 1]).sum())
    pooled = np.concatenate([x, y])
    chosen = np.array(list(combinations(range(len(pooled)), len(x))))
    means = pooled[chosen].mean(axis=1)
    null = means - (pooled.sum() - means * len(x)) / len(y)
    observed = x.mean() - y.mean()
    half = float(stdtrit(df, 0.5 + level / 2)) * parts.sum() ** 0.5
    p = float(np.mean(np.abs(null) >= abs(observed) * (1 - 1e-12)))
    return UnpairedSeeds(float(observed), float(observed - half), float(observed + half), df, p, (1 + (len(x) == len(y))) / n_splits)


def _finite(values: ArrayLike, name: str) -> Float:
    out = np.atleast_1d(np.asarray(values, np.float64))
    if out.ndim != 1 or not np.isfinite(out).all():
        raise ValueError(f"{name} must be one finite number per training seed; leave out a seed whose metric is undefined, and say so")
    return out


def method_estimate(differences: ArrayLike, *, unit: str, gate: str | None = None, level: float = 0.95) -> Estimate:
    """Level 2, "the method": mean difference over S paired training seeds as an Estimate with its t_{S-1} interval and sign-flip p.

    S < 3: undefined, no number at all; S of 3 or 4: interval, gated so that a verdict is inconclusive; S >= 5: the interval decides.
    gate: a reason that goes first (see confounded). Seeds that all differ by the same amount: undefined, there is no spread to judge by.
    """
    d = _finite(differences, "differences")
    if len(d) < SEED_FLOOR:
        return Estimate.undefined(f"{TOO_FEW_SEEDS}: {len(d)} training seeds, {SEED_FLOOR} needed for a number and {SEED_VERDICT_FLOOR} for a "
                                  "verdict on a method", unit=unit, resampled="seed", n_units=len(d), method="t over training seeds")
    if np.ptp(d) == 0:
        return Estimate.undefined("no spread between training seeds: every seed differs by the same amount", unit=unit, resampled="seed",
                                  n_units=len(d), method="t over training seeds")
    made = seed_comparison(d, level=level) if len(d) <= MAX_SIGN_FLIPS else None
    se = float(d.std(ddof=1) / len(d) ** 0.5)
    mean, half = float(d.mean()), t_quantile(level, len(d) - 1) * se
    estimate = Estimate(mean, mean - half, mean + half, unit, "seed", len(d), "t over training seeds", level, plug_in=mean, se=se,
                        p=made.p_signflip if made else None)
    few = f"{TOO_FEW_SEEDS}: {len(d)} training seeds, {SEED_VERDICT_FLOOR} needed for a verdict on a method"
    return gated(estimate, gate, few if len(d) < SEED_VERDICT_FLOOR else None)


def paired_jackknife(sums_a: Float, sums_b: Float, statistic: Statistic, *, unit: str = "document", level: float = 0.95) -> Interval:
    """Difference a - b of two checkpoints on the same documents: one jackknife over the same groups.

    sums_a, sums_b: additive sums [G, C] of the same groups; statistic: sums [R, C] -> [R, M].
    """
    width = sums_a.shape[1]
    return delete_group_jackknife(np.concatenate([sums_a, sums_b], axis=1),
                                  lambda s: statistic(s[:, :width]) - statistic(s[:, width:]), level=level, unit=unit)


def checkpoint_estimates(name: str, a: Groups, b: Groups, *, value: Value | None = None, gate: str | None = None,
                         level: float = 0.95) -> NDArray[Any]:
    """Level 1, "these two checkpoints": Estimates of metric(a) - metric(b), both on the same documents and jackknife groups.

    a, b: the same groups of the same documents; the tables' own sizes may differ (other E), the metric's shape may not. Where a checkpoint's
    value is undefined so is the difference. ValueError for unlike groups.
    """
    refuse_tokens(a.unit)
    refuse_tokens(b.unit)
    metric, function = find(name), value or find(name).function
    if (len(a.tables[0]), a.n_documents) != (len(b.tables[0]), b.n_documents) or not np.array_equal(_strata(a), _strata(b)):
        raise ValueError("the checkpoints must be traced on the same documents, in the same jackknife groups")
    width = len(a.tables)

    def difference(*tables: Float) -> Float:
        return np.asarray(function(*tables[:width]), np.float64) - np.asarray(function(*tables[width:]), np.float64)

    both = replace(a, tables=(*a.tables, *b.tables))
    if len(a.tables[0]) > 1:
        interval = jackknife(both, difference, level=level)
    else:
        plug_in = difference(*both.totals)
        none = np.full_like(plug_in, np.nan)
        interval = Interval(plug_in, plug_in, none, none, none)
    few = f"{ONE_DOCUMENT}: no spread between documents" if a.n_documents < 2 else few_documents(a.n_documents)
    made = interval_estimates(metric, interval, a.n_documents, "paired group jackknife", level=level)
    for place, one in np.ndenumerate(made):
        made[place] = one if one.value is None else gated(one, gate, few)
    return made


def _strata(groups: Groups) -> NDArray[np.generic]:
    return np.zeros(len(groups.tables[0]), np.int64) if groups.stratum is None else groups.stratum


@dataclass(frozen=True)
class Conditions:
    """What two methods must have in common for their difference to be the method's; None where it is not known.

    evaluation_documents: a digest of the evaluation documents. capacity_factor: None also where neither method drops tokens.
    """

    parameters: int | None
    top_k: int | None
    n_experts: int | None
    tokens_seen: int | None
    evaluation_documents: str | None
    capacity_factor: float | None = None


def confounded(a: Conditions, b: Conditions) -> str | None:
    """`confounded` with the conditions that differ or are unknown (parameters: beyond 1 %), else None."""
    unlike = []
    for one in fields(Conditions):
        left, right = getattr(a, one.name), getattr(b, one.name)
        if left is None or right is None:
            if left is not right or one.name != "capacity_factor":
                unlike.append(f"{one.name} {'unknown' if left is right else f'{left} against {right}'}")
        elif left != right and not (one.name == "parameters" and abs(left - right) <= PARAMETER_TOLERANCE * max(left, right)):
            unlike.append(f"{one.name} {left} against {right}")
    return f"{CONFOUNDED}: {'; '.join(unlike)}; match them before the difference is put down to the method" if unlike else None


@dataclass(frozen=True)
class Comparison:
    """Both levels, always together: the checkpoints' difference by documents, the method's by training seeds."""

    checkpoints: Estimate
    method: Estimate


def comparison(checkpoints: Estimate, seed_differences: Sequence[float], a: Conditions, b: Conditions, *, level: float = 0.95) -> Comparison:
    """A level-1 difference (checkpoint_estimates) beside the level-2 one, both gated `confounded` where the conditions do not match."""
    gate = confounded(a, b)
    first = checkpoints if checkpoints.value is None else gated(checkpoints, gate)
    return Comparison(first, method_estimate(seed_differences, unit=checkpoints.unit, gate=gate, level=level))


def improvement_percent_seed(after: Estimate, before: Estimate) -> Estimate:
    """The seed's "Improvement %": 100 (after - before) / |before|, shown beside the difference and never judged.

    Undefined where either is, and where the interval of `before` holds 0 or is missing: a percentage of a number near 0 says nothing.
    """
    n = min(after.n_units, before.n_units)
    if after.value is None or before.value is None:
        return Estimate.undefined(after.reason or before.reason or "", unit="%", n_units=n)
    if before.low is None or before.high is None or before.low <= 0 <= before.high:
        return Estimate.undefined("the interval of the value before holds 0: read the difference, not a percentage", unit="%", n_units=n)
    percent = 100 * (after.value - before.value) / abs(before.value)
    return Estimate(percent, None, None, "%", "document", n, "seed's form", gate="seed's form: a ratio of noisy numbers; read the difference")
