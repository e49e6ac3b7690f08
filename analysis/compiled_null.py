"""The numba twins of the nulls: same arguments, same bits; imported only where the work repays numba's start-up.

T token, L layer, P pair of layers, U update, G group, D document. lg: log2 of the padded number of experts.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from analysis.compiled import _mix
from analysis.table_information import INV_LN2


@numba.njit(nogil=True, cache=True)
def _xlogx(n: Any, values: Any, logs: Any, scale: float) -> Any:
    if n < len(values):
        return values[np.uint64(n)]
    high, k = np.int64(n), np.int64(0)
    while high >= len(values):
        high >>= 1
        k += 1
    base = high << k
    r = np.float64(np.int64(n) - base) / np.float64(base)
    return np.int64(np.rint(np.float64(n) * ((np.float64(k) + logs[high]) + (r - r * r / 2 + r * r * r / 3) * INV_LN2) * scale))


@numba.njit(nogil=True, cache=True)
def shift_source(starts: Any, shifts: Any, source: Any) -> None:
    """source[t] = the row whose choice comes to row t when each document is shifted."""
    for d in range(len(shifts)):
        first, s = np.uint32(starts[d]), np.uint32(shifts[d])
        n = np.uint32(starts[d + 1]) - first
        for t in range(s):
            source[first + t] = first + n - s + t
        for t in range(s, n):
            source[first + t] = first + t - s


@numba.njit(nogil=True, cache=True)
def _count(x: Any, y: Any, lg: int, table: Any) -> None:
    for t in range(len(x)):
        table[(np.uint32(x[t]) << lg) | np.uint32(y[t])] += np.uint32(1)


@numba.njit(nogil=True, cache=True)
def _move(y: Any, source: Any, moved: Any) -> None:
    for t in range(len(source)):
        moved[t] = y[source[t]]


@numba.njit(nogil=True, cache=True)
def _margins(table: Any, lg: int, stratum: int, nx: int, ny: int, rows: Any, columns: Any) -> Any:
    """Margins of one stratum's table; returns its total. Rows and columns beyond nx, ny hold missing choices and are not counted."""
    total = np.int64(0)
    columns[:] = 0
    for i in range(nx):
        base = (stratum << (2 * lg)) | (i << lg)
        row = np.int64(0)
        line = table[base : base + ny]
        for j in range(ny):
            n = np.int64(line[j])
            row += n
            columns[j] += n
        rows[i] = row
        total += row
    return total


@numba.njit(nogil=True, cache=True)
def _cells(line: Any, row: Any, values: Any, logs: Any, scale: float) -> Any:
    value = np.int64(0)
    if row < len(values):  # no cell of this row is beyond the table
        for n in line:
            value += values[np.uint64(n)]
    else:
        for n in line:
            value += _xlogx(n, values, logs, scale)
    return value


@numba.njit(nogil=True, cache=True)
def _value(table: Any, lg: int, n_strata: int, nx: int, ny: int, rows: Any, columns: Any, values: Any, logs: Any, scale: float) -> Any:
    value, total = np.int64(0), np.int64(0)
    for stratum in range(n_strata):
        n = _margins(table, lg, stratum, nx, ny, rows, columns)
        total += n
        value += _xlogx(n, values, logs, scale)
        for i in range(nx):
            base = (stratum << (2 * lg)) | (i << lg)
            value += _cells(table[base : base + ny], rows[i], values, logs, scale) - _xlogx(rows[i], values, logs, scale)
        for j in range(ny):
            value -= _xlogx(columns[j], values, logs, scale)
    return value, total


@numba.njit(nogil=True, cache=True)
def pair_parts(
    x_LT: Any, y_LT: Any, source: Any, pairs: Any, n_experts: Any, lg: int, n_strata: int, moved_LT: Any, table: Any,
    values: Any, logs: Any, scale: float, parts: Any,
) -> None:
    """parts [P, 2] of every pair after row t took the choice of row source[t] at the second layer; each layer is moved once."""
    size = 1 << lg
    rows, columns, done = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(len(y_LT), np.bool_)
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        if not done[b]:
            _move(y_LT[b], source, moved_LT[b])
            done[b] = True
        table[:] = 0
        _count(x_LT[a], moved_LT[b], lg, table)
        parts[p, 0], parts[p, 1] = _value(table, lg, n_strata, n_experts[a], n_experts[b], rows, columns, values, logs, scale)


