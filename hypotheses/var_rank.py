"""The frequency-entropy rank correlation of VAR: judged, partial, by position band, the seed's, and by smallest count.

b replicate, B replicates, L MoE layer, m type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.estimate import Estimate
from analysis.kernels import Float
from analysis.metrics.frequency import midranks, partial_spearman, spearman_layers, spearman_p
from analysis.metrics.token_class import covariates
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, two_way_correlation
from hypotheses.var_draws import Sampled, Statistic, TypeDraw
from hypotheses.var_evidence import VarCounts

ONE_DOCUMENT = "one document: no spread between documents"
REPLICATES_LOST = 0.05  # share of replicates without a finite z beyond which the interval is undefined


def correlation(draw: TypeDraw) -> Float:
    """Spearman of corpus frequency and mean entropy over the types of the draw."""
    return spearman_layers(draw.frequency, draw.mean)[:, :, None]


def seed_correlation(draw: TypeDraw) -> Float:
    """The seed's: frequency counted on the very tokens that give the entropies."""
    return spearman_layers(np.where(draw.n > 0, draw.n, np.nan), draw.mean)[:, :, None]


def partial_correlation(strings: Sequence[str], types: Sequence[int]) -> tuple[Statistic, int]:
    """The partial form given position, dispersion, token length and class dummies; and the number of covariates."""
    length, dummies = covariates(strings, types)

    def statistic(draw: TypeDraw) -> Float:
        rows = []
        for b in range(len(draw.n)):
            mask = draw.n[b] > 0
            given = np.zeros((3 + len(dummies), len(mask)))
            given[:3, mask] = midranks(np.stack([draw.position[b, mask], draw.dispersion[b, mask], length[mask]]))
            given[3:] = dummies
            rows.append(partial_spearman(draw.frequency[b], draw.mean[:, b], given, mask))
        return np.stack(rows)[:, :, None]

    return statistic, 3 + len(dummies)


def with_mean(values: Float) -> Float:
    """Values by layer [..., L] with their mean over layers appended."""
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)


def with_null(estimate: Estimate, null: Float | None) -> Estimate:
    """The estimate with the mean and central 95 % of null draws; unchanged where a draw is undefined or there are none."""
    if estimate.value is None or null is None or not len(null) or not np.isfinite(null).all():
        return estimate
    low, high = np.quantile(null, [0.025, 0.975])
    return replace(estimate, null=float(null.mean()), null_low=float(low), null_high=float(high))


@dataclass(frozen=True)
class RankRule:
    """How draws of a rank correlation become estimates: over how many types, given how many covariates, on which documents."""

    counts: VarCounts
    n_types: int
    n_given: int = 0
    note: str = ""

    def estimates(self, sampled: Sampled, column: int = 0) -> tuple[Estimate, ...]:
        """One Estimate per layer and, last, of the mean over layers with the same document weights in each replicate."""
        values, replicates = with_mean(sampled.value[:, column]), with_mean(sampled.replicates[:, :, column])
        nulls = None if sampled.null is None else with_mean(sampled.null[:, :, column])
        null_of = [None] * len(values) if nulls is None else list(nulls.T)
        return tuple(self._estimate(float(value), replicates[:, i], null_of[i]) for i, value in enumerate(values))

    def _estimate(self, rho: float, replicates: Float, null: Float | None) -> Estimate:
        units = self.counts.test.units
        n_units, level = len(units.documents), self.counts.settings.level
        with np.errstate(divide="ignore"):
            z = np.arctanh(replicates)
        z = z[np.isfinite(z)]
        method = f"two-way Spearman interval (documents x types), Fisher z, B = {len(replicates)}, {units.name}{self.note}"
        reason = self._undefined(rho, n_units)
        if reason is None and len(z) < (1 - REPLICATES_LOST) * len(replicates):
            reason = f"{len(replicates) - len(z)} of {len(replicates)} replicates have |rho| = 1 or none: too few types"
        if reason is not None:
            return Estimate.undefined(reason, unit="rho", resampled="document x type", n_units=n_units, method=method, n=self.n_types,
                                      n_of="types")
        two_way = two_way_correlation(rho, z, self.n_types, level=level, n_given=self.n_given)
        wide = n_units >= MIN_UNITS_FOR_INTERVAL
        method += "" if wide else f"; no interval below {MIN_UNITS_FOR_INTERVAL} documents"
        made = Estimate(two_way.value, two_way.low if wide else None, two_way.high if wide else None, "rho", "document x type", n_units,
                        method, level=level, plug_in=rho, se=two_way.se * (1 - two_way.value**2), n=self.n_types, n_of="types",
                        p=spearman_p(rho, self.n_types - self.n_given))
        return with_null(made, null)

    def _undefined(self, rho: float, n_units: int) -> str | None:
        if n_units < 2:
            return "no_data: no test documents" if n_units == 0 else ONE_DOCUMENT
        if self.n_types < 4 + self.n_given:
            return f"{self.n_types} types: a rank correlation with an interval needs at least {4 + self.n_given}"
        if not np.isfinite(rho):
            return "constant frequencies or entropies: ranks have no spread"
        return "|rho| = 1: Fisher's z is infinite" if abs(rho) >= 1 else None
