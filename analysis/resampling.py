"""Intervals from resampled documents: delete-group jackknife, weighted bootstrap, and what combines documents with types.

D unit (document or group), G jackknife group, B replicate, M statistic (one per layer, then their mean), C additive column.
Tokens are never resampled: the tokens of a document are not independent (metrics specification 4.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Float, Int

MIN_UNITS_FOR_INTERVAL = 30  # metrics specification 7
STRATUM_FLOOR = 20  # documents of a domain below which strata are pooled
ONE_DOCUMENT = "one document: no spread between documents; collect at least two"
Statistic = Callable[[Float], Float]  # additive sums [R, C] -> values [R, M]


@dataclass(frozen=True)
class Interval:
    """Vector of M estimates: bias-corrected value, plug-in, standard error, ends. NaN where undefined."""

    value: Float
    plug_in: Float
    se: Float
    low: Float
    high: Float


def refuse_tokens(unit: str) -> None:
    """Raise for any unit of resampling but the document (or the training seed)."""
    if unit not in ("document", "seed"):
        raise ValueError(f"cannot resample over {unit!r}: tokens of one document share its topic, so that a token bootstrap covers 25 % "
                         "instead of 95 %; resample unit='document' (metrics specification 4.1)")


def generator(seed: int, metric: str, layer: int | str = "all") -> np.random.Generator:
    """PCG64 keyed by seed, metric id and layer: a metric's draws do not depend on what else is computed, or in which order."""
    digest = hashlib.sha256(f"{metric}\0{layer}".encode()).digest()
    words = np.frombuffer(digest[:16], np.uint32).tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def normal_quantile(level: float) -> float:
    """Two-sided standard normal quantile: 1.959964 at level 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def t_quantile(level: float, df: int) -> float:
    """Two-sided Student quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + level / 2))


def jackknife_groups(n_units: int, max_groups: int = 100) -> Int:
    """Group [D] of each unit; units come ordered by hash (analysis.counts.Units) and are dealt round-robin."""
    return np.arange(n_units, dtype=np.int64) % max(min(n_units, max_groups), 1)


def stratified_groups(strata: Sequence[str], max_groups: int = 50) -> tuple[Int, Int]:
    """Groups [D] inside each stratum, dealt round-robin, and the stratum number [G] of each group."""
    groups = np.zeros(len(strata), np.int64)
    stratum_of: list[int] = []
    labels = np.asarray(strata)
    for number, name in enumerate(sorted(set(strata))):
        members = np.flatnonzero(labels == name)
        size = min(len(members), max_groups)
        groups[members] = len(stratum_of) + np.arange(len(members)) % size
        stratum_of += [number] * size
    return groups, np.asarray(stratum_of, np.int64)


def group_sums(columns: NDArray[np.generic], groups: Int) -> Float:
    """Columns [C, D] summed over the units of each group [G, C]."""
    out = np.zeros((int(groups.max()) + 1, len(columns)))
    np.add.at(out, groups, np.asarray(columns, np.float64).T)
    return out


def delete_group_jackknife(
    sums_GC: Float, statistic: Statistic, *, level: float = 0.95, strata: Int | None = None, unit: str = "document"
) -> Interval:
    """Bias-corrected estimates with Student intervals from totals minus one group (metrics specification 4.2).

    sums_GC: additive sums per group. strata: stratum [G] of each group; biases and variances then add over strata,
    with the sum of (G_h - 1) degrees of freedom; a stratum of one group adds none. Needs 2 groups in some stratum.
    unit: what the sums are of; anything but documents is refused.
    """
    refuse_tokens(unit)
    total = sums_GC.sum(axis=0, keepdims=True)
    left_out = statistic(total - sums_GC)
    if not has_spread(len(sums_GC), strata):
        raise ValueError(ONE_DOCUMENT)
    return left_out_interval(statistic(total)[0], left_out, level, strata)


def has_spread(n_groups: int, strata: Int | None = None) -> bool:
    """Whether some stratum has two groups."""
    sizes = np.array([n_groups]) if strata is None else np.unique(strata, return_counts=True)[1]
    return bool((sizes > 1).any())


def left_out_interval(plug_in: Float, left_out_G: Float, level: float = 0.95, strata: Int | None = None) -> Interval:
    """value = plug-in - sum_h (G_h - 1)(mean_h - plug-in), SE^2 = sum_h (G_h - 1)/G_h sum (left-out - mean_h)^2, ends +- t SE.

    Jackknife from values without each group [G, M...] (metrics specification 4.2), on sum_h (G_h - 1) degrees of freedom. strata [G]: one
    if None; a stratum of one group adds nothing. Without a stratum of two the plug-in stays, its error and ends NaN.
    """
    plug_in = np.asarray(plug_in, np.float64)
    stratum = np.zeros(len(left_out_G), np.int64) if strata is None else strata
    bias, variance, df = np.zeros_like(plug_in), np.zeros_like(plug_in), 0
    for one in np.unique(stratum):
        values = left_out_G[stratum == one]
        if len(values) < 2:
            continue
        mean = values.mean(axis=0)
        bias = bias + (len(values) - 1) * (mean - plug_in)
        variance = variance + (len(values) - 1) / len(values) * ((values - mean) ** 2).sum(axis=0)
        df += len(values) - 1
    if df == 0:
        return Interval(plug_in, plug_in, *(np.full_like(plug_in, np.nan) for _ in range(3)))
    value, se = np.asarray(plug_in - bias), np.sqrt(variance)
    half = t_quantile(level, df) * se
    return Interval(value, plug_in, se, value - half, value + half)


