"""Bootstrap replicates of whole documents: counter-based weights, marginal sums by matrix product, exact replicates of information.

D document (or hashed group of documents), B replicate, C additive column, T token. Weights come from document keys, replicate number and
seed alone, so that they do not depend on threads, chunks or the order of documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, factorial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float
from analysis.kernels import Backend, Int, choose_backend, mix, numba_loaded
from analysis.moved_rows import checked, compiled, narrow, run, seeded
from analysis.registry import find
from analysis.resampling import MIN_UNITS_FOR_INTERVAL, basic_interval, percentile_interval
from analysis.table_information import FixedLog, information_of_parts, table_parts

Kind = Literal["basic", "centred", "percentile"]
AT_ONCE = 64  # replicates of marginals at a time
BLOCK = 256  # replicates of a joint table at a time
EXACT_32, EXACT_64 = 2.0**24, 2.0**53
COMPILED_FROM = 50_000_000  # weighted tokens below which numba's start-up costs more than it saves
HEAVIEST = 255  # largest weight of a document in one replicate, for the fixed point of weighted tables


@dataclass(frozen=True)
class WeightPlan:
    """multinomial: each replicate draws as many documents as there are, inside strata; poisson: independent Poisson(1), for streaming."""

    n_replicates: int = 1_999
    seed: int = 0
    kind: Literal["multinomial", "poisson"] = "multinomial"


def document_weights(keys: NDArray[np.uint64], plan: WeightPlan, replicates: range, strata: ArrayLike | None = None) -> NDArray[np.uint8]:
    """Weights [B, D] of the documents in the given replicates (numbers from 0).

    keys [D]: of each document (nulls.document_keys). ValueError for Poisson weights of a stratum with fewer than 30 documents, whose
    number of documents they would vary by more than a sixth.
    """
    stratum = np.zeros(len(keys), np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    mixed = seeded(keys, plan.seed)
    sizes = np.bincount(stratum) if len(stratum) else np.zeros(1, np.int64)
    if plan.kind == "poisson":
        if sizes.min() < MIN_UNITS_FOR_INTERVAL:
            raise ValueError(f"Poisson weights for a stratum of {int(sizes.min())} documents: they need {MIN_UNITS_FOR_INTERVAL}; "
                             "take multinomial weights (metrics specification 4.3)")
        return _poisson(mixed, replicates)
    out = np.zeros((len(replicates), len(keys)), np.uint8)
    for number in range(len(sizes)):
        members = np.flatnonzero(stratum == number)
        out[:, members[np.argsort(mixed[members])]] = _multinomial(mixed[members], replicates)
    return out


class WeightedSums:
    """weights @ counts for per-document counts [D, C], exact: float32 where no sum reaches 2**24, float64 otherwise.

    Counts are nonnegative integers (reals in fixed point, analysis.kernels.to_fixed). ValueError for others, and for sums from 2**53.
    Memory: one float32 copy of the counts where they fit it.
    """

    def __init__(self, counts_DC: ArrayLike) -> None:
        self._counts = np.asarray(counts_DC)
        if not np.issubdtype(self._counts.dtype, np.integer) or (self._counts.size and int(self._counts.min()) < 0):
            raise ValueError(f"counts of documents must be nonnegative integers, not {self._counts.dtype}; hold reals in fixed point")
        fits = int(self._counts.max(initial=0)) < EXACT_32
        self._narrow = self._counts.astype(np.float32) if fits else None

    def __call__(self, weights_BD: ArrayLike) -> Float:
        """Sums [B, C] of weights [B, D]."""
        weights = np.asarray(weights_BD)
        if self._narrow is not None:
            out = weights.astype(np.float32) @ self._narrow
            if out.max(initial=0.0) < EXACT_32:  # terms are nonnegative, so that no partial sum was rounded either
                return np.asarray(out, np.float64)
        exact = np.asarray(weights.astype(np.float64) @ self._counts.astype(np.float64), np.float64)
        if exact.max(initial=0.0) >= EXACT_64:
            raise ValueError("a weighted sum reaches 2**53, beyond exact float64; use coarser units or fewer documents")
        return exact


def marginal_replicates(
    tables_D: Sequence[ArrayLike], value: Callable[..., Any], keys: NDArray[np.uint64], plan: WeightPlan, strata: ArrayLike | None = None
) -> Float:
    """Replicates [B, M...] of a value of additive tables: value(sum_d w_bd table_d, ...) for per-document tables [D, ...].

    Exact and independent of chunks, threads and the order of documents for integer tables. Source: metrics specification 4.3.
    """
    sums = [_sums(table) for table in tables_D]
    return np.concatenate([
        _values(sums, value, document_weights(keys, plan, range(first, min(first + AT_ONCE, plan.n_replicates)), strata))
        for first in range(0, plan.n_replicates, AT_ONCE)])


def weighted_values(tables_D: Sequence[ArrayLike], value: Callable[..., Any], weights_BD: ArrayLike) -> Float:
    """Values [B, M...] of additive tables [D, ...] under given document weights [B, D]."""
    return _values([_sums(table) for table in tables_D], value, weights_BD)


def _sums(table_D: ArrayLike) -> tuple[WeightedSums, tuple[int, ...]]:
    table = np.asarray(table_D)
    return WeightedSums(table.reshape(len(table), -1)), table.shape[1:]


def _values(sums: Sequence[tuple[WeightedSums, tuple[int, ...]]], value: Callable[..., Any], weights_BD: ArrayLike) -> Float:
    return np.asarray(value(*(each(weights_BD).reshape(-1, *shape) for each, shape in sums)), np.float64)


def weighted_joint_information(
    choices: tuple[ArrayLike, ArrayLike], n_experts: tuple[int, int], unit: Int, weights_BD: NDArray[np.uint8], *, threads: int = 1,
    backend: Backend | None = None,
) -> Float:
    """Plug-in I(X;Y) in bits of every replicate [B], exactly as if its documents were counted anew; opt-in, for it costs a pass each.

    choices: x and y [T], -1 where there is none; unit [T]: document of each token, or its hashed group (2,000 are enough at any size);
    weights_BD from document_weights. NaN for a replicate without tokens. Its percentiles are no interval: see replicate_interval.
    """
    x, y = (checked(np.asarray(c), e, layer) for layer, (c, e) in enumerate(zip(choices, n_experts)))
    both = (x >= 0) & (y >= 0)
    cells, units = x[both].astype(np.int64) * n_experts[1] + y[both], np.asarray(unit)[both]
    log = FixedLog.of(HEAVIEST * max(1, len(x)))
    parts = np.zeros((len(weights_BD), 2), np.int64)
    chosen = backend or choose_backend(len(cells) * len(weights_BD), 0 if numba_loaded() else COMPILED_FROM)
    if chosen == "numpy":
        for replicate, weights in enumerate(weights_BD):
            table = np.bincount(cells, weights[units].astype(np.float64), n_experts[0] * n_experts[1])
            parts[replicate] = table_parts(np.rint(table).astype(np.int64).reshape(1, *n_experts), log)
        return information_of_parts(parts, log)
    order = np.argsort(cells.astype(narrow(n_experts[0] * n_experts[1])), kind="stable")  # radix where the type is narrow
    by_cell, bounds = units[order].astype(np.int32), np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=n_experts[0] * n_experts[1]))])
    sums = np.uint32 if HEAVIEST * len(cells) < 2**32 else np.int64
    waiting = iter(range(0, len(weights_BD), BLOCK))

    def work() -> None:
        for first in waiting:
            block = np.ascontiguousarray(weights_BD[first : first + BLOCK].T)
            compiled("weighted_parts")(by_cell, bounds, block, int(block.max(initial=1)), np.zeros(block.shape[1], sums), n_experts[1],
                                       log.values, log.logs, 2.0**log.bits, parts[first : first + BLOCK])

    run(work, threads)
    return information_of_parts(parts, log)


def replicate_interval(metric: str, estimate: ArrayLike, replicates: ArrayLike, kind: Kind = "basic", level: float = 0.95) -> tuple[Float, Float]:
    """Ends of the interval of a registered metric from its replicates [B, M...].

    basic: about the plug-in estimate; centred: the replicates' spread about their own mean, laid about a bias-corrected estimate.
    ValueError for a percentile interval of a metric that the register gives a group jackknife (entropies, information, CV, divergences):
    replicates sit one whole plug-in bias above the estimate, the interval two. Source: metrics specification 0.2, 4.1.
    """
    value, draws = np.asarray(estimate, np.float64), np.asarray(replicates, np.float64)
    if kind == "percentile":
        if "jackknife" in find(metric).estimator:
            raise ValueError(f"percentile interval of {metric}: its replicates are shifted by the plug-in bias, so that 51 % instead of 95 % of "
                             "such intervals cover; take the group jackknife, or kind='basic'")
        return percentile_interval(draws, level)
    if kind == "basic":
        return basic_interval(value, draws, level)
    return basic_interval(value, draws - draws.mean(axis=0) + value, level)


def _multinomial(keys: NDArray[np.uint64], replicates: range) -> NDArray[np.uint8]:
    """Weights [B, n] of one stratum, documents in the order of their keys."""
    n, numbers = len(keys), np.asarray(replicates, np.uint64)
    total: NDArray[np.uint64] = np.add.reduce(keys, keepdims=True)
    out = np.zeros((len(replicates), n), np.uint8)
    base = mix(total)
    if _compiled(out.size):
        compiled("multinomial")(base[0], numbers, out)
        return out
    with np.errstate(over="ignore"):
        chosen = mix(base + numbers[:, None] * np.uint64(n) + np.arange(n, dtype=np.uint64)) % np.uint64(max(n, 1))
    np.add.at(out, (np.arange(len(replicates))[:, None], chosen.astype(np.int64)), 1)
    return out


def _poisson(keys: NDArray[np.uint64], replicates: range) -> NDArray[np.uint8]:
    """Poisson(1) weights [B, D] by inversion of 64-bit draws."""
    cumulated = np.cumsum([exp(-1) / factorial(k) for k in range(20)])
    limits = np.asarray([min(int(c * 2.0**64), 2**64 - 1) for c in cumulated], np.uint64)
    numbers = np.asarray(replicates, np.uint64)
    if _compiled(len(keys) * len(replicates)):
        out = np.empty((len(replicates), len(keys)), np.uint8)
        compiled("poisson")(keys, numbers, limits, out)
        return out
    with np.errstate(over="ignore"):
        return np.searchsorted(limits, mix(keys + numbers[:, None]), side="right").astype(np.uint8)


def _compiled(n_draws: int) -> bool:
    return choose_backend(n_draws, 0 if numba_loaded() else COMPILED_FROM) == "numba"
