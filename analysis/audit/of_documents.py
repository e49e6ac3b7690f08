"""What the audit keeps of documents while rows stream by: lengths, keys, copies, beginnings, runs. A few hundred bytes a document.

D document, T token (row), P length of a beginning, S segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.audit.hashing import LONG_RUN, U64, WINDOW, Rows, runs, windows
from analysis.kernels import Int, mix
from analysis.trace import DocumentRow, TraceBatch, TraceError

SHORT_PREFIXES = tuple(range(1, 8))  # too short to tell two texts apart; many documents with one of them are a template
PREFIXES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)  # beginnings that are compared
MAX_WINDOWS = 2**20  # blocks that are kept to be compared; more are thinned by their own number, so that copies stay together


class DocumentTally:
    """Sums over the rows of each document, in any order of batches; `document` numbers are those of the trace."""

    def __init__(self, documents: Sequence[DocumentRow]) -> None:
        self.documents = tuple(sorted(documents, key=lambda one: one.document))
        self._numbers = np.array([one.document for one in self.documents], np.int64)
        n = len(self.documents)
        self.rows, self.least, self.most = np.zeros(n, np.int64), np.full(n, 2**62, np.int64), np.full(n, -1, np.int64)
        self.content, self.prefix = np.zeros(n, np.uint64), np.zeros((n, len(PREFIXES)), np.uint64)
        self.short_prefix = np.zeros((n, len(SHORT_PREFIXES)), np.uint64)
        self.run_gcd, self.runs = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.constant = np.zeros(n, np.int64)  # rows in long runs that are not at the end of a document
        self.arrival = np.full(n, -1, np.int64)
        self.head, self.tail = Edge(n), Edge(n)
        self.blocks, self.keys = Blocks(), Keys()
        self._arrived = 0

    def places(self, batch: TraceBatch) -> Int:
        """Place of each row's document. TraceError for a number that the list of documents does not have."""
        where = np.searchsorted(self._numbers, batch.document)
        bad = (where >= len(self._numbers)) | (self._numbers[np.minimum(where, max(len(self._numbers) - 1, 0))] != batch.document) \
            if len(self._numbers) else np.ones(len(batch), bool)
        if bad.any():
            raise TraceError(f"column document: {int(batch.document[np.flatnonzero(bad)[0]])}: not in the trace's list of documents; export both "
                             "from one run")
        return where

    def add(self, rows: Rows, batch: TraceBatch) -> None:
        """Count a batch."""
        if not len(rows):
            return
        position = batch.position.astype(np.int64)
        at = rows.document
        new = at[self.arrival[at] < 0]
        _, order = np.unique(new, return_index=True)
        fresh = new[np.sort(order)]
        self.arrival[fresh] = self._arrived + np.arange(len(fresh))
        self._arrived += len(fresh)
        np.minimum.at(self.least, at, np.minimum.reduceat(position, rows.starts))
        np.maximum.at(self.most, at, np.maximum.reduceat(position, rows.starts))
        self._add_content(rows)
        self._add_runs(rows)
        edges = batch.token_id if batch.token_id is not None else rows.whole
        self._add_edges(rows, np.asarray(edges).astype(np.int64))
        self.blocks.add(rows)
        self.keys.add((np.repeat(at, rows.lengths) << 32) + position)
        np.add.at(self.rows, at, rows.lengths)

    def _add_content(self, rows: Rows) -> None:
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix(rows.content + (rows.ordinal.astype(np.uint64) << np.uint64(20))))])
        begin = sums[rows.starts]
        np.add.at(self.content, rows.document, sums[rows.starts + rows.lengths] - begin)
        for table, lengths in ((self.short_prefix, SHORT_PREFIXES), (self.prefix, PREFIXES)):
            for place, length in enumerate(lengths):
                inside = np.clip(length - rows.first, 0, rows.lengths)
                np.add.at(table[:, place], rows.document, sums[rows.starts + inside] - begin)

    def _add_runs(self, rows: Rows) -> None:
        first, lengths = runs(rows)
        segment = rows.segment[first]
        starts = np.searchsorted(first, rows.starts)
        inner = lengths.copy()  # a batch may cut the first and the last run of a segment
        inner[starts] = inner[np.append(starts[1:], len(first)) - 1] = 0
        gcd = np.gcd.reduceat(inner, starts)
        np.add.at(self.runs, rows.document, np.diff(np.append(starts, len(first))))
        np.gcd.at(self.run_gcd, rows.document, gcd)
        long = lengths >= LONG_RUN
        whole = lengths == rows.lengths[segment]
        ends = first + lengths == (rows.starts + rows.lengths)[segment]
        counted = long & (whole | ~ends)
        np.add.at(self.constant, rows.document[segment[counted]], lengths[counted])

    def _add_edges(self, rows: Rows, values: Int) -> None:
        first, lengths = runs(rows, values)
        heads = np.searchsorted(first, rows.starts)
        tails = np.append(heads[1:], len(first)) - 1
        self.head.begin(rows, values[first[heads]], lengths[heads])
        self.tail.end(rows, values[first[tails]], lengths[tails])


