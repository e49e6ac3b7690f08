"""What the audit keeps of layers while rows stream by: ids, order of slots, sums of weights, entropies, loads, and who is chosen with whom.

L MoE layer, T token (row), K slot in the top-k, E expert, B bin of token types, F type of a first token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.audit.hashing import LONG_RUN, U64, Rows, runs
from analysis.kernels import Float, Int, mix
from analysis.trace import LayerMeta, TraceBatch, TraceMeta

BINS = 64  # of token types, for profiles of experts
SAMPLED_FROM, STRIDE = 2**17, 8  # rows whose pairs of experts are all counted; of later ones every eighth
SUM_SLACK = 0.01  # of the sum of bfloat16 weights
REAL_SLACK = 2e-3  # of float16 or float32 entropies
TRACKED = 8  # token types of first rows that are followed elsewhere


@dataclass
class LayerTally:
    """Sums over the rows of one layer. Counts are rows unless said otherwise; reals are checked where they are there."""

    layer: LayerMeta
    factor: float = 1.0  # on the weights, as the meta says
    rows: int = 0
    beyond: int = 0
    negative: int = 0
    largest: int = -1
    at_limit: int = 0  # rows with the id n_experts itself
    repeated: int = 0
    zeros: int = 0  # rows with 0 in every slot
    ascending: int = 0  # rows whose ids rise along the slots
    descending: int = 0
    unsorted: int = 0
    missing_weights: int = 0
    sums: int = 0  # rows whose weights could be summed
    not_one: int = 0
    above_one: int = 0
    sum_total: float = 0.0
    sum_squares: float = 0.0
    reals: int = 0
    missing: int = 0
    above: int = 0  # entropies above ln E
    impossible: int = 0  # below 0, or at odds with top1_prob or simpson
    digest: int = 0
    loads: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    first: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    starting: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    constant: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    tracked: Int = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    together: Int = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    profile: Int = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    sampled: int = 0

    @classmethod
    def of(cls, layer: LayerMeta, factor: float = 1.0) -> LayerTally:
        """An empty tally."""
        e = layer.n_experts
        one = cls(layer, factor)
        one.loads, one.first, one.starting, one.constant = (np.zeros(e, np.int64) for _ in range(4))
        one.tracked, one.together, one.profile = np.zeros((TRACKED, e), np.int64), np.zeros((e, e), np.int64), np.zeros((e, BINS), np.int64)
        return one

    def add_ids(self, ids: NDArray[Any], sets: U64, row: U64) -> NDArray[np.bool_]:
        """Check ids [T, K] and count loads; returns which rows are sound [T]. row: number of each row in the trace."""
        n, k = self.layer.n_experts, ids.shape[1]
        self.rows += len(ids)
        if not len(ids):
            return np.ones(0, bool)
        highest = ids[:, 0].astype(np.int64)
        for slot in range(1, k):
            highest = np.maximum(highest, ids[:, slot])
        negative = (ids < 0).any(axis=1) if ids.dtype.kind == "i" else np.zeros(len(ids), bool)
        beyond = highest >= n
        sound = ~(beyond | negative)
        self.negative += int(negative.sum())
        self.beyond += int(beyond.sum())
        self.largest = max(self.largest, int(highest.max()))
        self.at_limit += int((ids[beyond] == n).any(axis=1).sum())
        self.zeros += int(((highest == 0) & ~negative).sum())
        if k > 1:
            ordered = np.sort(ids, axis=1)
            again = ordered[:, 1] == ordered[:, 0]
            for slot in range(2, k):
                again |= ordered[:, slot] == ordered[:, slot - 1]
            self.repeated += int(again.sum())
            self.ascending += int(((ids == ordered).all(axis=1) & ~again).sum())
            self.descending += int(((ids[:, ::-1] == ordered).all(axis=1) & ~again).sum())
        with np.errstate(over="ignore"):
            self.digest = (self.digest + int(mix(sets + row).sum(dtype=np.uint64))) % 2**64
        self.loads += np.bincount(ids[sound].ravel().astype(np.int64), minlength=n)
        return np.asarray(sound, bool)

    def add_choices(self, ids: NDArray[Any], bins: Int | None, long: NDArray[np.bool_]) -> None:
        """First choices, pairs and profiles of sound rows. bins: of token types [T]; long: rows in long runs [T]."""
        n = self.layer.n_experts
        first = ids[:, 0].astype(np.int64)
        self.first += np.bincount(first, minlength=n)
        self.constant += np.bincount(ids[long].ravel().astype(np.int64), minlength=n)
        step = 1 if self.sampled < SAMPLED_FROM else STRIDE
        chosen = ids[::step].astype(np.int64)
        self.sampled += len(chosen)
        for a in range(chosen.shape[1]):
            for b in range(a):
                self.together += np.bincount(chosen[:, a] * n + chosen[:, b], minlength=n * n).reshape(n, n)
        if bins is not None:
            for slot in range(chosen.shape[1]):
                self.profile += np.bincount(chosen[:, slot] * BINS + bins[::step], minlength=n * BINS).reshape(n, BINS)

    def add_weights(self, weights: NDArray[Any], dropped: NDArray[np.uint8] | None) -> None:
        """Check weights [T, K]; rows of which capacity dropped a slot have no sum to check."""
        weights = weights if dropped is None else weights[dropped == 0]
        reals = weights.T.astype(np.float32)
        rising = np.zeros(len(weights), bool)
        for slot in range(1, len(reals)):
            rising |= reals[slot] > reals[slot - 1]
        self.unsorted += int(rising.sum())
        with np.errstate(invalid="ignore"):  # of infinite weights
            total = reals.sum(axis=0, dtype=np.float64) / self.factor
        finite = np.isfinite(total)
        self.missing_weights += int((~finite).sum())
        total = total[finite]
        self.sums += len(total)
        self.not_one += int((np.abs(total - 1) > SUM_SLACK).sum())
        self.above_one += int((total > 1 + SUM_SLACK).sum())
        self.sum_total += float(total.sum())
        self.sum_squares += float((total**2).sum())

    def add_reals(self, entropy: Float, top1: Float | None, simpson: Float | None) -> NDArray[np.bool_]:
        """Check entropies in nats [T] against ln E, and against top1_prob and simpson; returns which are missing [T]."""
        e = self.layer.n_experts
        missing = ~np.isfinite(entropy)
        self.reals += len(entropy)
        self.missing += int(missing.sum())
        h = entropy[~missing].astype(np.float64)
        above = h > np.log(e) + REAL_SLACK
        wrong = h < -REAL_SLACK
        if top1 is not None:
            wrong |= _impossible_top(h, top1[~missing].astype(np.float64), e)
        if simpson is not None:
            square = np.maximum(simpson[~missing].astype(np.float64), 1e-12)
            wrong |= h + REAL_SLACK < -np.log(square)  # Shannon's entropy is at least Renyi's of order 2
        self.above += int(above.sum())
        self.impossible += int((wrong & ~above).sum())
        return missing


def _impossible_top(h: Float, top: Float, e: int) -> NDArray[np.bool_]:
    """Entropies outside what a largest probability allows: at most that of an even rest (Fano), at least -ln top1."""
    p = np.clip(top, 1e-12, 1.0)
    rest = np.maximum(1 - p, 1e-12)
    most = -p * np.log(p) - rest * np.log(rest) + rest * np.log(max(e - 1, 1))
    return np.asarray((h > most + 2 * REAL_SLACK) | (h + REAL_SLACK < -np.log(p)))


class LayersTally:
    """Every layer of a trace, with what needs rows of all layers at once: missing entropies by row and by token type."""

    def __init__(self, meta: TraceMeta, factor: float = 1.0) -> None:
        self.layers = [LayerTally.of(layer, factor) for layer in meta.layers]
        self.rows = 0
        self.rows_missing = 0
        self.types: Int | None = None
        self.types_missing = np.zeros(0, np.int64)
        self.tracked_types: Int | None = None
        self.first_rows = 0
        self.first_of_tracked = np.zeros(TRACKED, np.int64)
        self.has_weights = self.has_entropy = False

    def add(self, rows: Rows, batch: TraceBatch, sets: tuple[U64, ...]) -> None:
        """Count a batch."""
        if not len(rows):
            return
        number = mix(np.arange(self.rows, self.rows + len(rows), dtype=np.uint64))
        self.rows += len(rows)
        types = None if batch.token_id is None else batch.token_id.astype(np.int64)
        first, lengths = runs(rows)
        long = np.repeat(lengths >= LONG_RUN, lengths)
        starts = batch.position == 0
        tracked = self._tracked(types, starts)
        bins = None if types is None else (mix(types.astype(np.uint64)) & np.uint64(BINS - 1)).astype(np.int64)
        for index, (tally, ids) in enumerate(zip(self.layers, batch.ids)):
            sound = tally.add_ids(ids, sets[index], number)
            every = bool(sound.all())
            good = ids if every else ids[sound]
            tally.add_choices(good, bins if bins is None or every else bins[sound], long if every else long[sound])
            self._add_starts(tally, ids, sound & starts, tracked, starts)
            if batch.weights is not None:
                self.has_weights = True
                tally.add_weights(batch.weights[index], None if batch.dropped is None else batch.dropped[index])
        self._add_types(types, self._add_entropies(batch))

    def _tracked(self, types: Int | None, starts: NDArray[np.bool_]) -> Int | None:
        """Place of each row's type among the followed ones, TRACKED where it is not one [T]."""
        self.first_rows += int(starts.sum())
        if types is None:
            return None
        if self.tracked_types is None:
            values, counts = np.unique(types[starts], return_counts=True)
            self.tracked_types = np.sort(values[np.argsort(-counts, kind="stable")[:TRACKED]])
        known = self.tracked_types
        if not len(known):
            return np.full(len(types), TRACKED)
        where = np.minimum(np.searchsorted(known, types), len(known) - 1)
        place = np.where(known[where] == types, where, TRACKED)
        self.first_of_tracked += np.bincount(place[starts], minlength=TRACKED + 1)[:TRACKED]
        return place

    @staticmethod
    def _add_starts(tally: LayerTally, ids: NDArray[Any], begins: NDArray[np.bool_], tracked: Int | None, starts: NDArray[np.bool_]) -> None:
        n = tally.layer.n_experts
        tally.starting += np.bincount(ids[begins, 0].astype(np.int64), minlength=n)
        if tracked is None:
            return
        inner = (tracked < TRACKED) & ~starts & (ids[:, 0] < n)
        cells = tracked[inner] * n + ids[inner, 0].astype(np.int64)
        tally.tracked += np.bincount(cells[cells >= 0], minlength=TRACKED * n).reshape(TRACKED, n)

    def _add_entropies(self, batch: TraceBatch) -> NDArray[np.bool_]:
        missing = np.zeros(len(batch), bool)
        if batch.entropy_nats is None:
            return missing
        self.has_entropy = True
        for index, tally in enumerate(self.layers):
            columns = [None if one is None else one[index] for one in (batch.top1_prob, batch.simpson)]
            missing |= tally.add_reals(batch.entropy_nats[index], *columns)
        self.rows_missing += int(missing.sum())
        return missing

    def _add_types(self, types: Int | None, missing: NDArray[np.bool_]) -> None:
        if types is None:
            return
        counted = np.bincount(np.maximum(types, 0))
        self.types = counted if self.types is None else _summed(self.types, counted)
        if missing.any():
            self.types_missing = _summed(self.types_missing, np.bincount(np.maximum(types[missing], 0)))


def _summed(a: Int, b: Int) -> Int:
    out = np.zeros(max(len(a), len(b)), np.int64)
    out[:len(a)] += a
    out[:len(b)] += b
    return out
