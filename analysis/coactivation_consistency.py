"""Whether two domains, or two models' layers, have the same experts meet: rank correlation of lifts, label permutations, partitions.

A, B domain, E expert, F half of a domain's documents, S split into halves. Secondary to the correlation: agreement of partitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.gates import NO_DATA
from analysis.metrics.coactivation import coact_lift, undefined_reason

Int = NDArray[np.int64]

LEAST_PAIRS = 3  # pairs of experts below which a rank correlation says nothing
TOO_FEW_PAIRS, UNRELIABLE, ONE_CLUSTER = "too_few_pairs", "unreliable", "one_cluster"
PERMUTATIONS = 999
LIFT_DECIMALS = 9  # of log2 lifts: the fit converges to 1e-12 or so
TIES = 1e-12


@dataclass(frozen=True)
class Mantel:
    """Agreement of two symmetric matrices over experts.

    rho: Spearman correlation of their off-diagonal cells, over the n_pairs pairs defined in both; p = (1 + #{rho* >= rho}) / (M + 1) over
    permutations of the expert labels of one (QAP), or #{rho* >= rho} / A! over all of them where `exact`; one-sided upwards.
    n_experts: experts with a defined pair in both, among whom labels are permuted. None with `reason` where undefined.
    """

    rho: float | None
    p: float | None
    n_pairs: int
    n_experts: int
    n_permutations: int
    exact: bool
    reason: str | None = None


@dataclass(frozen=True)
class Consistency:
    """Agreement of the co-activation of two domains, beside the most that their noise allows.

    mantel: Spearman of the off-diagonal lifts with its QAP p; reliability_a, reliability_b: split-half correlation of each domain's
    lifts, stepped up to all documents (Spearman-Brown); ceiling = sqrt(rel_A rel_B), the largest rho that noise allows on average;
    corrected = rho / ceiling, not clipped, so above 1 by chance. matched: mean rho of a half of A with a half of B over sqrt(r_A r_B), r
    between the halves themselves: it steps nothing up. Spearman-Brown assumes that rank noise falls with the documents; where many pairs
    have equal true lifts (blocks of experts) it does not, and `corrected` comes out low (0.80 for one and the same law) where `matched` is 1.
    None with `reason` where undefined.
    """

    mantel: Mantel
    reliability_a: float | None
    reliability_b: float | None
    ceiling: float | None
    corrected: float | None
    matched: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class PartitionAgreement:
    """Adjusted Rand index and adjusted mutual information of two partitions of the n_experts in use in both; None with `reason`."""

    ari: float | None
    ami: float | None
    n_experts: int
    reason: str | None = None


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float | None:
    """Spearman's rho over the places where both are defined, mid-ranks; None for fewer than 3 places or a constant side."""
    one, other = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < LEAST_PAIRS:
        return None
    return _correlation(_centred_ranks(one[known]), _centred_ranks(other[known]))


def _centred_ranks(values: Float) -> Float:
    """Mid-ranks less their mean; lifts that the fit of the loads leaves equal but for its last bits are ties, whatever the experts' names."""
    from scipy.stats import rankdata

    ranks = rankdata(np.round(values, LIFT_DECIMALS))
    return np.asarray(ranks - ranks.mean())


def _correlation(x: Float, y: Float) -> float | None:
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else None


def mantel(a_EE: ArrayLike, b_EE: ArrayLike, rng: np.random.Generator, n_permutations: int = PERMUTATIONS) -> Mantel:
    """Spearman correlation of the cells above the diagonal of two symmetric matrices, with a label-permutation p (Mantel 1967).

    NaN marks an undefined cell: a pair counts where both are defined. Cells share experts, so that only permuting whole experts gives
    a p-value. All A! permutations are taken where they are no more than n_permutations.
    """
    a, b = np.asarray(a_EE, np.float64), np.asarray(b_EE, np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"matrices {a.shape} and {b.shape}: give two square ones over the same experts")
    off = ~np.eye(len(a), dtype=bool)
    experts = np.flatnonzero((np.isfinite(a) & off).any(axis=1) & (np.isfinite(b) & off).any(axis=1))
    a, b = a[np.ix_(experts, experts)], b[np.ix_(experts, experts)]
    upper = np.triu_indices(len(experts), 1)
    n_pairs = int((np.isfinite(a[upper]) & np.isfinite(b[upper])).sum())
    rho = rank_correlation(a[upper], b[upper])
    if rho is None:
        return Mantel(None, None, n_pairs, len(experts), 0, False, f"{TOO_FEW_PAIRS}: {n_pairs} pairs with two different lifts")
    exact = len(experts) < 12 and factorial(len(experts)) <= n_permutations
    orders = permutations(range(len(experts))) if exact else (rng.permutation(len(experts)) for _ in range(n_permutations))
    null = np.fromiter(_permuted(a, b, orders), np.float64)
    reached = int((null >= rho - TIES).sum())  # an undefined permutation does not reach it
    p = reached / len(null) if exact else (1 + reached) / (len(null) + 1)
    return Mantel(rho, p, n_pairs, len(experts), len(null), exact)


def _permuted(a_AA: Float, b_AA: Float, orders: Iterator[ArrayLike]) -> Iterator[float]:
    upper = np.triu_indices(len(a_AA), 1)
    complete = bool(np.isfinite(a_AA[upper]).all() and np.isfinite(b_AA[upper]).all())
    if complete:  # ranks do not change under a permutation of experts, so that they are made once
        ranks_a, ranks_b = _centred_ranks(a_AA[upper]), np.zeros_like(b_AA)
        ranks_b[upper] = _centred_ranks(b_AA[upper])
        ranks_b += ranks_b.T
        for order in orders:
            place = np.asarray(order)
            yield _correlation(ranks_a, ranks_b[place[upper[0]], place[upper[1]]]) or 0.0
        return
    for order in orders:
        place = np.asarray(order)
        rho = rank_correlation(a_AA[upper], b_AA[place[upper[0]], place[upper[1]]])
        yield np.nan if rho is None else rho


def split_half_reliability(halves_SFEE: ArrayLike) -> float | None:
    """Reliability of a domain's lifts over expert pairs: 2r / (1 + r), r the rank correlation of the lifts of two halves of its documents.

    halves_SFEE: co-activation tables of the halves [2, E, E], or of several random splits [S, 2, E, E], whose r are averaged. In (-inf, 1];
    None where no split has 3 pairs defined in both halves, or r = -1.
    """
    halves = _pair_lifts(halves_SFEE)
    return _stepped_up(_mean_correlation(halves[:, 0], halves[:, 1]))


def _pair_lifts(halves_SFEE: ArrayLike) -> Float:
    """Lifts above the diagonal [S, 2, pairs]."""
    halves = np.asarray(halves_SFEE, np.float64)
    upper = np.triu_indices(halves.shape[-1], 1)
    return np.stack([[coact_lift(half)[upper] for half in split] for split in halves.reshape(-1, *halves.shape[-3:])])


def _mean_correlation(x_SP: Float, y_SP: Float) -> float | None:
    known = [r for r in map(rank_correlation, x_SP, y_SP) if r is not None]
    return float(np.mean(known)) if known else None


def _stepped_up(r: float | None) -> float | None:
    return None if r is None or r <= -1 + TIES else 2 * r / (1 + r)


def coactivation_consistency(
    halves_a: ArrayLike, halves_b: ArrayLike, rng: np.random.Generator, n_permutations: int = PERMUTATIONS,
) -> Consistency:
    """Mantel correlation of the co-activation lifts of two domains, over its noise ceiling: rho / sqrt(rel_A rel_B).

    halves_a, halves_b: tables of split halves of each domain's documents [2, E, E] or [S, 2, E, E]; a domain's own table is their sum.
    Pairs that never met in a domain have no lift and drop out. Undefined with its reason for k = 1, too few pairs, and a domain whose
    halves do not agree (`unreliable`: more documents are needed before "different" can be told from "noisy").
    """
    tables = [_whole(halves) for halves in (halves_a, halves_b)]
    for table in tables:
        if reason := undefined_reason(table):
            return Consistency(Mantel(None, None, 0, 0, 0, False, reason), None, None, None, None, None, reason)
    agreement = mantel(coact_lift(tables[0]), coact_lift(tables[1]), rng, n_permutations)
    lifts_a, lifts_b = _pair_lifts(halves_a), _pair_lifts(halves_b)
    r_a, r_b = (_mean_correlation(lifts[:, 0], lifts[:, 1]) for lifts in (lifts_a, lifts_b))
    rel_a, rel_b = _stepped_up(r_a), _stepped_up(r_b)
    out = Consistency(agreement, rel_a, rel_b, None, None, None, agreement.reason)
    if agreement.rho is None:
        return out
    if r_a is None or r_b is None or rel_a is None or rel_b is None or r_a <= 0 or r_b <= 0:
        return replace(out, reason=f"{UNRELIABLE}: halves of one domain's documents do not agree; collect more documents")
    ceiling = float(np.sqrt(rel_a * rel_b))
    splits = min(len(lifts_a), len(lifts_b))
    across = _mean_correlation(lifts_a[:splits, [0, 0, 1, 1]].reshape(4 * splits, -1), lifts_b[:splits, [0, 1, 0, 1]].reshape(4 * splits, -1))
    matched = None if across is None else across / float(np.sqrt(r_a * r_b))
    return replace(out, ceiling=ceiling, corrected=agreement.rho / ceiling, matched=matched)


def _whole(halves_SFEE: ArrayLike) -> Float:
    halves = np.asarray(halves_SFEE, np.float64)
    if halves.ndim not in (3, 4) or halves.shape[-3] != 2:
        raise ValueError(f"halves {halves.shape}: give the tables of two halves [2, E, E], or of several splits [S, 2, E, E]")
    whole = halves.sum(axis=-3).reshape(-1, *halves.shape[-2:])
    if not np.allclose(whole, whole[0], rtol=1e-9):
        raise ValueError("splits with different sums: every split must halve the same documents")
    return np.asarray(whole[0])


def partition_agreement(labels_a: ArrayLike, labels_b: ArrayLike) -> PartitionAgreement:
    """Adjusted Rand index and adjusted mutual information of two partitions of the same experts, 1 where equal, about 0 by chance.

    labels: cluster of each expert [E], -1 for an unused one, which is left out of both. None where either has one cluster.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    one, other = np.asarray(labels_a, np.int64), np.asarray(labels_b, np.int64)
    if one.shape != other.shape:
        raise ValueError(f"labels of {one.shape[0]} and {other.shape[0]} experts: give both over the same experts, -1 for an unused one")
    used = (one >= 0) & (other >= 0)
    one, other = one[used], other[used]
    if not len(one):
        return PartitionAgreement(None, None, 0, f"{NO_DATA}: no expert is in use in both")
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return PartitionAgreement(None, None, len(one), f"{ONE_CLUSTER}: a partition of one cluster agrees with nothing")
    return PartitionAgreement(float(adjusted_rand_score(one, other)), float(adjusted_mutual_info_score(one, other)), len(one))
