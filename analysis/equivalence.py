"""Equivalence: "no difference" needs an interval inside a margin declared beforehand (metrics specification 6).

A test that finds no difference is no evidence of none; only a 90 % interval inside +-margin is (two one-sided tests at 5 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from analysis.estimate import Estimate
from analysis.resampling import t_quantile

Outcome = Literal["supported", "refuted", "inconclusive"]
LEVEL = 0.90  # of the interval that goes with two one-sided tests at 5 %


@dataclass(frozen=True)
class Equivalence:
    """Outcome of two one-sided tests: the interval [low, high] at 1 - 2 alpha against +-margin, p the larger of the two one-sided p.

    low, high, p: None where the difference has no interval (p also where only an interval was given), with `reason`.
    """

    outcome: Outcome
    margin: float
    low: float | None
    high: float | None
    p: float | None = None
    reason: str | None = None


def equivalence_outcome(low: float, high: float, margin: float) -> Outcome:
    """`supported` iff -margin < low and high < margin; `refuted` iff no point of [low, high] is inside; else `inconclusive`.

    low, high: the 90 % interval of a difference (two one-sided tests at 5 %). A bound that touches the margin is not inside. ValueError
    for a margin that is not above 0 or an interval that is not one.
    """
    _check_margin(margin)
    if not low <= high:
        raise ValueError(f"[{low}, {high}] is not an interval")
    if -margin < low and high < margin:
        return "supported"
    return "refuted" if low >= margin or high <= -margin else "inconclusive"


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin {margin}: declare one above 0, before the data are seen; 'not significant' is not 'the same'")


def tost(value: float, se: float, margin: float, *, df: float = math.inf, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of |difference| < margin: interval value +- t_{1-alpha, df} SE, p = max of P(T > (margin -+ value) / SE).

    p < alpha exactly where the outcome is `supported`. df inf takes the normal law. SE 0 puts the interval at the value. ValueError for
    a negative SE or a margin that is not above 0.
    """
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    _check_margin(margin)
    if not (math.isfinite(value) and se >= 0 and df > 0):
        raise ValueError(f"value {value}, se {se}, df {df}: a finite difference, a standard error of at least 0 and df above 0 are needed")
    half = float(ndtri(1 - alpha) if math.isinf(df) else stdtrit(df, 1 - alpha)) * se
    nearest = margin - abs(value)
    if se == 0:
        p = 0.0 if nearest > 0 else 1.0
    else:
        p = float(ndtr(-nearest / se) if math.isinf(df) else stdtr(df, -nearest / se))
    return Equivalence(equivalence_outcome(value - half, value + half, margin), margin, value - half, value + half, p)


def equivalence(difference: Estimate, margin: float) -> Equivalence:
    """Outcome for an Estimate of a difference whose interval is at level 0.90.

    Undefined or gated differences are `inconclusive` with the reason. ValueError for an interval at another level: estimate it with
    level=0.90 (a 95 % interval inside the margin would be a test at 2.5 %).
    """
    _check_margin(margin)
    if difference.value is None or difference.low is None or difference.high is None:
        return Equivalence("inconclusive", margin, None, None, reason=difference.reason or "no interval")
    if not math.isclose(difference.level, LEVEL):
        raise ValueError(f"the interval is at level {difference.level}: two one-sided tests at 5 % read the one at {LEVEL}; pass level={LEVEL}")
    if difference.gate:
        return Equivalence("inconclusive", margin, difference.low, difference.high, reason=difference.gate)
    return Equivalence(equivalence_outcome(difference.low, difference.high, margin), margin, difference.low, difference.high)


def noise_ceiling_margin(within_domain: Estimate, share: float) -> float:
    """Margin for domain invariance: share x |within-domain split-half value|, in that value's unit.

    within_domain: the same statistic between two document halves of one domain (T(B->B) cross-fitted, reliability of a profile);
    share: declared beforehand, in (0, 1). ValueError where it is undefined or its interval holds 0: a domain that does not agree with
    itself sets no margin.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share}: a part of the noise ceiling, between 0 and 1, declared beforehand")
    low, high, value = within_domain.low, within_domain.high, within_domain.value
    if value is None or low is None or high is None or low <= 0 <= high:
        raise ValueError(f"no noise ceiling ({within_domain.reason or 'its interval holds 0'}): collect more documents in the domain")
    return share * abs(value)


def from_interval(low: float, high: float, *, level: float, df: int, to: float = LEVEL) -> tuple[float, float]:
    """A Student interval at another level about the same centre: half-width x t(to, df) / t(level, df)."""
    centre, half = (low + high) / 2, (high - low) / 2 * t_quantile(to, df) / t_quantile(level, df)
    return centre - half, centre + half
