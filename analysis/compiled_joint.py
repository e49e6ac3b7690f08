"""The numba twins of analysis.joint: same arguments, same bits; imported only where the work repays numba's start-up.

X, Y experts of two layers, T token (row), K slot in the top-k, G segment of rows with a table of its own. A row of a table is padded to
a power of 2: a shift is faster than a product. Indices are unsigned or count from 0: any other is first tested for its sign. The
numbers of slots are constants of a kernel, so that its loops are unrolled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np

BLOCK_ROWS = 1024  # rows whose slots stay in the first cache together


@numba.njit(nogil=True, cache=True)
def first(x: Any, y: Any, bounds: Any, shift: Any, tables: Any) -> None:
    """tables[g, x[t] << shift | y[t]] += 1 for the rows bounds[g] <= t < bounds[g + 1]; streams [1, T]."""
    for g in range(len(bounds) - 1):
        table, a, b = tables[g], x[0, bounds[g] : bounds[g + 1]], y[0, bounds[g] : bounds[g + 1]]
        for t in range(len(a)):
            table[(np.uint32(a[t]) << shift) | np.uint32(b[t])] += np.uint32(1)


@cache
def topk(k_x: int, k_y: int) -> Callable[..., None]:
    """Every slot of x [K, T] against every slot of y.

    The slots of y are copied row by row, a block at a time: planes that lie a multiple of 4 KiB apart share the same few cache lines.
    """
    @numba.njit(nogil=True, cache=True)
    def count(x: Any, y: Any, bounds: Any, shift: Any, tables: Any) -> None:
        late = np.empty((BLOCK_ROWS, k_y), np.uint32)
        for g in range(len(bounds) - 1):
            table = tables[g]
            for first in range(bounds[g], bounds[g + 1], BLOCK_ROWS):
                end = min(first + BLOCK_ROWS, bounds[g + 1])
                for j in range(k_y):
                    plane = y[j, first:end]
                    for t in range(len(plane)):
                        late[np.uint64(t), np.uint64(j)] = plane[t]
                for i in range(k_x):
                    plane = x[i, first:end]
                    for t in range(len(plane)):
                        base = np.uint32(plane[t]) << shift
                        for j in range(k_y):
                            table[base | late[np.uint64(t), np.uint64(j)]] += np.uint32(1)

    return count


@cache
def coactivation(k: int) -> Callable[..., None]:
    """Every pair of slots i < j of one layer [K, T]."""
    @numba.njit(nogil=True, cache=True)
    def count(x: Any, bounds: Any, shift: Any, tables: Any) -> None:
        for g in range(len(bounds) - 1):
            table, a = tables[g], x[:, bounds[g] : bounds[g + 1]]
            for t in range(a.shape[1]):
                for i in range(k):
                    base = np.uint32(a[i, t]) << shift
                    for j in range(i + 1, k):
                        table[base | np.uint32(a[j, t])] += np.uint32(1)

    return count


@numba.njit(nogil=True, cache=True)
def gather(x: Any, rows: Any, out: Any) -> None:
    """out[k, i] = x[k, rows[i]]."""
    for k in range(len(x)):
        source, target = x[k], out[k]
        for i in range(len(rows)):
            target[i] = source[np.uint64(rows[i])]


@numba.njit(nogil=True, cache=True)
def loads(x: Any, starts: Any, unit: Any, counts: Any) -> None:
    """counts[unit[d], x[k, t]] += 1 for every slot of the rows of each document d."""
    for d in range(len(unit)):
        table = counts[unit[d]]
        for k in range(len(x)):
            slot = x[k, starts[d] : starts[d + 1]]
            for t in range(len(slot)):
                table[np.uint64(slot[t])] += np.int64(1)
