"""Order of a document's tokens in the routing: transitions, stickiness against its chance level, lag information (seeds 000-002).

E expert, T token, D document, R null draw, M size of an overlap. transitions_EE: pairs of tokens g apart inside one document, by the first
choice of the earlier (row) and of the later token (column), [..., E, E]; pairs never cross documents. Any split of the pairs, such as
whether the next token has the same type (repeats of a type inflate stickiness), is one more leading axis of the tables.
Tables come from analysis.joint.transition_counts, for sets of experts from analysis.lags and analysis.lag_tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide, entropy_bits, mutual_information_bits
from analysis.gates import NO_DATA, UNUSED_EXPERT
from analysis.registry import metric

SAME_AT_LEAST = 0.2  # seed 002, part 9: "sticky" above it
NO_PAIR = f"{NO_DATA}: no pair of tokens in one document"
NO_CHANCE = f"{NO_DATA}: no pair of tokens in one document, or chance = 1: one expert (or all of them) at every token"
INVARIANT = ("relabelling", "document order")
SEED_2D = "metrics specification 2.1, 2D"


def largest_entropy_bits(transitions_EE: ArrayLike) -> float:
    """log2 E of a square table."""
    return float(np.log2(np.shape(transitions_EE)[-1]))


@metric("transition_matrix", unit="probability", bounds=(0.0, 1.0), undefined=f"{UNUSED_EXPERT}: no token of this expert is followed by another",
        source=f"seed 000, 2.D; {SEED_2D}", takes=("square_XX",), invariant=INVARIANT, seed="transition_matrix")
def transition_matrix(transitions_EE: ArrayLike) -> Float:
    """Probability of the next token's expert given this one's: P(j|i) = C_ij / sum_j C_ij, row = source.

    transitions_EE: [..., E, E]; gives the same shape, [0, 1], rows summing to 1. NaN in the row of an expert that is never a source.
    """
    counts = np.asarray(transitions_EE, np.float64)
    return divide(counts, counts.sum(axis=-1, keepdims=True))


@metric("same_expert", unit="share of pairs", bounds=(0.0, 1.0), undefined=NO_PAIR, source="metrics specification 2.3",
        takes=("square_XX",), invariant=INVARIANT)
def same_expert(transitions_EE: ArrayLike) -> Float:
    """Share of pairs whose tokens have the same first choice: p_same = sum_e C_ee / sum C; [..., E, E] to [...], [0, 1].

    Its chance level is that of `lag_chance`, not 1/E. NaN for no pair.
    """
    counts = np.asarray(transitions_EE, np.float64)
    return divide(np.einsum("...ee->...", counts), counts.sum(axis=(-2, -1)))


@metric("lag_chance", unit="share of pairs", bounds=(0.0, 1.0), undefined=NO_PAIR, source="metrics specification 2.3; Cohen 1960",
        takes=("square_XX",), invariant=INVARIANT)
def lag_chance(transitions_EE: ArrayLike) -> Float:
    """Chance that two tokens g apart agree: c = sum_e P_t(e) P_t+g(e), the margins of the pairs; [..., E, E] to [...], [0, 1].

    NaN for no pair.
    """
    counts = np.asarray(transitions_EE, np.float64)
    total = counts.sum(axis=(-2, -1))[..., None]
    return np.asarray((divide(counts.sum(axis=-1), total) * divide(counts.sum(axis=-2), total)).sum(axis=-1))


@metric("lag_kappa", unit="kappa", bounds=(-1.0, 1.0), undefined=NO_CHANCE, source="metrics specification 2.3; Cohen 1960",
        takes=("square_XX",), invariant=INVARIANT, seed="Lag-1 autocorrelation")
def lag_kappa(transitions_EE: ArrayLike) -> Float:
    """Stickiness beyond chance: kappa = (p_same - c) / (1 - c), Cohen's kappa of the pairs; 0 at independence, 1 never switching.

    transitions_EE at lag g: [..., E, E]; gives [...], [-1, 1]. NaN for no pair and where c = 1 (one expert).
    """
    counts = np.asarray(transitions_EE, np.float64)
    constant = (counts.sum(axis=-1) > 0).sum(axis=-1) + (counts.sum(axis=-2) > 0).sum(axis=-1) <= 2  # c = 1 needs one row and one column
    same, chance = same_expert(counts), lag_chance(counts)
    return divide(same - chance, np.where(constant & (same == 1), 0.0, 1 - chance))


@metric("persistence", unit="kappa", bounds=(-1.0, 1.0), undefined=NO_CHANCE, source="seed 001; metrics specification 2.2",
        takes=("square_XX",), invariant=INVARIANT, seed="Persistence")
def persistence(transitions_EE: ArrayLike) -> Float:
    """Persistence of a layer: lag_kappa(1), from the transitions between neighbouring tokens; [..., E, E] to [...], [-1, 1]."""
    return lag_kappa(transitions_EE)


@metric("transition_rate", unit="share of pairs", bounds=(0.0, 1.0), undefined=NO_PAIR, source="seed 001; metrics specification 2.2",
        takes=("square_XX",), invariant=INVARIANT, seed="Transition Rate")
def transition_rate(transitions_EE: ArrayLike) -> Float:
    """Share of neighbouring tokens whose first choice differs: 1 - p_same; [..., E, E] to [...], [0, 1]; NaN for no pair."""
    return np.asarray(1 - same_expert(transitions_EE))


@metric("transition_diversity", unit="bits", bounds=(0.0, largest_entropy_bits), undefined=NO_PAIR,
        source="seed 001; metrics specification 2.2", takes=("square_XX",), invariant=INVARIANT, seed="Transition Diversity")
def transition_diversity(transitions_EE: ArrayLike) -> Float:
    """Uncertainty of the next token's expert given this one's: H(X_t+1 | X_t) = H(X_t, X_t+1) - H(X_t), bits.

    transitions_EE: [..., E, E]; gives [...], plug-in in [0, log2 E]. NaN for no pair.
    """
    counts = np.asarray(transitions_EE, np.float64)
    pairs = entropy_bits(counts.reshape(*counts.shape[:-2], -1))
    return np.asarray(np.maximum(pairs - entropy_bits(counts.sum(axis=-1)), 0.0))


@metric("lag_mi", unit="bits", bounds=(0.0, largest_entropy_bits), undefined=NO_PAIR, source="metrics specification 2.1, 2D; 2.6",
        takes=("square_XX",), invariant=INVARIANT, seed="Autocorrelation")
def lag_mi(transitions_EE: ArrayLike) -> Float:
    """Information of a token's first choice on that of the token g later: I(X_t; X_t+g), bits.

    transitions_EE at lag g: [..., E, E]; gives [...], plug-in in [0, log2 E]. NaN for no pair.
    """
    return mutual_information_bits(transitions_EE)


@metric("lag_overlap", unit="share of slots", bounds=(0.0, 1.0), undefined=NO_PAIR, source="metrics specification 2.3",
        takes=("lag_matches", "lag_sources_E"), invariant=(*INVARIANT, "slot order"))
def lag_overlap(matches: ArrayLike, sources_E: ArrayLike) -> Float:
    """Mean share of experts kept g tokens later: sum |S_t and S_t+g| / sum |S_t|, which is |S_t and S_t+g| / k averaged over pairs.

    matches: common experts summed over pairs [...]; sources_E: pairs whose earlier token chose the expert [..., E]. Gives [...], [0, 1].
    NaN for no pair.
    """
    return divide(matches, np.asarray(sources_E, np.float64).sum(axis=-1))


@metric("lag_overlap_chance", unit="share of slots", bounds=(0.0, 1.0), undefined=NO_PAIR, source="metrics specification 2.3",
        takes=("lag_sources_E", "lag_targets_E", "lag_pairs"), invariant=(*INVARIANT, "slot order"))
def lag_overlap_chance(sources_E: ArrayLike, targets_E: ArrayLike, pairs: ArrayLike) -> Float:
    """Chance level of the overlap: sum_e pi_e pi'_e / k, with pi, pi' the share of earlier and later tokens that chose the expert.

    sources_E, targets_E: pairs by the experts of the earlier and of the later token [..., E]; pairs: [...]. Gives [...], [0, 1].
    """
    sources, targets = np.asarray(sources_E, np.float64), np.asarray(targets_E, np.float64)
    earlier, later = divide(sources, sources.sum(axis=-1, keepdims=True)), divide(targets, np.asarray(pairs, np.float64)[..., None])
    return np.asarray((earlier * later).sum(axis=-1))


@metric("lag_overlap_kappa", unit="kappa", bounds=(None, 1.0), undefined=NO_CHANCE, source="metrics specification 2.3; Cohen 1960",
        takes=("lag_matches", "lag_sources_E", "lag_targets_E", "lag_pairs"), invariant=(*INVARIANT, "slot order"))
def lag_overlap_kappa(matches: ArrayLike, sources_E: ArrayLike, targets_E: ArrayLike, pairs: ArrayLike) -> Float:
    """Overlap of expert sets beyond chance: (overlap - chance) / (1 - chance); equals lag_kappa at k = 1.

    Arguments as of lag_overlap and lag_overlap_chance. Gives [...], (-inf, 1]. NaN for no pair and where chance = 1: every token has
    the same set (k = E among them).
    """
    sources, targets = np.asarray(sources_E, np.float64), np.asarray(targets_E, np.float64)
    n = np.asarray(pairs, np.float64)[..., None]
    constant = (((sources == 0) | (sources == n)) & (sources == targets)).all(axis=-1)
    chance = lag_overlap_chance(sources, targets, pairs)
    return divide(lag_overlap(matches, sources) - chance, np.where(constant, 0.0, 1 - chance))


@metric("lag_any", unit="share of pairs", bounds=(0.0, 1.0), undefined=NO_PAIR, source="Jiang et al. 2024 (Mixtral), Table 5: first or second choice",
        takes=("overlap_sizes_M",), invariant=(*INVARIANT, "slot order"))
def lag_any(overlap_sizes_M: ArrayLike) -> Float:
    """Share of pairs of tokens with at least one expert in common: 1 - #{overlap 0} / pairs; [..., k + 1] to [...], [0, 1].

    Under even, independent choices 1 - C(E - k, k) / C(E, k): .464 at E = 8, k = 2. Not comparable across k. NaN for no pair.
    """
    pairs = np.asarray(overlap_sizes_M, np.float64)
    return divide(pairs[..., 1:].sum(axis=-1), pairs.sum(axis=-1))


@metric("lag_jaccard", unit="share", bounds=(0.0, 1.0), undefined=NO_PAIR, source="metrics specification 2.3; Jaccard 1912",
        takes=("overlap_sizes_M",), invariant=(*INVARIANT, "slot order"))
def lag_jaccard(overlap_sizes_M: ArrayLike) -> Float:
    """Mean Jaccard index of the expert sets of two tokens: m / (2k - m) for m common experts of k, averaged over pairs.

    overlap_sizes_M: pairs by number of common experts 0..k [..., k + 1]; gives [...], [0, 1]. NaN for no pair.
    """
    pairs = np.asarray(overlap_sizes_M, np.float64)
    common = np.arange(pairs.shape[-1])
    k = pairs.shape[-1] - 1
    return divide((pairs * (common / np.maximum(2 * k - common, 1))).sum(axis=-1), pairs.sum(axis=-1))


@metric("lag_same_seed", unit="ratio to 1/E", bounds=(0.0, lambda table: float(np.shape(table)[-1])), undefined=NO_PAIR,
        source="seed 002, part 9", takes=("square_XX",), invariant=INVARIANT, seed="Lag-1 autocorrelation", seed_form=True)
def same_over_uniform(transitions_EE: ArrayLike) -> Float:
    """The seed's stickiness, P(same expert) against 1/E: E p_same; wrong, for chance is sum_e P_t(e) P_t+1(e) and uneven loads raise it.

    The seed calls a layer sticky where P(same) > 0.2 (see sticky_seed). transitions_EE: [..., E, E]; gives [...], [0, E]. NaN for no pair.
    """
    return np.asarray(same_expert(transitions_EE) * np.shape(transitions_EE)[-1])


def sticky_seed(transitions_EE: ArrayLike) -> bool | None:
    """The seed's verdict, P(same) > 0.2 whatever the loads (seed 002, part 9); None for no pair. Shown, never judged by."""
    same = float(same_expert(transitions_EE))
    return None if np.isnan(same) else same > SAME_AT_LEAST


