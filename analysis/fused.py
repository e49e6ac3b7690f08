"""The counts of a batch by compiled loops over its rows in order of type: the twin of the numpy path of analysis.counts, same bits.

T token (row), L MoE layer, V token type, E expert, K slot, D resampling unit, H threshold, Z cell of (band, unit, type) in the batch,
R run of rows of one type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int, Tally, compiled, to_fixed
from analysis.trace import POSITION_BANDS, TraceBatch

FIRST_CAPACITY = 2**14
DENSE_PAIRS = 2**23  # values of all layers' pair tables together (64 MiB) up to which every possible pair has its row


@dataclass(frozen=True)
class SortedRows:
    """Rows of a batch of whole documents in order of type: every layer then visits each type's sums once, not once per occurrence.

    order: rows [T]; runs: types and first places [2, R + 1]; cell: of each row in that order [T]; keys: [Z]; sums: n and sum of
    positions [2, Z]; starts: of documents [documents + 1]; units: of documents.
    """

    order: Int
    runs: Int
    cell: NDArray[np.int32]
    keys: Int
    sums: Int
    starts: Int
    units: Int

    @classmethod
    def of(cls, batch: TraceBatch, unit: Int, n_units: int, of_type: Int) -> SortedRows:
        """Rows sorted by type; adds occurrences, documents and positions to of_type [3, V]."""
        types, n = np.ascontiguousarray(batch.token_id), len(batch)
        starts = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1], True])
        document, units = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts)), unit[starts[:-1]]
        order, runs = compiled("sort_order")(types), np.empty((2, n + 1), np.int64)
        cell, keys, sums = np.empty(n, np.int32), np.empty(n, np.int64), np.zeros((2, n), np.int64)
        n_cells, n_runs = compiled("find_cells")(order, types, np.ascontiguousarray(batch.position), document, units, n_units,
                                                 np.asarray(POSITION_BANDS), of_type, cell, keys, sums, runs)
        return cls(order, runs[:, : n_runs + 1], cell, keys[:n_cells], sums[:, :n_cells], starts, units)


@dataclass(frozen=True)
class LayerSums:
    """Where a layer's rows are added. moments: [V, 5], see analysis.counts; histogram: [bins] over [0, top]; units: [H + 2, D]."""

    moments: Int
    histogram: Int
    units: Int
    top: float
    pairs: ExpertTable | None

    def add(self, batch: TraceBatch, layer: int, found: SortedRows, limits: NDArray[np.float64]) -> tuple[Int, float]:
        """Entropy sums of the cells [Z], and the sum of squares of the entropies."""
        cells, units = np.zeros(len(found.keys), np.int64), np.zeros(self.units.shape, np.int64)
        entropy = np.ascontiguousarray(np.asarray(batch.entropy_nats)[layer])
        confidence = entropy[:0] if batch.top1_prob is None else np.ascontiguousarray(batch.top1_prob[layer])
        squares = compiled("add_types")(found.order, found.runs, found.cell, entropy, confidence, cells, self.moments,
                                        self.moments.view(np.float32))
        compiled("add_units")(entropy, confidence, found.starts, found.units, np.ascontiguousarray(limits), units)
        self.units[...] += units
        if len(self.histogram):
            compiled("add_histogram")(entropy, self.top, self.histogram)
        if self.pairs is not None:
            self.pairs.add(found, batch.ids[layer], None if batch.weights is None else batch.weights[layer])
        return cells, float(squares)


class ExpertTable:
    """Occurrences, first choices and weights of (type, expert) pairs.

    A row per possible pair where these are few, else a hash table that grows with the pairs that occur.
    """

    def __init__(self, n_types: int, n_experts: int, most_values: int) -> None:
        self._n_experts, self._dense = n_experts, n_types * n_experts * 2 <= most_values
        self._rows = np.zeros((n_types * n_experts, 2) if self._dense else (FIRST_CAPACITY, 4), np.int64)
        self._filled = 0

    def add(self, found: SortedRows, ids: NDArray[Any], weights: NDArray[Any] | None) -> None:
        """Count the slots [T, K] of every row."""
        codes, values = _weight_codes(weights, ids.shape)
        ids, done, end = np.ascontiguousarray(ids), 0, found.runs.shape[1] - 1
        if self._dense:
            compiled("add_dense_choices")(found.order, found.runs, self._n_experts, ids, codes, values, self._rows)
            return
        while done < end:
            done, self._filled = compiled("add_hashed_choices")(found.order, found.runs, self._n_experts, ids, codes, values, self._rows,
                                                                self._filled, done)
            if done < end:
                larger = np.zeros((4 * len(self._rows), 4), np.int64)
                compiled("rehash")(self._rows, larger)
                self._rows = larger

    def move_into(self, tally: Tally) -> None:
        """Hand over the pairs; ends the table."""
        if self._dense:
            keys, sums = compiled("dense_pairs")(self._rows)
        else:
            rows = self._rows[np.flatnonzero(self._rows[:, 0])]
            keys, sums = rows[:, 0] - 1, np.ascontiguousarray(rows[:, 1:].T)
        self._rows = np.zeros((0, 4), np.int64)
        tally.add(keys, sums, summed=True)


def _weight_codes(weights: NDArray[Any] | None, shape: Sequence[int]) -> tuple[NDArray[Any], Int]:
    """Codes [T, K] and the fixed-point weight of each code; no weights for the bits of float16, which numba does not hold."""
    if weights is None:
        return np.zeros(tuple(shape), np.uint16), to_fixed(np.array([1.0 / shape[1]]))
    if weights.dtype == np.float16:
        return np.ascontiguousarray(weights).view(np.uint16), np.zeros(0, np.int64)
    values, codes = np.unique(to_fixed(weights), return_inverse=True)
    return codes.reshape(weights.shape).astype(np.uint16 if len(values) <= 2**16 else np.int64), values
