"""Whether a token repeats an expert of the token before it, in the form of Mixtral's Table 5 (Jiang et al. 2024, arXiv 2401.04088).

E expert, P unordered pair of experts, M size of an overlap. "First choice": both tokens have the same first choice. "First or second": an
expert is among the first two choices of both. All arguments are sums over neighbouring tokens of one document (analysis.repetition_counts).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide
from analysis.gates import NO_DATA, SINGLE_CHOICE
from analysis.registry import metric

TABLE_5 = "Jiang et al. 2024 (Mixtral), Table 5"
INVARIANT = ("relabelling", "document order")
NO_SECOND = f"{SINGLE_CHOICE}: no second choice; {NO_DATA}: no pair of tokens in one document, or chance = 1"
NO_ORDER = f"{NO_DATA}: no pair of tokens in one document, or every order of the tokens repeats alike"


def even_chance(n_experts: int, k: int) -> float:
    """Chance that two tokens share an expert when each chooses k of n_experts evenly: 1 - C(E - k, k) / C(E, k); 1/E at k = 1."""
    return 1.0 - math.comb(n_experts - k, k) / math.comb(n_experts, k)


@metric("repeat_any_chance", unit="share of pairs", bounds=(0.0, 1.0), undefined=NO_SECOND, source=TABLE_5,
        takes=("two_sources_E", "two_targets_E", "two_source_pairs_P", "two_target_pairs_P"), invariant=INVARIANT)
def repeat_any_chance(sources_E: ArrayLike, targets_E: ArrayLike, source_pairs_P: ArrayLike, target_pairs_P: ArrayLike) -> Float:
    """Chance that the first two choices of two tokens meet, from the loads: sum_e p_e p'_e - sum_p p_p p'_p, inclusion and exclusion.

    sources_E, targets_E: tokens, earlier and later, with the expert among their two; source_pairs_P, target_pairs_P: with exactly that pair.
    Gives [...], [0, 1]; 1 - C(E-2, 2) / C(E, 2) where all pairs are alike. NaN for no pair of tokens.
    """
    earlier, later = np.asarray(source_pairs_P, np.float64), np.asarray(target_pairs_P, np.float64)
    n_earlier, n_later = (pairs.sum(axis=-1, keepdims=True) for pairs in (earlier, later))
    shared = (divide(sources_E, n_earlier) * divide(targets_E, n_later)).sum(axis=-1)
    out: Float = shared - (divide(earlier, n_earlier) * divide(later, n_later)).sum(axis=-1)
    return np.clip(out, 0.0, 1.0)


@metric("repeat_any_kappa", unit="kappa", bounds=(None, 1.0), undefined=NO_SECOND, source=f"{TABLE_5}; Cohen 1960",
        takes=("two_sizes_M", "two_sources_E", "two_targets_E", "two_source_pairs_P", "two_target_pairs_P"), invariant=INVARIANT,
        seed="Persistence")
def repeat_any_kappa(sizes_M: ArrayLike, sources_E: ArrayLike, targets_E: ArrayLike, source_pairs_P: ArrayLike, target_pairs_P: ArrayLike) -> Float:
    """Repetition of a first or second choice beyond chance: (share that meet - chance) / (1 - chance); 0 at independence, 1 always.

    sizes_M: pairs of tokens by experts that their first two choices share, 0 to 2; the others as of repeat_any_chance. Gives [...],
    (-inf, 1]. NaN for no pair and where chance = 1 (two or three experts).
    """
    sizes = np.asarray(sizes_M, np.float64)
    any_ = divide(sizes[..., 1:].sum(axis=-1), sizes.sum(axis=-1))
    chance = repeat_any_chance(sources_E, targets_E, source_pairs_P, target_pairs_P)
    certain = chance >= 1 - 1e-12
    return divide(any_ - chance, np.where(certain, 0.0, 1 - chance))


@metric("repeat_order", unit="kappa", bounds=(None, 1.0), undefined=NO_ORDER, source="metrics specification 2.1, 2D: null of shuffled documents",
        takes=("order_repeats", "order_shuffled", "order_pairs"), invariant=INVARIANT)
def repeat_order(repeats: ArrayLike, shuffled: ArrayLike, pairs: ArrayLike) -> Float:
    """Repetition beyond the composition of documents: (repeats - shuffled) / (pairs - shuffled); 0 where order adds nothing.

    repeats: neighbouring tokens that repeat; shuffled: how many would, on average over all orders of each document's tokens; pairs: all.
    Gives [...], (-inf, 1]. NaN for no pair, and where every order repeats always.
    """
    n, null = np.asarray(pairs, np.float64), np.asarray(shuffled, np.float64)
    room = n - null
    return divide(np.asarray(repeats, np.float64) - null, np.where(room > 1e-9 * n, room, 0.0))
