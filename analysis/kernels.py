"""Counting kernels: everything additive goes through them, as 64-bit integers.

D document, L MoE layer, T token (row), K slot in the top-k, V token type, C column of a tally, Z non-empty cell.
Reals (entropies, weights) are summed in fixed point with 32 fractional bits, so that a sum has the same bits for any shard
size, row order, thread count and backend. A float32 of at least 2**-8 is held exactly; the error is below 1.2e-10 per term.
"""

from __future__ import annotations

import hashlib
import mmap
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Backend = Literal["numpy", "numba"]

FIXED_ONE = 2.0**32
LARGEST_SUM = 2.0**31  # a sum of reals beyond this overflows 64 bits
DENSE_LIMIT = 2**20  # cells x columns of a tally that may be held densely (8 MiB); larger ones are mostly empty
PENDING_LIMIT = 2**20  # cells x columns that wait to be merged (8 MiB), or half of those merged already
COMPILER_MIB = {"absent": (384, 96), "loaded": (96, 48)}  # (address space, of it writable) for numba and a kernel; 230 and 64 measured
COMPILED_FROM = 10_000_000  # shuffled or scattered rows below which numba's start-up (half a second) costs more than it saves

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def to_fixed(reals: NDArray[Any]) -> Int:
    """Reals as integers with 32 fractional bits, rounded half to even."""
    return np.rint(np.asarray(reals, np.float64) * FIXED_ONE).astype(np.int64)


def from_fixed(sums: Int) -> Float:
    """Inverse of to_fixed."""
    return np.asarray(sums, np.float64) / FIXED_ONE


def choose_backend(n_rows: int, compiled_from: int = COMPILED_FROM) -> Backend:
    """Compiled loops where the work repays their start-up, numpy below, without numba or without memory for it; both give the same bits."""
    return "numba" if n_rows >= compiled_from and find_spec("numba") and compiler_fits() else "numpy"