@numba.njit(nogil=True, cache=True)
def pair_tables(x_LT: Any, y_LT: Any, source: Any, pairs: Any, lg: int, moved_LT: Any, tables: Any) -> None:
    """tables [P, S X Y padded] of every pair after row t took the choice of row source[t] at the second layer; each layer is moved once."""
    done = np.zeros(len(y_LT), np.bool_)
    tables[:] = 0
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        if not done[b]:
            _move(y_LT[b], source, moved_LT[b])
            done[b] = True
        _count(x_LT[a], moved_LT[b], lg, tables[p])


@numba.njit(nogil=True, cache=True)
def left_out_parts(
    x: Any, y: Any, source: Any, x_row: Any, y_row: Any, sign: Any, bounds: Any, nx: int, ny: int, lg: int, n_strata: int,
    table: Any, values: Any, logs: Any, scale: float, parts: Any,
) -> None:
    """parts [G, 2] of one pair without each group: updates u in bounds[g]..bounds[g+1] add sign[u] to cell (x[x_row[u]], y[y_row[u]])."""
    table[:] = 0
    for t in range(len(x)):
        table[(np.uint32(x[t]) << lg) | np.uint32(y[source[t]])] += np.uint32(1)
    rows, columns = np.zeros((n_strata, 1 << lg), np.int64), np.zeros((n_strata, 1 << lg), np.int64)
    totals = np.zeros(n_strata, np.int64)
    for s in range(n_strata):
        totals[s] = _margins(table, lg, s, nx, ny, rows[s], columns[s])
    one_row, one_column = np.zeros(1 << lg, np.int64), np.zeros(1 << lg, np.int64)
    whole, n = _value(table, lg, n_strata, nx, ny, one_row, one_column, values, logs, scale)
    delta, cells = np.zeros(len(table), np.int32), np.zeros(np.diff(bounds).max(), np.uint32)
    for g in range(len(parts)):
        first, length = bounds[g], bounds[g + 1] - bounds[g]
        for u in range(length):
            cell = (np.uint32(x[x_row[first + u]]) << lg) | np.uint32(y[y_row[first + u]])
            cells[u] = cell
            delta[cell] += sign[first + u]
        if 4 * length > len(table):  # so many cells change that all are summed anew
            for c, d in enumerate(delta):
                table[c] += np.uint32(d)
            parts[g, 0], parts[g, 1] = _value(table, lg, n_strata, nx, ny, one_row, one_column, values, logs, scale)
            for c, d in enumerate(delta):
                table[c] -= np.uint32(d)
            delta[:] = 0
        else:
            change, more = _change(cells[:length], delta, table, lg, nx, ny, rows, columns, totals, values, logs, scale)
            parts[g, 0], parts[g, 1] = whole + change, n + more


@numba.njit(nogil=True, cache=True)
def _change(
    cells: Any, delta: Any, table: Any, lg: int, nx: int, ny: int, rows: Any, columns: Any, totals: Any, values: Any, logs: Any, scale: float
) -> Any:
    """Change of (J, N) where delta is added to the cells named (with repetition), which are set to 0."""
    mask: Any = np.int64((1 << lg) - 1)
    change: Any = np.int64(0)
    more: Any = np.int64(0)
    d_rows, d_columns, d_totals = np.zeros_like(rows), np.zeros_like(columns), np.zeros_like(totals)
    for cell in cells:
        d = delta[cell]
        delta[cell] = 0
        s, i, j = np.int64(cell) >> (2 * lg), (np.int64(cell) >> lg) & mask, np.int64(cell) & mask
        if d != 0 and i < nx and j < ny:
            held = np.int64(table[cell])
            change += _xlogx(held + d, values, logs, scale) - _xlogx(held, values, logs, scale)
            d_rows[s, i] += d
            d_columns[s, j] += d
            d_totals[s] += d
    for stratum in range(len(totals)):
        more += d_totals[stratum]
        change += _xlogx(totals[stratum] + d_totals[stratum], values, logs, scale) - _xlogx(totals[stratum], values, logs, scale)
        for i in range(nx):
            change -= _xlogx(rows[stratum, i] + d_rows[stratum, i], values, logs, scale) - _xlogx(rows[stratum, i], values, logs, scale)
        for j in range(ny):
            change -= _xlogx(columns[stratum, j] + d_columns[stratum, j], values, logs, scale) - _xlogx(columns[stratum, j], values, logs, scale)
    return change, more


