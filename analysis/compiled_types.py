"""The numba twins of analysis.type_moments: same arguments, same bits; imported only where numba is wanted.

N row (token), B row of a block, E expert, V token type, W word of a type's row.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from analysis.compiled_halves import BLOCK, LOW, normalised_entropy

Int = NDArray[np.int64]
HEAD = 8  # words of a type's row before its experts


@numba.njit(nogil=True, cache=True)
def _add_block(types: Any, entropy: Int, confidence: Int, first: Int, rows: Int) -> None:
    for t in range(len(entropy)):
        v = np.uint64(types[t])
        h, c = entropy[t], confidence[t]
        squares, confident = h * h, c * c
        rows[v, 0] += h
        rows[v, 1] += squares & LOW
        rows[v, 2] += squares >> 32
        rows[v, 3] += c
        rows[v, 4] += confident & LOW
        rows[v, 5] += confident >> 32
        rows[v, 6] = max(rows[v, 6], h)
        rows[v, 7] = max(rows[v, 7], -h)
        rows[v, np.uint64(HEAD) + np.uint64(first[t])] += 1


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_probabilities(types: Any, codes: Any, terms: Int, allowed: int, most_pattern: int, rows: Int) -> int:
    """Add rows of 16-bit probabilities [N, E] to their types; returns how many rows were added before one that is refused."""
    sums, top, entropy = np.empty((2, BLOCK), np.int64), np.empty(BLOCK, np.int64), np.empty(BLOCK)
    h, c = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for start in range(0, len(codes), BLOCK):
        n = min(BLOCK, len(codes) - start)
        _sum_block(codes[start : start + n], terms, sums, top)
        normalised_entropy(sums[:, :n], entropy[:n])
        refused = False
        for t in range(n):
            refused |= abs(sums[0, t] - 1073741824) > allowed
            refused |= top[t] > most_pattern << 16
        if refused:
            return start
        for t in range(n):
            h[t] = np.int64(np.rint(entropy[t] * 268435456.0))
        for t in range(n):
            largest = (top[t] + 65535) >> 16
            c[t] = np.int64(np.rint(np.float64(terms[np.uint64(largest)] & LOW) / np.float64(sums[0, t]) * 268435456.0))
            top[t] = -top[t] & 65535
        _add_block(types[start : start + n], h[:n], c[:n], top[:n], rows)
    return len(codes)


@numba.njit(nogil=True, cache=True)
def _sum_block(codes: Any, terms: Int, sums: Int, top: Int) -> None:
    for t in range(len(codes)):
        row = codes[t]
        p, h, packed = np.int64(0), np.int64(0), np.int64(-65536)
        for e in range(len(row)):
            term = terms[np.uint64(row[e])]
            p += term & LOW
            h += term >> 32
            packed = max(packed, (np.int64(row[e]) << 16) - e)
        sums[0, t], sums[1, t], top[t] = p, h, packed


@numba.njit(nogil=True, cache=True)
def add_columns(types: Any, entropy: Any, confidence: Any, first: Any, rows: Int) -> None:
    """Add rows whose entropy, confidence and first choice are known [N]."""
    h, c, e = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for start in range(0, len(types), BLOCK):
        n = min(BLOCK, len(types) - start)
        for t in range(n):
            h[t] = np.int64(np.rint(np.float64(entropy[start + t]) * 268435456.0))
            c[t] = np.int64(np.rint(np.float64(confidence[start + t]) * 268435456.0))
            e[t] = np.int64(first[start + t])
        _add_block(types[start : start + n], h[:n], c[:n], e[:n], rows)