def document_weights(n_units: int, n_replicates: int, rng: np.random.Generator, strata: Sequence[str] | None = None) -> Float:
    """Multinomial bootstrap weights [B, D]; inside each stratum where every stratum has at least STRATUM_FLOOR units."""
    labels = np.asarray(usable_strata(strata) or [""] * n_units)
    weights = np.zeros((n_replicates, n_units))
    for name in sorted(set(labels.tolist())):
        members = np.flatnonzero(labels == name)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_replicates)
    return weights


def usable_strata(strata: Sequence[str] | None) -> list[str] | None:
    """The strata if each has at least STRATUM_FLOOR units, else None."""
    if strata is None or not len(strata):
        return None
    smallest = int(np.unique(np.asarray(strata), return_counts=True)[1].min())
    return list(strata) if smallest >= STRATUM_FLOOR else None


def percentile_interval(replicates: Float, level: float = 0.95) -> tuple[Float, Float]:
    """Linear quantiles over the first axis. Shifted by twice the bias for entropy-like metrics: not for those."""
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0)
    return low, high


def basic_interval(estimate: Float, replicates: Float, level: float = 0.95) -> tuple[Float, Float]:
    """The percentile interval reflected about the plug-in estimate."""
    low, high = percentile_interval(replicates, level)
    return 2 * estimate - high, 2 * estimate - low


@dataclass(frozen=True)
class BiasCorrectedAccelerated:
    """Interval with its shift z0, acceleration and the percentiles read."""

    z0: float
    acceleration: float
    alphas: tuple[float, float]
    low: float
    high: float


def bca_interval(estimate: float, replicates: Float, left_out: Float, level: float = 0.95) -> BiasCorrectedAccelerated:
    """BCa interval (Efron 1987); ties with the estimate count half, acceleration from the leave-one-out values.

    Undefined (ValueError) when every replicate lies on one side of the estimate.
    """
    from scipy.special import ndtr, ndtri

    below = float(np.mean(replicates < estimate) + 0.5 * np.mean(replicates == estimate))
    if not 0 < below < 1:
        raise ValueError("BCa: every replicate lies on one side of the estimate; take the jackknife interval")
    z0 = float(ndtri(below))
    spread = left_out.mean() - left_out
    cube, square = float((spread**3).sum()), float((spread**2).sum())
    acceleration = cube / (6 * square**1.5) if square > 0 else 0.0
    z = np.array([-1, 1]) * normal_quantile(level)
    alphas = ndtr(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
    low, high = np.quantile(replicates, alphas)
    return BiasCorrectedAccelerated(z0, acceleration, (float(alphas[0]), float(alphas[1])), float(low), float(high))


@dataclass(frozen=True)
class FisherInterval:
    """Two-way interval of a rank correlation: z~ and its standard error on the Fisher scale, rho~ and the ends."""

    z: float
    se: float
    value: float
    low: float
    high: float


def two_way_correlation(rho: float, replicate_z: Float, n_types: int, *, level: float = 0.95, n_given: int = 0) -> FisherInterval:
    """Interval of a correlation over types that both documents and types vary (metrics specification 4.4).

    z~ = 2 atanh(rho) - mean(z*), SE^2 = var(z*, ddof 1) + (1 + rho^2/2) / (m - 3 - n_given), ends tanh(z~ +- q SE).
    replicate_z: z* of the document bootstrap [B]; n_given: covariates of a partial correlation.
    Undefined (ValueError) when |rho| = 1 or fewer than 4 + n_given types.
    """
    if not abs(rho) < 1:
        raise ValueError("|rho| = 1: Fisher's z is infinite")
    if n_types - 3 - n_given < 1:
        raise ValueError(f"{n_types} types: the variance over types needs at least {4 + n_given}")
    z = 2 * np.arctanh(rho) - float(np.mean(replicate_z))
    se = float(np.sqrt(np.var(replicate_z, ddof=1) + (1 + rho**2 / 2) / (n_types - 3 - n_given)))
    half = normal_quantile(level) * se
    return FisherInterval(float(z), se, float(np.tanh(z)), float(np.tanh(z - half)), float(np.tanh(z + half)))


def two_way_error(values: Float, document_variance: float) -> float:
    """Standard error of a mean over types: the documents' variance plus that of drawing the types (Owen 2007, pigeonhole bootstrap)."""
    return float(np.sqrt(document_variance + np.var(values, ddof=1) / len(values)))


class TypeCells:
    """Sparse S [D, m] with a value per cell (unit[z], column[z]), no cell twice; the structure is made once for many products."""

    def __init__(self, unit: Int, column: Int, shape: tuple[int, int]) -> None:
        from scipy.sparse import csr_matrix

        n_units, n_columns = shape
        places = csr_matrix((np.arange(len(unit)), (column, unit)), shape=(n_columns, n_units))
        self._order, self._indices, self._indptr, self._shape = places.data, places.indices, places.indptr, places.shape

    def sums(self, weights: Float, values: NDArray[np.generic]) -> Float:
        """weights [B, D] @ S for the values [Z]: [B, m], summed in unit order."""
        from scipy.sparse import csr_matrix

        cells = csr_matrix((np.asarray(values, np.float64)[self._order], self._indices, self._indptr), shape=self._shape)
        out = np.empty((len(weights), self._shape[0]))
        for start in range(0, len(weights), 64):
            out[start : start + 64] = (cells @ np.ascontiguousarray(weights[start : start + 64].T)).T
        return out
