"""Means over token types of VAR: two-way intervals (documents and types vary) for shares of types and for consistency.

L MoE layer, m type, G document group, B replicate, R null draw, E expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.choices import GroupChoices, redraw, weighted_groups
from analysis.estimate import Estimate
from analysis.kernels import Float, Int
from analysis.metrics.consistency import collision, global_collision, kappa, modal_share, rarefied_modal_share
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, generator, t_quantile, two_way_error
from hypotheses.var_draws import Statistic, TypeDraw
from hypotheses.var_evidence import VarCounts
from hypotheses.var_rank import ONE_DOCUMENT, with_mean, with_null

Mask = NDArray[np.bool_]
REPLICATES = 199


def share_of_types_below(thresholds_L: Float) -> Statistic:
    """Share of the present types whose mean entropy is strictly below the layer's threshold."""

    def statistic(draw: TypeDraw) -> Float:
        present = np.maximum((draw.n > 0).sum(axis=1), 1)
        with np.errstate(invalid="ignore"):
            below = [(mean < limit).sum(axis=1) / present for mean, limit in zip(draw.mean, thresholds_L)]
        return np.stack(below, axis=1)[:, :, None]

    return statistic


@dataclass(frozen=True)
class TypeMean:
    """A mean over types with its parts of variance. values: [L, m], NaN for a type without the statistic; document_variance: [L + 1].

    bias: [L + 1], subtracted from the plain mean. df: of the document part.
    """

    values: Float
    document_variance: Float
    unit: str
    method: str
    bias: Float | None = None
    df: int = 99
    null: Float | None = None  # [R, L + 1]
    bounds: tuple[float, float] = (0.0, 1.0)

    def estimates(self, n_units: int, level: float) -> tuple[Estimate, ...]:
        """One Estimate per layer and, last, of the mean over layers; n_units: documents resampled."""
        averaged = self.values.mean(axis=0, keepdims=True)
        return tuple(self._estimate(i, row, n_units, level) for i, row in enumerate(np.concatenate([self.values, averaged])))

    def _estimate(self, i: int, values: Float, n_units: int, level: float) -> Estimate:
        values = values[np.isfinite(values)]
        common = {"unit": self.unit, "resampled": "document x type", "n_units": n_units, "n": len(values), "n_of": "types"}
        reason = f"{len(values)} types: a mean over types with an interval needs at least 3" if len(values) < 3 else None
        if n_units < 2:
            reason = ONE_DOCUMENT if n_units else "no_data: no documents"
        elif reason is None and not np.isfinite(self.document_variance[i]):
            reason = "undefined in a replicate of the documents: too few occurrences"
        if reason:
            return Estimate.undefined(reason, method=self.method, **common)  # type: ignore[arg-type]
        se = two_way_error(values, float(self.document_variance[i]))
        plain = float(values.mean())
        value = plain - (0.0 if self.bias is None else float(self.bias[i]))
        half = t_quantile(level, self.df) * se
        low, high = np.clip([value - half, value + half], *self.bounds).tolist()
        wide = n_units >= MIN_UNITS_FOR_INTERVAL
        method = self.method + ("" if wide else f"; no interval below {MIN_UNITS_FOR_INTERVAL} documents")
        made = Estimate(value, low if wide else None, high if wide else None, method=method, level=level, plug_in=plain, se=se,
                        **common)  # type: ignore[arg-type]
        return with_null(made, None if self.null is None else self.null[:, i])


