"""Shuffles of the second layer's choices inside strata of tokens, and what they may be used for.

T token, S stratum, P pair of layers, R draw, G group of documents.
A uniform shuffle tests exchangeability inside the strata. A cyclic one leaves no token in place, so that a small stratum does not keep
part of the coupling it should destroy: it is for mean differences (the decomposition), not for p-values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.kernels import Backend, Int, choose_backend, mix, numba_loaded
from analysis.moved_rows import MovedRows, RoutedDocuments, Source, Updates, compiled, group_rows, moved_information, pairs_of, seeded
from analysis.permutation import p_value
from analysis.rows import bands

Within = Literal["token_type", "band", "document"]
COMPILED_FROM = 200_000  # rows x draws from which compiled shuffles repay numba's start-up


@dataclass(frozen=True)
class ShufflePlan:
    """within: strata inside which choices are shuffled, e.g. ("token_type", "document"); () shuffles over all tokens, for printing only."""

    within: tuple[Within, ...]
    n_draws: int = 999
    seed: int = 0
    threads: int = 1
    backend: Backend | None = None


@dataclass(frozen=True, eq=False)
class ShuffleNull:
    """Observed information [P] and its values after shuffles inside strata [R, P], plug-in, bits, over the same tokens.

    left_out: share of tokens alone in their stratum, which are in neither. NaN where no token is left.
    """

    within: tuple[str, ...]
    observed: Float
    null: Float
    n_tokens: int
    left_out: float

    @property
    def mean(self) -> Float:
        """Mean over shuffles [P]; for within = () it is about the plug-in bias, which may be printed."""
        return np.asarray(self.null.mean(axis=0), np.float64)

    @property
    def excess(self) -> Float:
        """Observed minus the mean [P], bits."""
        return self.observed - self.mean

    @property
    def p(self) -> Float:
        """(1 + #{null >= observed}) / (R + 1) [P]. ValueError for a shuffle over all tokens, whose size is 1.0 under document topics."""
        if not self.within:
            raise ValueError("a shuffle over all tokens gives no p-value: it calls the topics of documents coupling in 100 % of cases; use "
                             "analysis.shift.shifted_information (metrics specification 3.3)")
        return p_value(self.observed, self.null)


@dataclass(frozen=True, eq=False)
class Strata:
    """Rows by stratum: order [T], first place and length of each stratum [S], its random key [S], and the place of its rows."""

    order: Int
    starts: Int
    lengths: Int
    keys: NDArray[np.uint64]

    @property
    def alone(self) -> NDArray[np.bool_]:
        """Rows [T] that are alone in their stratum."""
        out = np.zeros(len(self.order), np.bool_)
        out[self.order[self.starts[self.lengths == 1]]] = True
        return out

    def source(self, draw: int, cyclic: bool, backend: Backend) -> Source:
        """The source map of a draw: uniform inside each stratum, or a uniform single cycle."""
        with np.errstate(over="ignore"):
            places = shuffle_within(self.starts, self.lengths, mix(self.keys + np.uint64(draw)), cyclic, backend)
        out = np.empty(len(places), np.uint32)
        out[self.order] = self.order[places]
        return out


def arrange(documents: RoutedDocuments, within: Sequence[Within], seed: int) -> Strata:
    """Strata of the rows; their keys and the order inside them come from document keys, places and token ids, not from row numbers."""
    keys, place = seeded(documents.keys, seed), documents.place
    label, identity = np.zeros(len(place), np.int64), np.zeros(len(place), np.uint64)
    with np.errstate(over="ignore"):
        row_key = mix(keys[documents.document] + place.astype(np.uint64))
        for name in within:
            values, canonical = _column(documents, name, keys)
            codes = np.unique(values, return_inverse=True)[1]
            label = np.unique(label * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
            identity = mix(identity ^ mix(canonical))
    identity ^= mix(np.asarray([seed], np.int64).astype(np.uint64))
    order = np.argsort(label, kind="stable") if "document" in within else np.lexsort((row_key, label))
    lengths = np.bincount(label) if len(label) else np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if len(label) else np.zeros(0, np.int64)
    return Strata(order, starts, lengths, mix(identity[order[starts]]))


def shuffled_information(documents: RoutedDocuments, pairs: ArrayLike, plan: ShufflePlan) -> ShuffleNull:
    """I(X_l; X_l') and its values after shuffling the second layer inside strata, bits, for layer pairs [P, 2].

    Tokens alone in their stratum are left out of both. within ("token_type",) tests whether layers couple beyond "same token, same
    experts"; ("document",) whether the order of tokens matters given the composition. Source: metrics specification 2.1, 3.3.
    """
    chosen = pairs_of(pairs, len(documents.first_L), plan.n_draws)
    kept, strata, left_out = without_alone(documents, plan.within, plan.seed)
    backend = plan.backend or choose_backend(int(kept.starts[-1]) * plan.n_draws, 0 if numba_loaded() else COMPILED_FROM)
    rows = MovedRows.of(kept.first_L, kept.n_experts, backend)
    observed = moved_information(rows, chosen, lambda _: rows.identity(), [0])[0]
    null = moved_information(rows, chosen, lambda draw: strata.source(draw, False, backend), range(plan.n_draws), plan.threads)
    return ShuffleNull(plan.within, observed, null, rows.n_rows, left_out)


def without_alone(documents: RoutedDocuments, within: Sequence[Within], seed: int) -> tuple[RoutedDocuments, Strata, float]:
    """The documents without tokens that are alone in their stratum, the strata of the rest, and the share left out."""
    strata = arrange(documents, within, seed)
    alone = strata.alone
    if not alone.any():
        return documents, strata, 0.0
    kept = documents.take(~alone)
    return kept, arrange(kept, within, seed), float(alone.mean())


def shuffle_within(starts: Int, lengths: Int, keys: NDArray[np.uint64], cyclic: bool, backend: Backend) -> Int:
    """Places [T] shuffled inside consecutive segments by Fisher-Yates, or by Sattolo's algorithm (one cycle a segment) if cyclic."""
    places = np.arange(int(lengths.sum()), dtype=np.int64)
    if backend == "numba":
        compiled("shuffle_within")(places, starts, lengths, keys, cyclic)
        return places
    by_length = np.argsort(-lengths, kind="stable")
    starts, lengths, keys = starts[by_length], lengths[by_length], keys[by_length]
    active = np.searchsorted(-lengths, -np.arange(int(lengths.max(initial=1))), side="left")
    for step in range(len(active) - 1, 0, -1):
        first = starts[: active[step]]
        with np.errstate(over="ignore"):
            other = mix(keys[: active[step]] + np.uint64(step)) % np.uint64(step + 1 - cyclic)
        here, there = first + step, first + other.astype(np.int64)
        places[here], places[there] = places[there], places[here]
    return places


def shuffle_updates(source: Source, documents: RoutedDocuments) -> Updates:
    """What leaving out each group changes in a shuffled table: the shuffle that the same draw makes of the other groups' rows.

    A cycle t <- s <- ... of the shuffle closes over the rows left out, which gives a uniform shuffle (or cycle) of the rest. So the rows
    of a group go, and each row that took a choice from them takes the next choice along its cycle.
    """
    order, bounds = group_rows(documents)
    group = np.empty(len(source), np.int64)
    group[order] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    taker = np.empty(len(source), np.uint32)
    taker[source] = np.arange(len(source), dtype=np.uint32)
    broken = np.flatnonzero(group[taker] != group)  # rows whose choice goes to another group
    follows = source[broken].astype(np.int64)
    waiting = np.flatnonzero(group[follows] == group[broken])
    while len(waiting):
        follows[waiting] = source[follows[waiting]]
        waiting = waiting[group[follows[waiting]] == group[broken[waiting]]]
    of_update = np.concatenate([group, group[broken], group[broken]])
    x_row = np.concatenate([np.arange(len(source)), taker[broken], taker[broken]])
    y_row = np.concatenate([source, broken, follows])
    sign = np.concatenate([np.full(len(source) + len(broken), -1), np.full(len(broken), 1)])
    by_group = np.argsort(of_update, kind="stable")
    ends = np.cumsum(np.bincount(of_update, minlength=len(bounds) - 1))
    return Updates(x_row[by_group].astype(np.uint32), y_row[by_group].astype(np.uint32), sign[by_group].astype(np.int8),
                   np.concatenate([[0], ends]).astype(np.int64))


def shuffle_moves(documents: RoutedDocuments, strata: Strata, cyclic: bool, backend: Backend) -> Callable[[int], tuple[Source, Updates]]:
    """Source map and updates of each draw number."""
    def moves(draw: int) -> tuple[Source, Updates]:
        source = strata.source(draw, cyclic, backend)
        return source, shuffle_updates(source, documents)

    return moves


def _column(documents: RoutedDocuments, name: Within, keys: NDArray[np.uint64]) -> tuple[Int, NDArray[np.uint64]]:
    """Values to tell strata apart, and the same as numbers that survive renumbering of documents."""
    if name == "document":
        return documents.document, keys[documents.document]
    if name == "band":
        if documents.position is None:
            raise ValueError("strata by band need the position of each token; pass RoutedDocuments(position=...)")
        values = bands(np.asarray(documents.position, np.int64))
    elif name == "token_type":
        if documents.token_id is None:
            raise ValueError("strata by token type need token ids; pass RoutedDocuments(token_id=...)")
        values = np.asarray(documents.token_id, np.int64)
    else:
        raise ValueError(f"cannot shuffle within {name!r}; choose from token_type, band, document")
    return values, values.astype(np.uint64)
