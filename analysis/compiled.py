"""The numba twins of analysis.kernels: same arguments, same bits; imported only where the work repays numba's start-up."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

Int = NDArray[np.int64]
AHEAD = 6  # runs between asking for a pair's cache line and adding to it


def _ask_for(_context: Any, _address: Any) -> Any:
    """Typing and code of llvm.prefetch for writing."""
    from llvmlite import ir  # type: ignore[import-untyped]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word]))
        builder.call(ask, [builder.inttoptr(arguments[0], byte), word(1), word(2), word(1)])
        return word(0)

    return numba.types.int32(numba.types.int64), generate


_prefetch: Any = intrinsic(_ask_for)


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
    order: Int, types: Any, position: Any, document: Any, units: Int, n_units: int, first_of_band: Int, of_type: Int,
    cell: Any, keys: Int, sums: Int, runs: Int,
) -> Any:
    """Number Z of (type, document, band) cells and R of types of rows in order of type; documents and positions ascend within a type.

    Fills cell [T] of each row in that order, keys [Z], sums (n, positions) [2, Z], runs: types and first places [2, R + 1]; adds
    occurrences, documents and positions to of_type [3, V].
    """
    n, n_runs, n_types = np.int64(-1), np.int64(-1), of_type.shape[1]
    last_type, last_document, last_band = np.int64(-1), np.int64(-1), np.int64(-1)
    for i in range(len(order)):
        t = np.uint64(order[i])
        v, d, p, band = np.int64(types[t]), np.int64(document[t]), np.int64(position[t]), np.int64(-1)
        for first in first_of_band:
            band += p >= first
        other_type = v != last_type
        other_document = other_type | (d != last_document)
        n_runs += other_type
        runs[0, np.uint64(n_runs)] = v
        if other_type:
            runs[1, np.uint64(n_runs)] = i
        n += other_document | (band != last_band)
        here = np.uint64(n)
        keys[here] = (band * n_units + units[np.uint64(d)]) * n_types + v
        sums[0, here] += 1
        sums[1, here] += p
        cell[i] = n
        of_type[0, np.uint64(v)] += 1
        of_type[1, np.uint64(v)] += other_document
        of_type[2, np.uint64(v)] += p
        last_type, last_document, last_band = v, d, band
    runs[1, n_runs + 1] = len(order)
    return n + 1, n_runs + 1


@numba.njit(nogil=True, cache=True)
def _fixed(x: Any) -> Any:
    return np.int64(np.rint(x * 4294967296.0))


@numba.njit(nogil=True, cache=True)
def add_types(order: Int, runs: Int, cell: Any, entropy: Any, confidence: Any, cells: Int, moments: Int, extremes: Any) -> float:
    """Add one layer of rows in order of type; returns the sum of squared entropies.

    cells: entropy [Z]; moments: squares, confidences and their squares, two float32 extremes, and entropies by type [V, 5];
    extremes: moments seen as float32 [V, 10]. A type's sums are kept in registers, and rows of a batch lie near each other.
    """
    total, with_confidence = 0.0, len(confidence) > 0
    for r in range(runs.shape[1] - 1):
        v = np.uint64(runs[0, r])
        low, high = extremes[v, 6], extremes[v, 7]
        entropies, squares, confidences, confidence_squares = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for i in range(np.uint64(runs[1, r]), np.uint64(runs[1, r + 1])):
            t = np.uint64(order[i])
            value = entropy[t]
            h = np.float64(value)
            fixed, square = _fixed(h), h * h
            total += square
            entropies += fixed
            squares += _fixed(square)
            cells[np.uint64(cell[i])] += fixed
            low, high = min(low, value), max(high, value)
            if with_confidence:
                c = np.float64(confidence[t])
                confidences += _fixed(c)
                confidence_squares += _fixed(c * c)
        moments[v, 0] += squares
        moments[v, 1] += confidences
        moments[v, 2] += confidence_squares
        moments[v, 4] += entropies
        extremes[v, 6], extremes[v, 7] = low, high
    return total


@numba.njit(nogil=True, cache=True)
def add_units(entropy: Any, confidence: Any, starts: Int, units: Int, limits: Any, unit_rows: Int) -> None:
    """Add one layer of rows, document by document: below each limit, entropy and confidence by unit [H + 2, D]."""
    n_limits = len(limits)
    for d in range(len(units)):
        of_document = entropy[starts[d] : starts[d + 1]]
        for rule in range(n_limits):
            limit, below = limits[rule], np.int64(0)
            for t in range(len(of_document)):
                below += np.int64(np.float64(of_document[t]) < limit)
            unit_rows[rule, units[d]] += below
        summed = np.int64(0)
        for t in range(len(of_document)):
            summed += _fixed(np.float64(of_document[t]))
        unit_rows[n_limits, units[d]] += summed
        if len(confidence):
            of_document, summed = confidence[starts[d] : starts[d + 1]], np.int64(0)
            for t in range(len(of_document)):
                summed += _fixed(np.float64(of_document[t]))
            unit_rows[n_limits + 1, units[d]] += summed


@numba.njit(nogil=True, cache=True)
def add_histogram(entropy: Any, top: float, histogram: Int) -> None:
    """Count entropies into equal bins of [0, top], values beyond into the last."""
    n_bins = len(histogram)
    for t in range(len(entropy)):
        place = np.int64(np.float64(entropy[t]) / top * n_bins)
        histogram[np.uint64(0 if place < 0 else n_bins - 1 if place >= n_bins else place)] += 1


@numba.njit(nogil=True, cache=True)
def _weight(code: Any, values: Int) -> Any:
    """Fixed-point weight of a code: of a place in values or, without values, of a float16's bits (0 if it is not finite)."""
    if len(values):
        return values[np.uint64(code)]
    exponent, fraction = (np.int64(code) >> 10) & 31, np.int64(code) & 1023
    fixed = fraction << 8 if exponent == 0 else (fraction | 1024) << (exponent + 7)
    return 0 if exponent == 31 else -fixed if code & 0x8000 else fixed


