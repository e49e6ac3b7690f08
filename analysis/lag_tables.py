"""Margins and overlap sizes of pairs of tokens `lag` apart in one document, beside the matches that analysis.lags counts.

K slot of the top-k, T token (row), D document, G group of documents, E expert, M size of an overlap. starts: first row of each document
and the end [D + 1]; group: of each document [D]. -1 in ids is a dropped slot.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.joint import refuse_twice, symbols
from analysis.kernels import Int


def lag_loads(ids_KT: NDArray[Any], starts: Int, n_experts: int, lag: int = 1, group: Int | None = None) -> tuple[Int, Int]:
    """Pairs by expert of the earlier and of the later token: #{t: e in S(t)} and #{t: e in S(t + lag)}, each [E], or [G, E].

    With lags.lag_overlaps and lags.lag_pairs the arguments of lag_overlap_kappa, and of lag_kappa's matches form for K = 1. ValueError
    for a lag below 1, TraceError for ids out of range and an expert twice in one top-k.
    """
    earlier, of = _pairs(ids_KT, starts, n_experts, lag, group)
    sources, targets = (_loads(ids_KT[:, rows], of, n_experts, _n_groups(group)) for rows in (earlier, earlier + lag))
    return (sources, targets) if group is not None else (sources[0], targets[0])


def lag_overlap_sizes(ids_KT: NDArray[Any], starts: Int, n_experts: int, lag: int = 1, group: Int | None = None) -> Int:
    """Pairs by number of experts that both tokens chose, 0 to K: [K + 1], or [G, K + 1]; the argument of lag_jaccard."""
    earlier, of = _pairs(ids_KT, starts, n_experts, lag, group)
    ids = np.asarray(ids_KT)
    size = np.zeros(len(earlier), np.int64)
    for one in ids[:, earlier]:
        for other in ids[:, earlier + lag]:
            size += (one == other) & (one >= 0 if ids.dtype.kind == "i" else True)
    width = len(ids) + 1
    out = np.bincount(of * width + size, minlength=_n_groups(group) * width).reshape(-1, width).astype(np.int64)
    return out if group is not None else out[0]


def _pairs(ids_KT: NDArray[Any], starts: Int, n_experts: int, lag: int, group: Int | None) -> tuple[Int, Int]:
    """Rows of the earlier tokens, and the group of each."""
    ids = np.asarray(ids_KT)
    if lag < 1:
        raise ValueError(f"lag {lag}: a lag counts tokens ahead, 1 at least")
    refuse_twice(symbols(ids, n_experts))
    length = np.diff(starts)
    if int(starts[-1]) != ids.shape[1] or (group is not None and len(group) != len(length)):
        raise ValueError(f"starts end at row {int(starts[-1])} of {ids.shape[1]}, group has {None if group is None else len(group)} entries for "
                         f"{len(length)} documents")
    document = np.repeat(np.arange(len(length)), length)
    place = np.arange(ids.shape[1]) - np.asarray(starts)[document]
    earlier = np.flatnonzero(place + lag < length[document])
    of = np.zeros(len(earlier), np.int64) if group is None else np.asarray(group, np.int64)[document[earlier]]
    return earlier, of


def _n_groups(group: Int | None) -> int:
    return 1 if group is None else int(np.max(group, initial=-1)) + 1


def _loads(ids_KP: NDArray[Any], of_P: Int, n_experts: int, n_groups: int) -> Int:
    out = np.zeros(n_groups * n_experts, np.int64)
    for slot in ids_KP:
        kept = slot >= 0 if ids_KP.dtype.kind == "i" else np.ones(len(slot), bool)
        out += np.bincount(of_P[kept] * n_experts + slot[kept].astype(np.int64), minlength=n_groups * n_experts)
    return out.reshape(n_groups, n_experts)
