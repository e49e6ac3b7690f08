"""Entropy and mutual information from finite counts by six estimators, for any number of leading batch axes.

K symbol (expert, cell of a joint table); X, Y variable of a joint table. Zero counts are ignored: K is the observed support.
These corrections take tokens as independent, and so under-correct where documents cluster (metrics specification 3.1): an interval and
the headline correction come from the jackknife over documents in analysis.estimation, the estimators here stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide

Estimator = Literal["plugin", "miller_madow", "grassberger_G", "grassberger_1988", "chao_shen", "jackknife_token"]


def entropy(counts: ArrayLike, estimator: Estimator = "plugin", *, base: float = 2.0) -> Float:
    """Entropy of the symbols behind counts [..., K] by the named estimator; [...], bits (base 2) or nats (base e), never clipped.

    NaN where there is no count, and for `jackknife_token` where there is one token. Probabilities and other weights are for `plugin`
    alone; the others raise ValueError for anything but whole counts.
    """
    if estimator not in _NATS:
        raise ValueError(f"estimator {estimator!r}; one of {', '.join(get_args(Estimator))}")
    if not base > 1:
        raise ValueError(f"base {base}: a logarithm needs a base above 1 (2 for bits, math.e for nats)")
    n = _weights(counts) if estimator == "plugin" else _whole(counts, estimator)
    out: Float = _NATS[estimator](n) / np.log(base)
    return out


def plug_in(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """H = -sum p log p over the last axis, p = n / N, from counts or probabilities; [0, log K]; NaN for no counts."""
    return entropy(counts, "plugin", base=base)


def miller_madow(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """Plug-in + (K - 1) / 2N nats with the observed support K (Miller 1955); NaN for no counts."""
    return entropy(counts, "miller_madow", base=base)


def grassberger(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """ln N - (1/N) sum n G(n), G(n) = psi(n) + (-1)^n/2 [psi((n+1)/2) - psi(n/2)] (Grassberger 2003); NaN for no counts."""
    return entropy(counts, "grassberger_G", base=base)


def grassberger_1988(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """ln N - (1/N) sum n [psi(n) + (-1)^n / (n+1)], the earlier form of Grassberger (1988), another number; NaN for no counts."""
    return entropy(counts, "grassberger_1988", base=base)


def chao_shen(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """-sum q ln q / (1 - (1-q)^N), q = C n / N with coverage C = 1 - f1/N (Chao & Shen 2003); NaN for no counts.

    f1: symbols seen once; where all are, f1 = N - 1, so that C = 1/N and never 0.
    """
    return entropy(counts, "chao_shen", base=base)


def token_jackknife(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """N H - (N-1) mean of H without one token: for diagnosis only, for tokens of a document are not independent; NaN for N < 2."""
    return entropy(counts, "jackknife_token", base=base)


def normalised(counts: ArrayLike, n_symbols: int | None = None) -> Float:
    """Plug-in H / log E, [0, 1]; E: n_symbols, else the length of the last axis (unused experts count). NaN for E = 1 or no counts."""
    size = np.shape(counts)[-1] if n_symbols is None else n_symbols
    if size < 1:
        raise ValueError(f"n_symbols {size}: at least one expert is needed")
    return divide(plug_in(counts), np.log2(size))


def perplexity(counts: ArrayLike) -> Float:
    """2^H of the plug-in H in bits: the number of equally loaded experts with this entropy, [1, K]; NaN for no counts."""
    out: Float = np.exp2(plug_in(counts))
    return out


def simpson(counts: ArrayLike) -> Float:
    """sum p^2 over the last axis, [1/K, 1]; NaN for no counts."""
    n = _weights(counts)
    out: Float = np.where(n.sum(axis=-1) > 0, np.square(_shares(n)).sum(axis=-1), np.nan)
    return out


def renyi2(counts: ArrayLike, *, base: float = 2.0) -> Float:
    """Renyi entropy of order 2: -log sum p^2, [0, log K]; CV^2 of the loads = E 2^-H2 - 1. NaN for no counts."""
    out: Float = 0.0 - np.log(simpson(counts)) / np.log(base)
    return out


def mutual_information(joint_XY: ArrayLike, estimator: Estimator = "plugin", *, base: float = 2.0, diagnostic: bool = False) -> Float:
    """I(X;Y) = H(X) + H(Y) - H(X,Y), each term by the same estimator, from counts [..., Ex, Ey]; [...], may be negative.

    NaN for no counts. ValueError for chao_shen, whose error changes sign with N (metrics specification 3.1), unless `diagnostic`.
    """
    if estimator == "chao_shen" and not diagnostic:
        raise ValueError("chao_shen is not for mutual information: its error changes sign with the number of tokens (+0.4 to -0.2 bits at "
                         "128 experts); take grassberger_G or the document jackknife, or diagnostic=True to tabulate it")
    n = np.asarray(joint_XY)
    if n.ndim < 2:
        raise ValueError(f"joint_XY has {n.ndim} axis; a joint table has the two choices as its last axes")
    cells = n.reshape(*n.shape[:-2], n.shape[-2] * n.shape[-1])
    x, y, xy = (entropy(part, estimator, base=base) for part in (n.sum(axis=-1), n.sum(axis=-2), cells))
    return x + y - xy


def _weights(counts: ArrayLike) -> Float:
    n = np.asarray(counts, np.float64)
    if n.ndim == 0:
        raise ValueError("counts must have an axis of symbols")
    if n.size and not (n >= 0).all():
        raise ValueError("counts hold a negative number or NaN; give how often each symbol was seen")
    if n.size and np.isinf(n).any():
        raise ValueError("counts hold an infinity; give how often each symbol was seen")
    return n


def _whole(counts: ArrayLike, estimator: str) -> Float:
    n = _weights(counts)
    if n.size and (n != np.rint(n)).any():
        raise ValueError(f"{estimator} is defined for whole counts only, and these have fractions; take plugin for probabilities and "
                         "slot-averaged tables")
    return n


def _plug_in_nats(n: Float) -> Float:
    p = _shares(n)
    out: Float = np.where(n.sum(axis=-1) > 0, np.maximum(0.0 - _xlogy(p, p).sum(axis=-1), 0.0), np.nan)
    return out


def _shares(n: Float) -> Float:
    return divide(n, n.sum(axis=-1, keepdims=True))


def _xlogy(x: Float, y: Float) -> Float:
    from scipy.special import xlogy

    out: Float = xlogy(x, y)
    return out


def _miller_madow_nats(n: Float) -> Float:
    return _plug_in_nats(n) + divide(np.count_nonzero(n, axis=-1) - 1, 2 * n.sum(axis=-1))


def _grassberger_nats(n: Float) -> Float:
    from scipy.special import digamma

    def g(seen: Float) -> Float:
        sign = 1.0 - 2.0 * np.mod(seen, 2)
        out: Float = digamma(seen) + sign / 2 * (digamma((seen + 1) / 2) - digamma(seen / 2))
        return out

    return _log_total_minus_mean(n, g)


def _grassberger_1988_nats(n: Float) -> Float:
    from scipy.special import digamma

    return _log_total_minus_mean(n, lambda seen: digamma(seen) + (1.0 - 2.0 * np.mod(seen, 2)) / (seen + 1))


def _log_total_minus_mean(n: Float, g: Callable[[Float], Float]) -> Float:
    """ln N - (1/N) sum n g(n) over the symbols seen."""
    total = n.sum(axis=-1)
    return _log(total) - divide(np.where(n > 0, n * g(np.where(n > 0, n, 1.0)), 0.0).sum(axis=-1), total)


def _log(total: Float) -> Float:
    out: Float = np.log(total, out=np.full(np.shape(total), np.nan), where=total > 0)
    return out


def _chao_shen_nats(n: Float) -> Float:
    total = n.sum(axis=-1, keepdims=True)
    once = np.count_nonzero(n == 1, axis=-1)[..., None]
    once = np.where(once == total, total - 1, once)
    p = (1 - divide(once, total)) * _shares(n)
    seen = (p > 0) & (p < 1)
    inner = np.where(seen, p, 0.5)
    found = -np.expm1(total * np.log1p(-inner))  # 1 - (1-p)^N, exact for small p
    terms = np.where(seen, inner * np.log(inner) / np.where(seen, found, 1.0), 0.0)
    out: Float = np.where(total[..., 0] > 0, 0.0 - terms.sum(axis=-1), np.nan)
    return out


def _token_jackknife_nats(n: Float) -> Float:
    """H - g(N) + (1/N) sum n g(n), g(n) = (n-1) ln(1 - 1/n): the jackknife in closed form, without the cancellation of N H - (N-1) H'."""
    def g(seen: Float) -> Float:
        several = np.where(seen > 1, seen, 2.0)
        out: Float = np.where(seen > 1, (several - 1) * np.log1p(-1 / several), 0.0)
        return out

    total = n.sum(axis=-1)
    corrected = _plug_in_nats(n) - g(total) + divide((n * g(n)).sum(axis=-1), total)
    out: Float = np.where(total > 1, corrected, np.nan)
    return out


_NATS: dict[str, Callable[[Float], Float]] = {
    "plugin": _plug_in_nats, "miller_madow": _miller_madow_nats, "grassberger_G": _grassberger_nats,
    "grassberger_1988": _grassberger_1988_nats, "chao_shen": _chao_shen_nats, "jackknife_token": _token_jackknife_nats,
}
