"""Pairs of layers whose tokens are paired anew: the engine of every null that moves choices between rows.

T token, L layer, P pair of layers, R draw, G group of documents, U update, D document.
A draw is a source map: row t takes the second layer's choice of row source[t]. The maps of metrics specification 3.3 (shifts inside
documents) and 3.2 (shuffles inside strata) are both of this form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.kernels import Backend, Int, mix
from analysis.table_information import FixedLog, information_of_parts, table_parts

Source = NDArray[np.uint32]
MOST_ROWS = 2**32
MOST_CELLS = 2**28  # 1 GiB of counters


@dataclass(frozen=True, eq=False)
class Updates:
    """What leaving out a group does to a moved table: sign[u] tokens are added to cell (x[x_row[u]], y[y_row[u]]), u by group."""

    x_row: NDArray[np.uint32]
    y_row: NDArray[np.uint32]
    sign: NDArray[np.int8]
    bounds: Int  # [G+1]


@dataclass(frozen=True, eq=False)
class MovedRows:
    """First choices of the layers, narrow and layer-major. x carries the stratum of the token in its high bits, y does not.

    A choice of -1 (no expert) is held as the symbol E; its tokens are left out of the pair.
    """

    x_LT: NDArray[Any]
    y_LT: NDArray[Any]
    n_experts: Int
    lg: int
    n_strata: int
    log: FixedLog
    backend: Backend

    @classmethod
    def of(cls, first_L: Sequence[ArrayLike], n_experts: Sequence[int], backend: Backend, strata: Int | None = None) -> MovedRows:
        """first_L: choices [T] of each layer, -1 or 0..E-1; strata [T] from 0. ValueError names the layer that is out of range."""
        experts = np.asarray(n_experts, np.int64)
        columns = [checked(np.asarray(first), int(e), layer) for layer, (first, e) in enumerate(zip(first_L, experts, strict=True))]
        n_rows = len(columns[0]) if columns else 0
        if any(len(column) != n_rows for column in columns):
            raise ValueError("layers have different numbers of tokens; pass one choice per token and layer, -1 where there is none")
        if n_rows >= MOST_ROWS:
            raise ValueError(f"{n_rows} tokens: a null counts at most {MOST_ROWS - 1}; take a sample of documents")
        symbols = max((int(e) + bool((column < 0).any()) for e, column in zip(experts, columns)), default=1)
        lg = max(1, int(np.ceil(np.log2(symbols))))
        n_strata = 1 if strata is None or not len(strata) else int(strata.max()) + 1
        if n_strata << (2 * lg) > MOST_CELLS:
            raise ValueError(f"a table of {n_strata} strata x {1 << lg} x {1 << lg} experts has more than {MOST_CELLS} cells; coarsen the experts")
        y = np.empty((len(columns), n_rows), narrow(1 << lg))
        for row, column, e in zip(y, columns, experts):
            row[:] = np.where(column < 0, e, column)
        x = y if n_strata == 1 else y.astype(narrow(n_strata << lg)) | (np.asarray(strata) << lg).astype(narrow(n_strata << lg))
        return cls(x, y, experts, lg, n_strata, FixedLog.of(n_rows), backend)

    @property
    def n_rows(self) -> int:
        """Tokens."""
        return int(self.y_LT.shape[1])

    def identity(self) -> Source:
        """The map that moves nothing."""
        return np.arange(self.n_rows, dtype=np.uint32)

    def parts(self, source: Source, pairs: Int, scratch: Scratch) -> Int:
        """(J, N) of every pair [P, 2] under a source map."""
        out = np.zeros((len(pairs), 2), np.int64)
        if self.backend == "numba":
            compiled("pair_parts")(self.x_LT, self.y_LT, source, pairs, self.n_experts, self.lg, self.n_strata, scratch.moved_LT, scratch.table,
                                   self.log.values, self.log.logs, 2.0**self.log.bits, out)
            return out
        for place, (a, b) in enumerate(pairs):
            out[place] = table_parts(self.table(a, b, source), self.log)
        return out

    def tables(self, source: Source, pairs: Int, scratch: Scratch) -> list[Int]:
        """Counts [S, X, Y] of every pair under a source map."""
        if self.backend != "numba":
            return [self.table(a, b, source) for a, b in pairs]
        flat = np.empty((len(pairs), self.n_strata << (2 * self.lg)), np.uint32)
        compiled("pair_tables")(self.x_LT, self.y_LT, source, pairs, self.lg, scratch.moved_LT, flat)
        return [self._active(table, a, b) for table, (a, b) in zip(flat, pairs)]

    def left_out(self, source: Source, pair: tuple[int, int], updates: Updates) -> Int:
        """(J, N) of one pair [G, 2] without each group of documents."""
        a, b = pair
        out = np.zeros((len(updates.bounds) - 1, 2), np.int64)
        if self.backend == "numba":
            compiled("left_out_parts")(
                self.x_LT[a], self.y_LT[b], source, updates.x_row, updates.y_row, updates.sign, updates.bounds, self.n_experts[a],
                self.n_experts[b], self.lg, self.n_strata, np.zeros(self.n_strata << (2 * self.lg), np.uint32), self.log.values, self.log.logs,
                2.0**self.log.bits, out)
            return out
        table = self.table(a, b, source)
        for group, (first, end) in enumerate(zip(updates.bounds[:-1], updates.bounds[1:])):
            delta = np.zeros(self.n_strata << (2 * self.lg), np.int64)
            np.add.at(delta, self._cells(a, b, updates.x_row[first:end], updates.y_row[first:end]), updates.sign[first:end])
            out[group] = table_parts(table + self._active(delta, a, b), self.log)
        return out

    def _cells(self, a: int, b: int, x_row: Any, y_row: Any) -> Int:
        return np.asarray((self.x_LT[a][x_row].astype(np.int64) << self.lg) | self.y_LT[b][y_row], np.int64)

    def _active(self, flat: NDArray[Any], a: int, b: int) -> Int:
        return flat.reshape(self.n_strata, 1 << self.lg, 1 << self.lg)[:, : self.n_experts[a], : self.n_experts[b]]

    def table(self, a: int, b: int, source: Source) -> Int:
        """Counts [S, X, Y] of two layers under a source map."""
        return self._active(np.bincount(self._cells(a, b, slice(None), source), minlength=self.n_strata << (2 * self.lg)), a, b)


class Scratch:
    """Buffers of one thread."""

    def __init__(self, rows: MovedRows) -> None:
        compiled_too = rows.backend == "numba"
        self.moved_LT = np.empty_like(rows.y_LT) if compiled_too else rows.y_LT
        self.table = np.zeros(rows.n_strata << (2 * rows.lg) if compiled_too else 0, np.uint32)


def moved_information(rows: MovedRows, pairs: Int, sources: Callable[[int], Source], draws: Iterable[int], threads: int = 1) -> Float:
    """Plug-in information in bits [R, P] of every pair under the map of every draw; each thread holds one copy of the layers."""
    numbers = list(draws)
    parts = np.zeros((len(numbers), len(pairs), 2), np.int64)
    waiting = iter(range(len(numbers)))

    def work() -> None:
        scratch = Scratch(rows)
        for place in waiting:
            parts[place] = rows.parts(sources(numbers[place]), pairs, scratch)

    run(work, min(threads, len(numbers)))
    return information_of_parts(parts, rows.log)


def left_out_information(
    rows: MovedRows, pairs: Int, moves: Callable[[int], tuple[Source, Updates]], draws: Sequence[int], threads: int = 1
) -> Float:
    """Information in bits [R, P, G] under the map of every draw, without each group of documents."""
    out: list[Any] = [None] * len(draws)
    waiting = iter(range(len(draws)))

    def work() -> None:
        for place in waiting:
            source, updates = moves(draws[place])
            out[place] = [rows.left_out(source, (int(a), int(b)), updates) for a, b in pairs]

    run(work, min(threads, len(draws)))
    return information_of_parts(np.asarray(out, np.int64), rows.log)


def run(work: Callable[[], None], threads: int) -> None:
    """The same work on each of `threads` threads, which take turns at one shared iterator; errors are raised here."""
    if threads <= 1:
        work()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()


def checked(first: NDArray[Any], n_experts: int, layer: int) -> NDArray[Any]:
    """First choices [T] of a layer; ValueError unless integers from -1 to E-1."""
    if first.ndim != 1 or not (np.issubdtype(first.dtype, np.integer) or len(first) == 0):
        raise ValueError(f"layer {layer}: first choices must be integers [T], not {first.dtype} {list(first.shape)}; pass ids[:, 0]")
    if len(first) and not (int(first.min()) >= -1 and int(first.max()) < n_experts):
        raise ValueError(f"layer {layer}: expert ids {int(first.min())}..{int(first.max())} are not within -1..{n_experts - 1}; "
                         "correct n_experts or the ids")
    return first


def pairs_of(pairs: ArrayLike, n_layers: int, n_draws: int = 1) -> Int:
    """Layer pairs as int64 [P, 2]; ValueError for a layer that is not there, and for a null without a draw."""
    chosen = np.asarray(pairs, np.int64).reshape(-1, 2)
    if len(chosen) and not (chosen.min() >= 0 and chosen.max() < n_layers):
        raise ValueError(f"layer pairs must lie within 0..{n_layers - 1}; number the layers as in first_L")
    if n_draws < 1:
        raise ValueError(f"n_draws = {n_draws}: a null needs a draw; take 25 for a map, 999 for a p-value")
    return chosen


def narrow(n_symbols: int) -> np.dtype[Any]:
    """Narrowest unsigned type for symbols 0..n_symbols-1."""
    return np.dtype(np.uint8 if n_symbols <= 2**8 else np.uint16 if n_symbols <= 2**16 else np.uint32)


@cache
def compiled(name: str) -> Callable[..., Any]:
    """The compiled twin; numba is imported on first use only."""
    from analysis import compiled_null

    kernel: Callable[..., Any] = getattr(compiled_null, name)
    return kernel


@dataclass(frozen=True, eq=False)
class RoutedDocuments:
    """First choices of whole documents, rows of a document together and in their order.

    first_L: choices [T] of each layer, -1 where there is none; n_experts: of each layer; starts [D+1]: first row of each document, then T;
    keys [D]: a random key per document made from its id alone (nulls.document_keys), so that draws do not depend on the order of documents.
    position, token_id [T]; group [D]: jackknife group of each document, for intervals.
    """

    first_L: Sequence[NDArray[Any]]
    n_experts: Sequence[int]
    starts: Int
    keys: NDArray[np.uint64]
    position: NDArray[Any] | None = None
    token_id: NDArray[Any] | None = None
    group: Int | None = None

    def __post_init__(self) -> None:
        n_rows, n_documents = len(self.first_L[0]) if len(self.first_L) else 0, len(self.starts) - 1
        if n_documents < 0 or self.starts[0] != 0 or self.starts[-1] != n_rows or (np.diff(self.starts) < 0).any():
            raise ValueError(f"starts must go from 0 to the number of tokens ({n_rows}) without falling; it is the first row of each document")
        for name, length in (("keys", n_documents), ("group", n_documents), ("position", n_rows), ("token_id", n_rows)):
            column = getattr(self, name)
            if column is not None and len(column) != length:
                raise ValueError(f"{name} has {len(column)} entries, {length} needed")

    @property
    def lengths(self) -> Int:
        """Tokens of each document [D]."""
        return np.diff(self.starts)

    @property
    def document(self) -> Int:
        """Document of each row [T]."""
        return np.repeat(np.arange(len(self.keys)), self.lengths)

    @property
    def place(self) -> Int:
        """Place of each row in its document [T], from 0."""
        return np.arange(int(self.starts[-1])) - np.repeat(self.starts[:-1], self.lengths)

    def take(self, kept: NDArray[np.bool_]) -> RoutedDocuments:
        """The kept rows [T] and the documents that have any."""
        lengths = np.bincount(self.document[kept], minlength=len(self.keys))
        some = lengths > 0
        position, token_id = (None if column is None else np.asarray(column)[kept] for column in (self.position, self.token_id))
        return RoutedDocuments(
            [np.asarray(first)[kept] for first in self.first_L], self.n_experts, np.concatenate([[0], np.cumsum(lengths[some])]),
            self.keys[some], position, token_id, None if self.group is None else np.asarray(self.group)[some])


def seeded(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Document keys for one seed."""
    return mix(keys ^ mix(np.asarray([seed], np.int64).astype(np.uint64)))


def group_rows(documents: RoutedDocuments) -> tuple[Source, Int]:
    """Rows ordered by the group of their document [T], and the bounds [G+1] of the groups that have rows."""
    group = np.unique(np.repeat(np.asarray(documents.group), documents.lengths), return_inverse=True)[1]
    order = np.argsort(group, kind="stable").astype(np.uint32)
    return order, np.concatenate([[0], np.cumsum(np.bincount(group))]).astype(np.int64)


def identity_moves(documents: RoutedDocuments) -> Callable[[int], tuple[Source, Updates]]:
    """Nothing moves; the rows of each group leave together."""
    order, bounds = group_rows(documents)
    source = np.arange(len(order), dtype=np.uint32)
    return lambda _: (source, Updates(order, order, np.full(len(order), -1, np.int8), bounds))
