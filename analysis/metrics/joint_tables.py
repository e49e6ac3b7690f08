"""From expert ids of two layers to joint tables: first choices, slot averages, sets as symbols, soft routing, indicators.

T token (row), K slot in the top-k, X, Y expert (or set) of two layers, G group of documents. Ids are [T] or [T, K] integers, -1 a dropped
slot. A token without an expert in either layer is left out pairwise. Tables do not depend on the order of tokens; a group [T] adds a first
axis [G] whose tables sum to the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.gates import SELECTION_BIASED
from analysis.kernels import Float, Int
from analysis.metrics.entropy import probabilities
from analysis.trace import TraceError

DENSE_SETS = 2**26  # cells of a joint table of sets that may be held densely
DROP_WARNING, DROP_GATE = 0.01, 0.05  # metrics specification 1
ROWS_AT_ONCE = 2**20

Experts = int | tuple[int, int]


@dataclass(frozen=True)
class FirstChoice:
    """First choice of each token, -1 where every slot was dropped. n_tied: tokens whose largest score was shared; None without scores."""

    expert_T: Int
    n_tied: int | None

    @property
    def tie_rate(self) -> float | None:
        """Tokens with a tie over tokens with an expert; None without scores or without such tokens."""
        chosen = int(np.count_nonzero(self.expert_T >= 0))
        return None if self.n_tied is None or not chosen else self.n_tied / chosen


@dataclass(frozen=True)
class Pairing:
    """Tokens with an expert in both layers."""

    kept_T: NDArray[np.bool_]

    @property
    def n_kept(self) -> int:
        """Tokens counted."""
        return int(np.count_nonzero(self.kept_T))

    @property
    def drop_rate(self) -> float | None:
        """Tokens left out over all tokens; None for no tokens."""
        return 1 - self.n_kept / len(self.kept_T) if len(self.kept_T) else None


def checked_ids(ids: ArrayLike, n_experts: int, name: str = "ids") -> Int:
    """Ids as [T, K] int64; TraceError for no integers, ids outside -1..n_experts-1, and an expert twice in one top-k."""
    given = np.asarray(ids)
    if given.dtype.kind not in "iu" and given.size:
        raise TraceError(f"{name}: {given.dtype}; expert ids are integers, -1 for a dropped slot")
    if given.ndim not in (1, 2):
        raise TraceError(f"{name}: {given.ndim} axes; give [tokens] or [tokens, slots]")
    table: Int = (given[:, None] if given.ndim == 1 else given).astype(np.int64)
    wrong = np.argwhere((table < -1) | (table >= n_experts))
    if len(wrong):
        token, slot = wrong[0]
        raise TraceError(f"{name}: expert {table[token, slot]} at token {token}, slot {slot}, but the layer has {n_experts}; correct n_experts, "
                         "or export the trace again")
    ordered = np.sort(table, axis=1)
    twice = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1))
    if len(twice):
        raise TraceError(f"{name}: an expert twice in the top-k of token {twice[0]}: {table[twice[0]].tolist()}; export one row per token")
    return table


def first_choice(ids: ArrayLike, scores: ArrayLike | None = None, *, n_experts: int = 2**31) -> FirstChoice:
    """Expert with the largest combine score, ties to the lowest id; without scores the first slot that survived, as slots descend by score.

    scores: [T, K] as ids, the unbiased combine weights. ValueError for scores of another shape or NaN at a surviving slot.
    """
    table = checked_ids(ids, n_experts)
    kept = table >= 0
    if scores is None:
        slot = kept.argmax(axis=1) if table.shape[1] else np.zeros(len(table), np.int64)
        chosen = table[np.arange(len(table)), slot] if table.shape[1] else np.full(len(table), -1)
        return FirstChoice(chosen, None)
    weight = np.asarray(scores, np.float64).reshape(np.shape(scores) if np.ndim(scores) == 2 else (-1, 1))
    if weight.shape != table.shape:
        raise ValueError(f"scores {weight.shape} for ids {table.shape}; give one score per slot")
    if np.isnan(weight[kept]).any():
        raise ValueError("scores: NaN at a slot that was not dropped; give the combine weights as the model used them")
    largest = np.where(kept, weight, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    top = kept & (weight == largest)
    n_top = top.sum(axis=1)
    chosen = np.where(top, table, n_experts).min(axis=1, initial=n_experts)
    return FirstChoice(np.where(n_top > 0, chosen, -1), int(np.count_nonzero(n_top > 1)))


def pair_tokens(x: ArrayLike, y: ArrayLike) -> Pairing:
    """Tokens with at least one expert in each of two layers, ids [T] or [T, K]."""
    a, b = _survives(np.asarray(x)), _survives(np.asarray(y))
    if len(a) != len(b):
        raise TraceError(f"ids: {len(a)} tokens in one layer but {len(b)} in the other; give both layers of the same tokens")
    return Pairing(a & b)


def drop_warning(drop_rate: float | None) -> str | None:
    """What to print above 1 % of tokens left out, else None."""
    if drop_rate is None or drop_rate <= DROP_WARNING:
        return None
    return f"{drop_rate:.1%} of the tokens lost every expert to capacity in one of the layers and are left out"


def selection_biased(drop_rate: float | None) -> str | None:
    """`selection_biased` above 5 % of tokens left out, else None."""
    if drop_rate is None or drop_rate <= DROP_GATE:
        return None
    return f"{SELECTION_BIASED}: {drop_warning(drop_rate)}; log the intended choices"


def first_choice_counts(x: ArrayLike, y: ArrayLike, n_experts: Experts, group: ArrayLike | None = None, n_groups: int | None = None) -> Int:
    """C[i, j] = #{t: X(t) = i, Y(t) = j} of first choices; ids [T, K] stand for their first surviving slot. [(G,) Ex, Ey] int64."""
    return _count(*_two_layers(x, y, n_experts, first=True), _sizes(n_experts), group, n_groups)


