"""The numba twins of analysis.kernels: same arguments, same bits; imported only where the work repays numba's start-up."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]


@numba.njit(nogil=True, cache=True)
def _mix(x: Any) -> Any:
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def shuffle(rows: Int, starts: Int, lengths: Int, keys: NDArray[np.uint64]) -> None:
    """Twin of kernels.permute_within, in place."""
    for r in range(len(rows)):
        row = rows[r]
        for s in range(len(starts)):
            for step in range(lengths[s] - 1, 0, -1):
                other = np.int64(_mix(keys[r, s] + np.uint64(step)) % np.uint64(step + 1))
                here, there = starts[s] + step, starts[s] + other
                row[here], row[there] = row[there], row[here]


@numba.njit(nogil=True, cache=True)
def scatter(types: Int, rows: Int, values: Int, out: Int) -> None:
    """Twin of kernels.scatter_layers."""
    for layer in range(len(out)):
        for t in range(len(types)):
            if types[t] >= 0:
                out[layer, types[t]] += values[layer, rows[t]]
