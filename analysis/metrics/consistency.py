"""Routing consistency of token types: how often two occurrences of one type are routed alike.

V token type, E expert, k experts chosen per occurrence. n_VE: occurrences of a type with the expert in its set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import divide
from analysis.kernels import Float, Int
from analysis.registry import metric
from analysis.resampling import generator

EXACT_WORK = 4e8  # multiplications up to which rarefaction is exact
DRAWS = 64
RAREFIED_TO = 50  # occurrences at which modal shares are comparable (metrics specification 2.4)
SOURCE = "seed 003; metrics specification 2.4"


def collision(n_VE: NDArray[np.generic], n_V: NDArray[np.generic], k: int) -> Float:
    """Mean set overlap |S & T| / k of two occurrences of a type: sum n_e (n_e - 1) / (k n (n - 1)); NaN for n < 2.

    Range [0, 1], unbiased for sum of squared selection probabilities over k. Leading axes are batches.
    """
    n_e, n = np.asarray(n_VE, np.float64), np.asarray(n_V, np.float64)
    pairs = k * n * (n - 1)
    overlap: Float = np.divide((n_e * (n_e - 1)).sum(axis=-1), pairs, out=np.full(np.shape(n), np.nan), where=n > 1)
    return overlap


def global_collision(n_E: NDArray[np.generic], n: float, k: int) -> float:
    """Overlap of two occurrences drawn from the whole layer, whatever their types: sum (n_e / n)^2 / k; NaN without occurrences."""
    return float(((np.asarray(n_E, np.float64) / n) ** 2).sum() / k) if n else float("nan")


def kappa(overlap: Float, chance: Float | float) -> Float:
    """Collision beyond chance: (c - g) / (1 - g), at most 1, may be negative; NaN where g = 1."""
    room = np.broadcast_to(1 - np.asarray(chance), np.shape(overlap))
    beyond: Float = np.divide(overlap - chance, room, out=np.full(np.shape(overlap), np.nan), where=room > 1e-12)
    return beyond


def modal_share(n_VE: NDArray[np.generic], n_V: NDArray[np.generic]) -> Float:
    """Share of occurrences routed to the most frequent expert (seed 003); 1.0 at n = 1 by construction, NaN at n = 0."""
    n = np.asarray(n_V, np.float64)
    share: Float = np.divide(np.asarray(n_VE).max(axis=-1), n, out=np.full(np.shape(n), np.nan), where=n > 0)
    return share


def top_expert(n_VE: Int) -> Int:
    """Most frequently selected expert, ties to the lowest id."""
    top: Int = np.argmax(n_VE, axis=-1)
    return top


def rarefied_modal_share(n_VE: Int, size: int, rng: np.random.Generator) -> Float:
    """Expected modal share of `size` occurrences drawn without replacement from each type; NaN where n < size.

    n_VE: first choices. Exact while V x E is small, else the mean of 64 hypergeometric draws a type from `rng`.
    """
    totals = n_VE.sum(axis=1)
    out = np.full(len(n_VE), np.nan)
    kept = np.flatnonzero(totals >= size)
    if len(kept) * n_VE.shape[1] * size**3 / 8 <= EXACT_WORK * 10:
        for start in range(0, len(kept), 256):
            rows = kept[start : start + 256]
            out[rows] = _exact_rarefied(n_VE[rows], size)
        return out
    for row in kept:
        out[row] = rng.multivariate_hypergeometric(n_VE[row], size, size=DRAWS, method="marginals").max(axis=1).mean() / size
    return out


def _exact_rarefied(n_VE: Int, size: int) -> Float:
    """E[max] / size = sum over m < size of P(max > m) / size; the tail m >= size/2 is a sum over experts, since one alone can exceed it."""
    half = (size + 1) // 2
    pmf = _hypergeometric_pmf(n_VE, size)  # [V, E, size + 1]
    survival = pmf[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    expected = survival[:, :, half + 1 :].sum(axis=(1, 2))
    log_terms = _log_choose(n_VE[:, :, None], np.arange(size + 1))
    tilt = np.log(np.maximum(size, 1) / n_VE.sum(axis=1))[:, None, None] * np.arange(size + 1)
    scaled = log_terms + tilt
    whole = _log_choose(n_VE.sum(axis=1), np.array(size)) + tilt[:, 0, size]
    least = -(-size // n_VE.shape[1])  # some expert is chosen at least so often
    expected += min(least, half)
    for m in range(least, half):
        expected += 1 - _probability_max_within(np.exp(scaled[:, :, : m + 1]), size, whole)
    share: Float = expected / size
    return share


def _probability_max_within(terms: Float, size: int, log_whole: Float) -> Float:
    """P(no expert more than m times): coefficient of x^size in the product over experts of sum_j terms[j] x^j, over the whole."""
    product = np.zeros((len(terms), size + 1))
    product[:, 0] = 1
    log_scale = np.zeros(len(terms))
    for expert in range(terms.shape[1]):
        grown = np.zeros_like(product)
        for j in range(terms.shape[2]):
            grown[:, j:] += product[:, : size + 1 - j] * terms[:, expert, j, None]
        peak = grown.max(axis=1, keepdims=True)
        product = grown / peak
        log_scale += np.log(peak[:, 0])
    with np.errstate(divide="ignore"):
        within: Float = np.minimum(np.exp(np.log(product[:, size]) + log_scale - log_whole), 1.0)
    return within


def _log_choose(n: NDArray[np.generic], j: NDArray[np.generic]) -> Float:
    from scipy.special import gammaln

    n_f, j_f = np.asarray(n, np.float64), np.asarray(j, np.float64)
    inside = j_f <= n_f
    value = gammaln(n_f + 1) - gammaln(j_f + 1) - gammaln(np.where(inside, n_f - j_f, 0) + 1)
    return np.where(inside, value, -np.inf)


def _hypergeometric_pmf(n_VE: Int, size: int) -> Float:
    total = n_VE.sum(axis=1)[:, None, None]
    j = np.arange(size + 1)
    others = total - n_VE[:, :, None]
    log_pmf = _log_choose(n_VE[:, :, None], j) + _log_choose(others, size - j) - _log_choose(total, np.array(size))
    return np.exp(log_pmf)


def _occurrences(types_VE: ArrayLike, k: int) -> tuple[Float, Float]:
    n_VE = np.asarray(types_VE, np.float64)
    if k < 1 or k > n_VE.shape[-1]:
        raise ValueError(f"k={k}: a token chooses 1 to {n_VE.shape[-1]} experts of this layer")
    return n_VE, n_VE.sum(axis=-1) / k


@metric("collision_v", unit="overlap", bounds=(0.0, 1.0), undefined="no_data: fewer than two occurrences of the type", source=SOURCE,
        takes=("types_VE",), estimator="two-way for means over types", seed="routing consistency")
def collision_v(types_VE: ArrayLike, k: int = 1) -> Float:
    """Mean set overlap of two occurrences of a type: sum_e n_e (n_e - 1) / (k n (n - 1)), [0, 1]; NaN for n < 2.

    types_VE: occurrences of a type with the expert among its k, [..., V, E], no slot dropped; gives [..., V]. Unbiased, but its noise
    falls with n, so that rank correlations with frequency need a floor on n or rarefaction.
    """
    n_VE, n_V = _occurrences(types_VE, k)
    return collision(n_VE, n_V, k)


@metric("kappa_v", unit="kappa", bounds=(None, 1.0), undefined="no_data: fewer than two occurrences of the type, or one expert serves all",
        source=SOURCE, takes=("types_VE",), estimator="two-way for means over types", seed="routing consistency")
def kappa_v(types_VE: ArrayLike, k: int = 1) -> Float:
    """Collision of a type beyond that of the layer: (c - g) / (1 - g), g = sum_e (n_e / n)^2 / k over all types, (-inf, 1].

    types_VE: as collision_v. NaN where n < 2 or g = 1 (one expert, or k = E).
    """
    n_VE, n_V = _occurrences(types_VE, k)
    share = divide(n_VE.sum(axis=-2), n_V.sum(axis=-1)[..., None])
    return kappa(collision(n_VE, n_V, k), (share**2).sum(axis=-1, keepdims=True) / k)


@metric("modal_share_seed", unit="share of occurrences", bounds=(0.0, 1.0), undefined="no_data: no occurrence of the type", source="seed 003",
        takes=("types_VE",), seed="routing consistency", seed_form=True)
def modal_share_seed(types_VE: ArrayLike, k: int = 1) -> Float:
    """Seed 003's routing consistency: share of a type's occurrences with its most frequent expert, max_e n_e / n, [1/E, 1].

    types_VE: as collision_v. Wrong across types: 1 at n = 1 by construction, and with one law for all types its rank correlation with
    frequency is -0.9.
    """
    n_VE, n_V = _occurrences(types_VE, k)
    return modal_share(n_VE, n_V)


@metric("modal_share_rarefied", unit="share of occurrences", bounds=(0.0, 1.0), undefined=f"fewer than {RAREFIED_TO} occurrences of the type",
        source=SOURCE, takes=("frequent_VE",), additive=False, estimator="two-way for means over types", seed="routing consistency")
def modal_share_rarefied(types_VE: ArrayLike, size: int = RAREFIED_TO, seed: int = 0) -> Float:
    """Expected modal share of `size` occurrences drawn without replacement from each type: comparable across types, [1/E, 1].

    types_VE: first choices [V, E], integers; gives [V], NaN where n < size. seed: of the draws that replace the sum for large tables.
    """
    n_VE = np.asarray(types_VE)
    if n_VE.ndim != 2 or not np.issubdtype(n_VE.dtype, np.integer) or (n_VE < 0).any():
        raise ValueError(f"types_VE: {n_VE.dtype} of shape {n_VE.shape}; give integer first choices, types x experts")
    if size < 1:
        raise ValueError(f"size={size}: rarefy to at least one occurrence")
    return rarefied_modal_share(n_VE.astype(np.int64), size, generator(seed, "modal_share_rarefied"))
