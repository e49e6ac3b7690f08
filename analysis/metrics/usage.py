"""Usage of experts at one layer: statistics of the loads, unused experts included (seed 001).

E expert. counts_E: selections of each expert [..., E]; N_sel their sum (k per token). All are functions of N_sel: read them beside their
value under uniform routing (analysis.uniform_null) and compare layers only at equal N_sel. Statistics on the scale of counts (mean,
std, quantiles, active) grow with the documents, so that leaving documents out cannot correct them: their interval is a bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide
from analysis.arithmetic import entropy_bits as plug_in_bits
from analysis.gates import NO_DATA
from analysis.registry import Bound, Function, metric

COLLAPSED_BELOW = 0.1  # of an even load (metrics specification 2.5)
RULE_OF_THREE = 3.0  # -ln 0.05: 95 % upper bound of a share never seen in n draws, times n
EVEN = "constant loads: 0/0"


def _usage(id: str, unit: str, bounds: tuple[Bound | None, Bound | None], undefined: str = f"{NO_DATA}: no selections", *,
           estimator: str = "group jackknife", seed: str | None = None) -> Callable[[Function], Function]:
    return metric(id, unit=unit, bounds=bounds, undefined=undefined, source="seed 001; metrics specification 2.2", takes=("counts_E",),
                  estimator=estimator, invariant=("relabelling", "token order", "document order"), seed=seed)


def _experts(counts_E: ArrayLike) -> float:
    return float(np.shape(counts_E)[-1])


def _loads(counts_E: ArrayLike) -> Float:
    """Loads in float64 (exact below 2**53), NaN for a layer without selections."""
    n = np.asarray(counts_E, np.float64)
    return np.where(n.sum(axis=-1, keepdims=True) > 0, n, np.nan)


def _moment(counts_E: ArrayLike, order: int) -> Float:
    n = _loads(counts_E)
    moment: Float = ((n - n.mean(axis=-1, keepdims=True)) ** order).mean(axis=-1)
    return moment


@_usage("usage_mean", "selections", (0.0, None), estimator="document bootstrap", seed="mean")
def mean(counts_E: ArrayLike) -> Float:
    """Mean load N_sel / E."""
    return np.asarray(_loads(counts_E).mean(axis=-1))


@_usage("usage_std", "selections", (0.0, None), estimator="document bootstrap", seed="std")
def std(counts_E: ArrayLike) -> Float:
    """Standard deviation of the loads over experts with divisor E (ddof 0, as the seed's printed rows force)."""
    return np.asarray(np.sqrt(_moment(counts_E, 2)))


@_usage("usage_cv", "ratio", (0.0, lambda counts_E: float(np.sqrt(_experts(counts_E) - 1))), seed="coefficient_of_variation")
def cv(counts_E: ArrayLike) -> Float:
    """Coefficient of variation of the loads: std (ddof 0) / mean, [0, sqrt(E - 1)]; CV^2 = E 2^-H2 - 1; NaN over a mean of 0."""
    return divide(std(counts_E), mean(counts_E))


@_usage("usage_median", "selections", (0.0, None), estimator="document bootstrap", seed="median")
def median(counts_E: ArrayLike) -> Float:
    """Median load."""
    return np.asarray(np.quantile(_loads(counts_E), 0.5, axis=-1))


@_usage("usage_min", "selections", (0.0, None), estimator="document bootstrap", seed="min_usage")
def least(counts_E: ArrayLike) -> Float:
    """Least load; 0 as soon as one expert is unused."""
    return np.asarray(_loads(counts_E).min(axis=-1))


@_usage("usage_max", "selections", (0.0, None), estimator="document bootstrap", seed="max_usage")
def largest(counts_E: ArrayLike) -> Float:
    """Largest load."""
    return np.asarray(_loads(counts_E).max(axis=-1))


def _most_skewed(counts_E: ArrayLike) -> float:
    n = _experts(counts_E)
    return (n - 2) / float(np.sqrt(n - 1)) if n > 1 else 0.0


@_usage("usage_skewness", "ratio", (lambda c: -_most_skewed(c), _most_skewed), f"{NO_DATA} or {EVEN}", seed="skewness")
def skewness(counts_E: ArrayLike) -> Float:
    """Population skewness of the loads: m3 / m2^1.5, within (E - 2) / sqrt(E - 1); NaN for constant loads."""
    return divide(_moment(counts_E, 3), _spread(counts_E) ** 1.5)


@_usage("usage_kurtosis", "ratio", (-2.0, lambda c: max(_experts(c) - 2 + 1 / max(_experts(c) - 1, 1) - 3, -2.0)),
        f"{NO_DATA} or {EVEN}", seed="kurtosis")
def kurtosis(counts_E: ArrayLike) -> Float:
    """Population excess kurtosis of the loads: m4 / m2^2 - 3, at least -2; NaN for constant loads."""
    return divide(_moment(counts_E, 4), _spread(counts_E) ** 2) - 3


def _spread(counts_E: ArrayLike) -> Float:
    """Second moment, exactly 0 for constant loads whatever the rounding of their mean."""
    n = _loads(counts_E)
    return np.where(n.max(axis=-1) == n.min(axis=-1), 0.0, _moment(counts_E, 2))


@_usage("usage_q25", "selections", (0.0, None), estimator="document bootstrap", seed="q25")
def q25(counts_E: ArrayLike) -> Float:
    """Lower quartile of the loads, linear between order statistics."""
    return np.asarray(np.quantile(_loads(counts_E), 0.25, axis=-1))


@_usage("usage_q75", "selections", (0.0, None), estimator="document bootstrap", seed="q75")
def q75(counts_E: ArrayLike) -> Float:
    """Upper quartile of the loads, linear between order statistics."""
    return np.asarray(np.quantile(_loads(counts_E), 0.75, axis=-1))


@_usage("usage_iqr", "selections", (0.0, None), estimator="document bootstrap", seed="iqr")
def iqr(counts_E: ArrayLike) -> Float:
    """Interquartile range q75 - q25 of the loads."""
    return q75(counts_E) - q25(counts_E)


@_usage("usage_entropy_bits", "bits", (0.0, lambda c: float(np.log2(_experts(c)))), seed="entropy_bits")
def entropy_bits(counts_E: ArrayLike) -> Float:
    """Entropy of the loads: log2 N - (1/N) sum n log2 n, [0, log2 E]; the plug-in is the seed's value."""
    return plug_in_bits(counts_E)


@_usage("usage_entropy_normalised", "share of log2 E", (0.0, 1.0), f"{NO_DATA}, or one expert: 0/0")
def entropy_normalised(counts_E: ArrayLike) -> Float:
    """Entropy of the loads as a share of its maximum: H / log2 E, [0, 1]; NaN at E = 1."""
    return divide(plug_in_bits(counts_E), np.log2(_experts(counts_E)))


@_usage("usage_perplexity", "experts", (1.0, _experts))
def perplexity(counts_E: ArrayLike) -> Float:
    """Number of evenly used experts of the same entropy: 2^H, [1, E]."""
    return np.asarray(2.0 ** plug_in_bits(counts_E))


@_usage("usage_renyi2_bits", "bits", (0.0, lambda c: float(np.log2(_experts(c)))))
def renyi2_bits(counts_E: ArrayLike) -> Float:
    """Renyi entropy of order 2 of the loads: H2 = -log2 sum p^2, [0, log2 E]; the same axis as the CV, for CV^2 = E 2^-H2 - 1."""
    n = _loads(counts_E)
    return np.asarray(2 * np.log2(n.sum(axis=-1)) - np.log2((n**2).sum(axis=-1)))


@_usage("usage_active", "experts", (1.0, _experts), estimator="document bootstrap", seed="active_experts")
def active(counts_E: ArrayLike) -> Float:
    """Experts with at least one selection, [1, E]."""
    n = _loads(counts_E)
    return np.where(np.isnan(n[..., 0]), np.nan, (n > 0).sum(axis=-1))


@_usage("usage_diversity", "share of experts", (0.0, 1.0), estimator="document bootstrap", seed="expert_diversity")
def diversity(counts_E: ArrayLike) -> Float:
    """Share of experts with at least one selection: active / E, (0, 1]."""
    return active(counts_E) / _experts(counts_E)


@_usage("usage_gini", "ratio", (0.0, lambda c: 1 - 1 / _experts(c)))
def gini(counts_E: ArrayLike) -> Float:
    """Gini coefficient of the loads: sum_ij |n_i - n_j| / (2 E N_sel), [0, 1 - 1/E]; no relation to the seed 004 quantity of that name."""
    n = np.sort(_loads(counts_E), axis=-1)
    experts = n.shape[-1]
    return divide(((2 * np.arange(1, experts + 1) - experts - 1) * n).sum(axis=-1), experts * n.sum(axis=-1))


@_usage("usage_max_violation", "ratio", (0.0, lambda c: _experts(c) - 1), estimator="document bootstrap")
def max_violation(counts_E: ArrayLike) -> Float:
    """Largest load over the mean load, less 1: max / mean - 1, [0, E - 1]."""
    return divide(largest(counts_E), mean(counts_E)) - 1


@metric("collapse_rate", unit="share of experts", bounds=(0.0, 1.0), undefined=f"{NO_DATA}: no executed selections",
        source="metrics specification 2.5", takes=("counts_E",), estimator="document bootstrap (basic)",
        invariant=("relabelling", "token order", "document order"), seed="Expert Collapse Rate")
def collapse_rate(counts_E: ArrayLike) -> Float:
    """Share of experts whose executed load is below a tenth of an even one: mean_e [n_e / N < 0.1 / E], [0, 1].

    counts_E: executed selections [..., E] (after capacity dropping).
    """
    n = _loads(counts_E)
    collapsed = n * _experts(counts_E) < COLLAPSED_BELOW * n.sum(axis=-1, keepdims=True)
    return np.where(np.isnan(n[..., 0]), np.nan, collapsed.mean(axis=-1))


@metric("least_load", unit="share of an even load", bounds=(0.0, 1.0), undefined=f"{NO_DATA}: no executed selections",
        source="metrics specification 2.5, collapse", takes=("counts_E",), estimator="document bootstrap (basic)",
        invariant=("relabelling", "token order", "document order"), seed="Expert Collapse Rate")
def least_load(counts_E: ArrayLike) -> Float:
    """Load of the least used expert over an even one: E min_e n_e / N, [0, 1]; no expert is collapsed exactly where it is at least 0.1.

    counts_E: executed selections [..., E]. It moves where the collapse rate stays at 0, and so has a spread over training seeds.
    """
    n = _loads(counts_E)
    return divide(_experts(counts_E) * n.min(axis=-1), n.sum(axis=-1))


@dataclass(frozen=True)
class Collapse:
    """Unused experts and what their absence shows.

    rate: collapse_rate, None with `reason` without selections. dead: ids of experts without a selection. load_bound: 95 % upper bound
    3 / n_eff of the load share of each of them (at most 1); None where none is dead. "0 % collapse" is a claim about that bound.
    """

    rate: float | None
    dead: tuple[int, ...]
    load_bound: float | None
    reason: str | None = None


def collapse(executed_E: ArrayLike, n_effective: float) -> Collapse:
    """Collapse rate of executed loads [E], the dead experts, and the bound that n_effective independent selections put on their load.

    n_effective: selections over their design effect, in (0, N_sel]; ValueError otherwise.
    """
    n = integer_counts(executed_E)
    total = int(n.sum())
    if total == 0:
        return Collapse(None, (), None, f"{NO_DATA}: no executed selections")
    if not 0 < n_effective <= total:
        raise ValueError(f"n_effective={n_effective:g}: give the {total} selections divided by their design effect, above 0")
    dead = tuple(np.flatnonzero(n == 0).tolist())
    return Collapse(float(collapse_rate(n)), dead, min(1.0, RULE_OF_THREE / n_effective) if dead else None)


def integer_counts(counts_E: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Loads of one layer [E] as int64; ValueError for anything but whole numbers from 0, with the remedy."""
    given = np.asarray(counts_E)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"counts_E has shape {given.shape}: give the loads of one layer, one number per expert")
    if not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"counts_E is {given.dtype}: give integer counts of selections, not shares or weights")
    if (given < 0).any():
        raise ValueError("counts_E has a negative count: give the number of selections of each expert")
    return given.astype(np.int64)


SEED_ROW: dict[str, Callable[[ArrayLike], Float]] = {
    "mean": mean, "std": std, "coefficient_of_variation": cv, "median": median, "min_usage": least, "max_usage": largest,
    "skewness": skewness, "kurtosis": kurtosis, "q25": q25, "q75": q75, "iqr": iqr, "entropy_bits": entropy_bits,
    "active_experts": active, "expert_diversity": diversity,
}


def statistics_row(layer_id: int, counts_E: ArrayLike) -> dict[str, Any]:
    """One layer of seed 001's comprehensive_expert_statistics.json: all its keys, plug-in values, None where undefined."""
    n = integer_counts(counts_E)
    row: dict[str, Any] = {"layer_id": layer_id}
    for key, statistic in SEED_ROW.items():
        value = float(statistic(n))
        row[key] = None if np.isnan(value) else int(value) if key in ("min_usage", "max_usage", "active_experts") else value
    return row
