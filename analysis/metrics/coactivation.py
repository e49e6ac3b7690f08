"""Which experts a token activates together (seed 000, 2.A), for k >= 2 choices a token.

E expert, K slot of the k choices, T token, A, B domain. counts_EE: co-activation table [..., E, E], symmetric, with the tokens that chose
both experts off the diagonal and the tokens that chose the expert on it. With k choices a token, k and the number of tokens follow
from the table alone: its diagonal sums to k N and all of it to k^2 N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.conditional_bernoulli import fit, pair_inclusion
from analysis.gates import NO_DATA, SINGLE_CHOICE, UNUSED_EXPERT
from analysis.registry import metric

WHOLE = 1e-6  # distance from a whole number at which k is taken as one
PAIR_UNDEFINED = f"{SINGLE_CHOICE}, or {UNUSED_EXPERT}: one choice a token, or an expert of the pair never chosen"
INVARIANT = ("relabelling", "token order", "document order", "slot order")


def undefined_reason(counts_EE: ArrayLike) -> str | None:
    """Why co-activation has no value for one table [E, E]: `no_data`, `k=1`, or None where it has."""
    counts = np.asarray(counts_EE, np.float64)
    if not counts.any():
        return f"{NO_DATA}: no token"
    return SINGLE_CHOICE if choices(counts) == 1 else None


def choices(counts_EE: ArrayLike) -> int:
    """Choices a token k = sum of the table / sum of its diagonal, of all tables [..., E, E] together; 1 for no counts.

    ValueError where that is no whole number: tokens of one table then chose different numbers of experts.
    """
    counts = np.asarray(counts_EE, np.float64)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError(f"a co-activation table is square [..., E, E], not {counts.shape}")
    on_diagonal = float(np.trace(counts, axis1=-2, axis2=-1).sum())
    if on_diagonal == 0:
        return 1
    k = float(counts.sum()) / on_diagonal
    if abs(k - round(k)) > WHOLE or round(k) > counts.shape[-1]:
        raise ValueError(f"co-activation table of {k:.4g} choices a token: tokens chose different numbers of experts, so that no law of k "
                         "choices fits; count the intended choices, before slots are dropped")
    return round(k)


def tokens(counts_EE: ArrayLike) -> Float:
    """Tokens behind a co-activation table: N = (sum of the diagonal)^2 / sum of the table; 0 for no counts."""
    counts = np.asarray(counts_EE, np.float64)
    k = choices(counts)
    return np.asarray(np.einsum("...ii->...", counts) / k)


def _pairs_or_nan(counts_EE: ArrayLike) -> tuple[Float, int]:
    """The table, all NaN where k = 1, and k."""
    counts = np.asarray(counts_EE, np.float64)
    k = choices(counts)
    return (np.full(counts.shape, np.nan), k) if k == 1 else (counts, k)


@metric("coactivation", unit="probability", bounds=(0.0, 1.0), undefined=SINGLE_CHOICE, source="seed 000, 2.A; metrics specification 2.1, 2A",
        takes=("coactivation_EE",), estimator="document bootstrap", invariant=INVARIANT, seed="CoActivation[i,j]")
def coactivation(counts_EE: ArrayLike) -> Float:
    """Joint probability of two experts: P_ij = N_ij / N, with P(i) on the diagonal; rows sum to k P(i).

    counts_EE: [..., E, E]; gives the same shape, [0, 1]. NaN for k = 1 (reason `k=1`) and for no token. Zero for an unused expert.
    """
    counts, _ = _pairs_or_nan(counts_EE)
    return divide(counts, tokens(counts_EE)[..., None, None])


@metric("coactivation_conditional", unit="probability", bounds=(0.0, 1.0), undefined=PAIR_UNDEFINED, source="metrics specification 2.1, 2A",
        takes=("coactivation_EE",), estimator="document bootstrap", invariant=INVARIANT)
def coactivation_conditional(counts_EE: ArrayLike) -> Float:
    """Probability of expert j given expert i: P(j|i) = N_ij / N_i, asymmetric, row = given; 1 on the diagonal.

    counts_EE: [..., E, E]; gives the same shape, [0, 1]. NaN for k = 1 and in the row of an unused expert.
    """
    counts, _ = _pairs_or_nan(counts_EE)
    return divide(counts, np.einsum("...ii->...i", counts)[..., None])


@metric("coactivation_jaccard", unit="share", bounds=(0.0, 1.0), undefined=PAIR_UNDEFINED, source="metrics specification 2.1, 2A; Jaccard 1912",
        takes=("coactivation_EE",), estimator="document bootstrap", invariant=INVARIANT)
def coactivation_jaccard(counts_EE: ArrayLike) -> Float:
    """Jaccard index of the token sets of two experts: J_ij = N_ij / (N_i + N_j - N_ij); 1 on the diagonal.

    counts_EE: [..., E, E]; gives the same shape, [0, 1]. NaN for k = 1 and where both experts are unused; 0 where one of them is.
    """
    counts, _ = _pairs_or_nan(counts_EE)
    loads = np.einsum("...ii->...i", counts)
    return divide(counts, loads[..., None] + loads[..., None, :] - counts)


@metric("coact_lift", unit="bits", bounds=(None, None), undefined=f"{PAIR_UNDEFINED}, or never together",
        source="metrics specification 2.1, 2A; Chen, Dempster & Liu 1994", takes=("coactivation_EE",), estimator="document bootstrap",
        invariant=INVARIANT)
def coact_lift(counts_EE: ArrayLike) -> Float:
    """How much more often than chance two experts meet: log2(P_ij / pi_ij), pi of the conditional Bernoulli law with these loads.

    That law draws k distinct experts with the observed loads and no other structure. counts_EE: [..., E, E]; gives the same shape,
    unbounded. NaN on the diagonal, for k = 1, where P_ij = 0, and for an expert chosen never or always, whose pairs the loads fix.
    ValueError where tokens chose different numbers of experts.
    """
    counts, k = _pairs_or_nan(counts_EE)
    if k == 1:
        return counts
    joint = coactivation(counts)
    loads = np.einsum("...ii->...i", joint)
    chance = pair_inclusion(fit(loads, k), k)
    free = (loads > 0) & (loads < 1)
    defined = free[..., None] & free[..., None, :] & (joint > 0) & (chance > 0) & ~np.eye(counts.shape[-1], dtype=bool)
    out = np.full(joint.shape, np.nan)
    np.log2(np.where(defined, joint, 1.0) / np.where(defined, chance, 1.0), out=out, where=defined)
    return out


def expected_meetings(counts_EE: ArrayLike) -> Float:
    """Tokens that would choose both experts under the conditional Bernoulli law with these loads [..., E, E], the loads on the diagonal.

    NaN where there is no token; ValueError as in coact_lift.
    """
    counts = np.asarray(counts_EE, np.float64)
    k, n_tokens = choices(counts), tokens(counts)[..., None, None]
    return np.asarray(pair_inclusion(fit(np.einsum("...ii->...i", divide(counts, n_tokens)), k), k) * n_tokens)


@metric("coact_lift_seed", unit="ratio", bounds=(0.0, None), undefined=PAIR_UNDEFINED, source="seed 000, 2.A read against independence",
        takes=("coactivation_EE",), estimator="document bootstrap", invariant=INVARIANT, seed="CoActivation[i,j] / (P(i) P(j))", seed_form=True)
def naive_lift(counts_EE: ArrayLike) -> Float:
    """Ratio to independence: P_ij / (P_i P_j); wrong as a chance level, for a token cannot choose an expert twice.

    Without any structure and with even loads it is E(k-1) / (k(E-1)), 0.571 at E = 8 and k = 2, not 1. counts_EE: [..., E, E]; gives
    the same shape, [0, inf). NaN on the diagonal, for k = 1 and for an unused expert.
    """
    counts, _ = _pairs_or_nan(counts_EE)
    joint = coactivation(counts_EE)
    loads = np.einsum("...ii->...i", joint)
    off_diagonal = np.where(np.eye(counts.shape[-1], dtype=bool), np.nan, joint)
    return divide(off_diagonal, loads[..., None] * loads[..., None, :])


def consecutive_rank_counts(ids_TK: NDArray[np.integer], n_experts: int) -> NDArray[np.int64]:
    """Tokens with the two experts at consecutive ranks, symmetric, tokens of the expert on the diagonal [E, E]; -1 is a dropped slot.

    The counts of the OLMoE routing analysis: k - 1 of the k(k-1)/2 pairs of a token.
    """
    ids = np.asarray(ids_TK)
    if ids.size and (ids.min() < -1 or ids.max() >= n_experts):
        raise ValueError(f"expert ids from {ids.min()} to {ids.max()}: ids go from 0 to {n_experts - 1}, -1 for a dropped slot")
    ordered = np.sort(ids, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("an expert twice in one top-k: collect the trace again")
    out = np.zeros((n_experts, n_experts), np.int64)
    for slot in range(ids.shape[1] - 1):
        one, other = ids[:, slot].astype(np.int64), ids[:, slot + 1].astype(np.int64)
        kept = (one >= 0) & (other >= 0)
        out += np.bincount(one[kept] * n_experts + other[kept], minlength=n_experts**2).reshape(n_experts, n_experts)
    return out + out.T + np.diag(np.bincount(ids[ids >= 0].astype(np.int64), minlength=n_experts))


@metric("coactivation_consecutive_seed", unit="probability", bounds=(0.0, 1.0), undefined=f"{UNUSED_EXPERT}: expert i never chosen",
        source="OLMoE, scripts/run_moe_analysis.py; Muennighoff et al. 2024", takes=("consecutive_EE",), estimator="document bootstrap",
        invariant=("relabelling", "token order", "document order"), seed="OLMoE co-activation", seed_form=True)
def coactivation_consecutive(counts_EE: ArrayLike) -> Float:
    """Share of expert i's tokens with expert j at the next or previous rank: C_ij / N_i; wrong, for it misses all other pairs.

    It counts k - 1 of the k(k-1)/2 pairs of a token (a quarter at k = 8), and depends on the order of ranks. counts_EE: a table of
    consecutive_rank_counts [..., E, E]; gives the same shape, [0, 1], 0 on the diagonal. NaN in the row of an unused expert.
    """
    counts = np.asarray(counts_EE, np.float64)
    loads = np.einsum("...ii->...i", counts)
    return divide(np.where(np.eye(counts.shape[-1], dtype=bool), 0.0, counts), loads[..., None])
