"""The judged shares of VAR and their kin: ratios of sums over documents, with delete-group jackknife intervals.

D unit, G jackknife group, L MoE layer, M = L + 1 (layers, then their mean), R row of sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.counts import Units
from analysis.estimate import Estimate
from analysis.kernels import Float
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, Interval, delete_group_jackknife, group_sums, jackknife_groups, t_quantile
from hypotheses.var_evidence import VarCounts
from hypotheses.var_rank import ONE_DOCUMENT, with_mean, with_null


@dataclass(frozen=True)
class Ratio:
    """sum(numerator [L, D]) / sum(denominator [L, D]) over documents, per layer; then the mean over layers, or one pooled ratio."""

    numerator: NDArray[np.generic]
    denominator: NDArray[np.generic]
    unit: str
    n_of: str = "tokens"
    pooled: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)
    note: str = ""

    def value(self, sums: Float) -> Float:
        """Sums [R, 2 L] to ratios [R, M]; NaN where a denominator is 0."""
        numerator, denominator = np.split(sums, 2, axis=-1)
        if self.pooled:
            numerator, denominator = (np.concatenate([s, s.sum(axis=-1, keepdims=True)], axis=-1) for s in (numerator, denominator))
        ratio = np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
        return ratio if self.pooled else with_mean(ratio)


def alike_interval(value: float, n_documents: int, level: float) -> tuple[float, float]:
    """Ends of a share that is 0 (or 1) in every one of n documents: Clopper and Pearson's, 1 - (alpha / 2)^(1 / n) away from it.

    Documents that all agree have no spread, and an interval of no width would pass or fail a criterion on any number of them.
    """
    reach = 1 - ((1 - level) / 2) ** (1 / n_documents)
    return (0.0, reach) if value == 0 else (1 - reach, 1.0)


@dataclass(frozen=True)
class RatioRule:
    """Which split's documents are resampled, and the reason given where a denominator is 0."""

    counts: VarCounts
    split: str = "test"
    empty: str = "no_data: no tokens"

    def estimates(self, ratio: Ratio, null_RM: Float | None = None) -> tuple[Estimate, ...]:
        """One Estimate per layer and, last, over layers; null_RM: null draws [R, M]."""
        units = self.units
        sample = np.asarray(ratio.denominator, np.float64).sum(axis=1)
        sizes = [*sample, sample.sum() if ratio.pooled else sample[:1].sum()]
        if len(units.documents) < 2:
            reason = ONE_DOCUMENT if units.documents else f"no_data: no {self.split} documents"
            return tuple(self._undefined(ratio, reason, n) for n in sizes)
        interval, method = self.interval(ratio)
        method += "" if self.wide else f"; no interval below {MIN_UNITS_FOR_INTERVAL} documents"
        made = []
        for i, n in enumerate(sizes):
            if not np.isfinite([interval.value[i], interval.se[i]]).all():
                made.append(self._undefined(ratio, self.empty, n))
                continue
            value, low, high = np.clip([interval.value[i], interval.low[i], interval.high[i]], *ratio.bounds).tolist()
            how = method
            if interval.se[i] == 0:
                alike = self._alike(ratio, interval.value[i:i + 1] if i < len(ratio.numerator) or ratio.pooled else interval.value[:-1])
                low, high = alike or (None, None)
                how += ("; every document alike: ends of n documents without an exception (exact binomial)" if alike
                        else "; every document alike: no spread, so no interval")
            one = Estimate(value, low if self.wide else None, high if self.wide else None, ratio.unit, "document", len(units.documents),
                           how, level=self.counts.settings.level, plug_in=float(interval.plug_in[i]), se=float(interval.se[i]),
                           n=int(n), n_of=ratio.n_of)
            made.append(with_null(one, None if null_RM is None else null_RM[:, i]))
        return tuple(made)

    def _alike(self, ratio: Ratio, values: Float) -> tuple[float, float] | None:
        """Mean of the ends of layers whose documents all agree on 0 or on 1; None where they agree on anything else."""
        if ratio.bounds != (0.0, 1.0) or not np.isin(values, ratio.bounds).all():
            return None
        n, level = len(self.units.documents), self.counts.settings.level
        low, high = np.mean([alike_interval(float(value), n, level) for value in values], axis=0).tolist()
        return low, high

    @property
    def units(self) -> Units:
        """The resampled units of the split."""
        return (self.counts.test if self.split == "test" else self.counts.calibration).units

    @property
    def wide(self) -> bool:
        """Whether there are documents enough for an interval."""
        return len(self.units.documents) >= MIN_UNITS_FOR_INTERVAL

    def interval(self, ratio: Ratio) -> tuple[Interval, str]:
        """Jackknife interval of the ratio [M] and the method in words."""
        sums = group_sums(np.concatenate([ratio.numerator, ratio.denominator]), jackknife_groups(self.units.n))
        interval = delete_group_jackknife(sums, ratio.value, level=self.counts.settings.level)
        return interval, f"delete-group jackknife, G = {len(sums)}, Student t, {self.units.name}{ratio.note}"

    def _undefined(self, ratio: Ratio, reason: str, n: float) -> Estimate:
        return Estimate.undefined(reason, unit=ratio.unit, n_units=len(self.units.documents), n=int(n), n_of=ratio.n_of)


def difference(first: tuple[Estimate, ...], second: tuple[Estimate, ...], level: float) -> tuple[Estimate, ...]:
    """first - second of independent samples of documents: variances add, Student t on the fewer documents."""
    made = []
    for a, b in zip(first, second):
        n_units = min(a.n_units, b.n_units)
        if a.value is None or b.value is None or a.se is None or b.se is None:
            made.append(Estimate.undefined(a.reason or b.reason or "no interval", unit=a.unit, n_units=n_units))
            continue
        se = float(np.hypot(a.se, b.se))
        half = t_quantile(level, max(min(n_units, 100) - 1, 1)) * se
        value, wide = a.value - b.value, n_units >= MIN_UNITS_FOR_INTERVAL
        plug_in = None if a.plug_in is None or b.plug_in is None else a.plug_in - b.plug_in
        made.append(Estimate(value, value - half if wide else None, value + half if wide else None, a.unit, "document", n_units,
                             "two independent delete-group jackknives, variances added", level=level, plug_in=plug_in, se=se))
    return tuple(made)