def slot_average_counts(x: ArrayLike, y: ArrayLike, n_experts: Experts, group: ArrayLike | None = None, n_groups: int | None = None) -> Float:
    """J = sum over tokens of m_l m_l'^T / (|S_l| |S_l'|): one expert drawn at random from each surviving set. [(G,) Ex, Ey]."""
    a, b = _two_layers(x, y, n_experts)
    n_a, n_b = (a >= 0).sum(axis=1), (b >= 0).sum(axis=1)
    out = np.zeros(_shape(_sizes(n_experts), group, n_groups))
    for size_a in range(1, a.shape[1] + 1):  # whole counts per pair of set sizes, so that the sum has no order
        for size_b in range(1, b.shape[1] + 1):
            rows = (n_a == size_a) & (n_b == size_b)
            if rows.any():
                part = _count(a[rows], b[rows], _sizes(n_experts), *_of_rows(rows, group, n_groups))
                out += part / (size_a * size_b)
    return out


def indicator_counts(x: ArrayLike, y: ArrayLike, n_experts: Experts, group: ArrayLike | None = None, n_groups: int | None = None) -> Int:
    """Tokens by indicator: N_ij = #{t: i in S_l, j in S_l'}, with N_i and N_j in the last column and row and N in the corner.

    [(G,) Ex + 1, Ey + 1] int64: the last index of each axis is the indicator that is always 1.
    """
    a, b = _two_layers(x, y, n_experts)
    n_x, n_y = _sizes(n_experts)
    kept = (a >= 0).any(axis=1, keepdims=True)
    x_1, y_1 = (np.hstack([ids, np.where(kept, n, -1)]) for ids, n in ((a, n_x), (b, n_y)))
    return _count(x_1, y_1, (n_x + 1, n_y + 1), group, n_groups)


def set_symbols(ids: ArrayLike, n_experts: int) -> Int:
    """One number per distinct surviving set [T], whatever the order of slots, 0 up in the order of sorted ids; -1 for no expert."""
    table = np.sort(checked_ids(ids, n_experts), axis=1)
    symbol = np.zeros(len(table), np.int64)
    for slot in table.T:
        symbol = np.unique(symbol * (n_experts + 1) + slot + 1, return_inverse=True)[1].astype(np.int64)
    empty = (table < 0).all(axis=1)
    return np.where(empty, -1, symbol - int(empty.any()))


def set_counts(x: ArrayLike, y: ArrayLike, n_experts: Experts, group: ArrayLike | None = None, n_groups: int | None = None) -> Int:
    """Joint counts of the observed sets of two layers, order ignored, [(G,) sets of l, sets of l'] int64; dense, for few sets."""
    n_x, n_y = _sizes(n_experts)
    a, b = (set_symbols(ids, n) for ids, n in ((x, n_x), (y, n_y)))
    kept = pair_tokens(a, b).kept_T
    pairs = [np.unique(symbol[kept], return_inverse=True) for symbol in (a, b)]
    rows, columns = (inverse.astype(np.int64)[:, None] for _, inverse in pairs)
    sizes = len(pairs[0][0]), len(pairs[1][0])
    if int(np.prod(_shape(sizes, group, n_groups), dtype=np.float64)) > DENSE_SETS:
        raise ValueError(f"{sizes[0]} x {sizes[1]} observed sets do not fit a dense table; give set_symbols to conditional.set_information")
    return _count(rows, columns, sizes, *_of_rows(kept, group, n_groups))


