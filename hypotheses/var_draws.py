"""Frequencies and mean entropies of token types: as observed, in bootstrap replicates, and under the matched null.

b replicate or null draw, L MoE layer, m type of the sample, Q statistics of one function, Z non-empty cell.
A statistic is a function TypeDraw -> [b, L, Q]; observed value, replicates and null come from the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.counts import RoutingCounts, mean_of
from analysis.kernels import FIXED_ONE, Float, Int, from_fixed, segment_sums
from analysis.nulls import NullPlan, permuted_entropy_sums
from analysis.resampling import TypeCells
from hypotheses.var_evidence import VarCounts

CHUNK = 64


@dataclass(frozen=True)
class TypeDraw:
    """frequency: corpus counts [b, m]; n: occurrences [b, m]; mean: entropies [L, b, m] in nats, NaN where absent.

    position: mean position [b, m]; dispersion: documents with the type [b, m].
    """

    frequency: Float
    n: Float
    mean: Float
    position: Float
    dispersion: Float


    def of_types(self, mask: NDArray[np.bool_]) -> TypeDraw:
        """The same draws of the masked types [m] only."""
        return TypeDraw(self.frequency[:, mask], self.n[:, mask], self.mean[:, :, mask], self.position[:, mask], self.dispersion[:, mask])


Statistic = Callable[[TypeDraw], Float]


def on_types(mask: NDArray[np.bool_], statistic: Statistic) -> Statistic:
    """The statistic over the masked types only."""
    return lambda draw: statistic(draw.of_types(mask))


@dataclass(frozen=True)
class TypeSample:
    """Types of one population of a split and their cells.

    unit, column (index into types), n, sum of positions: [Z]; entropy: fixed-point sums [L, Z].
    """

    counts: VarCounts
    split: RoutingCounts
    band: int | None
    types: Int
    unit: Int
    column: Int
    n: Int
    position: Int
    entropy: Int

    @classmethod
    def of(cls, counts: VarCounts, split: RoutingCounts, min_count: int, band: int | None = None) -> TypeSample:
        """Types with at least min_count occurrences in the split, over all positions or in one position band."""
        rows = np.ones(len(split.band), bool) if band is None else split.band == band
        n_V = np.bincount(split.type[rows], weights=split.n[rows], minlength=split.n_types)
        types = np.flatnonzero(n_V >= max(min_count, 1))
        rows &= np.isin(split.type, types)
        columns = np.concatenate([split.n[None, rows], split.position[None, rows], split.entropy[:, rows]])
        keys, sums = segment_sums(split.unit[rows] * split.n_types + split.type[rows], columns)
        column = np.searchsorted(types, keys % split.n_types)
        return cls(counts, split, band, types, keys // split.n_types, column, sums[0], sums[1], sums[2:])

    @property
    def totals(self) -> Int:
        """Occurrences of each type in this population [m]."""
        out = np.zeros(len(self.types), np.int64)
        np.add.at(out, self.column, self.n)
        return out

    def observed(self) -> TypeDraw:
        """The one draw that is the data, b = 1."""
        frequency = self.counts.frequency_V[self.types].astype(np.float64)[None]
        return self._draw(np.ones((1, self.split.units.n)), frequency)

    def replicates(self, n_replicates: int, weights: Float) -> Iterator[TypeDraw]:
        """Bootstrap replicates, a bounded number at a time: documents of the split and of the corpus redrawn independently."""
        corpus = self.counts.corpus(self.types)
        for start in range(0, n_replicates, CHUNK):
            chunk = slice(start, min(start + CHUNK, n_replicates))
            yield self._draw(weights[chunk], corpus(chunk))

    def nulls(self, n_draws: int) -> Iterator[tuple[list[int], TypeDraw]]:
        """Layers, and draws of the matched null with those layers: entropies permuted over types inside (document, band)."""
        plan = NullPlan(self.split.plan.split, n_draws, self.counts.settings.seed, self.band, self.split.n_tokens)
        fixed = self.observed()
        for layers, sums in permuted_entropy_sums(self.counts.evidence.trace, plan, self.types):
            mean = np.moveaxis(mean_of(from_fixed(sums), fixed.n[0]), 1, 0)
            wide = (np.broadcast_to(c, (n_draws, len(self.types))) for c in (fixed.frequency, fixed.n, fixed.position, fixed.dispersion))
            frequency, n, position, dispersion = wide
            yield layers, TypeDraw(frequency, n, mean, position, dispersion)

    @cached_property
    def _cells(self) -> TypeCells:
        return TypeCells(self.unit, self.column, (self.split.units.n, len(self.types)))

    def _draw(self, weights: Float, frequency: Float) -> TypeDraw:
        def sums(values: Int) -> Float:
            return self._cells.sums(weights, values)

        n = sums(self.n)
        mean = np.stack([mean_of(sums(row) / FIXED_ONE, n) for row in self.entropy])
        return TypeDraw(frequency, n, mean, mean_of(sums(self.position), n), sums(np.ones_like(self.n)))


@dataclass(frozen=True)
class Sampled:
    """A statistic's observed values [L, Q], replicates [B, L, Q], and null draws [R, L, Q] (None where no null was drawn)."""

    value: Float
    replicates: Float
    null: Float | None


def sample(
    population: TypeSample, statistics: Sequence[Statistic], n_replicates: int, weights: Float, *, null: bool = True
) -> list[Sampled]:
    """Each statistic on the data, on the replicates and under the null, in one pass over each."""
    observed = [statistic(population.observed())[0] for statistic in statistics]
    replicates: list[list[Float]] = [[] for _ in statistics]
    for draw in population.replicates(n_replicates, weights):
        for kept, statistic in zip(replicates, statistics):
            kept.append(statistic(draw))
    n_null = population.counts.settings.n_null if null else 0
    nulls: list[list[Float]] = [[] for _ in statistics]
    if n_null:
        for _, draw in population.nulls(n_null):
            for kept, statistic in zip(nulls, statistics):
                kept.append(statistic(draw))
    return [Sampled(value, np.concatenate(drawn), np.concatenate(null_drawn, axis=1) if n_null else None)
            for value, drawn, null_drawn in zip(observed, replicates, nulls)]
