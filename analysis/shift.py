"""Circular-shift null of cross-layer information (metrics specification 3.3): the second layer turned against the first inside documents.

T token, D document, L layer, P pair of layers, R draw, G jackknife group.
A shift keeps the topics and the stickiness of each document and breaks only what ties the two layers token by token. Global and
within-document shuffles do not: their size at 5 % is 1.0 and up to 0.92.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.estimate import Estimate
from analysis.gates import NO_DATA
from analysis.kernels import Backend, Int, choose_backend, mix, numba_loaded
from analysis.moved_rows import (
    MovedRows,
    RoutedDocuments,
    Source,
    Updates,
    compiled,
    group_rows,
    left_out_information,
    moved_information,
    pairs_of,
    seeded,
)
from analysis.permutation import p_value
from analysis.resampling import Interval, left_out_interval
from analysis.rows import bands
from analysis.table_information import moved_to

SHORTEST_DOCUMENT = 8
FEWEST_FOR_P = 99  # draws below which a p-value is refused: the map of all pairs carries none
COMPILED_FROM = 20_000_000  # increments below which numba's start-up costs more than it saves


@dataclass(frozen=True)
class ShiftPlan:
    """How to draw a circular-shift null.

    n_draws: 999 for the judged family (adjacent layers), 25-50 for a map of all pairs. n_interval_draws: of these, the draws that are also
    counted without each group; a small number widens the interval by its own Monte-Carlo error, never narrows it. drop_first: positions
    left out of null and observed alike. bands: compare inside position bands, i.e. I(X;Y|band). Both tell a trend of positions from coupling.
    p_values: draw a second null for the p-value, as many draws, from all shifts 0..T - 1. The shifts of the excess keep away from 0, which
    makes them more like one another than like the observed: where tokens stick, a p from them rejects 9 % at a nominal 5 %.
    """

    n_draws: int = 999
    seed: int = 0
    n_interval_draws: int = 25
    drop_first: int = 0
    bands: bool = False
    level: float = 0.95
    threads: int = 1
    backend: Backend | None = None
    p_values: bool = False


@dataclass(frozen=True, eq=False)
class ShiftNull:
    """Observed information and its null, of the eligible documents (at least 8 tokens after drop_first) alike.

    observed [P], null [R, P]: plug-in, bits, with the shifts of the excess. orbit [R, P]: with any shift, exchangeable with the observed, for
    p-values; None where the plan asks for none. One shift per document and draw serves all pairs, so that rows of `orbit` feed a maxT.
    interval: of the excess, where documents had groups. left_out: share of tokens in documents too short, or dropped by position.
    few, without_G: excess over the interval's draws [P], and without each group of documents [G, P]; None without groups.
    NaN where no eligible token has both choices.
    """

    observed: Float
    null: Float
    interval: Interval | None
    n_documents: int
    n_tokens: int
    left_out: float
    level: float = 0.95
    few: Float | None = None
    without_G: Float | None = None
    orbit: Float | None = None

    @property
    def excess(self) -> Float:
        """I - mean over shifts of I [P], bits: coupling token by token beyond the documents' composition. May be negative."""
        return np.asarray(self.observed - self.null.mean(axis=0), np.float64)

    @property
    def z(self) -> Float:
        """Excess in standard deviations of the null [P]; NaN where the null does not vary."""
        spread = self.null.std(axis=0, ddof=1) if len(self.null) > 1 else np.full_like(self.observed, np.nan)
        return np.divide(self.excess, spread, out=np.full_like(self.observed, np.nan), where=spread > 0)

    @property
    def p(self) -> Float:
        """(1 + #{orbit >= observed}) / (R + 1) [P]. ValueError below 99 draws, and where none were drawn for it."""
        if self.orbit is None:
            raise ValueError("no shifts were drawn for a p-value; ask for them with ShiftPlan(p_values=True)")
        if len(self.orbit) < FEWEST_FOR_P:
            raise ValueError(f"{len(self.orbit)} shifts give no p-value; draw {FEWEST_FOR_P} or more (999 for a judged family)")
        return p_value(self.observed, self.orbit)

    def estimates(self) -> list[Estimate]:
        """`mi_excess` of each pair: bias-corrected value and interval where there are groups, the null beside it, p where the draws allow."""
        p = self.p if self.orbit is not None and len(self.orbit) >= FEWEST_FOR_P else np.full_like(self.observed, np.nan)
        low, high = np.quantile(self.null, [0.025, 0.975], axis=0) if len(self.null) else np.full((2, len(self.observed)), np.nan)
        return [self._estimate(i, p[i], low[i], high[i]) for i in range(len(self.observed))]

    def mean(self) -> ShiftNull:
        """The mean over the pairs as one pair: its interval is of the mean, over the same groups of documents and shifts."""
        interval = None
        if self.few is not None and self.without_G is not None:
            few, without = self.few.mean(keepdims=True), self.without_G.mean(axis=1, keepdims=True)
            interval = moved_to(left_out_interval(few, without, self.level), self.excess.mean(keepdims=True))
        return replace(self, observed=self.observed.mean(keepdims=True), null=self.null.mean(axis=1, keepdims=True), interval=interval,
                       few=None, without_G=None, orbit=None if self.orbit is None else self.orbit.mean(axis=1, keepdims=True))

    def _estimate(self, i: int, p: float, low: float, high: float) -> Estimate:
        if np.isnan(self.excess[i]):
            return Estimate.undefined(f"{NO_DATA}: no document of {SHORTEST_DOCUMENT} tokens has both choices", unit="bits", n_units=self.n_documents)
        known = self.interval is not None and not np.isnan(self.interval.se[i])
        value, se, first, last = (float(x[i]) for x in (self.interval.value, self.interval.se, self.interval.low, self.interval.high)
                                  ) if known and self.interval is not None else (float(self.excess[i]), None, None, None)
        return Estimate(value, first, last, "bits", "document", self.n_documents, "group jackknife minus circular shift" if known else "plug-in",
                        self.level, plug_in=float(self.excess[i]), se=se, n=self.n_tokens, n_of="tokens", null=float(self.null[:, i].mean()),
                        null_low=float(low), null_high=float(high), p=None if np.isnan(p) else float(p))


