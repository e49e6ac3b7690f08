"""What repetition is counted from: neighbouring tokens of a document, by group of documents, for one MoE layer at a time.

T token (row), K slot in the top-k, G group of documents, D document, E expert, P unordered pair of experts, M size of an overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Float, Int
from analysis.lag_tables import lag_loads, lag_overlap_sizes
from analysis.lags import lag_overlaps, lag_pairs


@dataclass(frozen=True)
class Repeats:
    """Sums over neighbouring tokens by group.

    pairs, repeats: [G]; shuffled: mean repeats over all orders of each document's tokens [G]; sources, targets: tokens of each expert,
    earlier and later [G, E]; sizes: pairs by overlap [G, M]; source_pairs, target_pairs: [G, P]. Of first choices the last three are None.
    """

    pairs: Int
    repeats: Int
    shuffled: Float
    sources: Int
    targets: Int
    sizes: Int | None = None
    source_pairs: Int | None = None
    target_pairs: Int | None = None


def first_repeats(ids_KT: NDArray[Any], starts: Int, n_experts: int, group: Int) -> Repeats:
    """Repeats of the first choice. starts: first row of each document and the end [D + 1]; group: of each document [D]."""
    first = ids_KT[:1]
    return Repeats(lag_pairs(starts, [1], group)[:, 0], lag_overlaps(first, starts, n_experts, [1], group)[:, 0],
                   _shuffled(first, starts, n_experts, group), *lag_loads(first, starts, n_experts, 1, group))


def any_repeats(ids_KT: NDArray[Any], starts: Int, n_experts: int, group: Int) -> Repeats | None:
    """Repeats of an expert among the first two choices of both tokens; None where a token has one choice."""
    if len(ids_KT) < 2:
        return None
    two = ids_KT[:2]
    sizes = lag_overlap_sizes(two, starts, n_experts, 1, group)
    pair = pair_codes(two, n_experts)
    within = np.r_[np.diff(np.repeat(np.arange(len(starts) - 1), np.diff(starts))) == 0, False]
    earlier = np.flatnonzero(within)
    of = np.repeat(group, np.diff(starts))[earlier]
    n_pairs, n_groups = n_experts * (n_experts - 1) // 2, int(group.max(initial=-1)) + 1
    tables = [np.bincount(of * n_pairs + pair[rows], minlength=n_groups * n_pairs).reshape(n_groups, n_pairs) for rows in (earlier, earlier + 1)]
    return Repeats(lag_pairs(starts, [1], group)[:, 0], sizes[:, 1:].sum(axis=1), _shuffled(two, starts, n_experts, group),
                   *lag_loads(two, starts, n_experts, 1, group), sizes, *tables)


def pair_codes(two_2T: NDArray[Any], n_experts: int) -> Int:
    """Number of the unordered pair of each row, 0 to E(E-1)/2 - 1."""
    low, high = np.sort(two_2T.astype(np.int64), axis=0)
    codes: Int = low * (2 * n_experts - low - 1) // 2 + high - low - 1
    return codes


def _shuffled(ids_KT: NDArray[Any], starts: Int, n_experts: int, group: Int) -> Float:
    """Exact mean of the repeats when the tokens of each document are put in random order: sum_d (pairs of tokens that meet) 2 / T_d.

    Of one choice the ordered pairs of tokens that meet are sum_e n_e (n_e - 1); of two, less sum_p n_p (n_p - 1), which were counted twice.
    """
    length = np.diff(starts)
    document = np.repeat(np.arange(len(length)), length)
    meet = np.zeros(len(length))
    for slot_codes, size, sign in [(ids_KT.astype(np.int64), n_experts, 1.0)] + (
            [(pair_codes(ids_KT, n_experts)[None], n_experts * (n_experts - 1) // 2, -1.0)] if len(ids_KT) == 2 else []):
        codes, counts = np.unique((document * size + slot_codes).ravel(), return_counts=True)
        meet += sign * np.bincount(codes // size, weights=counts * (counts - 1.0), minlength=len(length))
    out = np.zeros(int(group.max(initial=-1)) + 1)
    np.add.at(out, group, np.divide(meet, length, out=np.zeros(len(length)), where=length > 1))
    return out


def repeats_by_type(first_T: NDArray[Any], types_T: NDArray[Any], starts: Int, n_experts: int, group: Int, *,
                    same: bool) -> tuple[Int, Int, Int, Int]:
    """Repeats of the first choice over neighbouring tokens of one token type (same), or of two.

    types_T: token ids. Gives repeats [G], sources and targets [G, E], pairs [G]: the arguments of lag_overlap_kappa.
    """
    document = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    rows = np.flatnonzero((document[1:] == document[:-1]) & ((types_T[1:] == types_T[:-1]) == same))
    of, n_groups = np.asarray(group, np.int64)[document[rows]], int(group.max(initial=-1)) + 1
    earlier, later = (first_T[at].astype(np.int64) for at in (rows, rows + 1))
    sources, targets = (np.bincount(of * n_experts + ids, minlength=n_groups * n_experts).reshape(n_groups, n_experts) for ids in (earlier, later))
    return np.bincount(of[earlier == later], minlength=n_groups), sources, targets, np.bincount(of, minlength=n_groups)
