"""The conditional Bernoulli law: k distinct experts a token, with given loads and no other structure (Chen, Dempster & Liu 1994).

A set S of k experts has probability proportional to the product of its weights w. The weights are held as success probabilities
p = w / (1 + w) of independent Bernoulli variables conditioned on a sum of k, so that every sum below is of probabilities and nothing
overflows for any k or E. B batch, E expert, K slot of the k choices, T token, C set of k experts.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float

Int = NDArray[np.int64]

LOGIT_TOLERANCE, LOAD_TOLERANCE = 1e-11, 1e-15  # a fitted load is within one of them; the second is where 1 - load has no more digits
MAX_STEPS = 2_000
DAMPED = 2 / 3  # the full step cycles where the experts are nearly determined (eigenvalue 2, at E = 2 and k = 1)
ENUMERATED = 2**16  # sets of k experts up to which a draw is one multinomial over sets
TOKENS_AT_ONCE = 2**16
CELLS_AT_ONCE = 2**22  # cells of the sums over experts that pair_inclusion holds at a time (32 MiB, twice)
LOAD_SUM_TOLERANCE = 1e-6
LOG_SCALE, BISECTIONS = 800.0, 100  # beyond the logarithms of float64, halved to the last digit


def inclusion(p_E: ArrayLike, k: int) -> Float:
    """Probability that each expert is chosen: pi_i = p_i P(S_-i = k-1) / P(S = k), with S the sum of independent Bernoulli(p).

    p_E: [..., E] in [0, 1]; gives [..., E] in [0, 1], summing to k. NaN where p is NaN or no set of k has positive probability.
    """
    p = np.asarray(p_E, np.float64)
    chosen, rest = _left_out(p.reshape(-1, p.shape[-1]), k)
    chosen *= p.reshape(chosen.shape)
    rest *= 1 - p.reshape(rest.shape)
    with np.errstate(invalid="ignore"):
        out: Float = (chosen / (chosen + rest)).reshape(p.shape)
    return out


def pair_inclusion(p_E: ArrayLike, k: int) -> Float:
    """Probability that two experts are chosen together: pi_ij = pi_i pi_j(w_-i, k-1), with pi_i on the diagonal.

    p_E: [..., E]; gives [..., E, E], symmetric, rows summing to k pi_i. For k = 1 zero off the diagonal.
    """
    p = np.asarray(p_E, np.float64)
    n_experts = p.shape[-1]
    single = inclusion(p, k)
    if k == 1 or n_experts == 1:
        return np.asarray(single[..., None] * np.eye(n_experts))
    flat = p.reshape(-1, n_experts)
    pairs = np.empty((len(flat) * n_experts, n_experts))
    step = max(1, CELLS_AT_ONCE // (n_experts * (k + 1)))
    for start in range(0, len(pairs), step):
        rows = np.arange(start, min(start + step, len(pairs)))
        without = flat[rows // n_experts]
        without[np.arange(len(rows)), rows % n_experts] = 0.0
        pairs[rows] = inclusion(without, k - 1)
    chosen = single.reshape(-1, n_experts)
    with np.errstate(invalid="ignore"):
        pairs_BEE = np.where(chosen[..., None] > 0, pairs.reshape(-1, n_experts, n_experts) * chosen[..., None], chosen[..., None] * 0)
    pairs_BEE = (pairs_BEE + np.swapaxes(pairs_BEE, -1, -2)) / 2
    pairs_BEE[:, np.arange(n_experts), np.arange(n_experts)] = chosen
    return pairs_BEE.reshape(*p.shape, n_experts)


def _left_out(p_BE: Float, k: int) -> tuple[Float, Float]:
    """P(S_-i = k-1) and P(S_-i = k) [B, E] for the sum over all experts but i, from sums over the experts before and after it."""
    n_batch, n_experts = p_BE.shape
    after = np.zeros((n_experts + 1, n_batch, k + 1))
    after[n_experts, :, 0] = 1
    for i in range(n_experts - 1, 0, -1):
        _add_expert(after[i + 1], p_BE[:, i, None], after[i])
    before, ahead = np.zeros((2, n_batch, k + 1))
    before[:, 0] = 1
    chosen, rest = np.empty((2, n_batch, n_experts))
    for i in range(n_experts):
        backwards = after[i + 1][:, ::-1]  # P(k after), ..., P(0 after)
        np.einsum("bk,bk->b", before[:, :k], backwards[:, 1:], out=chosen[:, i])
        np.einsum("bk,bk->b", before, backwards, out=rest[:, i])
        _add_expert(before, p_BE[:, i, None], ahead)
        before, ahead = ahead, before
    return chosen, rest


def _add_expert(sums_BK: Float, p_B1: Float, out_BK: Float) -> None:
    np.multiply(sums_BK, 1 - p_B1, out=out_BK)
    out_BK[:, 1:] += sums_BK[:, :-1] * p_B1


def fit(loads_E: ArrayLike, k: int) -> Float:
    """Success probabilities p with inclusion(p, k) = loads: damped proportional fitting of the odds.

    loads_E: shares of tokens that chose each expert [..., E], in [0, 1], summing to k. Gives [..., E]; the odds p / (1 - p) are the
    weights of the law up to a factor. An expert never chosen gets 0, one always chosen 1. NaN rows stay NaN. ValueError where the
    loads do not sum to k (slots were dropped: take the intended choices); ArithmeticError where the fit does not converge.
    """
    loads = np.asarray(loads_E, np.float64)
    flat = loads.reshape(-1, loads.shape[-1])
    known = np.isfinite(flat).all(axis=-1)
    _check_loads(flat[known], k)
    out = np.full(flat.shape, np.nan)
    out[known] = _fit_rows(np.clip(flat[known], 0.0, 1.0), k)
    return out.reshape(loads.shape)


def _check_loads(loads_BE: Float, k: int) -> None:
    if not 1 <= k <= loads_BE.shape[-1]:
        raise ValueError(f"k = {k} choices among {loads_BE.shape[-1]} experts: k must be from 1 to the number of experts")
    if (loads_BE < -LOAD_SUM_TOLERANCE).any() or (loads_BE > 1 + LOAD_SUM_TOLERANCE).any():
        raise ValueError("loads outside [0, 1]: a load is the share of tokens that chose the expert (an expert twice in one top-k?)")
    wrong = np.abs(loads_BE.sum(axis=-1) - k) > LOAD_SUM_TOLERANCE * k
    if wrong.any():
        raise ValueError(f"loads sum to {loads_BE[wrong][0].sum():.6g}, not to k = {k}: the law needs k choices a token; "
                         "take the intended choices, before slots are dropped")


def _fit_rows(loads_BE: Float, k: int) -> Float:
    with np.errstate(divide="ignore"):
        target = np.log(loads_BE) - np.log1p(-loads_BE)
    free = np.isfinite(target)
    logit, step = target.copy(), np.ones(len(target))
    error = np.full(len(target), np.inf)
    waiting = np.flatnonzero(free.any(axis=-1))
    for _ in range(MAX_STEPS):
        p = _logistic(logit[waiting])
        chosen, rest = _left_out(p, k)
        gap = np.zeros_like(p)
        now = free[waiting]
        gap[now] = target[waiting][now] - logit[waiting][now] - np.log(chosen[now] / rest[now])
        worst = np.abs(gap).max(axis=-1, initial=0.0)
        step[waiting[worst > error[waiting] / 2]] = DAMPED
        error[waiting] = worst
        load = loads_BE[waiting]
        going = ((np.abs(gap) > LOGIT_TOLERANCE) & (np.abs(gap) * load * (1 - load) > LOAD_TOLERANCE)).any(axis=-1)
        waiting, gap = waiting[going], gap[going]
        if not len(waiting):
            return _logistic(logit)
        logit[waiting] += step[waiting, None] * gap
    raise ArithmeticError(f"conditional Bernoulli fit: logit error {error[waiting].max():.2g} after {MAX_STEPS} steps; loads so near 0 or 1 "
                          "determine no weights: leave those experts out")


def _logistic(logit: Float) -> Float:
    from scipy.special import expit

    out: Float = expit(logit)
    return out


def from_weights(weights_E: ArrayLike, k: int) -> Float:
    """Success probabilities p = cw / (1 + cw) of the law with weights w [..., E], with c such that they sum to k; the inverse of `weights`.

    Weights are >= 0 and matter up to a factor. ValueError where fewer than k are positive.
    """
    given = np.asarray(weights_E, np.float64)
    if not (given >= 0).all() or ((given > 0).sum(axis=-1) < k).any():
        raise ValueError(f"weights must be at least 0, and at least k = {k} of them above 0")
    with np.errstate(divide="ignore"):
        log_w = np.log(given)
    low, high = (np.full((*given.shape[:-1], 1), end) for end in (-LOG_SCALE, LOG_SCALE))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        few = _logistic(log_w + middle).sum(axis=-1, keepdims=True) < k
        low, high = np.where(few, middle, low), np.where(few, high, middle)
    return _logistic(log_w + low)


def weights(p_E: ArrayLike) -> Float:
    """Weights w = p / (1 - p) [..., E] relative to the largest finite one; infinite for an expert that is always chosen."""
    p = np.asarray(p_E, np.float64)
    odds = np.divide(p, 1 - p, out=np.full(p.shape, np.inf), where=p < 1)
    largest = np.where(np.isfinite(odds), odds, 0.0).max(axis=-1, keepdims=True)
    return np.asarray(odds / np.where(largest > 0, largest, 1.0))


def sample_sets(p_E: ArrayLike, k: int, n_tokens: int, rng: np.random.Generator) -> Int:
    """Exact draws of k distinct experts a token from the law: ids [T, K], ascending. Cost: k binary searches a token."""
    p = np.asarray(p_E, np.float64)
    always, free = np.flatnonzero(p == 1), np.flatnonzero((p > 0) & (p < 1))
    k_free = k - len(always)
    if not 0 <= k_free <= len(free):
        raise ValueError(f"no set of k = {k}: {len(always)} experts are always chosen, {len(free)} sometimes")
    log_sums = _log_symmetric_sums(np.log(p[free]) - np.log1p(-p[free]), k_free)
    place = np.zeros(n_tokens, np.int64)
    out = np.empty((n_tokens, k), np.int64)
    for slot in range(k_free):
        ladder = log_sums[k_free - slot]
        level = ladder[place] - rng.standard_exponential(n_tokens)
        place = len(free) - np.searchsorted(ladder[::-1], level)
        out[:, slot] = free[place]
        place += 1
    out[:, k_free:] = always
    out.sort(axis=1)
    return out


def _log_symmetric_sums(log_w_E: Float, k: int) -> Float:
    """log e_r(w_i, ..., w_E) as [r, i], r = 0..k, i = 0..E: what the sets of r experts from i on weigh together."""
    n_experts = len(log_w_E)
    out = np.full((k + 1, n_experts + 1), -np.inf)
    out[0] = 0.0
    for i in range(n_experts - 1, -1, -1):
        out[1:, i] = np.logaddexp(out[1:, i + 1], log_w_E[i] + out[:-1, i + 1])
    return out


def draw_pair_counts(p_E: ArrayLike, k: int, n_tokens: int, rng: np.random.Generator) -> Int:
    """Exact draw of the co-activation table of n_tokens independent tokens: N_ij off the diagonal, n_i on it [E, E].

    One multinomial over sets where there are at most 65,536 sets and no more than tokens; else token by token.
    """
    p = np.asarray(p_E, np.float64)
    if comb(len(p), k) <= min(ENUMERATED, n_tokens):
        sets, chances = set_law(p, k)
        return pair_counts(sets, len(p), rng.multinomial(n_tokens, chances))
    out = np.zeros((len(p), len(p)), np.int64)
    for start in range(0, n_tokens, TOKENS_AT_ONCE):
        out += pair_counts(sample_sets(p, k, min(TOKENS_AT_ONCE, n_tokens - start), rng), len(p))
    return out


def set_law(p_E: ArrayLike, k: int) -> tuple[Int, Float]:
    """Every set of k experts [C, K] and its probability [C]."""
    p = np.asarray(p_E, np.float64)
    sets = np.array(list(combinations(range(len(p)), k)), np.int64).reshape(-1, k)
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(p), np.log1p(-p)
    fixed, never = p == 1, p == 0
    inside = np.zeros((len(sets), len(p)), bool)
    np.put_along_axis(inside, sets, True, axis=1)
    possible = (inside | ~fixed).all(axis=1) & (~inside | ~never).all(axis=1)
    free = ~(fixed | never)
    log_chance = np.where(inside[:, free], log_p[free], log_q[free]).sum(axis=1)
    chance = np.where(possible, np.exp(log_chance - log_chance[possible].max(initial=-np.inf)), 0.0) if possible.any() else np.zeros(len(sets))
    if not possible.any():
        raise ValueError(f"no set of k = {k} experts has positive probability")
    return sets, chance / chance.sum()


def pair_counts(sets_TK: Int, n_experts: int, times_T: Int | None = None) -> Int:
    """Co-activation table [E, E] of sets of distinct experts, each counted times_T times: N_ij off the diagonal, n_i on it."""
    out, sets = np.zeros((n_experts, n_experts), np.int64), np.asarray(sets_TK, np.int64)
    for a in range(sets.shape[1]):
        for b in range(a, sets.shape[1]):
            cell = sets[:, a] * n_experts + sets[:, b]
            out += _tally(cell, times_T, n_experts * n_experts).reshape(n_experts, n_experts)
    return out + out.T - np.diag(np.diag(out))


def _tally(cell_T: Int, times_T: Int | None, n_cells: int) -> Int:
    if times_T is None:
        return np.bincount(cell_T, minlength=n_cells).astype(np.int64)
    out = np.zeros(n_cells, np.int64)
    np.add.at(out, cell_T, times_T)
    return out
