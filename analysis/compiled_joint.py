"""The numba twins of analysis.joint: same arguments, same bits; imported only where the work repays numba's start-up.

X, Y experts of two layers, T token (row), K slot in the top-k, G group. Tables are padded to a power of 2 a row: a shift is faster than
a product. Indices are unsigned: a signed one is first tested for counting from the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def joint(x: Any, y: Any, shift: Any, table: Any) -> None:
    """table[x[t] << shift | y[t]] += 1."""
    for t in range(len(x)):
        table[(np.uint32(x[t]) << shift) | np.uint32(y[t])] += np.uint32(1)


@cache
def topk(k_x: int, k_y: int) -> Callable[..., None]:
    """Every slot of x against every slot of y, [K, T] each; the numbers of slots are constants, so that the loops are unrolled."""
    @numba.njit(nogil=True, cache=True)
    def count(x: Any, y: Any, shift: Any, table: Any) -> None:
        for t in range(x.shape[1]):
            for i in range(k_x):
                base = np.uint32(x[i, t]) << shift
                for j in range(k_y):
                    table[base | np.uint32(y[j, t])] += np.uint32(1)

    return count


@cache
def coactivation(k: int) -> Callable[..., None]:
    """Every pair of slots of one layer, i < j, [K, T]; the table is made symmetric afterwards."""
    @numba.njit(nogil=True, cache=True)
    def count(x: Any, shift: Any, table: Any) -> None:
        for t in range(x.shape[1]):
            for i in range(k):
                base = np.uint32(x[i, t]) << shift
                for j in range(i + 1, k):
                    table[base | np.uint32(x[j, t])] += np.uint32(1)

    return count