class Edge:
    """The run of equal types at one end of each document: type and length [D]; numbers of choices where there are no types."""

    def __init__(self, n: int) -> None:
        self.value, self.length = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def begin(self, rows: Rows, value: Int, length: Int) -> None:
        """First runs [S] of segments: kept where their document begins, added where it has been one run so far."""
        at = rows.document
        more = (rows.first > 0) & (self.length[at] == rows.first) & (self.value[at] == value)
        self.length[at[more]] += length[more]
        new = rows.first == 0
        self.value[at[new]], self.length[at[new]] = value[new], length[new]

    def end(self, rows: Rows, value: Int, length: Int) -> None:
        """Last runs [S] of segments: a segment that is one run goes on with the last one of its document."""
        at = rows.document
        more = (rows.first > 0) & (length == rows.lengths) & (self.value[at] == value)
        before = np.where(more, self.length[at], 0)
        self.value[at], self.length[at] = value, length + before


class Blocks:
    """Numbers of blocks of WINDOW rows with their places, thinned to MAX_WINDOWS."""

    def __init__(self) -> None:
        self._bits = 0
        self._parts: list[tuple[U64, Int, Int]] = []
        self._kept = 0

    def add(self, rows: Rows) -> None:
        """Keep the blocks of a batch that the thinning keeps."""
        number, first = windows(rows)
        kept = self._keeps(number)
        first = first[kept]
        self._parts.append((number[kept], np.repeat(rows.document, rows.lengths)[first], rows.ordinal[first]))
        self._kept += len(first)
        while self._kept > MAX_WINDOWS:
            self._bits += 1
            self._parts = [tuple(column[self._keeps(part[0])] for column in part) for part in self._parts]  # type: ignore[misc]
            self._kept = sum(len(part[0]) for part in self._parts)

    def _keeps(self, number: U64) -> NDArray[np.bool_]:
        return np.asarray((number & np.uint64((1 << self._bits) - 1)) == 0)

    def every(self) -> tuple[U64, Int, Int]:
        """Number, document and place in the document of every kept block."""
        if not self._parts:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        number, document, ordinal = (np.concatenate(columns) for columns in zip(*self._parts))
        return number, document, ordinal


class Keys:
    """Which (document, position) keys there are, as intervals: one per document where rows are whole, 16 bytes a row at worst."""

    def __init__(self) -> None:
        self._parts: list[tuple[Int, Int]] = []

    def add(self, keys: Int) -> None:
        """Add keys [T]; document in the upper 32 bits."""
        if not (keys[1:] > keys[:-1]).all():
            keys = np.unique(keys)
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1] + 1])
        last = np.append(first[1:], len(keys)) - 1
        self._parts.append((keys[first], keys[last] + 1))

    def covered(self, n_documents: int) -> Int:
        """Different positions of each document [D]."""
        out = np.zeros(n_documents, np.int64)
        if not self._parts:
            return out
        start, end = (np.concatenate(columns) for columns in zip(*self._parts))
        order = np.argsort(start, kind="stable")
        start, end = start[order], end[order]
        before = np.concatenate([[np.int64(-2**62)], np.maximum.accumulate(end)[:-1]])
        np.add.at(out, start >> 32, np.maximum(0, end - np.maximum(start, before)))
        return out


__all__ = ["LONG_RUN", "PREFIXES", "SHORT_PREFIXES", "WINDOW", "Blocks", "DocumentTally", "Edge", "Keys"]