def shifted_information(documents: RoutedDocuments, pairs: ArrayLike, plan: ShiftPlan) -> ShiftNull:
    """Excess of I(X_l; X_l') over its circular-shift null, bits, for layer pairs [P, 2]; the second layer of a pair is shifted.

    y_s[t] = y[(t - s) mod T], s ~ U{m..T - m}, m = min(16, T // 4), independent per document and draw, from document key, draw and seed
    alone. Documents with fewer than 8 tokens leave null and observed alike. The interval is the jackknife of I - mean of the null over
    groups of documents, both counted without the group under the same shifts: its deviations come from the first n_interval_draws and are
    laid about the excess over all draws. p-values: see ShiftPlan. Source: metrics specification 3.3.
    """
    chosen, total = pairs_of(pairs, len(documents.first_L), plan.n_draws), int(documents.starts[-1])
    if (plan.drop_first or plan.bands) and documents.position is None:
        raise ValueError("drop_first and bands need the position of each token; pass RoutedDocuments(position=...)")
    kept = eligible(documents, plan.drop_first)
    strata = bands(np.asarray(kept.position)) if plan.bands else None
    work = int(kept.starts[-1]) * len(chosen) * (plan.n_draws + 1)
    backend = plan.backend or choose_backend(work, 0 if numba_loaded() else COMPILED_FROM)
    rows = MovedRows.of(kept.first_L, kept.n_experts, backend, strata)
    sources = shift_sources(kept, plan.seed, backend)
    observed = moved_information(rows, chosen, lambda _: rows.identity(), [0])[0]
    null = moved_information(rows, chosen, sources, range(plan.n_draws), plan.threads)
    interval = few = without_G = None
    if kept.group is not None and rows.n_rows and plan.n_interval_draws:
        n_draws = min(plan.n_interval_draws, plan.n_draws)
        without = left_out_information(rows, chosen, shift_moves(rows, kept, sources), range(-1, n_draws), plan.threads)
        few, without_G = observed - null[:n_draws].mean(axis=0), (without[0] - without[1:].mean(axis=0)).T
        interval = moved_to(left_out_interval(few, without_G, plan.level), observed - null.mean(axis=0))
    orbit = moved_information(rows, chosen, shift_sources(kept, plan.seed, backend, whole=True), range(plan.n_draws), plan.threads) \
        if plan.p_values else None
    return ShiftNull(observed, null, interval, len(kept.keys), int(kept.starts[-1]), 1 - kept.starts[-1] / total if total else 0.0, plan.level,
                     few, without_G, orbit)


