"""Joint count tables of two layers, of a layer with itself, and of a layer with its own past; compiled, with numpy twins of the same bits.

X, Y experts of two layers, E expert, T token (row), K slot in the top-k, D document, G group of documents or segment of rows, M lag.
Ids are integers, slot-major [K, T] (the transpose of a trace's [T, K]); -1 is a dropped slot, which is left out pairwise. Counts are
int64. Where ids are out of range every function raises TraceError.
"""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Backend, Int, choose_backend, numba_loaded
from analysis.trace import TraceError

COMPILED_FROM = 200_000_000  # increments that numpy makes before numba's import and first call repay themselves
CHUNK_ROWS = 2**31  # rows counted in 32 bits: a cell grows by one a row at most
NUMPY_ROWS = 2**16  # rows at once by numpy, whose 64-bit indices then stay in cache
FEW_ROWS = 8  # cells an increment beyond which numpy does better to find cells one by one than to go through whole tables
MOST_SETS = 2**63 - 1
WIDTHS = (np.uint16, np.uint32, np.int64)  # of a table's cells


class Symbols(NamedTuple):
    """Checked ids: contiguous uint8 or uint16 [K, T], where `missing`, the number of experts, stands for a dropped slot."""

    ids: NDArray[Any]
    n_experts: int
    missing: bool = False

    @property
    def n(self) -> int:
        """Rows of a table that holds every symbol."""
        return self.n_experts + self.missing

    def taken(self, rows: Any) -> Symbols:
        """Some of the rows."""
        return self._replace(ids=self.ids[:, rows])


def symbols(ids: NDArray[Any], n_experts: int, name: str = "ids") -> Symbols:
    """Ids [K, T] checked and narrowed; TraceError for an id outside 0..n_experts-1 that is not -1, and for what is not integer."""
    if ids.dtype.kind not in "ui" or ids.ndim != 2:
        raise TraceError(f"{name}: {ids.dtype} of shape {ids.shape}; expert ids are integers, [slots, rows]")
    high = int(ids.max()) if ids.size else -1
    low = int(ids.min()) if ids.size and ids.dtype.kind == "i" else 0
    if low < -1 or high >= n_experts:
        slot, row = (int(i[0]) for i in np.nonzero((ids < -1) | (ids >= n_experts)))
        raise TraceError(f"{name}: {int(ids[slot, row])} in slot {slot} of row {row}, but there are {n_experts} experts; "
                         "correct n_experts, or export the trace again")
    dtype = np.uint8 if n_experts + (low < 0) <= 256 else np.uint16
    return Symbols(np.require(np.where(ids < 0, n_experts, ids) if low < 0 else ids, dtype, ("C", "W")), n_experts, low < 0)


def joint_counts(x: NDArray[Any], y: NDArray[Any], n_x: int, n_y: int, *, backend: Backend | None = None) -> Int:
    """C[i, j] = #{t: x(t) = i, y(t) = j} of two streams of ids [T]: counts [X, Y]; rows with -1 in either are left out."""
    return topk_joint_counts(x[None], y[None], n_x, n_y, backend=backend)


def topk_joint_counts(x_KT: NDArray[Any], y_KT: NDArray[Any], n_x: int, n_y: int, *, backend: Backend | None = None) -> Int:
    """C[i, j] = #{t: i in S_x(t), j in S_y(t)} over all slot pairs of two layers [Kx, T], [Ky, T]: counts [X, Y].

    Divided by Kx Ky it is the slot-averaged joint table (metrics specification 2.1, A.2). TraceError for an expert twice in one top-k.
    """
    x, y = symbols(x_KT, n_x, "ids of x"), symbols(y_KT, n_y, "ids of y")
    refuse_twice(x)
    refuse_twice(y)
    if x.ids.shape[1] != y.ids.shape[1]:
        raise TraceError(f"ids: {x.ids.shape[1]} rows of x but {y.ids.shape[1]} of y; give both layers of the same rows")
    return _in_chunks(x, y, backend or _backend(len(x.ids) * y.ids.size))


