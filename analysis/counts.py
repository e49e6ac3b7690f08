"""Additive statistics of one split of a trace, accumulated batch by batch in bounded memory.

D resampling unit (document, or hashed group of documents), L MoE layer, V token type, E expert, B position band,
H entropy threshold, Z non-empty (band, unit, type) cell. Reals are fixed-point integers, see analysis.kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.fused import DENSE_PAIRS, ExpertTable, LayerSums, SortedRows
from analysis.kernels import LARGEST_SUM, PENDING_LIMIT, Backend, Float, Int, Tally, choose_backend, from_fixed, numba_loaded, segment_sums, to_fixed
from analysis.rows import bands, check, whole_documents
from analysis.trace import POSITION_BANDS, DocumentRow, LayerMeta, RoutingTrace, TraceBatch, TraceError

N_BANDS = len(POSITION_BANDS)
MOST_ROWS = 2**32  # n and first choices of a pair share 64 bits
COMPILED_FROM = 2_000_000  # rows x layers counted by numpy before numba's start-up repays itself


@dataclass(frozen=True)
class CountPlan:
    """What to count. thresholds_nats: [H, L], occurrences strictly below are counted; salt: orders documents (the declaration's seed).

    What nobody asks for is not counted: no cells without `cells`, no experts without `choices`, no histogram with 0 bins.
    """

    split: str
    salt: str
    thresholds_nats: Float
    max_units: int = 2000
    histogram_bins: int = 60
    cells: bool = True
    choices: bool = True


@dataclass(frozen=True)
class Units:
    """The resampled units of a split: documents ordered by SHA-256 of id, NUL, salt; beyond `max_units`, dealt round-robin into groups."""

    documents: tuple[DocumentRow, ...]
    of_document: dict[int, int]
    n: int
    folded: bool
    domains: tuple[str, ...] | None  # of each unit; None when folded

    @classmethod
    def of(cls, documents: Sequence[DocumentRow], plan: CountPlan) -> Units:
        """Units of the plan's split."""
        chosen = sorted((d for d in documents if d.split == plan.split), key=lambda d: document_hash(d.id, plan.salt))
        folded = len(chosen) > plan.max_units
        n = plan.max_units if folded else len(chosen)
        return cls(tuple(chosen), {d.document: rank % n for rank, d in enumerate(chosen)}, n, folded,
                   None if folded else tuple(d.domain for d in chosen))

    def numbers(self) -> Int:
        """Unit of each document number; -1 for numbers that are none of this split's documents."""
        out = np.full(max(self.of_document, default=-1) + 1, -1, np.int64)
        out[list(self.of_document)] = list(self.of_document.values())
        return out

    @property
    def name(self) -> str:
        """What is resampled, in words."""
        return f"{len(self.documents)} documents folded into {self.n} hashed groups" if self.folded else "documents"


def document_hash(document_id: str, salt: str) -> bytes:
    """SHA-256 of id, NUL, salt in UTF-8 (metrics specification 4.2): the order does not depend on files."""
    return hashlib.sha256(f"{document_id}\0{salt}".encode()).digest()


@dataclass
class RoutingCounts:
    """Counts of one split. Sums of reals are fixed point; `mean_entropy` and its like give floats with NaN where there is no row."""

    layers: tuple[LayerMeta, ...]
    plan: CountPlan
    units: Units
    n_types: int
    band: Int  # [Z]
    unit: Int  # [Z]
    type: Int  # [Z]
    n: Int  # [Z]
    position: Int  # [Z] sum of positions
    entropy: Int  # [L, Z] fixed
    n_V: Int
    n_documents_V: Int
    position_V: Int  # sum of positions
    entropy_LV: Int  # fixed
    entropy_square_LV: Int
    confidence_LV: Int | None
    confidence_square_LV: Int | None
    extremes_LV2: NDArray[np.float32]
    tokens_D: Int
    below_HLD: Int
    entropy_LD: Int
    confidence_LD: Int | None
    histogram: Int  # [L, bins] over [0, ln E]
    choices: tuple[Choices, ...]
    has_weights: bool

    @property
    def n_tokens(self) -> int:
        """Kept tokens of the split."""
        return int(self.tokens_D.sum())

    @cached_property
    def mean_entropy_LV(self) -> Float:
        """Mean entropy in nats per layer and type; NaN for a type without rows."""
        return mean_of(from_fixed(self.entropy_LV), self.n_V)


@dataclass(frozen=True)
class Choices:
    """Per layer: non-empty (type, expert) cells; n: occurrences with the expert in the set, first: as first choice, weight: fixed sum."""

    n_experts: int
    top_k: int
    type: Int
    expert: Int
    n: Int
    first: Int
    weight: Int

    def dense(self, column: Int, types: Int) -> Int:
        """The column as [len(types), E]; `types` ascending."""
        out = np.zeros((len(types), self.n_experts), np.int64)
        row = np.searchsorted(types, self.type)
        kept = (row < len(types)) & (types[np.minimum(row, len(types) - 1)] == self.type) if len(types) else np.zeros(len(row), bool)
        out[row[kept], self.expert[kept]] = column[kept]
        return out

    def total(self, column: Int) -> Int:
        """The column summed over types [E]."""
        out = np.zeros(self.n_experts, np.int64)
        np.add.at(out, self.expert, column)
        return out


def mean_of(sums: Float, n: Int | Float) -> Float:
    """sums / n with NaN where n is 0."""
    mean: Float = np.divide(sums, n, out=np.full(np.broadcast_shapes(sums.shape, n.shape), np.nan), where=n > 0)
    return mean


def accumulate(trace: RoutingTrace, plan: CountPlan, backend: Backend | None = None, threads: int = 1) -> RoutingCounts:
    """Count one split in one streaming pass. Raises TraceError for rows that cannot be counted or a trace without entropies.

    backend: numpy or numba, the same bits; None takes numba once the work repays its start-up. threads: layers counted at once by numba.
    """
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        accumulator = _Accumulator(trace, plan, backend, pool)
        for batch in whole_documents(trace.batches(split=plan.split)):
            accumulator.add(batch)
        return accumulator.counts()


@dataclass
class _Accumulator:
    trace: RoutingTrace
    plan: CountPlan
    backend: Backend | None = None  # None: by the work so far
    pool: ThreadPoolExecutor | None = None
    work: int = 0
    squares: float = 0.0
    has_weights: bool = True
    confidence: bool = True
    pairs: Sequence[ExpertTable | None] = ()

    def __post_init__(self) -> None:
        meta = self.trace.meta
        self.layers, self.n_types = meta.layers, meta.vocabulary_size
        self.units = Units.of(self.trace.documents, self.plan)
        n_layers, n_units = len(self.layers), self.units.n
        self.cells = Tally(N_BANDS * n_units * self.n_types, 2 + n_layers)
        waiting = PENDING_LIMIT // max(n_layers, 1)
        self.experts = [Tally(self.n_types * layer.n_experts, 3, waiting) for layer in self.layers]
        self.types = np.zeros((3, self.n_types), np.int64)  # n, documents, sum of positions
        # by type: squares, confidences, their squares, two float32 extremes, and entropies
        self.moments = np.zeros((n_layers, self.n_types, 5), np.int64)
        self.extremes = self.moments.view(np.float32)[..., 6:8]
        self.extremes[...] = np.array([np.inf, -np.inf], np.float32)
        self.rows = np.zeros((1 + (len(self.plan.thresholds_nats) + 2) * n_layers, n_units), np.int64)  # tokens, below, h, conf
        self.histogram = np.zeros((n_layers, self.plan.histogram_bins), np.int64)
        self.tops = [float(np.log(layer.n_experts)) or 1.0 for layer in self.layers]
        self.unit_of = self.units.numbers()

    def add(self, batch: TraceBatch) -> None:
        if batch.entropy_nats is None:
            raise TraceError("column entropy_nats: absent; routing entropy needs the router's full distribution, collect with it")
        check(batch, self.layers, self.n_types)
        known = (batch.document >= 0) & (batch.document < len(self.unit_of))
        unit = np.where(known, self.unit_of[np.where(known, batch.document, 0)], -1) if len(self.unit_of) else np.full(len(batch), -1)
        if (unit < 0).any():
            raise TraceError(f"column document: {int(batch.document[unit < 0][0])} is no {self.plan.split} document of the document table; "
                             "collect again, or restore trace/documents.parquet")
        self.confidence &= batch.top1_prob is not None
        self.has_weights &= batch.weights is not None
        self.work += len(batch) * len(self.layers)
        if self.work >= MOST_ROWS * len(self.layers):
            raise TraceError(f"{self.plan.split}: beyond 2**32 rows, which counts hold; analyse fewer documents at once")
        if self._backend() == "numba":
            self._add_compiled(batch, unit)
        else:
            types = batch.types.astype(np.int64)
            entropy = to_fixed(batch.entropy_nats)
            self._add_cells(batch, unit, types, entropy)
            self._add_types(batch, types)
            self._add_units(batch, unit, entropy)
            if self.plan.choices:
                self._add_choices(batch, types)
        if self.squares > LARGEST_SUM:
            raise TraceError(f"column entropy_nats: the sum of squares of split {self.plan.split} exceeds 2**31; "
                             "analyse fewer documents at once")

    def _backend(self) -> Backend:
        """Batch by batch, since a trace does not say its length: both paths add to the same sums."""
        return self.backend or choose_backend(self.work, 0 if numba_loaded() else COMPILED_FROM)

    def _add_compiled(self, batch: TraceBatch, unit: Int) -> None:
        if not self.pairs:
            few = DENSE_PAIRS // max(len(self.layers), 1)
            self.pairs = [ExpertTable(self.n_types, layer.n_experts, few) if self.plan.choices else None for layer in self.layers]
            for tally in (self.cells, *self.experts):
                tally.backend = "numba"
        found = SortedRows.of(batch, unit, self.units.n, self.types)
        self.rows[0] += np.bincount(unit, minlength=self.units.n)
        by_unit = self.rows[1:].reshape(-1, len(self.layers), self.units.n)
        limits = np.asarray(self.plan.thresholds_nats)

        def one(layer: int) -> tuple[Int, float]:
            sums = LayerSums(self.moments[layer], self.histogram[layer], by_unit[:, layer], self.tops[layer], self.pairs[layer])
            return sums.add(batch, layer, found, limits[:, layer])

        added = list(self.pool.map(one, range(len(self.layers)))) if self.pool else [one(layer) for layer in range(len(self.layers))]
        self.squares += sum(squares for _, squares in added)
        if self.plan.cells:
            self.cells.add(found.keys, np.stack([*found.sums, *(cells for cells, _ in added)]), summed=True)

    def _add_cells(self, batch: TraceBatch, unit: Int, types: Int, entropy: Int) -> None:
        ones = np.ones((1, len(batch)), np.int64)
        position = batch.position.astype(np.int64)
        keys = (bands(position) * self.units.n + unit) * self.n_types + types
        if self.plan.cells:
            self.cells.add(keys, np.concatenate([ones, position[None], entropy]))
        np.add.at(self.types[2], types, position)
        pairs = np.unique(batch.document.astype(np.int64) * self.n_types + types) % self.n_types
        np.add.at(self.types[1], pairs, 1)

    def _add_types(self, batch: TraceBatch, types: Int) -> None:
        entropy = np.asarray(batch.entropy_nats)
        squares = entropy.astype(np.float64) ** 2
        self.squares += float(squares.sum())
        confidence = np.zeros_like(squares) if batch.top1_prob is None else batch.top1_prob.astype(np.float64)
        columns = np.stack([to_fixed(squares), to_fixed(confidence), to_fixed(confidence**2), to_fixed(entropy)])
        order = np.argsort(types)
        starts = np.flatnonzero(np.r_[True, np.diff(types[order]) != 0])
        present = types[order][starts]
        self.types[0, present] += np.diff(np.r_[starts, len(types)])
        summed = np.moveaxis(np.add.reduceat(columns[..., order], starts, axis=-1), 0, -1)
        self.moments[:, present, :3] += summed[..., :3]
        self.moments[:, present, 4] += summed[..., 3]
        lowest, highest = (f.reduceat(entropy[:, order], starts, axis=1) for f in (np.minimum, np.maximum))
        self.extremes[:, present, 0] = np.minimum(self.extremes[:, present, 0], lowest)
        self.extremes[:, present, 1] = np.maximum(self.extremes[:, present, 1], highest)
        n_bins = self.plan.histogram_bins
        for layer, top in enumerate(self.tops if n_bins else ()):
            bins = np.clip((entropy[layer].astype(np.float64) / top * n_bins).astype(np.int64), 0, n_bins - 1)
            self.histogram[layer] += np.bincount(bins, minlength=n_bins)

    def _add_units(self, batch: TraceBatch, unit: Int, entropy: Int) -> None:
        nats = np.asarray(batch.entropy_nats).astype(np.float64)
        below = [(nats < thresholds[:, None]).astype(np.int64) for thresholds in self.plan.thresholds_nats]
        confidence = np.zeros_like(entropy) if batch.top1_prob is None else to_fixed(batch.top1_prob)
        present, sums = segment_sums(unit, np.concatenate([np.ones((1, len(batch)), np.int64), *below, entropy, confidence]))
        self.rows[:, present] += sums

    def _add_choices(self, batch: TraceBatch, types: Int) -> None:
        for layer, (meta, ids) in enumerate(zip(self.layers, batch.ids)):
            slots = ids.shape[1]
            keys = (types[:, None] * meta.n_experts + ids.astype(np.int64)).ravel()
            first = np.zeros(ids.shape, np.int64)
            first[:, 0] = 1
            weights = np.full(ids.shape, 1.0 / slots) if batch.weights is None else batch.weights[layer].astype(np.float64)
            self.experts[layer].add(keys, np.stack([np.ones(len(keys), np.int64), first.ravel(), to_fixed(weights).ravel()]))

    def counts(self) -> RoutingCounts:
        keys, cells = self.cells.cells()
        n_thresholds = len(self.plan.thresholds_nats)
        square, confidence, confidence_square, entropy = np.moveaxis(self.moments[..., [0, 1, 2, 4]], -1, 0).copy()
        rows = self.rows[1:].reshape(n_thresholds + 2, len(self.layers), self.units.n)
        within = keys // self.n_types
        choices = []
        for layer, (meta, tally) in enumerate(zip(self.layers, self.experts) if self.plan.choices else ()):
            table = self.pairs[layer] if self.pairs else None
            if table is not None:
                table.move_into(tally)
            codes, (n, first, weight) = tally.cells()
            choices.append(Choices(meta.n_experts, meta.top_k, codes // meta.n_experts, codes % meta.n_experts, n, first, weight))
        return RoutingCounts(
            self.layers, self.plan, self.units, self.n_types, band=within // max(self.units.n, 1), unit=within % max(self.units.n, 1),
            type=keys % self.n_types, n=cells[0], position=cells[1], entropy=cells[2:], n_V=self.types[0], n_documents_V=self.types[1],
            position_V=self.types[2], entropy_LV=entropy, entropy_square_LV=square, confidence_LV=confidence if self.confidence else None,
            confidence_square_LV=confidence_square if self.confidence else None, extremes_LV2=self.extremes.copy(), tokens_D=self.rows[0],
            below_HLD=rows[:n_thresholds], entropy_LD=rows[-2], confidence_LD=rows[-1] if self.confidence else None,
            histogram=self.histogram, choices=tuple(choices), has_weights=self.has_weights)
