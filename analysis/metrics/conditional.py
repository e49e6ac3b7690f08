"""Information within many strata, or between many sets, from the cells that occur: where a dense table would not fit.

T token, X, Y symbol of two layers, V stratum (token type, document), Z cell that occurs, G group of documents. Memory grows with the tokens,
not with types x experts x experts, and leaving out a group touches that group's own cells only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide, plogp
from analysis.estimate import Estimate
from analysis.gates import TOKENS_PER_CELL, UNDERSAMPLED, bias_sensitive, few_documents, gated
from analysis.kernels import Int
from analysis.left_out import LeftOut
from analysis.metrics.entropy_estimators import entropy


@dataclass(frozen=True)
class PairedTokens:
    """Symbols (first choices, set symbols) of two layers per token, -1 for none, and the jackknife group of its document.

    n_groups: groups, with those that have no token; n_documents: documents behind them; stratum [G]: where groups lie inside domains.
    ValueError for arrays of different length and groups out of range.
    """

    x_T: Int
    y_T: Int
    group_T: Int
    n_groups: int
    n_documents: int
    stratum: Int | None = None

    def __post_init__(self) -> None:
        if not len(self.x_T) == len(self.y_T) == len(self.group_T):
            raise ValueError(f"x_T, y_T, group_T: {len(self.x_T)}, {len(self.y_T)}, {len(self.group_T)} tokens; give the same tokens to each")
        if len(self.group_T) and not 0 <= int(np.min(self.group_T)) <= int(np.max(self.group_T)) < self.n_groups:
            raise ValueError(f"group_T: groups are numbered 0 to {self.n_groups - 1}")

    @property
    def kept_T(self) -> NDArray[np.bool_]:
        """Tokens with a symbol in both layers."""
        kept: NDArray[np.bool_] = (np.asarray(self.x_T) >= 0) & (np.asarray(self.y_T) >= 0)
        return kept

    def where(self, kept_T: NDArray[np.bool_]) -> PairedTokens:
        """The chosen tokens over the same groups."""
        return PairedTokens(self.x_T[kept_T], self.y_T[kept_T], self.group_T[kept_T], self.n_groups, self.n_documents, self.stratum)


def conditional_left_out(tokens: PairedTokens, given_T: ArrayLike | None = None) -> LeftOut:
    """Plug-in I(X;Y|V) in bits of the tokens with both symbols, on all groups and without each; given_T: V of each token, else I(X;Y).

    NaN where no token is left. Equal to information.conditional_bits of the dense table [V, X, Y] without one group's counts.
    """
    kept = tokens.kept_T
    if given_T is not None and len(np.asarray(given_T)) != len(kept):
        raise ValueError(f"given_T: {len(np.asarray(given_T))} strata for {len(kept)} tokens")
    used = tokens.where(kept)
    stratum = _numbered(np.zeros(len(used.x_T), np.int64) if given_T is None else np.asarray(given_T)[kept])
    with_x, with_y = _numbered(_joined(stratum, used.x_T)), _numbered(_joined(stratum, used.y_T))
    every = _numbered(_joined(with_x, used.y_T))
    signed = [(1, every), (1, stratum), (-1, with_x), (-1, with_y)]
    terms = [(sign, _power_sums(key, used.group_T, tokens.n_groups)) for sign, key in signed]
    bits_n = np.sum([sign * sums for sign, sums in terms], axis=0)
    n = len(used.x_T) - np.concatenate([[0], np.bincount(used.group_T, minlength=tokens.n_groups)])
    values = np.maximum(divide(bits_n, n), 0.0)
    return LeftOut(values[0], values[1:], tokens.n_documents, tokens.stratum)


@dataclass(frozen=True)
class GivenType:
    """I(X;Y|V) over the types with n_v >= 5 Kx(v) Ky(v); share: of the paired tokens that are of such a type, None for no token.

    estimate.n counts those types. raw: plug-in over all types, biased up by rare ones; None where undefined.
    """

    estimate: Estimate
    share: float | None
    raw: float | None


def given_type(tokens: PairedTokens, type_T: ArrayLike, *, level: float = 0.95) -> GivenType:
    """mi_given_type with a jackknife interval; the types are chosen once, on all documents, and stay in every replicate."""
    types = np.asarray(type_T)
    kept = tokens.kept_T
    chosen = kept.copy()
    chosen[kept] = _estimable(tokens.x_T[kept], tokens.y_T[kept], types[kept])
    estimate = _one(conditional_left_out(tokens.where(chosen), types[chosen]), "mi_given_type", level)
    n_types = len(np.unique(types[chosen]))
    estimate = gated(replace(estimate, n=n_types, n_of="types"), few_documents(tokens.n_documents))
    raw = float(conditional_left_out(tokens, types).plug_in)
    return GivenType(estimate, float(chosen.sum() / kept.sum()) if kept.any() else None, None if np.isnan(raw) else raw)


@dataclass(frozen=True)
class SetInformation:
    """Information between sets of experts; grassberger: the same by the second estimator, None for no token; sets: observed at each layer."""

    estimate: Estimate
    grassberger: float | None
    sets: tuple[int, int]


def set_information(tokens: PairedTokens, *, level: float = 0.95) -> SetInformation:
    """mi_set from set symbols (joint_tables.set_symbols) with its gates: N >= 5 x observed sets of both layers, documents, bias."""
    used = tokens.where(tokens.kept_T)
    counts = [np.unique(symbol, return_counts=True)[1] for symbol in (used.x_T, used.y_T, _joined(_numbered(used.x_T), used.y_T))]
    sets, n = (len(counts[0]), len(counts[1])), len(used.x_T)
    estimate = _one(conditional_left_out(tokens), "mi_set", level)
    if n == 0:
        return SetInformation(estimate, None, sets)
    x, y, both = (float(entropy(count, "grassberger_G")) for count in counts)
    second, needed = x + y - both, TOKENS_PER_CELL * sets[0] * sets[1]
    sparse = None if n >= needed else f"{UNDERSAMPLED}: {n} tokens for {sets[0]} x {sets[1]} observed sets, {needed} needed; take mi_first_choice"
    biased = bias_sensitive(cast(float, estimate.plug_in), cast(float, estimate.value), second)
    return SetInformation(gated(estimate, sparse, few_documents(tokens.n_documents), biased), second, sets)


def _one(values: LeftOut, metric: str, level: float) -> Estimate:
    return cast(Estimate, values.estimates(metric, level=level)[()])


def _numbered(key: NDArray[np.generic]) -> Int:
    out: Int = np.unique(key, return_inverse=True)[1].astype(np.int64)
    return out


def _joined(key: Int, symbol: Int) -> Int:
    """One number per pair of a dense key and a symbol."""
    dense = _numbered(symbol)
    return key * (int(dense.max(initial=0)) + 1) + dense


def _power_sums(key: Int, group: Int, n_groups: int) -> Float:
    """Sum of n log2 n over cells, with all tokens and then without each group [1 + G]."""
    total = np.bincount(key)
    place, count = np.unique(key * n_groups + group, return_counts=True)
    cell, owner = place // max(n_groups, 1), place % max(n_groups, 1)
    change = plogp(total[cell] - count) - plogp(total[cell])
    whole = float(plogp(total).sum())
    out: Float = whole + np.concatenate([[0.0], np.bincount(owner, weights=change, minlength=n_groups)])
    return out


def _estimable(x: Int, y: Int, stratum: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Tokens whose stratum has 5 tokens per pair of its active symbols."""
    v = _numbered(stratum)
    active = []
    for symbol in (x, y):
        dense = _numbered(symbol)
        pairs = np.unique(v * (int(dense.max(initial=0)) + 1) + dense)
        active.append(np.bincount(pairs // (int(dense.max(initial=0)) + 1), minlength=int(v.max(initial=-1)) + 1))
    enough: NDArray[np.bool_] = np.bincount(v) >= TOKENS_PER_CELL * active[0] * active[1]
    return enough[v]
