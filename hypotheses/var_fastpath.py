"""The fast path of VAR: eligibility and table from calibration documents, effect on test documents.

L MoE layer, V token type, D unit, R null draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.counts import RoutingCounts, mean_of
from analysis.estimate import Estimate
from analysis.kernels import FIXED_ONE, Float, Int, from_fixed
from analysis.metrics.fastpath import LayerTable, eligible, lookup_tables
from analysis.nulls import NullPlan, permuted_entropy_sums
from hypotheses.var_draws import Statistic, TypeDraw, TypeSample, sample
from hypotheses.var_evidence import HALF_NAT, VarCounts
from hypotheses.var_rank import with_mean
from hypotheses.var_shares import Ratio, RatioRule, difference
from hypotheses.var_types import TypeMean

OCCURRENCES = "share of occurrences"
NOTHING_ELIGIBLE = "no test occurrence is covered: no type is eligible on calibration documents"
GIVEN_TABLE = "; eligibility and table fixed by calibration documents"


@dataclass(frozen=True)
class FastPath:
    """Eligible types [L, V], the table of each layer, and the test sums [L, column, D] of analysis.metrics.fastpath."""

    chosen: NDArray[np.bool_]
    tables: tuple[LayerTable, ...]

    @classmethod
    def of(cls, counts: VarCounts) -> FastPath:
        """Decide on calibration documents."""
        chosen = eligible(counts.calibration, counts.settings.frequency_threshold, counts.thresholds_HL[0])
        return cls(chosen, lookup_tables(counts.calibration, chosen))

    def families(self, counts: VarCounts, sums: Int) -> dict[str, tuple[Estimate, ...]]:
        """Every fast-path metric; sums: FastPathEffect.sums on test documents."""
        rule, calibration = RatioRule(counts), RatioRule(counts, "calibration")
        covered, agree, overlap, missed = np.moveaxis(sums, 1, 0)
        slots = np.array([layer.top_k for layer in counts.layers])[:, None]
        made = {
            "fastpath_coverage": rule.estimates(Ratio(covered, _tokens(counts.test), OCCURRENCES, note=GIVEN_TABLE),
                                                self._coverage_null(counts)),
            "fastpath_coverage_calibration": calibration.estimates(
                Ratio(self._covered(counts.calibration), _tokens(counts.calibration), OCCURRENCES, note=GIVEN_TABLE)),
        }
        made["fastpath_optimism"] = difference(made["fastpath_coverage_calibration"], made["fastpath_coverage"], counts.settings.level)
        on_covered = RatioRule(counts, empty=NOTHING_ELIGIBLE)
        kin = {"fastpath_agreement": (agree, "share of covered occurrences"),
               "fastpath_agreement_set": (overlap / slots, "share of covered choices"),
               "fastpath_missed_weight": (missed / FIXED_ONE, "share of combine weight")}
        for name, (numerator, unit) in kin.items():
            ratio = Ratio(numerator, covered, unit, "covered occurrences", pooled=True, note=GIVEN_TABLE + "; layers pooled")
            made[name] = on_covered.estimates(ratio)
        if not counts.test.has_weights:
            reason = "the trace has no combine weights"
            undefined = (Estimate.undefined(reason, unit=e.unit, n_units=e.n_units) for e in made["fastpath_missed_weight"])
            made["fastpath_missed_weight"] = tuple(undefined)
        return made | self._of_types(counts)

    def _of_types(self, counts: VarCounts) -> dict[str, tuple[Estimate, ...]]:
        """The share of types that are eligible, and the seed's coverage (eligibility and coverage on the same tokens)."""
        seed = eligible(counts.test, counts.settings.frequency_threshold, _literal(counts))
        ratio = Ratio(_covered_cells(counts.test, seed), _tokens(counts.test), OCCURRENCES,
                      note="; eligibility decided on the same tokens (seed 003), taken as fixed")
        return {"fastpath_coverage_seed": RatioRule(counts).estimates(ratio), "fastpath_type_share": self._type_share(counts)}

    def _type_share(self, counts: VarCounts) -> tuple[Estimate, ...]:
        settings = counts.settings
        population = TypeSample.of(counts, counts.calibration, 1)
        n_units = counts.calibration.units.n
        if n_units < 2 or not len(population.types):
            reason = "no_data: no calibration documents" if n_units == 0 else "one calibration document: no spread between documents"
            return tuple(Estimate.undefined(reason, unit="share of types") for _ in range(len(counts.layers) + 1))
        statistic = eligible_share(settings.frequency_threshold, counts.thresholds_HL[0])
        drawn = sample(population, [statistic], settings.n_bootstrap_exploratory, counts.calibration_weights, null=False)[0]
        variance = with_mean(drawn.replicates[:, :, 0]).var(axis=0, ddof=1)
        values = self.chosen[:, population.types].astype(np.float64)
        method = f"types seen in calibration documents; two-way (Owen), B = {len(drawn.replicates)} on calibration documents"
        return TypeMean(values, variance, "share of types", method).estimates(len(counts.calibration.units.documents), settings.level)

    def _covered(self, split: RoutingCounts) -> Int:
        return _covered_cells(split, self.chosen)

    def _coverage_null(self, counts: VarCounts) -> Float | None:
        """Coverage [R, L + 1] when entropies are permuted over types in the calibration documents: what counts alone would cover."""
        settings, calibration = counts.settings, counts.calibration
        types = np.flatnonzero(calibration.n_V)
        if not settings.n_null or not len(types) or not counts.test.n_tokens:
            return None
        plan = NullPlan("calibration", settings.n_null, settings.seed, n_rows=calibration.n_tokens)
        frequent = calibration.n_V[types] >= settings.frequency_threshold
        parts = []
        for layers, sums in permuted_entropy_sums(counts.evidence.trace, plan, types):
            mean = mean_of(from_fixed(sums), calibration.n_V[types])
            chosen = frequent & (mean < counts.thresholds_HL[0][layers][None, :, None])
            parts.append(chosen @ counts.test.n_V[types] / counts.test.n_tokens)
        return with_mean(np.concatenate(parts, axis=1))


def eligible_share(min_count: int, thresholds_L: Float) -> Statistic:
    """Share of all types of the sample with at least min_count occurrences and a mean entropy strictly below the threshold."""

    def statistic(draw: TypeDraw) -> Float:
        with np.errstate(invalid="ignore"):
            shares = [((draw.n >= min_count) & (mean < limit)).mean(axis=1) for mean, limit in zip(draw.mean, thresholds_L)]
        return np.stack(shares, axis=1)[:, :, None]

    return statistic


def _tokens(split: RoutingCounts) -> Int:
    return np.broadcast_to(split.tokens_D, split.entropy_LD.shape)


def _literal(counts: VarCounts) -> Float:
    return np.array([HALF_NAT.nats(layer.n_experts) for layer in counts.layers])


def _covered_cells(split: RoutingCounts, chosen: NDArray[np.bool_]) -> Int:
    """Occurrences of the chosen types per layer and unit [L, D]."""
    out = np.zeros((len(chosen), split.units.n), np.int64)
    for layer, row in enumerate(chosen):
        kept = row[split.type]
        np.add.at(out[layer], split.unit[kept], split.n[kept])
    return out
