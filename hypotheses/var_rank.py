"""The frequency-entropy rank correlation of VAR: two-way intervals, sensitivity, confounds, and its matched null.

B replicate, R null draw, L MoE layer, V token type, m type of a subset, Z non-empty cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.kernels import FIXED_ONE, Float, Int, from_fixed, segment_sums
from analysis.metrics.frequency import Mask, spearman, spearman_p
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, two_way_correlation, weighted_type_sums
from hypotheses.var_evidence import VarCounts

ONE_DOCUMENT = "one document: no spread between documents"
CHUNK = 64
REPLICATES_LOST = 0.05  # share of replicates without a finite z beyond which the interval is undefined


@dataclass(frozen=True)
class RankSample:
    """Types of one population and the cells that hold their counts: unit, column (index into types), n, position, entropy [L, Z]."""

    types: Int
    unit: Int
    column: Int
    n: Int
    position: Int
    entropy: Int

    @classmethod
    def of(cls, counts: VarCounts, types: Int, band: int | None = None) -> RankSample:
        """Cells of `types` over all positions, or in one position band."""
        test = counts.test
        kept = np.isin(test.type, types) & (True if band is None else test.band == band)
        keys = test.unit[kept] * test.n_types + test.type[kept]
        keys, sums = segment_sums(keys, np.concatenate([test.n[None, kept], test.position[None, kept], test.entropy[:, kept]]))
        return cls(types, keys // test.n_types, np.searchsorted(types, keys % test.n_types), sums[0], sums[1], sums[2:])

    def means(self) -> Float:
        """Mean entropy [L, m] in nats."""
        total = np.zeros((1 + len(self.entropy), len(self.types)), np.int64)
        columns, sums = segment_sums(self.column, np.concatenate([self.n[None], self.entropy]))
        total[:, columns] = sums
        return divide(from_fixed(total[1:]), total[0].astype(np.float64))

    def replicates(self, weights: Float) -> tuple[Float, Float]:
        """Occurrences [b, m] and mean entropies [L, b, m] of the weighted documents; NaN where a type is absent."""
        m = len(self.types)
        n = weighted_type_sums(weights, self.unit, self.column, self.n, m)
        means = np.stack([divide(weighted_type_sums(weights, self.unit, self.column, row, m) / FIXED_ONE, n) for row in self.entropy])
        return n, means


def divide(sums: Float, n: Float) -> Float:
    """sums / n with NaN where n is 0."""
    quotient: Float = np.divide(sums, n, out=np.full(np.broadcast_shapes(sums.shape, n.shape), np.nan), where=n > 0)
    return quotient


def with_mean(values: Float) -> Float:
    """Values by layer [..., L] with their mean over layers appended."""
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)


def chunks(n_replicates: int) -> Iterator[slice]:
    """Consecutive replicates, a bounded number at a time."""
    for start in range(0, n_replicates, CHUNK):
        yield slice(start, min(start + CHUNK, n_replicates))


def rank_replicates(counts: VarCounts, sample: RankSample, subsets: list[Mask], n_replicates: int) -> Float:
    """Replicates of rho [S, B, L] for each subset (mask [m]) of the sample's types: test and frequency documents both redrawn."""
    out = np.full((len(subsets), n_replicates, len(sample.entropy)), np.nan)
    for chunk in chunks(n_replicates):
        frequency = counts.frequency_replicates(sample.types, chunk)
        _, means = sample.replicates(counts.test_weights[chunk])
        for subset, mask in enumerate(subsets):
            for layer, mean in enumerate(means[:, :, mask]):
                out[subset, chunk, layer] = spearman(frequency[:, mask], mean)
    return out


@dataclass(frozen=True)
class RankEstimates:
    """How a family of rank correlations is turned into estimates, layers first, their mean last."""

    counts: VarCounts
    method: str
    n_given: int = 0

    def make(self, rho_L: Float, replicates_BL: Float, n_types: int, null_RL: Float | None = None) -> tuple[Estimate, ...]:
        """One Estimate per layer and one of the mean over layers, the same document weights in each replicate."""
        nulls = None if null_RL is None else with_mean(null_RL)
        rhos, replicates = with_mean(rho_L), with_mean(replicates_BL)
        return tuple(self._one(float(rhos[i]), replicates[:, i], n_types, None if nulls is None else nulls[:, i]) for i in range(len(rhos)))

    def _one(self, rho: float, replicates: Float, n_types: int, null: Float | None) -> Estimate:
        n_units = len(self.counts.test.units.documents)
        common = {"unit": "rho", "resampled": "document x type", "n_units": n_units, "n": n_types, "n_of": "types"}
        reason = self._undefined(rho, replicates, n_types, n_units)
        if reason:
            return Estimate.undefined(reason, **common)  # type: ignore[arg-type]
        with np.errstate(divide="ignore"):
            z = np.arctanh(replicates)
        z = z[np.isfinite(z)]
        if len(z) < (1 - REPLICATES_LOST) * len(replicates):
            return Estimate.undefined(f"{len(replicates) - len(z)} of {len(replicates)} replicates have |rho| = 1 or none: too few types",
                                      **common)  # type: ignore[arg-type]
        two_way = two_way_correlation(rho, z, n_types, level=self.counts.settings.level, n_given=self.n_given)
        wide = n_units >= MIN_UNITS_FOR_INTERVAL
        method = f"{self.method}, B = {len(replicates)}, {self.counts.resampled_name}"
        if not wide:
            method += f"; no interval below {MIN_UNITS_FOR_INTERVAL} documents"
        return Estimate(two_way.value, two_way.low if wide else None, two_way.high if wide else None, method=method,
                        level=self.counts.settings.level, plug_in=rho, se=two_way.se * (1 - rho**2), p=spearman_p(rho, n_types),
                        **null_fields(null), **common)  # type: ignore[arg-type]

    def _undefined(self, rho: float, replicates: Float, n_types: int, n_units: int) -> str | None:
        if n_units < 2:
            return "no_data: no test documents" if n_units == 0 else ONE_DOCUMENT
        if n_types < 4 + self.n_given:
            return f"{n_types} types: a rank correlation with an interval needs at least {4 + self.n_given}"
        if not np.isfinite(rho):
            return "constant frequencies or entropies: ranks have no spread"
        return "|rho| = 1: Fisher's z is infinite" if abs(rho) >= 1 else None


def null_fields(null: NDArray[np.float64] | None) -> dict[str, float]:
    """Mean and central 95 % of null draws, as fields of an Estimate."""
    if null is None or not len(null) or not np.isfinite(null).all():
        return {}
    low, high = np.quantile(null, [0.025, 0.975])
    return {"null": float(null.mean()), "null_low": float(low), "null_high": float(high)}