@dataclass(frozen=True)
class SoftTable:
    """J = sum over tokens of p_l p_l'^T [(G,) Ex, Ey], and the largest deviation of a row's sum from 1 before it was renormalised."""

    joint_XY: Float
    largest_deviation: float


def soft_counts(p: ArrayLike, q: ArrayLike, group: ArrayLike | None = None, n_groups: int | None = None) -> SoftTable:
    """J = P_l^T P_l' of full router probabilities [T, Ex], [T, Ey]: k-free; the order of tokens shows in the last bits only.

    Rows within 2e-3 of a sum of 1 are renormalised; ValueError beyond, and for negative numbers, NaN and layers of other tokens.
    """
    (a, off_a), (b, off_b) = (_probabilities(rows, name) for rows, name in ((p, "p"), (q, "q")))
    if len(a) != len(b):
        raise ValueError(f"p has {len(a)} tokens, q {len(b)}; give both layers of the same tokens")
    if group is None:
        return SoftTable(a.T @ b, max(off_a, off_b))
    member = np.asarray(group)
    tables = [a[member == g].T @ b[member == g] for g in range(_known(group, n_groups))]
    return SoftTable(np.array(tables).reshape(len(tables), a.shape[1], b.shape[1]), max(off_a, off_b))


def _probabilities(rows: ArrayLike, name: str) -> tuple[Float, float]:
    if np.ndim(rows) != 2:
        raise ValueError(f"{name}: full router probabilities are [tokens, experts], not {np.shape(rows)}")
    return probabilities(rows, name=name)


def _survives(ids: NDArray[Any]) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = np.atleast_1d(ids >= 0)
    return kept if ids.ndim == 1 else np.atleast_1d(kept.any(axis=1))


def _sizes(n_experts: Experts) -> tuple[int, int]:
    return (n_experts, n_experts) if isinstance(n_experts, int | np.integer) else n_experts


def _two_layers(x: ArrayLike, y: ArrayLike, n_experts: Experts, *, first: bool = False) -> tuple[Int, Int]:
    sides = [checked_ids(ids, n, name) for ids, n, name in zip((x, y), _sizes(n_experts), ("ids of the first layer", "ids of the second layer"))]
    if first:
        sides = [first_choice(ids).expert_T[:, None] for ids in sides]
    kept = pair_tokens(*sides).kept_T
    return tuple(np.where(kept[:, None], ids, -1) for ids in sides)  # type: ignore[return-value]


def _known(group: ArrayLike, n_groups: int | None) -> int:
    """Number of groups, with those that have no token where n_groups says so."""
    member = np.asarray(group)
    if member.size and (member.dtype.kind not in "iu" or member.min() < 0):
        raise ValueError("group: number the groups of documents from 0, one number per token")
    seen = int(member.max()) + 1 if member.size else 0
    if n_groups is not None and n_groups < seen:
        raise ValueError(f"n_groups {n_groups}: there is a token of group {seen - 1}; groups are numbered from 0")
    return seen if n_groups is None else n_groups


def _of_rows(rows: NDArray[np.bool_], group: ArrayLike | None, n_groups: int | None) -> tuple[ArrayLike | None, int | None]:
    return (None, None) if group is None else (np.asarray(group)[rows], _known(group, n_groups))


def _shape(sizes: tuple[int, int], group: ArrayLike | None, n_groups: int | None) -> tuple[int, ...]:
    return sizes if group is None else (_known(group, n_groups), *sizes)


def _count(x_TK: Int, y_TK: Int, sizes: tuple[int, int], group: ArrayLike | None, n_groups: int | None) -> Int:
    """Tokens by all slot pairs, slots of -1 left out."""
    if group is not None and len(np.asarray(group)) != len(x_TK):
        raise ValueError(f"group: {len(np.asarray(group))} numbers for {len(x_TK)} tokens")
    out = np.zeros(_shape(sizes, group, n_groups), np.int64)
    offset: NDArray[Any] = np.zeros(len(x_TK), np.int64) if group is None else np.asarray(group, np.int64) * sizes[0]
    flat = out.reshape(-1)
    for start in range(0, len(x_TK), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        for x in x_TK[rows].T:
            for y in y_TK[rows].T:
                kept = (x >= 0) & (y >= 0)
                flat += np.bincount((offset[rows][kept] + x[kept]) * sizes[1] + y[kept], minlength=len(flat))
    return out