@metric("autocorrelation_of_ids_seed", unit="correlation", bounds=(-1.0, 1.0), undefined=f"{NO_PAIR}, or one expert at one end of all of them",
        source="seed 000, 2.D", takes=("square_XX",), invariant=("document order",), seed="autocorr", seed_form=True)
def autocorrelation_of_ids(transitions_EE: ArrayLike) -> Float:
    """Pearson correlation of expert ids g apart, as numbers; INVALID: ids are names, and renumbering the experts changes it.

    Computed to show what the seed's formula gives; lag_kappa and lag_mi take its place. transitions_EE: [..., E, E]; gives [...].
    """
    counts = np.asarray(transitions_EE, np.float64)
    ids = np.arange(counts.shape[-1], dtype=np.float64)
    total = counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    from_mean_x = ids - divide(rows @ ids, total)[..., None]
    from_mean_y = ids - divide(columns @ ids, total)[..., None]
    covariance = np.einsum("...ij,...i,...j->...", counts, from_mean_x, from_mean_y)
    spread_x, spread_y = ((n * d**2).sum(axis=-1) for n, d in ((rows, from_mean_x), (columns, from_mean_y)))
    one_id = ((rows > 0).sum(axis=-1) <= 1) | ((columns > 0).sum(axis=-1) <= 1)
    return divide(covariance, np.where(one_id, 0.0, np.sqrt(spread_x * spread_y)))


