"""How often a token's experts come back `lag` tokens later in the same document.

T token (row), K slot in the top-k, D document, G group of documents, M lag, E expert. Documents of like length lie side by side, one
position a row, so that a lag is a comparison of whole blocks; what pads the shorter ones equals nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.joint import Symbols, refuse_twice, symbols
from analysis.kernels import Int

PADDING = 1.25  # longest over shortest document of a block
BLOCK_CELLS = 2**18  # of a block: it stays in cache over all lags


def lag_matches(x: NDArray[Any], starts: Int, n_experts: int, lags: Sequence[int], group: Int | None = None) -> Int:
    """#{t: x(t) = x(t + lag), both of one document} of a stream of ids [T]: counts [M], or [G, M] with a group of each document [D].

    starts: first row of each document and the end [D + 1]; -1 matches nothing. TraceError for ids out of range, ValueError for a lag
    below 1.
    """
    found = symbols(x[None], n_experts)
    wide = found.ids.astype(np.uint16) if n_experts + 2 > 256 and found.ids.dtype == np.uint8 else found.ids
    out = _empty(starts, lags, group)
    for into, rows, outside in _blocks(starts, group, out, 1):
        early = wide[0][rows]
        early[outside] = n_experts
        late = early
        if found.missing or outside.any():
            late = np.where(early == n_experts, np.asarray(n_experts + 1, wide.dtype), early)
        for m, lag in enumerate(lags):
            if lag < len(early):
                into[m] += np.count_nonzero(early[:-lag] == late[lag:])
    return out if group is not None else out[0]


def lag_overlaps(ids_KT: NDArray[Any], starts: Int, n_experts: int, lags: Sequence[int], group: Int | None = None) -> Int:
    """Sum over t of |S(t) and S(t + lag)|, both of one document, of a layer [K, T]: counts [M], or [G, M]; as lag_matches for K = 1.

    TraceError, too, for an expert twice in one top-k.
    """
    found = symbols(ids_KT, n_experts)
    refuse_twice(found)
    masks = expert_masks(found)
    out = _empty(starts, lags, group)
    for into, rows, outside in _blocks(starts, group, out, masks.itemsize * len(masks)):
        for mask in masks:
            block = mask[rows]
            block[outside] = 0
            for m, lag in enumerate(lags):
                if lag < len(block):
                    into[m] += int(np.bitwise_count(block[:-lag] & block[lag:]).sum(dtype=np.int64))
    return out if group is not None else out[0]


def lag_pairs(starts: Int, lags: Sequence[int], group: Int | None = None) -> Int:
    """Pairs of tokens `lag` apart in one document: sum of max(length - lag, 0), [M] or [G, M]."""
    out = _empty(starts, lags, group)
    of = np.zeros(len(starts) - 1, np.int64) if group is None else group
    for m, lag in enumerate(lags):
        np.add.at(out[:, m], of, np.maximum(np.diff(starts) - lag, 0))
    return out if group is not None else out[0]


def expert_masks(found: Symbols) -> NDArray[Any]:
    """Sets of experts as bits: [words, T], one word as narrow as it may be up to 64 experts, 64 bits each beyond."""
    bits = next((b for b in (8, 16, 32) if found.n_experts <= b), 64)
    dtype = np.dtype(f"u{bits // 8}")
    masks = np.zeros((-(-max(found.n_experts, 1) // bits), found.ids.shape[1]), dtype)
    for word, mask in enumerate(masks):
        table = np.zeros(found.n_experts + 1, dtype)
        members = range(word * bits, min((word + 1) * bits, found.n_experts))
        table[word * bits : word * bits + len(members)] = [1 << (expert - word * bits) for expert in members]
        for slot in found.ids:
            mask |= table[slot]
    return masks


def _empty(starts: Int, lags: Sequence[int], group: Int | None) -> Int:
    if any(lag < 1 for lag in lags):
        raise ValueError(f"lags {list(lags)}: a lag counts tokens ahead, 1 at least")
    if group is not None and len(group) != len(starts) - 1:
        raise ValueError(f"group: {len(group)} entries for {len(starts) - 1} documents")
    return np.zeros((1 if group is None else int(group.max(initial=-1)) + 1, len(lags)), np.int64)


def _blocks(starts: Int, group: Int | None, out: Int, bytes_a_row: int) -> Iterator[tuple[Int, Int, NDArray[np.bool_]]]:
    """Where to count, rows [position, documents] and which of them are padding, for documents of one group and like length."""
    length = np.diff(starts)
    of = np.zeros(len(length), np.int64) if group is None else group
    order = np.lexsort((-length, of))
    order = order[length[order] > 0]
    of, length, first = of[order], length[order], starts[:-1][order]
    begin = 0
    while begin < len(order):
        longest = int(length[begin])
        same = begin + int(np.searchsorted(of[begin:], of[begin], side="right"))
        near = begin + int(np.searchsorted(-length[begin:same] * PADDING, -longest, side="right"))
        end = min(near, begin + max(1, BLOCK_CELLS // (longest * bytes_a_row)))
        place = np.arange(longest)[:, None]
        yield out[int(of[begin])], np.minimum(first[begin:end] + place, starts[-1] - 1), place >= length[begin:end]
        begin = end