@numba.njit(nogil=True, cache=True)
def add_dense_choices(order: Int, runs: Int, n_experts: int, ids: Any, codes: Any, values: Int, rows: Int) -> None:
    """Count (type, expert) pairs of rows in order of type into rows [V x E, 2]: n + 2**32 first choices, and weight."""
    address, n_runs = np.int64(rows.ctypes.data), runs.shape[1] - 1
    for r in range(n_runs):
        if r + AHEAD < n_runs:
            soon, t = runs[0, r + AHEAD] * n_experts, np.uint64(order[np.uint64(runs[1, r + AHEAD])])
            for k in range(ids.shape[1]):
                _prefetch(address + 16 * (soon + np.int64(ids[t, k])))
        base = np.uint64(runs[0, r]) * np.uint64(n_experts)
        for i in range(np.uint64(runs[1, r]), np.uint64(runs[1, r + 1])):
            t = np.uint64(order[i])
            count = np.int64(1) + (np.int64(1) << 32)
            for k in range(ids.shape[1]):
                pair = base + np.uint64(ids[t, k])
                rows[pair, 0] += count
                rows[pair, 1] += _weight(codes[t, k], values)
                count = np.int64(1)


@numba.njit(nogil=True, cache=True)
def _slot(rows: Int, key: Any) -> Any:
    last = len(rows) - 1
    slot = _mix(np.uint64(key)) & np.uint64(last)
    while rows[slot, 0] != key and rows[slot, 0] != 0:
        slot = (slot + np.uint64(1)) & np.uint64(last)
    return slot


@numba.njit(nogil=True, cache=True)
def add_hashed_choices(
    order: Int, runs: Int, n_experts: int, ids: Any, codes: Any, values: Int, rows: Int, filled: int, first_run: int
) -> tuple[int, int]:
    """Count (type, expert) pairs into a hash table, rows [capacity, 4]: key + 1 or 0, n, first choices, weight.

    A type's pairs are summed before they are looked up. Begins at first_run and stops where the table is half full; returns the run to
    go on with and the number of pairs held.
    """
    slots = ids.shape[1]
    sums, touched = np.zeros((n_experts, 3), np.int64), np.empty(n_experts, np.int64)
    for r in range(first_run, runs.shape[1] - 1):
        first, end, n = np.uint64(runs[1, r]), np.uint64(runs[1, r + 1]), 0
        if 2 * (filled + min(n_experts, np.int64(end - first) * slots)) > len(rows):
            return r, filled
        for i in range(first, end):
            t = np.uint64(order[i])
            for k in range(slots):
                e = np.uint64(ids[t, k])
                if sums[e, 0] == 0:
                    touched[n] = np.int64(e)
                    n += 1
                sums[e, 0] += 1
                sums[e, 1] += np.int64(k == 0)
                sums[e, 2] += _weight(codes[t, k], values)
        base = runs[0, r] * n_experts + 1
        for place in range(n):
            e = np.uint64(touched[place])
            key = base + np.int64(e)
            slot = _slot(rows, key)
            filled += rows[slot, 0] == 0
            rows[slot, 0] = key
            for column in range(3):
                rows[slot, column + 1] += sums[e, column]
                sums[e, column] = 0
    return runs.shape[1] - 1, filled


@numba.njit(nogil=True, cache=True)
def rehash(old: Int, new: Int) -> None:
    """The pairs of a table in a larger one."""
    for i in range(len(old)):
        if old[i, 0]:
            row = new[_slot(new, old[i, 0])]
            for column in range(4):
                row[column] = old[i, column]


@numba.njit(nogil=True, cache=True)
def sort_order(keys: Any) -> Int:
    """Order that sorts keys >= 0, by radix from the last digit: a multiple faster than comparisons, and stable."""
    here, there = keys.astype(np.int64), np.empty(len(keys), np.int64)
    order, moved = np.arange(len(keys)), np.empty(len(keys), np.int64)
    largest = np.int64(0)
    for key in here:
        largest = max(largest, key)
    places, shift = np.empty(2049, np.int64), 0
    while shift < 63 and largest >> shift:
        places[:] = 0
        for key in here:
            places[np.uint64((key >> shift) & 2047) + np.uint64(1)] += 1
        for digit in range(2048):
            places[digit + 1] += places[digit]
        for i in range(len(here)):  # keys move along, so that only writes are scattered
            key = here[i]
            place = np.uint64((key >> shift) & 2047)
            to = np.uint64(places[place])
            there[to], moved[to] = key, order[i]
            places[place] += 1
        here, there = there, here
        order, moved = moved, order
        shift += 11
    return order


@numba.njit(nogil=True, cache=True)
def dense_pairs(rows: Int) -> tuple[Int, Int]:
    """Non-empty rows of a table of add_dense_choices: their numbers, and n, first choices and weight [3, pairs]."""
    n = 0
    for i in range(len(rows)):
        n += rows[i, 0] != 0
    keys, sums, place = np.empty(n, np.int64), np.empty((3, n), np.int64), 0
    for i in range(len(rows)):
        if rows[i, 0]:
            keys[place], sums[2, place] = i, rows[i, 1]
            sums[0, place], sums[1, place] = rows[i, 0] & 0xFFFFFFFF, rows[i, 0] >> 32
            place += 1
    return keys, sums