def compiler_fits() -> bool:
    """Whether limits on memory leave room for numba and a compilation: LLVM aborts the process where it gets none, so nothing can be caught."""
    address, data = (size << 20 for size in COMPILER_MIB["loaded" if numba_loaded() else "absent"])
    try:
        np.empty(data, np.uint8)
        if hasattr(mmap, "MAP_PRIVATE"):  # address space that counts as no data, as a library's text does
            mmap.mmap(-1, address, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (MemoryError, OSError):
        return False
    return True


def numba_loaded() -> bool:
    """Whether numba's import is paid for already."""
    return "numba" in sys.modules


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: a counter-based random number per element, so that draws depend on no order (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = x + _MIX[0]
        z = (z ^ (z >> np.uint64(30))) * _MIX[1]
        z = (z ^ (z >> np.uint64(27))) * _MIX[2]
    return z ^ (z >> np.uint64(31))


def digest64(text: str) -> int:
    """First eight bytes of SHA-256 of UTF-8 text, as an integer: a key that survives renumbering."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def segment_sums(keys: Int, values: Int) -> tuple[Int, Int]:
    """Distinct keys ascending [Z] and the sums of values [C, T] over equal keys [C, Z]."""
    if len(keys) == 0:
        return keys, values
    order, starts = _segments(keys, "numpy")
    return keys[order[starts]], np.add.reduceat(values[:, order], starts, axis=1)


def _segments(keys: Int, backend: Backend) -> tuple[Int, Int]:
    if (keys[1:] > keys[:-1]).all():
        order: Int = np.arange(len(keys))
    elif backend == "numba":
        order = compiled("sort_order")(keys)
    else:
        order = np.argsort(keys)  # not stable: integer sums do not depend on the order of equal keys, and the sort is twice as fast
    ordered = keys[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


class Tally:
    """Integer sums per cell, keys from 0: dense below DENSE_LIMIT, sorted non-empty cells above. backend: sorts the keys, set at will.

    Memory: the non-empty cells x columns, up to half as many again that wait to be merged (`pending` at least), and two columns.
    """

    def __init__(self, n_cells: int, n_columns: int, pending: int = PENDING_LIMIT) -> None:
        self._dense = np.zeros((n_columns, n_cells), np.int64) if n_cells * n_columns <= DENSE_LIMIT else None
        self._n_columns, self._limit = n_columns, pending
        self._pending: list[tuple[Int, list[Int]]] = []
        self._pending_cells = 0
        self.backend: Backend = "numpy"
        self._keys, self._sums = np.zeros(0, np.int64), [np.zeros(0, np.int64) for _ in range(n_columns)]

    def add(self, keys: Int, values: Int, *, summed: bool = False) -> None:
        """Add values [C, T] to the cells keys [T]; summed: hardly a key comes twice, so that summing now saves no memory."""
        if self._dense is None and summed:
            self._wait(keys, values)
            return
        part = segment_sums(keys, values)
        if self._dense is not None:
            self._dense[:, part[0]] += part[1]
        else:
            self._wait(*part)

    def cells(self) -> tuple[Int, Int]:
        """Non-empty cells: keys ascending [Z] and sums [C, Z]; a cell is empty where its first column is 0. Ends the tally."""
        if self._dense is not None:
            keys = np.flatnonzero(self._dense[0])
            return keys, self._dense[:, keys]
        self._merge()
        sums = np.empty((self._n_columns, len(self._keys)), np.int64)
        for column in reversed(range(self._n_columns)):  # one at a time, so that cells are never held twice
            sums[column] = self._sums.pop()
        return self._keys, sums

    def _wait(self, keys: Int, values: Int) -> None:
        self._pending.append((keys, list(values)))
        self._pending_cells += len(keys)
        if self._pending_cells > max(self._limit // self._n_columns, len(self._keys) // 2):
            self._merge()

    def _merge(self) -> None:
        if not self._pending:
            return
        if len(self._keys) == 0 and len(self._pending) == 1 and (np.diff(self._pending[0][0]) > 0).all():
            (self._keys, self._sums), self._pending, self._pending_cells = self._pending[0], [], 0
            return
        keys = np.concatenate([self._keys, *(k for k, _ in self._pending)])
        order, starts = _segments(keys, self.backend)
        distinct = len(starts) == len(order)
        for column in range(self._n_columns):
            joined = np.concatenate([self._sums[column], *(sums[column] for _, sums in self._pending)])
            self._sums[column] = joined[order] if distinct else np.add.reduceat(joined[order], starts)
        self._keys = keys[order[starts]]
        self._pending, self._pending_cells = [], 0


def permute_within(starts: Int, lengths: Int, keys: NDArray[np.uint64], backend: Backend) -> Int:
    """Row numbers [R, T] shuffled within segments of consecutive rows, by Fisher-Yates on counter-based draws.

    starts, lengths: first row and number of rows of each segment [S]; keys: one random key per draw and segment [R, S].
    """
    n_draws, n_rows = len(keys), int(lengths.sum())
    rows = np.tile(np.arange(n_rows, dtype=np.int64), (n_draws, 1))
    if backend == "numba":
        compiled("shuffle")(rows, starts, lengths, keys)
        return rows
    order = np.argsort(-lengths, kind="stable")
    flat, draw = rows.reshape(-1), np.arange(n_draws)[:, None] * n_rows
    starts, lengths, keys = starts[order], lengths[order], keys[:, order]
    active = np.searchsorted(-lengths, -np.arange(int(lengths.max(initial=1))), side="left")  # segments longer than each step
    for step in range(len(active) - 1, 0, -1):
        first = starts[: active[step]] + draw
        with np.errstate(over="ignore"):
            other = mix(keys[:, : active[step]] + np.uint64(step)) % np.uint64(step + 1)
        here, there = first + step, first + other.astype(np.int64)
        flat[here], flat[there] = flat[there], flat[here]
    return rows


def scatter_layers(types: Int, rows: Int, values: Int, out: Int, backend: Backend) -> None:
    """out[l, types[t]] += values[l, rows[t]] for every layer l and row t with types[t] >= 0."""
    if backend == "numba":
        compiled("scatter")(types, rows, values, out)
        return
    kept = types >= 0
    for layer, sums in enumerate(out):
        np.add.at(sums, types[kept], values[layer, rows[kept]])


@cache
def compiled(name: str, module: str = "compiled") -> Callable[..., Any]:
    """The compiled twin; numba is imported on first use only. MemoryError where a limit leaves no room for it."""
    if not compiler_fits():
        address, data = COMPILER_MIB["loaded" if numba_loaded() else "absent"]
        raise MemoryError(f"numba needs about {address} MiB of address space, {data} MiB of it writable, beyond what the process holds; "
                          "raise the limit (ulimit -v, -d) or count with numpy, which gives the same bits")
    kernel: Callable[..., Any] = getattr(import_module(f"analysis.{module}"), name)
    return kernel
