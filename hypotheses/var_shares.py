"""The judged shares of VAR and their kin: ratios of sums over documents, with delete-group jackknife intervals.

D unit, G jackknife group, L MoE layer, M = L + 1 (layers, then their mean), R row of sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.kernels import Float
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, delete_group_jackknife, group_sums, jackknife_groups
from hypotheses.var_evidence import VarCounts
from hypotheses.var_rank import ONE_DOCUMENT, null_fields, with_mean


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


def ratio_estimates(counts: VarCounts, ratio: Ratio, *, empty: str, split: str = "test", null_RM: Float | None = None) -> tuple[Estimate, ...]:
    """One Estimate per layer and, last, over layers. `empty`: the reason where a denominator is 0."""
    units = (counts.test if split == "test" else counts.calibration).units
    n_documents, level = len(units.documents), counts.settings.level
    n_estimates = len(ratio.numerator) + 1
    sample = np.asarray(ratio.denominator, np.float64).sum(axis=1)
    sizes = [*sample, sample.sum() if ratio.pooled else sample[0]]
    common = [{"unit": ratio.unit, "resampled": "document", "n_units": n_documents, "n": int(n), "n_of": ratio.n_of} for n in sizes]
    if n_documents < 2:
        reason = ONE_DOCUMENT if n_documents else f"no_data: no {split} documents"
        return tuple(Estimate.undefined(reason, **fields) for fields in common)  # type: ignore[arg-type]
    groups = jackknife_groups(units.n)
    sums = group_sums(np.concatenate([ratio.numerator, ratio.denominator]), groups)
    interval = delete_group_jackknife(sums, ratio.value, level=level)
    method = f"delete-group jackknife, G = {len(sums)}, Student t, {units.name}{ratio.note}"
    wide = n_documents >= MIN_UNITS_FOR_INTERVAL
    method += "" if wide else f"; no interval below {MIN_UNITS_FOR_INTERVAL} documents"
    estimates = []
    for i in range(n_estimates):
        if not np.isfinite([interval.value[i], interval.se[i]]).all():
            estimates.append(Estimate.undefined(empty, **common[i]))  # type: ignore[arg-type]
            continue
        value, low, high = np.clip([interval.value[i], interval.low[i], interval.high[i]], *ratio.bounds).tolist()
        null = {} if null_RM is None else null_fields(null_RM[:, i])
        estimates.append(Estimate(value, low if wide else None, high if wide else None, method=method, level=level,
                                  plug_in=float(interval.plug_in[i]), se=float(interval.se[i]), **null, **common[i]))  # type: ignore[arg-type]
    return tuple(estimates)