class Consistency:
    """Consistency of the judged types from choices by document group, and under the null of the layer's marginal."""

    def __init__(self, counts: VarCounts, choices: GroupChoices, pool: list[Int]) -> None:
        self.counts, self.choices, self.pool = counts, choices, pool
        self.n = choices.n.sum(axis=0).astype(np.int64)
        self.sums = [table.sum(axis=0, dtype=np.int64) for table in choices.chosen]
        test = counts.test
        self.chance = np.array([global_collision(c.total(c.n), test.n_tokens, c.top_k) for c in test.choices])
        self._first = [c.dense(c.first, choices.types) for c in test.choices]

    def collision(self, chosen: list[NDArray[np.generic]], n: NDArray[np.generic]) -> Float:
        """Collision [L, ...] of counts by layer."""
        return np.stack([collision(table, n, layer.top_k) for table, layer in zip(chosen, self.choices.layers)])

    @cached_property
    def rarefied(self) -> Float:
        """Rarefied modal share of the first choice of the judged types [L, m]."""
        size, seed = self.counts.settings.rarefied_to, self.counts.settings.seed
        return np.stack([rarefied_modal_share(first, size, generator(seed, "consistency_rarefied", layer))
                         for layer, first in enumerate(self._first)])

    def families(self, top: Mask) -> dict[str, TypeMean]:
        """Every consistency metric over the judged types; `top` [m] marks those of the most frequent types of the corpus."""
        nulls = self._null_draws(top)
        modal = np.stack([modal_share(table, self.n) for table in self.sums])
        rarefied = self.rarefied
        made = {"collision": self._collision(nulls["collision"], as_kappa=False),
                "collision_kappa": self._collision(nulls["kappa"], as_kappa=True)}
        for suffix, mask in (("", np.ones(len(self.n), bool)), ("_top1000", top)):
            variance = self._modal_variance(mask)
            name = f"modal share, {{}}two-way (Owen), document variance from B = {REPLICATES} weighted groups, G = {self.choices.n_groups}"
            of_sets = name.format("expert in the set, ")
            of_first = name.format(f"first choice among {self.counts.settings.rarefied_to} occurrences, ") + " of the unrarefied share"
            unit, null = "share of occurrences", nulls["rarefied"]
            made[f"consistency_modal{suffix}"] = TypeMean(modal[:, mask], variance, unit, of_sets, null=nulls[f"modal{suffix}"])
            made[f"consistency_rarefied{suffix}"] = TypeMean(rarefied[:, mask], variance, unit, of_first, null=null)
        return made

    def _collision(self, null: Float | None, *, as_kappa: bool) -> TypeMean:
        def value(chosen: list[NDArray[np.generic]], n: NDArray[np.generic]) -> Float:
            overlap = self.collision(chosen, n)
            return np.stack([kappa(row, g) for row, g in zip(overlap, self.chance)]) if as_kappa else overlap

        groups, values = self.choices.n_groups, value(list(self.sums), self.n)
        left = np.full((2, len(values) + 1), np.nan)
        if groups > 1 and len(self.n):
            without = (([total - table[g] for total, table in zip(self.sums, self.choices.chosen)], self.n - self.choices.n[g])
                       for g in range(groups))
            left = np.stack([_means(value(chosen, n)) for chosen, n in without])
        plain, mean = _means(values), left.mean(axis=0)
        variance = (groups - 1) / groups * ((left - mean) ** 2).sum(axis=0)
        method = f"two-way (Owen), document part by delete-group jackknife, G = {groups}"
        unit, lowest = ("kappa", -np.inf) if as_kappa else ("overlap", 0.0)
        return TypeMean(values, variance, unit, method, bias=(groups - 1) * (mean - plain), df=max(groups - 1, 1), null=null,
                        bounds=(lowest, 1.0))

    def _modal_variance(self, mask: Mask) -> Float:
        groups = self.choices.n_groups
        if groups < 2 or not mask.any():
            return np.full(len(self.sums) + 1, np.nan)
        rng = generator(self.counts.settings.seed, "consistency_modal")
        weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=REPLICATES).astype(np.float64)
        replicates = np.empty((REPLICATES, len(self.sums)))
        for start in range(0, REPLICATES, 16):
            part = slice(start, min(start + 16, REPLICATES))
            n = weighted_groups(self.choices.n[:, mask], weights[part])
            for layer, table in enumerate(self.choices.chosen):
                replicates[part, layer] = np.nanmean(modal_share(weighted_groups(table[:, mask], weights[part]), n), axis=1)
        variance: Float = with_mean(replicates).var(axis=0, ddof=1)
        return variance

    def _null_draws(self, top: Mask) -> dict[str, Float | None]:
        names = ("collision", "kappa", "modal", "modal_top1000", "rarefied")
        settings, experts = self.counts.settings, [layer.n_experts for layer in self.choices.layers]
        if not len(self.n) or not settings.n_null or not self.pool:
            return dict.fromkeys(names)
        rng = generator(settings.seed, "consistency_null")
        drawn: dict[str, list[Float]] = {name: [] for name in names}
        for _ in range(settings.n_null):
            one = redraw(self.pool, experts, self.n, rng)
            overlap = self.collision(list(one.chosen), one.n)
            modal = np.stack([modal_share(table, one.n) for table in one.chosen])
            drawn["collision"].append(_means(overlap))
            drawn["kappa"].append(_means(np.stack([kappa(row, g) for row, g in zip(overlap, self.chance)])))
            drawn["modal"].append(_means(modal))
            drawn["modal_top1000"].append(_means(modal[:, top]))
            drawn["rarefied"].append(self._rarefied_null(rng))
        return {name: np.stack(rows) for name, rows in drawn.items()}

    def _rarefied_null(self, rng: np.random.Generator) -> Float:
        size = self.counts.settings.rarefied_to
        shares = []
        for choices in self.counts.test.choices:
            first = np.sort(choices.total(choices.first)).astype(np.float64)  # the draw must not depend on the experts' names
            shares.append(rng.multinomial(size, first / first.sum(), size=len(self.n)).max(axis=1).mean() / size)
        return with_mean(np.array(shares))


def _means(values: Float) -> Float:
    """Mean over types [L], then over layers, of values [L, m]; NaN where no type has one."""
    kept = np.isfinite(values)
    sums = np.where(kept, values, 0).sum(axis=-1)
    means: Float = np.divide(sums, kept.sum(axis=-1), out=np.full(sums.shape, np.nan), where=kept.any(axis=-1))
    return with_mean(means)