def coactivation_counts(ids_KT: NDArray[Any], n_experts: int, *, backend: Backend | None = None) -> Int:
    """C[i, j] = #{t: i and j in S(t)}, n_i on the diagonal, of one layer [K, T]: symmetric counts [E, E], every pair of slots.

    Raises TraceError, too, for an expert twice in one top-k, which would count a token twice.
    """
    found = symbols(ids_KT, n_experts)
    half = np.zeros((n_experts, n_experts), np.int64)
    n_slots = len(found.ids)
    chosen = backend or _backend(found.ids.size * max(n_slots - 1, 1) // 2)
    if n_slots > 1:
        for start in range(0, found.ids.shape[1], CHUNK_ROWS):
            half += _coactivation(found.taken(slice(start, start + CHUNK_ROWS)), chosen)[:n_experts, :n_experts]
    if np.diagonal(half).any():
        refuse_twice(found)
    n = sum(np.bincount(slot, minlength=n_experts + 1)[:n_experts] for slot in found.ids)
    both: Int = half + half.T + np.diag(np.asarray(n, np.int64))
    return both


def _coactivation(found: Symbols, backend: Backend) -> NDArray[Any]:
    if backend == "numpy":
        pairs = ((found.ids[i : i + 1], found.ids[j : j + 1]) for i in range(len(found.ids)) for j in range(i + 1, len(found.ids)))
        return np.asarray(sum(_joint_numpy(a, b, found.n, found.n) for a, b in pairs))
    shift = _bits(found.n)
    table = np.zeros((1, found.n << shift), np.uint32)
    twin("coactivation")(len(found.ids))(found.ids, np.array([0, found.ids.shape[1]]), np.uint32(shift), table)
    return table.reshape(found.n, -1)


def refuse_twice(found: Symbols) -> None:
    """TraceError for an expert twice in one top-k, with its row."""
    for one in range(len(found.ids)):
        for other in range(one + 1, len(found.ids)):
            twice = (found.ids[one] == found.ids[other]) & (found.ids[one] < found.n_experts)
            if twice.any():
                row = int(np.flatnonzero(twice)[0])
                raise TraceError(f"ids: expert {int(found.ids[one, row])} twice in the top-{len(found.ids)} of row {row}; collect it again")


def transition_counts(x: NDArray[Any], starts: Int, n_experts: int, *, lag: int = 1, backend: Backend | None = None) -> Int:
    """C[i, j] = #{t: x(t) = i, x(t + lag) = j, both of one document} of a stream [T]: counts [E, E].

    starts: first row of each document and the end [D + 1]. The whole stream is counted, then the pairs across a boundary subtracted.
    """
    if lag < 1:
        raise ValueError(f"lag {lag}: a transition needs a lag of at least 1")
    found = symbols(x[None], n_experts)
    chosen = backend or _backend(len(x))
    across = crossing(starts, lag, len(x))
    whole = found.taken(slice(0, max(len(x) - lag, 0))), found.taken(slice(lag, None))
    return _in_chunks(*whole, chosen) - _in_chunks(found.taken(across), found.taken(across + lag), "numpy")


def crossing(starts: Int, lag: int, n_rows: int) -> Int:
    """Rows t < n_rows - lag whose document ends at or before t + lag."""
    length = np.minimum(np.diff(starts), lag)
    begin = np.repeat(starts[1:] - length - np.r_[0, np.cumsum(length)[:-1]], length) if len(length) else np.zeros(0, np.int64)
    rows: Int = begin + np.arange(len(begin))
    return rows[rows + lag < n_rows]


def set_codes(ids_KT: NDArray[Any], n_experts: int) -> Int:
    """A canonical integer per set of experts, slot order and dropped slots ignored: [T], 0 to sum over s <= K of C(E, s), less 1.

    Sets of s experts follow those of fewer; within a size c_1 < ... < c_s has rank sum C(c_i, i) (combinatorial number system, Lehmer 1964).
    Raises TraceError where there are more possible sets than 63 bits count.
    """
    found = symbols(ids_KT, n_experts)
    n_slots = len(found.ids)
    smaller = np.cumsum([0] + [comb(n_experts, size) for size in range(n_slots)], dtype=object)
    if int(smaller[-1]) + comb(n_experts, n_slots) > MOST_SETS:
        raise TraceError(f"ids: {n_slots} of {n_experts} experts make more sets than 63 bits count; take first choices or slots")
    offset = smaller.astype(np.int64)
    ranks = [np.array([*(comb(expert, place) for expert in range(n_experts)), 0], np.int64) for place in range(1, n_slots + 1)]
    out = np.empty(found.ids.shape[1], np.int64)
    for start in range(0, len(out), NUMPY_ROWS):
        rows = slice(start, start + NUMPY_ROWS)
        planes = _sorted_slots(found.ids[:, rows])
        if any(((a == b) & (a < n_experts)).any() for a, b in pairwise(planes)):
            refuse_twice(found)
        out[rows] = offset[np.sum([plane < n_experts for plane in planes], axis=0)] if found.missing else offset[-1]
        for plane, rank in zip(planes, ranks):
            out[rows] += rank[plane]
    return out


def _sorted_slots(ids: NDArray[Any]) -> list[NDArray[Any]]:
    """Ids ascending in every row, by exchanges of whole slots: many times faster than sorting short rows."""
    planes = list(ids)
    for turn in range(len(planes)):
        for i in range(turn % 2, len(planes) - 1, 2):
            planes[i], planes[i + 1] = np.minimum(planes[i], planes[i + 1]), np.maximum(planes[i], planes[i + 1])
    return planes


def _in_chunks(x: Symbols, y: Symbols, backend: Backend) -> Int:
    """Joint counts [X, Y] of checked symbols without the missing ones."""
    counts = np.zeros((x.n_experts, y.n_experts), np.int64)
    for start in range(0, x.ids.shape[1], CHUNK_ROWS):
        a, b = (one.taken(slice(start, start + CHUNK_ROWS)) for one in (x, y))
        table = segment_table(1, a.n, b.n, np.uint32)
        add_segments(a, b, np.array([0, a.ids.shape[1]]), table, backend)
        counts += table[0, : x.n_experts, : y.n_experts]
    return counts


def segment_table(n_segments: int, n_x: int, n_y: int, dtype: Any) -> NDArray[Any]:
    """Zeros [G, X, Y padded to a power of 2], as add_segments wants them."""
    return np.zeros((n_segments, n_x, 1 << _bits(n_y)), dtype)


def widened(tables: NDArray[Any], most: int) -> NDArray[Any]:
    """The tables, as narrow as WIDTHS has it for cells of up to `most` (the rows of the largest segment): small ones stay in cache."""
    return tables.astype(next(width for width in WIDTHS if most <= np.iinfo(width).max), copy=False)


def add_segments(x: Symbols, y: Symbols, bounds: Int, tables: NDArray[Any], backend: Backend) -> None:
    """Add all slot pairs of rows bounds[g] <= t < bounds[g + 1] to tables[g] [X, Y]; the caller sees to it that no cell overflows."""
    n_segments, n_x, n_y = tables.shape
    if x.n > n_x or y.n > n_y:
        raise ValueError(f"tables of {n_x} x {n_y} do not hold {x.n} x {y.n} symbols")
    if backend == "numba":
        kernel = twin("first") if len(x.ids) == len(y.ids) == 1 else twin("topk")(len(x.ids), len(y.ids))
        kernel(x.ids, y.ids, bounds, np.uint32(_bits(n_y)), tables.reshape(n_segments, -1))
        return
    if tables.size > FEW_ROWS * len(x.ids) * y.ids.size:
        segment = np.repeat(np.arange(n_segments), np.diff(bounds))
        for slot in x.ids[:, bounds[0] : bounds[-1]]:
            for other in y.ids[:, bounds[0] : bounds[-1]]:
                np.add.at(tables, (segment, slot, other), 1)
        return
    for table, begin, end in zip(tables, bounds[:-1], bounds[1:]):
        if end > begin:
            table += _joint_numpy(x.ids[:, begin:end], y.ids[:, begin:end], n_x, n_y).astype(table.dtype)


def _joint_numpy(x: NDArray[Any], y: NDArray[Any], n_x: int, n_y: int) -> Int:
    out = np.zeros(n_x * n_y, np.int64)
    for start in range(0, x.shape[1], NUMPY_ROWS):
        right = y[:, start : start + NUMPY_ROWS].astype(np.int64)
        for slot in x[:, start : start + NUMPY_ROWS].astype(np.int64) * n_y:
            for other in right:
                out += np.bincount(slot + other, minlength=len(out))
    return out.reshape(n_x, n_y)


def _backend(increments: int) -> Backend:
    return choose_backend(increments, 0 if numba_loaded() else COMPILED_FROM)


def _bits(n: int) -> int:
    return max(n - 1, 0).bit_length()


def twin(name: str) -> Any:
    """The compiled kernel of that name; numba is imported on first use only."""
    return getattr(import_module("analysis.compiled_joint"), name)
