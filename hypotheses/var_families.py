"""The families of VAR metrics, each a mapping from metric id to one Estimate per layer and, last, of the mean over layers.

L MoE layer, m type, V token type, D unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.choices import GroupChoices, RowPool
from analysis.estimate import Estimate
from analysis.kernels import FIXED_ONE, Float, Int
from analysis.metrics import zipf
from analysis.metrics.fastpath import FastPathEffect
from analysis.nulls import document_keys
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, delete_group_jackknife, jackknife_groups
from analysis.rows import whole_documents
from analysis.trace import POSITION_BANDS
from hypotheses.var_draws import Sampled, Statistic, TypeDraw, TypeSample, on_types, sample
from hypotheses.var_evidence import VarCounts
from hypotheses.var_fastpath import FastPath
from hypotheses.var_rank import RankRule, correlation, partial_correlation, seed_correlation, with_mean
from hypotheses.var_shares import Ratio, RatioRule
from hypotheses.var_types import Consistency, TypeMean, share_of_types_below

Estimates = dict[str, tuple[Estimate, ...]]
OCCURRENCES = "share of occurrences"


@dataclass(frozen=True)
class SecondPass:
    """What the test rows give once the judged types and the fast-path table are known."""

    effect: Int  # [L, column, D]
    choices: GroupChoices
    pool: list[Int]

    @classmethod
    def of(cls, counts: VarCounts, fast_path: FastPath) -> SecondPass:
        """Read the test split again."""
        trace, test = counts.evidence.trace, counts.test
        effect, choices = FastPathEffect(fast_path.tables, test), GroupChoices(test, counts.judged)
        pool = RowPool(test, document_keys(trace.documents, counts.settings.seed))
        unit_of = test.units.numbers()
        for batch in whole_documents(trace.batches(split="test")):
            unit = unit_of[batch.document]
            effect.add(batch, unit)
            choices.add(batch, unit)
            pool.add(batch)
        return cls(effect.sums, choices, pool.ids())


def occurrences(counts: VarCounts) -> Estimates:
    """Shares below the thresholds, mean entropy and confidence, over occurrences."""
    test, rule = counts.test, RatioRule(counts)
    tokens = np.broadcast_to(test.tokens_D, test.entropy_LD.shape)
    uniform = np.log([layer.n_experts for layer in counts.layers])[:, None]
    names = ("entropy_share_below", "entropy_share_below_half_nat", "entropy_share_below_half_bit")
    made = {name: rule.estimates(Ratio(below, tokens, OCCURRENCES)) for name, below in zip(names, test.below_HLD)}
    nats = test.entropy_LD / FIXED_ONE
    made["entropy_mean_nats"] = rule.estimates(Ratio(nats, tokens, "nats", bounds=(0.0, np.inf)))
    if (uniform > 0).all():
        made["entropy_mean_normalised"] = rule.estimates(Ratio(nats / uniform, tokens, "normalised"))
    else:
        made["entropy_mean_normalised"] = _undefined(counts, "E = 1: normalised entropy is 0/0", "normalised")
    if test.confidence_LD is None:
        made["confidence_mean"] = _undefined(counts, "the trace has no top-1 probabilities", "probability")
    else:
        made["confidence_mean"] = rule.estimates(Ratio(test.confidence_LD / FIXED_ONE, tokens, "probability"))
    return made


@dataclass(frozen=True)
class Bins:
    """Bins of types by corpus frequency, equal in its logarithm: edges [bins + 1]."""

    edges: Float
    per_decade = 4

    @classmethod
    def of(cls, frequency: Int) -> Bins:
        """Bins over the positive frequencies; none where there are none."""
        positive = frequency[frequency > 0]
        if not len(positive):
            return cls(np.zeros(0))
        n = max(1, int(np.ceil(cls.per_decade * np.log10(positive.max() / positive.min()))))
        return cls(np.geomspace(positive.min(), positive.max() * (1 + 1e-9), n + 1))

    @property
    def n(self) -> int:
        """Number of bins."""
        return max(len(self.edges) - 1, 0)

    def index(self, frequency: Float) -> Int:
        """Bin of each frequency, -1 outside."""
        inside = (frequency >= self.edges[0]) & (frequency <= self.edges[-1]) if self.n else np.zeros(frequency.shape, bool)
        place = np.clip(np.searchsorted(self.edges, frequency, side="right") - 1, 0, max(self.n - 1, 0))
        return np.where(inside, place, -1).astype(np.int64)

    def statistic(self, frequency_V: Int) -> Statistic:
        """Mean over the present types of each bin of their mean entropy [b, L, bins]; types stay in their observed bin."""

        def bin_means(draw: TypeDraw) -> Float:
            out = np.full((*draw.mean.shape[:2], self.n), np.nan)
            where = self.index(frequency_V.astype(np.float64))
            for number in range(self.n):
                chosen = draw.mean[:, :, where == number]
                known = np.isfinite(chosen)
                n = known.sum(axis=2)
                out[:, :, number] = np.divide(np.where(known, chosen, 0).sum(axis=2), n, out=np.full(n.shape, np.nan), where=n > 0)
            return np.moveaxis(out, 0, 1)

        return bin_means


@dataclass(frozen=True)
class RankFamily:
    """The rank correlations with what they were made from, for tables: the sample of all seen types and bin means."""

    estimates: Estimates
    sensitivity: dict[int, tuple[Estimate, ...]]
    seen: TypeSample
    bins: Bins
    bin_means: Sampled


def ranks(counts: VarCounts) -> RankFamily:
    """Judged, partial, seed and sensitivity correlations, the share of types below, and bin means, with their matched nulls."""
    settings, strings = counts.settings, counts.evidence.token_strings
    seen, judged = TypeSample.of(counts, counts.test, 1), TypeSample.of(counts, counts.test, settings.min_type_count)
    totals = seen.totals
    mask, m = totals >= settings.min_type_count, len(judged.types)
    below = [share_of_types_below(limits) for limits in counts.thresholds_HL[:2]]
    partial, n_given = partial_correlation(strings, judged.types.tolist())
    judged_statistics = [correlation, *below]
    bins = Bins.of(counts.frequency_V[seen.types])
    binned = bins.statistic(counts.frequency_V[seen.types])
    cuts = [totals >= cut for cut in settings.sensitivity_counts]
    statistics = [*(on_types(mask, s) for s in (*judged_statistics, partial)), seed_correlation, binned]
    statistics += [on_types(cut, correlation) for cut in cuts]
    exploratory = sample(seen, statistics, settings.n_bootstrap_exploratory, counts.test_weights)
    precise = sample(judged, judged_statistics, settings.n_bootstrap, counts.test_weights, null=False)
    precise = [replace(drawn, null=same.null) for drawn, same in zip(precise, exploratory)]
    n_units, resampled = len(counts.test.units.documents), "mean over types; two-way (Owen), document variance from B = {}"
    given = RankRule(counts, m, n_given, "; given position, dispersion, token length, class")
    made = {"freq_entropy_rho": RankRule(counts, m).estimates(precise[0]), "freq_entropy_rho_partial": given.estimates(exploratory[3]),
            "freq_entropy_rho_seed": RankRule(counts, len(seen.types), note="; frequency of the same tokens").estimates(exploratory[4])}
    for name, limits, drawn in zip(("entropy_type_share_below", "entropy_type_share_below_half_nat"), counts.thresholds_HL, precise[1:]):
        values = (judged.observed().mean[:, 0] < limits[:, None]).astype(np.float64)
        variance = with_mean(drawn.replicates[:, :, 0]).var(axis=0, ddof=1)
        null = None if drawn.null is None else with_mean(drawn.null[:, :, 0])
        mean = TypeMean(values, variance, "share of types", resampled.format(len(drawn.replicates)), null=null)
        made[name] = mean.estimates(n_units, settings.level)
    sensitivity = {cut: RankRule(counts, int(chosen.sum())).estimates(drawn)
                   for cut, chosen, drawn in zip(settings.sensitivity_counts, cuts, exploratory[6:])}
    return RankFamily(made, sensitivity, seen, bins, exploratory[5])


def band_ranks(counts: VarCounts) -> Estimates:
    """The rank correlation within each position band, over types with min_type_count occurrences there."""
    settings, made = counts.settings, {}
    for band, first in enumerate(POSITION_BANDS):
        population = TypeSample.of(counts, counts.test, settings.min_type_count, band)
        drawn = sample(population, [correlation], settings.n_bootstrap_exploratory, counts.test_weights)[0]
        made[f"freq_entropy_rho_band_{first}"] = RankRule(counts, len(population.types), note=f"; positions from {first}").estimates(drawn)
    return made


def zipf_family(counts: VarCounts) -> dict[str, Estimate]:
    """Zipf's law of the train and calibration documents: descriptive, with a jackknife over those documents."""
    unit, types, count, n_units, _ = counts.frequency_cells
    groups = jackknife_groups(n_units)
    used, column = np.unique(types, return_inverse=True)
    sums = np.zeros((int(groups.max(initial=-1)) + 1, len(used)))
    np.add.at(sums, (groups[unit], column), count)
    names = ("zipf_r2", "zipf_exponent", "zipf_ks", f"top_{counts.settings.top_types}_coverage")
    units = ("R^2", "exponent", "distance", "share of corpus occurrences")
    n_documents = counts.evidence.frequency.shape[0]
    if n_documents < 2 or len(used) < 3 or len(set(sums.sum(axis=0).tolist())) < 2:
        reason = "Zipf's law needs at least 2 documents and 3 types whose counts differ"
        return {name: Estimate.undefined(reason, unit=u, n_units=n_documents) for name, u in zip(names, units)}

    def statistic(rows: Float) -> Float:
        return np.array([_zipf(row, counts.settings.top_types) for row in rows])

    interval = delete_group_jackknife(sums, statistic, level=counts.settings.level)
    method = f"delete-group jackknife over train and calibration documents, G = {len(sums)}, plug-in value; descriptive"
    wide = n_documents >= MIN_UNITS_FOR_INTERVAL
    made, highest = {}, (1.0, np.inf, 1.0, 1.0)
    for i, name in enumerate(names):
        value, half = float(interval.plug_in[i]), float(interval.high[i] - interval.value[i])
        low, high = (max(value - half, 0.0), min(value + half, highest[i])) if wide else (None, None)
        made[name] = Estimate(value, low, high, units[i], "document", n_documents, method, level=counts.settings.level, plug_in=value,
                              se=float(interval.se[i]), n=len(used), n_of="types")
    return made


def _zipf(counts: Float, top: int) -> list[float]:
    s = zipf.exponent(counts)
    return [zipf.log_log_fit(counts).r2, s, zipf.kolmogorov_smirnov(counts, s), zipf.top_coverage(counts, top)]


def consistency(counts: VarCounts, second: SecondPass) -> tuple[Estimates, Consistency]:
    """Collision, kappa, modal and rarefied consistency of the judged types."""
    measured = Consistency(counts, second.choices, second.pool)
    order = np.lexsort((np.arange(len(counts.frequency_V)), -counts.frequency_V))
    top = np.isin(counts.judged, order[: counts.settings.top_types])
    n_units, level = len(counts.test.units.documents), counts.settings.level
    return {name: mean.estimates(n_units, level) for name, mean in measured.families(top).items()}, measured


def _undefined(counts: VarCounts, reason: str, unit: str) -> tuple[Estimate, ...]:
    n_units = len(counts.test.units.documents)
    return tuple(Estimate.undefined(reason, unit=unit, n_units=n_units) for _ in range(len(counts.layers) + 1))
