"""How much of cross-layer information comes from the token, its position, its document, and from neither (metrics specification 3.2).

T token, P pair of layers, G group of documents, S strata. J_S = I(X;Y) - mean over shuffles of Y inside the strata of S.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float
from analysis.kernels import Backend, Int, choose_backend, numba_loaded
from analysis.moved_rows import MovedRows, RoutedDocuments, identity_moves, left_out_information, moved_information, pairs_of
from analysis.resampling import Interval, left_out_interval
from analysis.shuffles import COMPILED_FROM, Within, arrange, shuffle_moves, without_alone

CHAIN: tuple[Within, ...] = ("token_type", "band", "document")
TERM = {"token_type": "token identity", "band": "position", "document": "document"}


@dataclass(frozen=True)
class DecompositionPlan:
    """n_draws: shuffles of each strata; n_interval_draws: of these, the ones counted without each group too."""

    n_draws: int = 25
    n_interval_draws: int = 10
    seed: int = 0
    level: float = 0.95
    threads: int = 1
    backend: Backend | None = None


@dataclass(frozen=True, eq=False)
class Terms:
    """One order of the chain: names of its four terms, and their values [4, P] in bits; they add up to `total` of the decomposition."""

    names: tuple[str, ...]
    interval: Interval


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Terms in the declared order and in the reverse one: how far they differ is how far the sources overlap.

    total [P]: J_0, the information beyond a shuffle of all tokens, bits. left_out: share of tokens alone in their finest stratum, which
    are in no term. NaN where no token is left; interval ends are NaN without groups.
    """

    forward: Terms
    reverse: Terms
    total: Interval
    n_documents: int
    n_tokens: int
    left_out: float


def decompose(documents: RoutedDocuments, pairs: ArrayLike, plan: DecompositionPlan) -> Decomposition:
    """Token identity J_0 - J_V, position J_V - J_VB, document J_VB - J_VBD, residual J_VBD of I(X_l; X_l'), bits, for pairs [P, 2].

    V token type, B position band, D document; reversed: document J_0 - J_D, position J_D - J_DB, token identity J_DB - J_DBV. A shuffle
    is one random cycle inside each stratum: it leaves no token in place, for in a stratum of two a uniform shuffle keeps half of what it
    should destroy. Jackknife over groups of documents with the same shuffles for all terms. Undefined (NaN) where every token is alone
    in its finest stratum. Source: metrics specification 3.2.
    """
    chosen = pairs_of(pairs, len(documents.first_L), min(plan.n_draws, plan.n_interval_draws))
    kept, _, left_out = without_alone(documents, CHAIN, plan.seed)
    backend = plan.backend or choose_backend(int(kept.starts[-1]) * plan.n_draws, 0 if numba_loaded() else COMPILED_FROM)
    rows = MovedRows.of(kept.first_L, kept.n_experts, backend)
    chains = [tuple(chain[:n] for n in range(len(chain) + 1)) for chain in (CHAIN, CHAIN[::-1])]
    sizes = {frozenset(s): s for chain in chains for s in chain}
    whole = _Whole(moved_information(rows, chosen, lambda _: rows.identity(), [0])[0], np.zeros((len(chosen), 0)))
    if kept.group is not None and rows.n_rows:
        whole = _Whole(whole.value, left_out_information(rows, chosen, identity_moves(kept), [0])[0])
    excess = {key: _excess(rows, kept, whole, (chosen, within), plan) for key, within in sizes.items()}
    forward, reverse = (_terms([excess[frozenset(s)] for s in chain], [TERM[name] for name in chain[-1]], plan.level) for chain in chains)
    total = _interval(excess[frozenset()], None, plan.level)
    return Decomposition(forward, reverse, total, len(kept.keys), rows.n_rows, left_out)


@dataclass(frozen=True, eq=False)
class _Whole:
    """Information as observed [P], and without each group [P, G]."""

    value: Float
    left_out: Float


@dataclass(frozen=True, eq=False)
class _Excess:
    """J_S over all draws [P], over the interval's draws [P], and over these without each group [P, G]."""

    value: Float
    few: Float
    left_out: Float


def _excess(
    rows: MovedRows, documents: RoutedDocuments, whole: _Whole, of: tuple[Int, tuple[Within, ...]], plan: DecompositionPlan
) -> _Excess:
    pairs, within = of
    strata = arrange(documents, within, plan.seed)
    null = moved_information(rows, pairs, lambda draw: strata.source(draw, True, rows.backend), range(plan.n_draws), plan.threads)
    n_few, left_out = min(plan.n_draws, plan.n_interval_draws), whole.left_out
    if left_out.shape[1]:
        moves = shuffle_moves(documents, strata, True, rows.backend)
        left_out = left_out - left_out_information(rows, pairs, moves, range(n_few), plan.threads).mean(axis=0)
    return _Excess(whole.value - null.mean(axis=0), whole.value - null[:n_few].mean(axis=0), left_out)


def _terms(steps: list[_Excess], names: list[str], level: float) -> Terms:
    ends = [*steps[1:], None]
    each = [_interval(step, following, level) for step, following in zip(steps, ends)]
    return Terms((*names, "residual"), Interval(*(np.stack([getattr(one, f) for one in each]) for f in ("value", "plug_in", "se", "low", "high"))))


def _interval(step: _Excess, following: _Excess | None, level: float) -> Interval:
    """The difference over all draws, with the jackknife's standard error.

    The difference is not bias-corrected: that of a plug-in and its shuffles has hardly any bias, and leaving a group out of strata that
    cross documents shuffles the others anew, whose noise a correction would multiply by the number of groups.
    """
    value, few, left_out = (step.value, step.few, step.left_out) if following is None else (
        step.value - following.value, step.few - following.few, step.left_out - following.left_out)
    made = left_out_interval(few, left_out.T, level)
    half = (made.high - made.low) / 2
    return Interval(value, value, made.se, value - half, value + half)
