"""Predictors that a learned one must beat: uniform guesses, and tables of counts fitted on some documents and applied to others.

T token, K slot of the actual top-k, R rank of a guess, E expert, Z key that was seen. Ids -1 are dropped slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.kernels import Int, mix
from analysis.metrics.joint_tables import checked_ids, first_choice

REQUIRED = ("uniform", "modal", "token_type", "previous_layer")  # metrics specification 2.1 C
ROWS_AT_ONCE = 2**16


@dataclass(frozen=True)
class CountTable:
    """Guesses per key: the experts seen most often with it, ties to the lowest id; then, and for unseen keys, those most often overall."""

    key_Z: Int
    guess_ZR: Int
    overall_R: Int

    def predict(self, key_T: ArrayLike) -> Int:
        """Guesses [T, R] for keys [T]."""
        keys = np.asarray(key_T, np.int64)
        if not len(self.key_Z):
            return np.tile(self.overall_R, (len(keys), 1))
        place = np.minimum(np.searchsorted(self.key_Z, keys), len(self.key_Z) - 1)
        out: Int = np.where((self.key_Z[place] == keys)[:, None], self.guess_ZR[place], self.overall_R)
        return out


def fit_table(key_T: ArrayLike, actual: ArrayLike, n_experts: int, n_guesses: int = 1) -> CountTable:
    """Counts of the actual experts ([T] or [T, K]) by an integer key [T] of each token, ranked: n_guesses per key.

    Every surviving slot counts; give first choices for a table of first choices. ValueError without any token: nothing to fit.
    """
    ids, keys = checked_ids(actual, n_experts, "actual"), np.asarray(key_T)
    if keys.dtype.kind not in "iu" or keys.shape != (len(ids),):
        raise ValueError(f"key_T: {keys.dtype} {keys.shape} for {len(ids)} tokens; give one integer per token")
    if not 1 <= n_guesses <= n_experts:
        raise ValueError(f"n_guesses {n_guesses}: between 1 and the {n_experts} experts")
    kept = ids >= 0
    if not kept.any():
        raise ValueError("actual: no token with an expert, so that there is nothing to fit; give the documents of the fitting split")
    key_Z, row = np.unique(np.broadcast_to(keys[:, None], ids.shape)[kept].astype(np.int64), return_inverse=True)
    cell, n = np.unique(row * n_experts + ids[kept], return_counts=True)
    of_row, expert = cell // n_experts, cell % n_experts
    order = np.lexsort((expert, -n, of_row))
    rank = np.arange(len(order)) - np.searchsorted(of_row[order], of_row[order])
    top = rank < n_guesses
    own = np.full((len(key_Z), n_guesses), -1)
    own[of_row[order][top], rank[top]] = expert[order][top]
    overall = np.lexsort((np.arange(n_experts), -np.bincount(ids[kept], minlength=n_experts)))[:n_guesses].astype(np.int64)
    return CountTable(key_Z, _completed(own, overall), overall)


def _completed(own: Int, overall: Int) -> Int:
    """Empty places (-1, last in a row) filled with the overall ranking, experts of the row left out."""
    repeated = (overall[None, :, None] == own[:, None, :]).any(axis=2)
    candidates = np.hstack([own, np.where(repeated, -1, overall)])
    order = np.argsort(candidates < 0, axis=1, kind="stable")[:, : own.shape[1]]
    return np.take_along_axis(candidates, order, axis=1)


def ordered_pair_key(ids: ArrayLike, n_experts: int) -> Int:
    """One integer per ordered pair of the first two slots [T] of ids [T, K >= 2]; a dropped slot is a value of its own."""
    table = np.asarray(ids, np.int64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"ids {table.shape}: an ordered pair needs two slots; take the previous layer's table at k = 1")
    out: Int = (table[:, 0] + 1) * (n_experts + 1) + table[:, 1] + 1
    return out


def uniform_guesses(key_T: NDArray[np.uint64], n_experts: int, n_guesses: int = 1) -> Int:
    """Distinct experts drawn uniformly for each token [T, R], from a random key of the token, so that no order of rows matters."""
    keys = np.asarray(key_T, np.uint64)
    out = np.empty((len(keys), n_guesses), np.int64)
    with np.errstate(over="ignore"):
        salt = mix(np.arange(n_experts, dtype=np.uint64))
        for start in range(0, len(keys), ROWS_AT_ONCE):
            drawn = mix(mix(keys[start : start + ROWS_AT_ONCE])[:, None] + salt)
            out[start : start + ROWS_AT_ONCE] = np.argsort(drawn, axis=1, kind="stable")[:, :n_guesses]
    return out


@dataclass(frozen=True)
class TokensToPredict:
    """Tokens of some documents at one layer: actual [T] or [T, K]; key_T: a random uint64 of each token (seed, document, position).

    previous: ids of the layer before, [T] or [T, K] by descending score, and token_id_T: None where there are none.
    """

    actual: Int
    key_T: NDArray[np.uint64]
    previous: Int | None = None
    token_id_T: Int | None = None


def baseline_guesses(fitted: TokensToPredict, scored: TokensToPredict, n_experts: int, n_guesses: int = 1) -> Mapping[str, Int]:
    """Guesses [T, R] for the scored tokens of each baseline that the fields allow, its table fitted on the fitted tokens' documents.

    uniform, modal, token_type, previous_layer (Markov table of first choices), ordered_pair (of the previous layer's first two slots).
    With one guess the tables count first choices, with more every slot. Split by document: this cannot be checked here.
    """
    out = {"uniform": uniform_guesses(scored.key_T, n_experts, n_guesses)}
    target = fitted.actual if n_guesses > 1 else first_choice(fitted.actual).expert_T
    keys: dict[str, tuple[ArrayLike, ArrayLike]] = {"modal": (np.zeros(len(target), np.int64), np.zeros(len(scored.key_T), np.int64))}
    if fitted.token_id_T is not None and scored.token_id_T is not None:
        keys["token_type"] = (fitted.token_id_T, scored.token_id_T)
    if fitted.previous is not None and scored.previous is not None:
        keys["previous_layer"] = (first_choice(fitted.previous).expert_T, first_choice(scored.previous).expert_T)
        if np.ndim(fitted.previous) == 2 and np.shape(fitted.previous)[1] > 1:
            size = 1 + int(max(np.max(part, initial=0) for part in (fitted.previous, scored.previous)))
            keys["ordered_pair"] = (ordered_pair_key(fitted.previous, size), ordered_pair_key(scored.previous, size))
    for name, (seen, asked) in keys.items():
        out[name] = fit_table(seen, target, n_experts, n_guesses).predict(asked)
    return out
