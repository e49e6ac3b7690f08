"""Numbers that stand for rows: equal content has an equal number, whatever the document, shard or order of slots.

T token (row), L MoE layer, K slot in the top-k, E expert, S segment: consecutive rows of one document in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int, mix
from analysis.trace import LayerMeta, TraceBatch

U64 = NDArray[np.uint64]
WINDOW = 32  # rows of a block that is looked for elsewhere
LONG_RUN = 16  # equal rows in a row that no text makes
TELLING_BITS = 12.0  # of choices that stand for a token where there are no types
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it can be divided by modulo 2**64
INVERSE = np.uint64(pow(int(BASE), -1, 2**64))


@dataclass(frozen=True)
class Rows:
    """A batch in numbers.

    starts, lengths: of its segments [S]; document: place of each segment's document [S]; first: rows that the document had
    before [S]; whole: of types and choices [T]; content: of types, of the choices of the
    first layers where there are none [T].
    """

    starts: Int
    lengths: Int
    document: Int
    first: Int
    whole: U64
    content: U64

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def segment(self) -> Int:
        """Number of each row's segment [T]."""
        return np.repeat(np.arange(len(self.starts)), self.lengths)

    @property
    def ordinal(self) -> Int:
        """Place of each row in its document, by order of arrival [T]."""
        return np.arange(len(self)) - np.repeat(self.starts - self.first, self.lengths)


def segments(document: NDArray[np.int32]) -> tuple[Int, Int]:
    """First rows and lengths of runs of one document."""
    starts = np.flatnonzero(np.r_[True, document[1:] != document[:-1]]) if len(document) else np.zeros(0, np.int64)
    return starts, np.diff(np.append(starts, len(document)))


class Choices:
    """Numbers of sets of experts: the sum of one random number per expert, so that the order of slots does not matter."""

    def __init__(self, layers: tuple[LayerMeta, ...]) -> None:
        self._most = max((layer.n_experts for layer in layers), default=1)
        self._of_expert = mix(np.arange(self._most + 1, dtype=np.uint64))

    def sets(self, ids: NDArray[Any]) -> U64:
        """Number of each row's set [T] for ids [T, K]; ids beyond the range share one number."""
        if ids.dtype.kind != "u":
            ids = np.where(ids < 0, self._most, ids)
        table, total = self._of_expert, np.zeros(len(ids), np.uint64)
        for slot in range(ids.shape[1]):
            total += table[np.minimum(ids[:, slot], self._most)]
        return total


def telling_layers(layers: tuple[LayerMeta, ...]) -> int:
    """How many of the first layers have TELLING_BITS together: few, since later layers differ by rounding where the text is the same."""
    bits = 0.0
    for number, layer in enumerate(layers):
        bits += log2(comb(layer.n_experts, min(layer.top_k, layer.n_experts)))
        if bits >= TELLING_BITS:
            return number + 1
    return len(layers)


def rows_of(batch: TraceBatch, sets: tuple[U64, ...], document: Int, seen: Int, telling: int) -> Rows:
    """The rows of a batch.

    sets: per layer [T]; document: place of each row's document [T]; seen: rows of each document so far;
    telling: first layers that stand for the text where there are no types.
    """
    starts, lengths = segments(document.astype(np.int32))
    chosen, early = np.zeros(len(batch), np.uint64), np.zeros(len(batch), np.uint64)
    for layer, one in enumerate(sets):
        if layer == telling:
            early = chosen.copy()
        chosen += mix(one ^ np.uint64(layer << 32))
    early = chosen if telling >= len(sets) else early
    types = None if batch.token_id is None else mix(batch.token_id.astype(np.int64).astype(np.uint64) + np.uint64(1))
    whole = chosen if types is None else mix(chosen + types)
    places = document[starts]
    return Rows(starts, lengths, places, seen[places], whole, mix(early) if types is None else types)


def windows(rows: Rows) -> tuple[U64, Int]:
    """Number of each block of WINDOW rows inside a segment, and its first row; blocks that begin a run of equal rows are left out."""
    n = len(rows)
    if n < WINDOW:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(n, BASE))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(rows.whole * powers)])
        blocks = (sums[WINDOW:] - sums[:-WINDOW]) * np.cumprod(np.full(n, INVERSE))[:n - WINDOW + 1]
    end = np.repeat(rows.starts + rows.lengths, rows.lengths)[:n - WINDOW + 1]
    first = np.arange(n - WINDOW + 1)
    _, run_lengths = runs(rows)
    left = np.repeat(run_lengths, run_lengths)[:len(first)]
    kept = (first + WINDOW <= end) & (left < WINDOW // 2)
    return mix(blocks[kept]), first[kept]


def runs(rows: Rows, values: NDArray[Any] | None = None) -> tuple[Int, Int]:
    """First rows and lengths of runs of equal rows, or of equal `values` [T], inside segments."""
    values = rows.whole if values is None else values
    new = np.ones(len(rows), bool)
    new[1:] = values[1:] != values[:-1]
    new[rows.starts] = True
    first = np.flatnonzero(new)
    return first, np.diff(np.append(first, len(rows)))