def eligible(documents: RoutedDocuments, drop_first: int = 0) -> RoutedDocuments:
    """Documents with at least 8 tokens at positions from drop_first on, those tokens only."""
    if drop_first:
        documents = documents.take(np.asarray(documents.position) >= drop_first)
    long = documents.lengths >= SHORTEST_DOCUMENT
    return documents if long.all() else documents.take(np.repeat(long, documents.lengths))


def draw_shifts(lengths: Int, keys: NDArray[np.uint64], draw: int, whole: bool = False) -> Int:
    """Shift of each document [D]: uniform on m..T - m with m = min(16, T // 4); whole: on 0..T - 1, the identity among them."""
    with np.errstate(over="ignore"):
        random = mix(keys + np.uint64(draw))
    if whole:
        return np.asarray((mix(~random) % lengths.astype(np.uint64)).astype(np.int64), np.int64)
    least = np.minimum(16, lengths // 4)
    return np.asarray(least + (random % (lengths - 2 * least + 1).astype(np.uint64)).astype(np.int64), np.int64)


def shifted(y: ArrayLike, starts: ArrayLike, shifts: ArrayLike) -> NDArray[np.generic]:
    """y_s[t] = y[(t - s) mod T] inside each document: y [T], starts [D+1], shifts [D]."""
    return np.asarray(y)[shift_source(np.asarray(starts, np.int64), np.asarray(shifts, np.int64), "numpy")]


def shift_source(starts: Int, shifts: Int, backend: Backend) -> Source:
    """Row whose choice comes to each row [T] when document d is shifted by shifts[d]."""
    if backend == "numba":
        out = np.empty(int(starts[-1]), np.uint32)
        compiled("shift_source")(starts, shifts, out)
        return out
    lengths = np.diff(starts)
    place = np.arange(int(starts[-1])) - np.repeat(starts[:-1], lengths)
    moved = (place - np.repeat(shifts, lengths)) % np.repeat(lengths, lengths)
    return np.asarray(np.repeat(starts[:-1], lengths) + moved, np.uint32)


def shift_sources(documents: RoutedDocuments, seed: int, backend: Backend, whole: bool = False) -> Callable[[int], Source]:
    """The source map of each draw number; whole: of any shift, for p-values."""
    keys, lengths = seeded(documents.keys, seed), documents.lengths
    return lambda draw: shift_source(documents.starts, draw_shifts(lengths, keys, draw, whole), backend)


def shift_moves(rows: MovedRows, documents: RoutedDocuments, sources: Callable[[int], Source]) -> Callable[[int], tuple[Source, Updates]]:
    """Source map of each draw (-1: nothing moves), and the rows of each group, which leave together: no shift crosses documents."""
    order, bounds = group_rows(documents)

    def moves(draw: int) -> tuple[Source, Updates]:
        source = rows.identity() if draw < 0 else sources(draw)
        return source, Updates(order, source[order], np.full(len(order), -1, np.int8), bounds)

    return moves
