"""Diversity of experts: whether they serve different token types (seed 004, B.4).

E expert, V token type, R shuffle, T token, K slot. counts_EV: selections of an expert on a type. Two experts' token profiles have no
joint law, so that the seed's mutual information between them is that of load indicators and never sees a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide, mutual_information_bits, plogp
from analysis.gates import NO_DATA
from analysis.kernels import Int, choose_backend, mix, numba_loaded, permute_within
from analysis.metrics.joint_tables import checked_ids
from analysis.registry import metric

FREQUENT = 20  # occurrences of a type below which its profile is noise (metrics specification 2.5, B.4)
AT_ONCE = 2**21  # float64 cells of a block of pairs: 16 MiB
SOURCE = "seed 004, B.4; metrics specification 2.5"
INVARIANT = ("relabelling", "type order", "token order")


def frequent_types(counts_EV: ArrayLike, floor: int = FREQUENT, k: int = 1) -> NDArray[np.intp]:
    """Types with at least `floor` occurrences (k selections each). Chosen once, on the totals, for all groups and shuffles alike."""
    return np.flatnonzero(np.asarray(counts_EV).sum(axis=0) >= floor * k)


def _least_alphabet_bits(counts_EV: ArrayLike) -> float:
    return float(np.log2(min(np.shape(counts_EV)[-2:])))


@metric("diversity_jsd", unit="bits", bounds=(0.0, 1.0), undefined=f"{NO_DATA}: fewer than two experts are used", source=SOURCE,
        takes=("counts_EV",), invariant=INVARIANT, seed="Expert Diversity (NMI)")
def diversity_jsd(counts_EV: ArrayLike) -> Float:
    """Mean over pairs of used experts of the Jensen-Shannon divergence of P(v|i) and P(v|j), base 2, [0, 1].

    counts_EV: [..., E, V], restricted to frequent_types; gives [...]. Sparse profiles differ by chance: read it jackknife-corrected and
    minus its within-document shuffle null (diversity_jsd_excess). Memory: three float64 copies of one table and 16 MiB.
    """
    n = np.asarray(counts_EV)
    out = np.empty(n.shape[:-2])
    for place in np.ndindex(out.shape):
        out[place] = _mean_divergence(n[place])
    return out


def _mean_divergence(counts_EV: NDArray[np.generic]) -> float:
    """JSD = H((p + q) / 2) - (H(p) + H(q)) / 2. Where q is 0, ((p + q) / 2) log is a term of p alone, looked up and not recomputed."""
    n = np.asarray(counts_EV, np.float64)
    load = n.sum(axis=1)
    p = n[load > 0] / load[load > 0, None]
    experts = len(p)
    if experts < 2:
        return float("nan")
    own = plogp(p).sum(axis=1)
    half = plogp(p / 2)
    alone = half.sum(axis=1)
    total = 0.0
    for i in range(experts - 1):
        support = np.flatnonzero(p[i])
        step = max(1, AT_ONCE // max(len(support), 1))
        for first in range(i + 1, experts, step):
            others = slice(first, min(first + step, experts))
            both = plogp((p[others][:, support] + p[i, support]) / 2).sum(axis=1)
            mixed = both + alone[others] - half[others][:, support].sum(axis=1)
            total += float(np.clip((own[i] + own[others]) / 2 - mixed, 0.0, 1.0).sum())
    return total / (experts * (experts - 1) / 2)


@metric("mi_E_V", unit="bits", bounds=(0.0, _least_alphabet_bits), undefined=f"{NO_DATA}: no selections", source=SOURCE,
        takes=("counts_EV",), invariant=INVARIANT, seed="Expert Diversity (NMI)")
def mi_E_V(counts_EV: ArrayLike) -> Float:
    """Information between expert and token type: I(E;V) = sum P(e,v) log2 P(v|e) / P(v), [0, H(E)] bits.

    counts_EV: [..., E, V], restricted to frequent_types; gives [...].
    """
    return mutual_information_bits(counts_EV)


def _excess(values: Float, null: Float) -> Float:
    return values - (np.nan if null.shape[-1] == 0 else null.mean(axis=-1))


@metric("diversity_jsd_excess", unit="bits", bounds=(-1.0, 1.0), undefined=f"{NO_DATA}: fewer than two experts are used, or no shuffle",
        source=SOURCE, takes=("counts_EV", "shuffles_REV"), invariant=INVARIANT)
def diversity_jsd_excess(counts_EV: ArrayLike, null_REV: ArrayLike) -> Float:
    """diversity_jsd less its mean over within-document shuffles, [-1, 1]; near 0 where only document composition tells experts apart.

    counts_EV: [..., E, V]; null_REV: [..., R, E, V] (shuffled_tables), the same shuffles for every jackknife group.
    """
    return _excess(diversity_jsd(counts_EV), diversity_jsd(null_REV))


@metric("mi_E_V_excess", unit="bits", bounds=(lambda n, _: -_least_alphabet_bits(n), lambda n, _: _least_alphabet_bits(n)),
        undefined=f"{NO_DATA}: no selections, or no shuffle", source=SOURCE, takes=("counts_EV", "shuffles_REV"), invariant=INVARIANT)
def mi_E_V_excess(counts_EV: ArrayLike, null_REV: ArrayLike) -> Float:
    """I(E;V) less its mean over within-document shuffles, bits: what the token type adds to the document's own mix of experts.

    counts_EV: [..., E, V]; null_REV: [..., R, E, V] (shuffled_tables).
    """
    return _excess(mi_E_V(counts_EV), mi_E_V(null_REV))


def indicator_nmi(p_x: ArrayLike, p_y: ArrayLike, p_xy: ArrayLike) -> Float:
    """NMI of two indicators: I(X;Y) / sqrt(H(X) H(Y)) from P(x), P(y), P(x and y); NaN where one is constant. Range [0, 1]."""
    x, y, both = np.broadcast_arrays(*(np.asarray(p, np.float64) for p in (p_x, p_y, p_xy)))
    joint = np.stack([both, x - both, y - both, 1 - x - y + both], axis=-1).clip(0.0, 1.0)
    h_x, h_y = (-plogp(np.stack([p, 1 - p], axis=-1)).sum(axis=-1) for p in (x, y))
    information = h_x + h_y + plogp(joint).sum(axis=-1)
    return np.clip(divide(information, np.sqrt(h_x * h_y)), 0.0, 1.0)


@metric("diversity_nmi_seed", unit="ratio", bounds=(0.0, 1.0), undefined="fewer than two experts with a load strictly between none and all",
        source="seed 004, B.4", takes=("counts_E",), seed="Expert Diversity (NMI)", seed_form=True)
def diversity_nmi_seed(counts_E: ArrayLike) -> Float:
    """Seed 004's diversity under top-1 routing: 1 - mean over pairs of NMI(expert_i, expert_j), read as indicators of the same token.

    counts_E: first choices [..., E]; gives [...] in [0, 1]. Wrong as a diversity: it depends on the two loads alone, never on which
    tokens went where, so that E = 2 always gives 0 and balanced E = 128 always 0.9987; the seed's ranges cannot be reached. For k > 1
    see diversity_nmi_topk_seed. Unused experts, and one that takes every token, are constant and left out.
    """
    n = np.asarray(counts_E, np.float64)
    p = divide(n, n.sum(axis=-1, keepdims=True))
    return _one_less_mean_nmi(p, np.zeros((*p.shape, p.shape[-1])))


@metric("diversity_nmi_topk_seed", unit="ratio", bounds=(0.0, 1.0), undefined="fewer than two experts with a load strictly between none and all",
        source="seed 004, B.4", takes=("sets_TE",), additive=False, seed="Expert Diversity (NMI)", seed_form=True)
def diversity_nmi_topk_seed(sets_TE: ArrayLike) -> float:
    """Seed 004's diversity for sets of experts: 1 - mean over pairs of the NMI of the indicators "the token's set holds e".

    sets_TE: [T, E] booleans. Wrong as a diversity for the reason given at diversity_nmi_seed, which it equals at k = 1.
    """
    chosen = np.asarray(sets_TE, np.float64)
    if not len(chosen):
        return float("nan")
    return diversity_nmi_of_pairs(chosen.T @ chosen, len(chosen))


def diversity_nmi_of_pairs(pairs_EE: ArrayLike, n: float) -> float:
    """diversity_nmi_topk_seed from counts that add up: pairs_EE [E, E], of n tokens, how many chose both experts; NaN for no token."""
    p_EE = divide(np.asarray(pairs_EE, np.float64), np.asarray(n))
    return float(_one_less_mean_nmi(np.diagonal(p_EE), p_EE))


def _one_less_mean_nmi(p_E: Float, p_EE: Float) -> Float:
    nmi = indicator_nmi(p_E[..., :, None], p_E[..., None, :], p_EE)
    varies = (p_E > 0) & (p_E < 1)
    pairs = varies[..., :, None] & varies[..., None, :] & ~np.eye(p_E.shape[-1], dtype=bool)
    return 1 - divide(np.where(pairs, nmi, 0.0).sum(axis=(-2, -1)), pairs.sum(axis=(-2, -1)))


@dataclass(frozen=True)
class Diversity:
    """Plug-in values of one layer. n_types: types kept; share_kept: of the selections; n_pairs: of used experts; unused: their ids.

    Values are None with `reason` where undefined.
    """

    mean_pairwise_jsd: float | None
    mi_E_V_bits: float | None
    n_types: int
    share_kept: float
    n_pairs: int
    unused: tuple[int, ...]
    reason: str | None = None


def diversity(counts_EV: ArrayLike, floor: int = FREQUENT, k: int = 1) -> Diversity:
    """Diversity of the selections [E, V] of one layer, over the types with at least `floor` occurrences of k selections each."""
    n = np.asarray(counts_EV)
    if n.ndim != 2 or (n < 0).any():
        raise ValueError(f"counts_EV has shape {n.shape}: give one table of counts from 0, experts x types")
    kept = frequent_types(n, floor, k)
    table, total = n[:, kept], float(n.sum())
    unused = tuple(np.flatnonzero(table.sum(axis=1) == 0).tolist())
    used = len(table) - len(unused)
    jsd, information = float(diversity_jsd(table)), float(mi_E_V(table))
    reason = f"{NO_DATA}: no type occurs {floor} times" if not len(kept) else "one expert is used" if used < 2 else None
    return Diversity(None if np.isnan(jsd) else jsd, None if np.isnan(information) else information, len(kept),
                     float(table.sum()) / total if total else 0.0, used * (used - 1) // 2, unused, reason)


@dataclass(frozen=True)
class TokenRows:
    """Kept tokens of one layer, a document's rows together and in position order.

    document, type: [T]; experts: [T, K], -1 where a slot was dropped; shape: (E, V). A type outside 0..V-1 counts in no table. ValueError
    for ids out of range and an expert twice in one top-k.
    """

    document: Int
    type: Int
    experts: Int
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        rows = len(self.document)
        if self.experts.ndim != 2 or len(self.type) != rows or len(self.experts) != rows:
            raise ValueError(f"experts has shape {self.experts.shape} for {rows} tokens: give [T, K], one row per token")
        checked_ids(self.experts, self.shape[0], "experts")
        starts = np.flatnonzero(np.r_[True, self.document[1:] != self.document[:-1]]) if rows else np.zeros(0, np.int64)
        if len(np.unique(self.document[starts])) != len(starts):
            raise ValueError("document: the rows of a document must lie together; sort by document, then by position")

    def table(self, experts: Int | None = None) -> Int:
        """Selections [E, V], of these experts instead of the tokens' own where given."""
        chosen = np.asarray(self.experts if experts is None else experts, np.int64)
        n_experts, n_types = self.shape
        kept = (chosen >= 0) & ((self.type >= 0) & (self.type < n_types))[:, None]
        cell = (chosen * n_types + self.type[:, None])[kept]
        return np.bincount(cell, minlength=n_experts * n_types).reshape(self.shape).astype(np.int64)


def shuffled_tables(rows: TokenRows, keys_D: NDArray[np.uint64], draws: int) -> Iterator[Int]:
    """Tables [E, V] after permuting whole sets over the tokens of each document: experts keep their documents and lose their types.

    keys_D: a random key per document number (analysis.nulls.document_keys); a draw depends on it and on the draw's number alone, so that
    the tables of parts of the documents add up to those of all. Yields `draws` tables; stack them for diversity_jsd_excess.
    """
    starts = np.flatnonzero(np.r_[True, rows.document[1:] != rows.document[:-1]]) if len(rows.document) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(rows.document)])
    keys = np.asarray(keys_D, np.uint64)[rows.document[starts]]
    backend = choose_backend(draws * len(rows.document)) if not numba_loaded() else "numba"
    for draw in range(draws):
        with np.errstate(over="ignore"):
            key_S = mix(keys + np.uint64(draw))[None]
        order = permute_within(starts, lengths, key_S, backend)[0] if len(starts) else np.zeros(0, np.int64)
        yield rows.table(rows.experts[order])