def shuffled_transitions(counts_DE: ArrayLike, lag: int = 1) -> Float:
    """Transition table expected after shuffling the tokens inside each document: sum_d (T_d - g) n_di (n_dj - [i = j]) / (T_d (T_d - 1)).

    The exact mean of the within-document shuffle null (composition without order) for any lag g >= 1; counts_DE: first choices by
    document [D, E]. Gives [E, E]. A document of g tokens or fewer has no pair.
    """
    if lag < 1:
        raise ValueError(f"lag {lag}: a transition needs a lag of at least 1")
    counts = np.asarray(counts_DE, np.float64)
    length = counts.sum(axis=-1)
    weight = np.divide(length - lag, length * (length - 1), out=np.zeros_like(length), where=length > lag)
    weighted = counts * weight[:, None]
    return np.asarray(weighted.T @ counts - np.diag(weighted.sum(axis=0)))


@dataclass(frozen=True)
class AgainstNull:
    """A value beside its null draws.

    value: observed; null, null_low, null_high: mean and central 95 % of the draws; excess: value - null; p = (1 + #{null >= value}) /
    (n_draws + 1), one-sided upwards. All None with `reason` where the value or a draw is undefined, or there is no draw.
    """

    value: float | None
    null: float | None
    null_low: float | None
    null_high: float | None
    excess: float | None
    p: float | None
    n_draws: int
    reason: str | None = None


def against_null(table: ArrayLike, draws: Iterable[ArrayLike], value: Callable[[ArrayLike], Float] = lag_kappa) -> AgainstNull:
    """A metric of one table against the same metric of null tables, such as transitions after shuffling tokens inside documents.

    draws: null tables, one at a time or stacked [R, ...]. The shuffle tests order given composition.
    """
    observed = float(value(table))
    null = np.array([float(value(draw)) for draw in draws])
    if np.isnan(observed) or not len(null) or np.isnan(null).any():
        reason = NO_CHANCE if np.isnan(observed) else f"{NO_DATA}: no null draw" if not len(null) else "undefined in a null draw"
        known = None if np.isnan(observed) else observed
        return AgainstNull(known, None, None, None, None, None, len(null), reason)
    low, high = np.quantile(null, [0.025, 0.975])
    mean = float(null.mean())
    p = (1 + int((null >= observed - 1e-12).sum())) / (len(null) + 1)
    return AgainstNull(observed, mean, float(low), float(high), observed - mean, p, len(null))
