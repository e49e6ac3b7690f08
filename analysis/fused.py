"""The counts of a batch by compiled loops, one pass over its rows per layer: the twin of the numpy path of analysis.counts, same bits.

T token (row), L MoE layer, V token type, E expert, K slot, D resampling unit, H threshold, Z cell of (band, unit, type) in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int, Tally, compiled, to_fixed
from analysis.trace import POSITION_BANDS, TraceBatch

HALVES = 2**16  # bit patterns of a float16
FIRST_CAPACITY = 2**14
LOW = 2**32 - 1
DENSE_PAIRS = 2**23  # values of all layers' pair tables together (64 MiB) up to which every possible pair has its row


@dataclass(frozen=True)
class UnitRows:
    """Rows of a batch by cell and document. cell: [T]; keys: [Z]; sums: n and sum of positions [2, Z]; starts: [documents + 1]."""

    cell: NDArray[np.int32]
    keys: Int
    sums: Int
    starts: Int
    units: Int


class TypeScratch:
    """Which cell of the current segment a type has, per type; stamps instead of clearing, so that a segment costs its rows only."""

    def __init__(self, n_types: int, n_units: int) -> None:
        self._scratch = np.full((n_types, 4), -1, np.int64)  # one cache line holds a type
        self._n_units, self._stamps = n_units, np.zeros(2, np.int64)

    def find(self, batch: TraceBatch, unit: Int, n_documents_V: Int) -> UnitRows:
        """Cells of the rows of whole documents by position; adds to the number of documents with each type."""
        cell, keys, sums = np.empty(len(batch), np.int32), np.empty(len(batch), np.int64), np.zeros((2, len(batch)), np.int64)
        starts = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1], True])
        n = compiled("find_cells")(np.ascontiguousarray(batch.types), np.ascontiguousarray(batch.position), starts, unit[starts[:-1]],
                                   self._n_units, np.asarray(POSITION_BANDS), self._scratch, self._stamps, n_documents_V, cell, keys, sums)
        return UnitRows(cell, keys[:n], sums[:, :n], starts, unit[starts[:-1]])


@dataclass(frozen=True)
class LayerSums:
    """Where a layer's rows are added. moments: [V, 4], see analysis.counts; histogram: [bins] over [0, top]; units: [H + 2, D]."""

    moments: Int
    histogram: Int
    units: Int
    top: float

    def add(self, batch: TraceBatch, layer: int, found: UnitRows, limits: NDArray[np.float64]) -> tuple[Int, float]:
        """Entropy sums of the cells [Z], and the sum of squares of the entropies."""
        cells, units = np.zeros(len(found.keys), np.int64), np.zeros(self.units.shape, np.int64)
        entropy = np.ascontiguousarray(np.asarray(batch.entropy_nats)[layer])
        confidence = entropy[:0] if batch.top1_prob is None else np.ascontiguousarray(batch.top1_prob[layer])
        squares = compiled("add_layer")(np.ascontiguousarray(batch.types), entropy, confidence, found.cell, found.starts, found.units,
                                        np.ascontiguousarray(limits), self.top, cells, self.moments, self.moments.view(np.float32),
                                        self.histogram, units)
        self.units[...] += units
        return cells, float(squares)


class ExpertTable:
    """Occurrences, first choices and weights of (type, expert) pairs; one pair touches one cache line.

    A row per possible pair where these are few, else a hash table that grows with the pairs that occur.
    """

    def __init__(self, n_types: int, n_experts: int, most_values: int) -> None:
        self._n_experts, self._dense = n_experts, n_types * n_experts * 2 <= most_values
        self._rows = np.zeros((n_types * n_experts, 2) if self._dense else (FIRST_CAPACITY, 4), np.int64)
        self._filled = 0

    def add(self, types: NDArray[Any], ids: NDArray[Any], weights: NDArray[Any] | None) -> None:
        """Count the slots [T, K] of every row."""
        codes, values = _weight_codes(weights, ids.shape)
        ids, done = np.ascontiguousarray(ids), 0
        if self._dense:
            compiled("add_dense_choices")(types, self._n_experts, ids, codes, values, self._rows)
            return
        while done < len(types):
            done, self._filled = compiled("add_hashed_choices")(types, self._n_experts, ids, codes, values, self._rows, self._filled, done)
            if done < len(types):
                larger = np.zeros((4 * len(self._rows), 4), np.int64)
                compiled("rehash")(self._rows, larger)
                self._rows = larger

    def move_into(self, tally: Tally) -> None:
        """Hand over the pairs; ends the table."""
        if self._dense:
            keys = np.flatnonzero(self._rows[:, 0])
            both, weight = self._rows[keys].T
            sums = np.stack([both & LOW, both >> 32, weight])
        else:
            rows = self._rows[np.flatnonzero(self._rows[:, 0])]
            keys, sums = rows[:, 0] - 1, np.ascontiguousarray(rows[:, 1:].T)
        self._rows = np.zeros((0, 4), np.int64)
        tally.add(keys, sums, summed=True)


def _weight_codes(weights: NDArray[Any] | None, shape: Sequence[int]) -> tuple[NDArray[Any], Int]:
    """Codes [T, K] and the fixed-point weight of each code: numba holds no float16, and a table is faster than its conversion."""
    if weights is None:
        return np.zeros(tuple(shape), np.uint16), to_fixed(np.array([1.0 / shape[1]]))
    if weights.dtype == np.float16:
        return np.ascontiguousarray(weights).view(np.uint16), _fixed_of_halves()
    values, codes = np.unique(to_fixed(weights), return_inverse=True)
    return codes.reshape(weights.shape), values


@cache
def _fixed_of_halves() -> Int:
    halves = np.arange(HALVES, dtype=np.uint16).view(np.float16).astype(np.float64)
    return to_fixed(np.where(np.isfinite(halves), halves, 0))