@numba.njit(nogil=True, cache=True)
def shuffle_within(places: Any, starts: Any, lengths: Any, keys: Any, cyclic: bool) -> None:
    """Twin of shuffles.shuffle_within, in place."""
    spared = 1 if cyclic else 0
    for s in range(len(starts)):
        for step in range(lengths[s] - 1, 0, -1):
            other = np.int64(_mix(keys[s] + np.uint64(step)) % np.uint64(step + 1 - spared))
            here, there = starts[s] + step, starts[s] + other
            places[here], places[there] = places[there], places[here]


@numba.njit(nogil=True, cache=True)
def influence(x: Any, y: Any, starts: Any, lg: int, weights: Any, sums: Any) -> None:
    """sums[d] = sum over the rows of document d of the weight of their cell."""
    for d in range(len(sums)):
        total = np.int64(0)
        for t in range(np.uint64(starts[d]), np.uint64(starts[d + 1])):
            total += weights[(np.uint32(x[t]) << lg) | np.uint32(y[t])]
        sums[d] = total


@numba.njit(nogil=True, cache=True)
def poisson(keys: Any, replicates: Any, limits: Any, weights: Any) -> None:
    """weights[b, d] = number of limits that the draw of document d and replicate b reaches."""
    for b in range(len(replicates)):
        for d in range(len(keys)):
            draw, k = _mix(keys[d] + replicates[b]), 0
            while k < len(limits) and draw >= limits[k]:
                k += 1
            weights[b, d] = k


@numba.njit(nogil=True, cache=True)
def multinomial(base: Any, replicates: Any, weights: Any) -> None:
    """weights[b, d]: how often n draws from n documents take d."""
    n = np.uint64(weights.shape[1])
    for b in range(len(replicates)):
        row, first = weights[b], base + replicates[b] * n
        for i in range(n):
            row[_mix(first + np.uint64(i)) % n] += 1


@numba.njit(nogil=True, cache=True)
def _weigh(units: Any, weights: Any, room: int, few: Any, held: Any) -> None:
    """held[b] = sum of the weights of the units, added byte by byte `room` tokens at a time: one instruction serves many replicates."""
    held[:] = 0
    for first in range(0, len(units), room):
        few[:] = 0
        for unit in units[first : first + room]:
            line = weights[np.uint64(unit)]
            for b in range(len(few)):
                few[b] += line[b]
        for b in range(len(few)):
            held[b] += few[b]


@numba.njit(nogil=True, cache=True)
def weighted_parts(
    units: Any, bounds: Any, weights: Any, heaviest: int, held: Any, ny: int, values: Any, logs: Any, scale: float, parts: Any
) -> None:
    """parts [b, 2] of a block of replicates: units of the tokens by cell, bounds of the cells, weights [D, b]; held: one sum per replicate."""
    width, room = weights.shape[1], 255 // max(heaviest, 1)
    rows, columns, total = np.zeros(width, held.dtype), np.zeros((ny, width), held.dtype), np.zeros(width, np.int64)
    sums = np.zeros(width, np.int64)
    few = np.zeros(width, np.uint8)
    for cell in range(len(bounds) - 1):
        if bounds[cell] < bounds[cell + 1]:
            _weigh(units[bounds[cell] : bounds[cell + 1]], weights, room, few, held)
            column = columns[cell % ny]
            for b in range(width):
                rows[b] += held[b]
                column[b] += held[b]
            for b in range(width):
                sums[b] += _xlogx(np.int64(held[b]), values, logs, scale)
        if (cell + 1) % ny == 0:
            for b in range(width):
                total[b] += rows[b]
                sums[b] -= _xlogx(np.int64(rows[b]), values, logs, scale)
                rows[b] = 0
    for b in range(width):
        for j in range(ny):
            sums[b] -= _xlogx(np.int64(columns[j, b]), values, logs, scale)
        parts[b, 0] = sums[b] + _xlogx(total[b], values, logs, scale)
        parts[b, 1] = total[b]
