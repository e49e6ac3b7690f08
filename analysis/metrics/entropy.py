"""Entropy and confidence of single routing decisions, entropy thresholds with a unit, and what a printed mean and spread allow.

T token, E expert, K slot.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide
from analysis.registry import metric

Unit = Literal["nats", "bits", "normalised"]
SEED_NATS = 0.5
SEED_EXPERTS = 8
SUM_TOLERANCE = 2e-3  # float16 rounding of probabilities (metrics specification 3.3)
SINGLE = "k=1: one probability has no uncertainty"
_WRITTEN = re.compile(r"\s*([0-9.eE+-]+)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True, slots=True)
class EntropyThreshold:
    """A bound on routing entropy with its unit: nats, bits, or normalised (share of ln E)."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> EntropyThreshold:
        """Read '0.5 nats', '0.72 bits' or '0.24 normalised'; a number without unit is refused (ValueError)."""
        match = _WRITTEN.fullmatch(str(text))
        unit = match.group(2).lower() if match else ""
        if match is None or unit not in ("nats", "bits", "normalised"):
            raise ValueError(f"entropy threshold {text!r}: an entropy without its unit names three different thresholds; "
                             "write '0.5 nats', '0.72 bits' or '0.24 normalised' (share of ln E)")
        try:
            value = float(match.group(1))
        except ValueError:
            raise ValueError(f"entropy threshold {text!r}: {match.group(1)!r} is no number; write for example '0.5 nats'") from None
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"entropy threshold {text!r}: an entropy bound is finite and not negative; write for example '0.5 nats'")
        return cls(value, {"nats": "nats", "bits": "bits", "normalised": "normalised"}[unit])  # type: ignore[arg-type]

    def nats(self, n_experts: int) -> float:
        """The bound in nats at a layer of n_experts."""
        return self.value * {"nats": 1.0, "bits": math.log(2), "normalised": math.log(n_experts)}[self.unit]

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"


SEED_THRESHOLD = EntropyThreshold(SEED_NATS / math.log(SEED_EXPERTS), "normalised")  # 0.5 nats at 8 experts, 0.2404 ln E at E


