"""The numba twins of analysis.halves: same arguments, same bits; imported only where numba is wanted.

N row (token), B row of a block, E expert. Sums are integers, so that the compiler may add in any order.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

Int = NDArray[np.int64]
Float = NDArray[np.float64]
LOW = 0xFFFFFFFF
BLOCK = 1_024


@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_probabilities(codes: Any, terms: Int, whole: bool, sums: Int, top: Int) -> None:
    """Sums [3, B] of p, -p ln p and, if whole, p^2; and 65536 x largest pattern - its lowest expert [B], 0 for it unless whole."""
    for t in range(len(codes)):
        row = codes[t]
        p, h, largest = np.int64(0), np.int64(0), np.uint16(0)
        for e in range(len(row)):
            term = terms[np.uint64(row[e])]
            p += term & LOW
            h += term >> 32
            largest = max(largest, row[e])
        sums[0, t], sums[1, t], top[t] = p, h, np.int64(largest) << 16
        if whole:
            squares, packed = np.int64(0), np.int64(-65536)
            for e in range(len(row)):
                short = ((terms[np.uint64(row[e])] & LOW) + 8) >> 4
                squares += short * short
                packed = max(packed, (np.int64(row[e]) << 16) - e)
            sums[2, t], top[t] = squares, packed


@numba.njit(nogil=True, cache=True, error_model="numpy")
def normalised_entropy(sums: Int, entropy: Float) -> None:
    """Twin of halves.normalised_entropy."""
    for t in range(len(entropy)):
        total = np.float64(max(sums[0, t], 1)) * 9.313225746154785e-10
        z = (total - 1.0) / (total + 1.0)
        square = z * z
        logarithm = 2.0 * z * (1.0 + square * (0.3333333333333333 + square * (0.2 + square * 0.14285714285714285)))
        entropy[t] = max(logarithm + np.float64(sums[1, t]) * 4.656612873077393e-10 / total, 0.0)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def probability_rows(codes: Any, terms: Int, whole: bool, sums: Int, top: Int, entropy: Float) -> Any:
    """Twin of halves._probability_rows: a block of rows at a time stays in the first-level cache."""
    least, most, largest = np.int64(2**62), np.int64(0), np.int64(0)
    for start in range(0, len(codes), BLOCK):
        end = min(start + BLOCK, len(codes))
        place = start if sums.shape[1] == len(codes) else 0
        here, tops = sums[:, place : place + end - start], top[place : place + end - start]
        sum_probabilities(codes[start:end], terms, whole, here, tops)
        normalised_entropy(here, entropy[start:end])
        for t in range(end - start):
            least, most, largest = min(least, here[0, t]), max(most, here[0, t]), max(largest, tops[t])
    return least, most, largest


def _bits_to_float(_context: Any, _bits: Any) -> Any:
    from llvmlite import ir  # type: ignore[import-untyped]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba.types.float32(numba.types.int32), generate


_as_float: Any = intrinsic(_bits_to_float)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_logits(codes: Any, terms: Int, keys: Any, least: int, below: int, above: int, sums: Int, top: Int) -> bool:
    """Twin of halves._sum_logits."""
    some_masked = False
    for t in range(len(codes)):
        row = codes[t]
        largest, smallest, masks = np.int64(0), np.int64(65536), np.int64(0)
        for e in range(len(row)):
            key = np.int64(keys[np.uint64(row[e])])
            largest = max(largest, key)
            masks += key == least
            smallest = min(smallest, np.int64(65536) if key == least else key)
        some_masked = some_masked or bool(masks > 0)
        first = np.int64(len(row))
        for e in range(len(row)):
            first = min(first, np.int64(e) if np.int64(keys[np.uint64(row[e])]) == largest else np.int64(len(row)))
        top[t] = (largest << 16) - first
        total, spent, squares = np.int64(0), np.int64(0), np.int64(0)
        if largest <= above and smallest >= below and largest > least:
            highest = terms[np.uint64(row[np.uint64(first)])]
            scale = np.float32(17179869184.0) / _as_float(np.int32(highest >> 32))
            high = highest & LOW
            for e in range(len(row)):
                term = terms[np.uint64(row[e])]
                weight = np.int64(_as_float(np.int32(term >> 32)) * scale)
                total += weight
                spent += weight * (high - (term & LOW))
                short = (weight + 128) >> 8
                squares += short * short
            sums[0, t], sums[1, t], sums[2, t] = total, spent, squares
        else:
            sums[0, t], sums[1, t], sums[2, t] = -1, 0, 0
    return some_masked
