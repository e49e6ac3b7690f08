"""Which expert of one layer goes with which of the next: indicator correlation, published edges, chains of experts (seed 000, 2.B).

X, Y expert of layer l and of a later layer, E expert, R null draw, P pair of adjacent layers. indicators_XY: tokens by pairs of indicators
[..., Ex + 1, Ey + 1], whose last row and column belong to the indicator that is always 1: the loads of the other layer, and the
number of tokens in the corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.gates import NO_DATA, UNTESTABLE, UNUSED_EXPERT
from analysis.multiplicity import benjamini_hochberg
from analysis.registry import metric

LEAST_PHI, LARGEST_Q = 0.1, 0.05  # metrics specification 2.1, 2B: what an edge needs to be published
TOP_SHARE = 0.1  # seed 000, 2.B: "top 10 %"
CONSTANT = f"{UNUSED_EXPERT}: an expert that no token or every token chose has no correlation"
TIES = 1e-12

Bool = NDArray[np.bool_]


@metric("phi_cross", unit="correlation", bounds=(-1.0, 1.0), undefined=CONSTANT, source="seed 000, 2.B; metrics specification 2.1, 2B; Yule 1912",
        takes=("indicators_XY",), invariant=("relabelling", "token order", "document order", "slot order"), seed="Correlation[expert_i, expert_j]")
def phi_cross(indicators_XY: ArrayLike) -> Float:
    """Pearson correlation of `i in S_l` and `j in S_l'`: phi = (N n_ij - n_i n_j) / sqrt(n_i (N - n_i) n_j (N - n_j)) = Matthews' MCC.

    indicators_XY: [..., Ex + 1, Ey + 1]; gives [..., Ex, Ey], [-1, 1]. NaN where an indicator is constant: expert never or always chosen.
    """
    counts = np.asarray(indicators_XY, np.float64)
    both, x, y, n = counts[..., :-1, :-1], counts[..., :-1, -1:], counts[..., -1:, :-1], counts[..., -1:, -1:]
    spread_x, spread_y = np.sqrt(x * (n - x)), np.sqrt(y * (n - y))
    return divide(n * both - x * y, spread_x * spread_y)


def first_choice_indicators(joint_XY: ArrayLike) -> Float:
    """Indicator table [..., Ex + 1, Ey + 1] of first choices, whose loads are the margins of their joint table [..., Ex, Ey]."""
    joint = np.asarray(joint_XY, np.float64)
    with_y = np.concatenate([joint, joint.sum(axis=-1, keepdims=True)], axis=-1)
    return np.concatenate([with_y, with_y.sum(axis=-2, keepdims=True)], axis=-2)


@dataclass(frozen=True)
class Edges:
    """Pairs of experts of two layers that may be published as coupled.

    phi: observed [Ex, Ey]; p: two-sided against the null draws, NaN where untestable; q: Benjamini-Hochberg over the testable pairs;
    published: |phi| >= 0.1 and q < 0.05. n_testable: pairs in the family; n_draws: null draws; draws_for_one: draws
    with which a family of this size finds a single true edge, fewer find edges only many at a time. reason: why nothing could be
    published whatever the data, else None.
    """

    phi: Float
    p: Float
    q: Float
    published: Bool
    n_testable: int
    n_draws: int
    draws_for_one: int
    reason: str | None = None


def phi_edges(phi_XY: ArrayLike, null_RXY: ArrayLike, *, least_phi: float = LEAST_PHI, largest_q: float = LARGEST_Q) -> Edges:
    """Edges with |phi| >= 0.1 and Benjamini-Hochberg q < 0.05 under null draws of phi, such as the circular shift.

    p = (1 + #{draws at least as far from the mean as the observed}) / (R + 1), two-sided, with the mean over observed and draws together:
    documents shift the null away from 0. A pair whose phi is undefined, observed or in a draw, is untestable and not in the family.
    """
    phi, null = np.asarray(phi_XY, np.float64), np.asarray(null_RXY)
    if null.shape[1:] != phi.shape:
        raise ValueError(f"null draws {null.shape} do not fit phi {phi.shape}: give them as [R, Ex, Ey]")
    n_draws = len(null)
    mean = (phi + null.sum(axis=0, dtype=np.float64)) / (n_draws + 1)
    testable = np.isfinite(mean) & (n_draws > 0)
    beyond = np.zeros(phi.shape, np.int64)
    for draw in null:
        beyond += np.abs(draw - mean) >= np.abs(phi - mean) - TIES
    p = np.where(testable, (1 + beyond) / (n_draws + 1), np.nan)
    q = np.full(phi.shape, np.nan)
    q[testable] = np.array(benjamini_hochberg([float(one) for one in p[testable]]), np.float64)
    candidates = testable & (np.abs(np.where(testable, phi, 0.0)) >= least_phi)
    published = candidates & (np.where(testable, q, 1.0) < largest_q)
    n_testable = int(testable.sum())
    return Edges(phi, p, q, published, n_testable, n_draws, int(n_testable / largest_q), _unreachable(n_testable, n_draws, largest_q))


def _unreachable(n_testable: int, n_draws: int, largest_q: float) -> str | None:
    if n_testable == 0:
        return f"{NO_DATA}: no pair of experts varies, or no null draw"
    if 1 / (n_draws + 1) >= largest_q:
        return f"{UNTESTABLE}: {n_draws} null draws cannot give q < {largest_q}, even with every pair at the smallest p"
    return None


@dataclass(frozen=True)
class Pathway:
    """A chain of experts over consecutive layers: experts[i] at layer first_layer + i, joined by edges of correlation phi[i]."""

    first_layer: int
    experts: tuple[int, ...]
    phi: tuple[float, ...]

    @property
    def weight(self) -> float:
        """Sum of phi along the chain: what the search maximises."""
        return sum(self.phi)


@dataclass(frozen=True)
class Pathways:
    """Chains of experts, heaviest first, no expert in two of them.

    edges: edges the chains were searched in. by_construction: why the edges say nothing of coupling, where they were picked as a
    share of all pairs; None for edges that passed a test.
    """

    chains: tuple[Pathway, ...]
    edges: int
    by_construction: str | None = None


def pathways(phi_P: Sequence[ArrayLike], edge_P: Sequence[ArrayLike], n_pathways: int = 10) -> Pathways:
    """Chains of experts of largest summed phi through the published edges of adjacent layers, each taken out before the next is sought.

    phi_P, edge_P: phi [Ex, Ey] and which pairs are edges, for each pair of adjacent layers in order. Only positive phi joins a chain; a
    chain may start and end at any layer. Ties go to the lower expert id. Exact for each chain (dynamic programming over layers).
    """
    phi = [np.asarray(one, np.float64) for one in phi_P]
    gains = [np.where(np.asarray(edge, bool) & (np.nan_to_num(one) > 0), np.nan_to_num(one), -np.inf) for one, edge in zip(phi, edge_P)]
    for number, (one, following) in enumerate(zip(gains, gains[1:])):
        if one.shape[1] != following.shape[0]:
            raise ValueError(f"pair {number} ends at {one.shape[1]} experts, pair {number + 1} starts at {following.shape[0]}: give adjacent layers")
    n_edges = sum(int(np.isfinite(one).sum()) for one in gains)
    chains: list[Pathway] = []
    while len(chains) < n_pathways and (chain := _heaviest(gains)):
        chains.append(chain)
        for depth, expert in enumerate(chain.experts, chain.first_layer):
            if depth < len(gains):
                gains[depth][expert] = -np.inf
            if depth > 0:
                gains[depth - 1][:, expert] = -np.inf
    return Pathways(tuple(chains), n_edges)


def _heaviest(gain_P: Sequence[Float]) -> Pathway | None:
    """The chain of largest sum, by the best chain that ends at each expert; None where no edge is left."""
    best = [np.zeros(gain_P[0].shape[0])] if gain_P else []
    origins = []
    for gain in gain_P:
        through = best[-1][:, None] + gain
        origin = through.argmax(axis=0)
        reached = through.max(axis=0)
        origins.append(np.where(reached > 0, origin, -1))
        best.append(np.where(reached > 0, reached, 0.0))
    if not origins or max(float(one.max(initial=0.0)) for one in best) <= 0:
        return None
    depth = int(np.argmax([one.max(initial=0.0) for one in best]))
    experts = [int(best[depth].argmax())]
    while depth > 0 and origins[depth - 1][experts[0]] >= 0:
        experts.insert(0, int(origins[depth - 1][experts[0]]))
        depth -= 1
    phi = [float(gain_P[depth + i][a, b]) for i, (a, b) in enumerate(zip(experts, experts[1:]))]
    return Pathway(depth, tuple(experts), tuple(phi))


def top_share_edges(phi_XY: ArrayLike, share: float = TOP_SHARE) -> Bool:
    """The seed's pathways: pairs whose phi is in the top 10 % of the defined ones; 10 % by construction, whatever the data."""
    phi = np.asarray(phi_XY, np.float64)
    known = phi[np.isfinite(phi)]
    if not len(known):
        return np.zeros(phi.shape, bool)
    least = np.sort(known)[-max(1, round(share * len(known)))]
    return np.asarray(np.nan_to_num(phi, nan=-np.inf) >= least)


def pathways_seed(phi_P: Sequence[ArrayLike], share: float = TOP_SHARE, n_pathways: int = 10) -> Pathways:
    """Chains through the top 10 % of pairs (seed 000, 2.B), marked as such: independent layers give just as many edges."""
    found = pathways(phi_P, [top_share_edges(one, share) for one in phi_P], n_pathways)
    return replace(found, by_construction=f"the top {share:.0%} of pairs are {share:.0%} of pairs by construction: no evidence of coupling")