def even_rest_nats(top: ArrayLike, n_experts: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Entropy in nats of a distribution with one probability `top` and the rest even over E - 1 experts."""
    p = np.asarray(top, np.float64)
    from scipy.special import xlogy

    rest = 1 - p
    nats: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = -xlogy(p, p) - xlogy(rest, rest / max(n_experts - 1, 1))
    return nats


def softmax_entropy_nats(logits: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Entropy in nats of the softmax over the last axis; -inf logits (masked experts) carry no probability. Range [0, ln E]."""
    from scipy.special import log_softmax, xlogy

    p = np.exp(log_softmax(np.asarray(logits, np.float64), axis=-1))
    nats: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = 0.0 - xlogy(p, p).sum(axis=-1)  # never -0
    return nats


def top_k_entropy_nats(logits: ArrayLike, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Entropy in nats of the k largest probabilities, renormalised: another number than the full one, range [0, ln k]."""
    return softmax_entropy_nats(np.sort(np.asarray(logits, np.float64), axis=-1)[..., -k:])


def probabilities(p: ArrayLike, *, declared: bool = False, name: str = "probabilities") -> tuple[Float, float]:
    """Rows [..., E] that sum to 1 in float64, and the largest deviation from 1 that they came with.

    Sums within 2e-3 (float16 rounding) are renormalised; beyond it ValueError, unless the source declares (`declared`) that it hands out
    top-k weights or sigmoid scores. A row of zeros, or a value that is negative or not finite, is refused. name: what errors call them.
    """
    rows = np.asarray(p, np.float64)
    if not np.isfinite(rows).all() or (rows < 0).any():
        raise ValueError(f"{name}: a value is negative or not finite; collect the rows again")
    total = rows.sum(axis=-1, keepdims=True)
    deviation = float(np.abs(total - 1).max(initial=0.0))
    if (total == 0).any():
        raise ValueError(f"{name}: a row is all zeros; leave out tokens without a router decision")
    if deviation > SUM_TOLERANCE and not declared:
        worst = float(total.flat[int(np.abs(total - 1).argmax())])
        raise ValueError(f"{name}: a row sums to {worst:.4g}, further than {SUM_TOLERANCE:g} from 1; if these are top-k weights or sigmoid "
                         "scores, declare it, else give the full softmax")
    return rows / total, deviation


def _experts(logits_TE: ArrayLike) -> int:
    return int(np.shape(logits_TE)[-1])


@metric("h_full", unit="nats", bounds=(0.0, lambda logits: math.log(_experts(logits))), undefined="no_data: every expert is masked",
        source="seed 003; metrics specification 2.4", takes=("logits_TE",), additive=False, estimator="group jackknife of the mean",
        invariant=("relabelling", "logit shift"), seed="routing entropy")
def h_full(logits_TE: ArrayLike) -> Float:
    """Routing entropy of the full softmax: H = -sum_e p_e ln p_e, [0, ln E] nats, whatever k.

    logits_TE: [..., E] router logits, -inf where masked; gives [...], NaN where every expert is masked. ValueError for NaN or +inf.
    """
    logits = np.asarray(logits_TE, np.float64)
    if np.isnan(logits).any() or (logits == np.inf).any():
        raise ValueError("logits: NaN or +inf is no router logit; only -inf is, where the source masks an expert")
    usable = np.asarray((logits > -np.inf).any(axis=-1))
    return np.where(usable, softmax_entropy_nats(np.where(usable[..., None], logits, 0.0)), np.nan)


def _slots_nats(weights_TK: ArrayLike) -> float:
    return math.log(max(_experts(weights_TK), 1))


@metric("h_topk", unit="nats", bounds=(0.0, _slots_nats), undefined=f"{SINGLE}, or no_data: every slot was dropped",
        source="metrics specification 2.4", takes=("weights_TK",), additive=False, estimator="group jackknife of the mean",
        invariant=("slot order",))
def h_topk(weights_TK: ArrayLike) -> Float:
    """Entropy of the k combine weights, renormalised: H = -sum_k w_k ln w_k, [0, ln k] nats; another number than h_full.

    weights_TK: [..., k], 0 where a slot was dropped; gives [...]. NaN for k = 1, where it is 0 by construction, and for no weight at all.
    """
    from scipy.special import xlogy

    p = _renormalised(weights_TK)
    nats = np.maximum(-xlogy(p, p).sum(axis=-1), 0.0)
    return np.full(nats.shape, np.nan) if p.shape[-1] < 2 else np.asarray(nats, np.float64)


def _renormalised(weights: ArrayLike) -> Float:
    w = np.asarray(weights, np.float64)
    if (w < 0).any() or not np.isfinite(w).all():
        raise ValueError("weights: a combine weight is negative or not finite; collect the rows again")
    return divide(w, w.sum(axis=-1, keepdims=True))


def gini_simpson(weights: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """1 - sum p^2 over the last axis (seed 004's "Gini"), range [0, 1 - 1/k] for k renormalised weights."""
    p = np.asarray(weights, np.float64)
    spread: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = 1 - (p**2).sum(axis=-1)
    return spread


@metric("confidence", unit="ratio", bounds=(0.0, 1.0), undefined="k=1: the confidence of one probability is 0/0",
        source="metrics specification 2.5, B.5", takes=("p_TE",), additive=False, estimator="group jackknife of the mean",
        seed="Routing Confidence")
def confidence(p_TE: ArrayLike) -> Float:
    """Confidence of the full softmax: (sum p^2 - 1/E) / (1 - 1/E) over the last axis, [0, 1]; NaN at E = 1, where it is 0/0.

    p_TE: [..., E], rows that sum to 1 within float16 rounding; ValueError for others (see probabilities).
    """
    n = _experts(p_TE)
    spread = gini_simpson(probabilities(p_TE)[0])
    return np.full(spread.shape, np.nan) if n == 1 else 1 - divide(spread, 1 - 1 / n)


@metric("gini_simpson_seed", unit="ratio", bounds=(0.0, 1.0), undefined="no_data: every slot was dropped", source="seed 004, B.5",
        takes=("weights_TK",), additive=False, seed="Gini", seed_form=True)
def gini_simpson_seed(weights_TK: ArrayLike, *, renormalise: bool = True) -> Float:
    """Seed 004's "Gini": 1 - sum p^2 over the top-k weights, [0, 1 - 1/k] renormalised; Gini-Simpson, not the Gini coefficient.

    weights_TK: [..., k]. renormalise: whether the k weights are made to sum to 1; the seed does not say, and the two are different numbers
    (0.42 and 0.855 for weights of 0.35 and 0.15), so that the flag is reported with the value. Not comparable across k.
    """
    shares = _renormalised(weights_TK)
    w = shares if renormalise else np.where(np.isnan(shares), np.nan, np.asarray(weights_TK, np.float64))
    return gini_simpson(w)


@metric("confidence_seed", unit="ratio", bounds=(0.0, 1.0), undefined="no_data: every slot was dropped", source="seed 004, B.5",
        takes=("weights_TK",), additive=False, seed="Routing Confidence", seed_form=True)
def confidence_seed(weights_TK: ArrayLike, *, renormalise: bool = True) -> Float:
    """Seed 004's confidence of a token: 1 - "Gini" = sum p^2 over the top-k weights, [1/k, 1] renormalised.

    1 by construction at k = 1 with renormalised weights; not comparable across k, nor between softmax and sigmoid routers. renormalise: as
    in gini_simpson_seed.
    """
    return 1 - gini_simpson_seed(weights_TK, renormalise=renormalise)


@metric("entropy_share_below", unit="share of occurrences", bounds=(0.0, 1.0), undefined="no_data: no occurrences", source="seed 003",
        takes=("part", "whole"), seed="fraction of tokens with entropy < 0.5")
def entropy_share_below(below: ArrayLike, n: ArrayLike) -> Float:
    """Share of occurrences with entropy strictly below the threshold: below / n, [0, 1]; sums over documents [...]."""
    return divide(below, n)


def share_below(entropy_nats: ArrayLike, threshold: EntropyThreshold, n_experts: int) -> float | None:
    """Share of these entropies (of occurrences, or means of types: say which) strictly below the threshold; None without any."""
    values = np.asarray(entropy_nats, np.float64).ravel()
    values = values[~np.isnan(values)]
    return float((values < threshold.nats(n_experts)).mean()) if len(values) else None


@dataclass(frozen=True)
class Feasibility:
    """Whether values in [0, largest] can have a printed mean and standard deviation: mean <= largest and std <= largest_std."""

    largest: float
    largest_std: float | None  # sqrt(mean (largest - mean)), None where the mean itself is out of range
    feasible: bool


def feasible_moments(mean: float, std: float, largest: float, least: float = 0.0) -> Feasibility:
    """Bhatia-Davis: std^2 <= (largest - mean) (mean - least) for any values in [least, largest] (Bhatia & Davis 2000)."""
    room = (largest - mean) * (mean - least)
    if not least <= mean <= largest:
        return Feasibility(largest, None, False)
    return Feasibility(largest, math.sqrt(room), 0 <= std <= math.sqrt(room))


def entropy_readings(mean: float, std: float, n_experts: int, k: int) -> dict[str, Feasibility]:
    """Which entropies a printed mean and std can be of: full softmax over E, or top-k renormalised, each in nats and in bits.

    Seed 003 prints 0.8234 and 0.5123 for E = 8, k = 2: no top-2 entropy, and either unit of the full one (metrics specification 2.4).
    """
    return {f"{name}_{unit}": feasible_moments(mean, std, math.log(size) / scale)
            for name, size in (("full", n_experts), (f"top{k}", k)) for unit, scale in (("nats", 1.0), ("bits", math.log(2)))}
