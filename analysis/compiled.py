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


@numba.njit(nogil=True, cache=True)
def find_cells(
    types: Any, position: Any, starts: Int, units: Int, n_units: int, first_of_band: Int, scratch: Int, stamps: Int, n_documents: Int,
    cell: Any, keys: Int, sums: Int,
) -> int:
    """Number Z of (band, unit, type) cells of each document; fills cell [T], keys [Z], sums (n, positions) [2, Z].

    scratch [V, 4]: segment and cell last given to a type, and document it was last seen in; stamps: segments and documents so far.
    """
    n = 0
    n_types = len(scratch)
    for d in range(len(units)):
        stamps[0] += 1
        stamps[1] += 1
        band = 0
        for t in range(starts[d], starts[d + 1]):
            before = band
            while band + 1 < len(first_of_band) and position[t] >= first_of_band[band + 1]:
                band += 1
            stamps[0] += band != before
            seen = scratch[types[t]]
            if seen[2] != stamps[1]:
                seen[2] = stamps[1]
                n_documents[types[t]] += 1
            if seen[0] != stamps[0]:
                seen[0] = stamps[0]
                seen[1] = n
                keys[n] = (band * n_units + units[d]) * n_types + types[t]
                n += 1
            here = seen[1]
            cell[t] = here
            sums[0, here] += 1
            sums[1, here] += position[t]
    return n


@numba.njit(nogil=True, cache=True)
def _fixed(x: Any) -> Any:
    return np.int64(np.rint(x * 4294967296.0))


@numba.njit(nogil=True, cache=True)
def add_layer(
    types: Any, entropy: Any, confidence: Any, cell: Any, starts: Int, units: Int, limits: Any, top: float,
    cells: Int, moments: Int, extremes: Any, histogram: Int, unit_rows: Int,
) -> float:
    """Add one layer of the rows; returns the sum of squared entropies.

    cells: entropy [Z]; moments: squares, confidences and their squares by type [V, 4]; histogram: bins of [0, top];
    unit_rows: below each limit, entropy and confidence by unit [H + 2, D].
    extremes is the last column of moments seen as float32 [V, 8], so that a type's row is one half of a cache line.
    """
    total = 0.0
    n_bins, n_limits, with_confidence = len(histogram), len(limits), len(confidence) > 0
    for d in range(len(units)):
        first, end = starts[d], starts[d + 1]
        entropies, confidences = np.int64(0), np.int64(0)
        for t in range(first, end):
            v, h = np.uint64(types[t]), np.float64(entropy[t])  # unsigned: a signed index is first tested for counting from the end
            fixed, square = _fixed(h), h * h
            total += square
            entropies += fixed
            cells[np.uint64(cell[t])] += fixed
            moments[v, 0] += _fixed(square)
            if entropy[t] < extremes[v, 6]:
                extremes[v, 6] = entropy[t]
            if entropy[t] > extremes[v, 7]:
                extremes[v, 7] = entropy[t]
            if with_confidence:
                c = np.float64(confidence[t])
                fixed = _fixed(c)
                confidences += fixed
                moments[v, 1] += fixed
                moments[v, 2] += _fixed(c * c)
        for t in range(first, end):
            place = np.int64(np.float64(entropy[t]) / top * n_bins)
            histogram[np.uint64(0 if place < 0 else n_bins - 1 if place >= n_bins else place)] += 1
        for rule in range(n_limits):
            limit, below = limits[rule], np.int64(0)
            for t in range(first, end):
                below += np.int64(np.float64(entropy[t]) < limit)
            unit_rows[rule, units[d]] += below
        unit_rows[n_limits, units[d]] += entropies
        unit_rows[n_limits + 1, units[d]] += confidences
    return total


@numba.njit(nogil=True, cache=True)
def add_dense_choices(types: Any, n_experts: int, ids: Any, codes: Any, values: Int, rows: Int) -> None:
    """Count (type, expert) pairs into rows [V x E, 2]: n + 2**32 first choices, and weight."""
    for t in range(len(types)):
        base = np.uint64(types[t]) * np.uint64(n_experts)
        rows[base + np.uint64(ids[t, 0]), 0] += np.int64(1) << 32
        for k in range(ids.shape[1]):
            pair = base + np.uint64(ids[t, k])
            rows[pair, 0] += 1
            rows[pair, 1] += values[np.uint64(codes[t, k])]


@numba.njit(nogil=True, cache=True)
def _slot(rows: Int, key: Any) -> Any:
    last = len(rows) - 1
    slot = _mix(np.uint64(key)) & np.uint64(last)
    while rows[slot, 0] != key and rows[slot, 0] != 0:
        slot = (slot + np.uint64(1)) & np.uint64(last)
    return slot


@numba.njit(nogil=True, cache=True)
def add_hashed_choices(
    types: Any, n_experts: int, ids: Any, codes: Any, values: Int, rows: Int, filled: int, first_row: int
) -> tuple[int, int]:
    """Count (type, expert) pairs into a hash table, rows [capacity, 4]: key + 1 or 0, n, first choices, weight.

    Begins at first_row and stops where the table is half full; returns the row to go on with and the number of pairs held.
    """
    slots = ids.shape[1]
    for t in range(first_row, len(types)):
        if 2 * (filled + slots) > len(rows):
            return t, filled
        base = np.int64(types[t]) * n_experts + 1
        for k in range(slots):
            key = base + np.int64(ids[t, k])
            slot = _slot(rows, key)
            filled += rows[slot, 0] == 0
            rows[slot, 0] = key
            rows[slot, 1] += 1
            rows[slot, 2] += np.int64(k == 0)
            rows[slot, 3] += values[np.uint64(codes[t, k])]
    return len(types), filled


@numba.njit(nogil=True, cache=True)
def rehash(old: Int, new: Int) -> None:
    """The pairs of a table in a larger one."""
    for i in range(len(old)):
        if old[i, 0]:
            row = new[_slot(new, old[i, 0])]
            for column in range(4):
                row[column] = old[i, column]


@numba.njit(nogil=True, cache=True)
def sort_order(keys: Int) -> Int:
    """Order that sorts keys >= 0, by radix from the last digit: a multiple faster than comparisons, and stable."""
    order, moved = np.arange(len(keys)), np.empty(len(keys), np.int64)
    largest = np.int64(0)
    for key in keys:
        largest = max(largest, key)
    places, shift = np.empty(2049, np.int64), 0
    while shift < 63 and largest >> shift:
        places[:] = 0
        for key in keys:
            places[np.uint64((key >> shift) & 2047) + np.uint64(1)] += 1
        for digit in range(2048):
            places[digit + 1] += places[digit]
        for here in order:
            place = np.uint64((keys[np.uint64(here)] >> shift) & 2047)
            moved[np.uint64(places[place])] = here
            places[place] += 1
        order, moved = moved, order
        shift += 11
    return order
