"""Joint count tables of two layers, of one layer with itself, and of one layer with its own past; compiled, with numpy twins of the same bits.

X, Y experts of two layers, E expert, T token (row), K slot in the top-k, D document, M lag. Ids are integers, slot-major [K, T] (the
transpose of a trace's [T, K]); -1 is a dropped slot, which is left out pairwise. Tables are int64.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Backend, Int, choose_backend, numba_loaded
from analysis.trace import TraceError

COMPILED_FROM = 200_000_000  # increments that numpy makes before numba's import and first call repay themselves
CHUNK_ROWS = 2**31  # rows counted in 32 bits: no cell grows by more than one a row
NUMPY_ROWS = 2**16  # rows at once by numpy, whose 64-bit indices then stay in cache


def joint_counts(x: NDArray[Any], y: NDArray[Any], n_x: int, n_y: int, *, backend: Backend | None = None) -> Int:
    """C[i, j] = #{t: x(t) = i, y(t) = j} of two streams of ids [T]: counts [X, Y] int64.

    Rows with -1 in either are left out. Raises TraceError for ids outside 0..n-1 and streams of different length.
    """
    return topk_joint_counts(x[None], y[None], n_x, n_y, backend=backend)


def topk_joint_counts(x_KT: NDArray[Any], y_KT: NDArray[Any], n_x: int, n_y: int, *, backend: Backend | None = None) -> Int:
    """C[i, j] = #{t: i in S_x(t), j in S_y(t)} over all slot pairs of two layers [Kx, T], [Ky, T]: counts [X, Y] int64.

    Slots of -1 are left out. Raises TraceError for ids outside 0..n-1 and layers of different length.
    """
    x, y = narrow(x_KT, n_x, "x"), narrow(y_KT, n_y, "y")
    if x.shape[1] != y.shape[1]:
        raise TraceError(f"ids: {x.shape[1]} rows of x but {y.shape[1]} of y; give both layers of the same rows")
    chosen = backend or choose_backend(x.shape[0] * y.size, 0 if numba_loaded() else COMPILED_FROM)
    return add_joint(x, y, np.zeros((n_x, n_y), np.int64), chosen)


def narrow(ids: NDArray[Any], n_experts: int, name: str) -> NDArray[Any]:
    """Ids as contiguous uint8 or uint16, -1 as the number after the last expert; TraceError for any other id out of range."""
    if ids.dtype.kind not in "ui":
        raise TraceError(f"ids of {name}: {ids.dtype}; expert ids are integers")
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < -1 or high >= n_experts:
        row = tuple(int(i[0]) for i in np.nonzero((ids < -1) | (ids >= n_experts)))
        raise TraceError(f"ids of {name}: {int(ids[row])} at slot and row {row} of {ids.shape}, but there are {n_experts} experts; "
                         "correct n_experts, or export the trace again")
    dtype = np.uint8 if n_experts + (low < 0) <= 256 else np.uint16
    return np.require(np.where(ids < 0, n_experts, ids) if low < 0 else ids, dtype, ("C", "W"))


def add_joint(x: NDArray[Any], y: NDArray[Any], table: Int, backend: Backend) -> Int:
    """Add all slot pairs of checked, narrow ids [Kx, T], [Ky, T] to a table [X, Y], which is returned; ids beyond it are left out."""
    for start in range(0, x.shape[1], CHUNK_ROWS):
        a, b = x[:, start : start + CHUNK_ROWS], y[:, start : start + CHUNK_ROWS]
        n_x, n_y = (max(n, _end(ids)) for n, ids in zip(table.shape, (a, b)))
        if backend == "numpy":
            counted = _joint_numpy(a, b, n_x, n_y)
        else:
            shift = _bits(n_y)
            counted = np.zeros((n_x, 1 << shift), np.uint32)
            kernel = twin("joint") if len(a) == len(b) == 1 else twin("topk")(len(a), len(b))
            streams = (a[0], b[0]) if len(a) == len(b) == 1 else (a, b)
            kernel(*streams, np.uint32(shift), counted.reshape(-1))
        table += counted[: table.shape[0], : table.shape[1]]
    return table


def _joint_numpy(x: NDArray[Any], y: NDArray[Any], n_x: int, n_y: int) -> Int:
    out = np.zeros(n_x * n_y, np.int64)
    for start in range(0, x.shape[1], NUMPY_ROWS):
        right = y[:, start : start + NUMPY_ROWS].astype(np.int64)
        for slot in x[:, start : start + NUMPY_ROWS].astype(np.int64) * n_y:
            for other in right:
                out += np.bincount(slot + other, minlength=len(out))
    return out.reshape(n_x, n_y)


def _end(ids: NDArray[Any]) -> int:
    return int(ids.max()) + 1 if ids.size else 1


def _bits(n: int) -> int:
    return max(n - 1, 0).bit_length()


def twin(name: str) -> Any:
    """The compiled kernel of that name; numba is imported on first use only."""
    return getattr(import_module("analysis.compiled_joint"), name)
