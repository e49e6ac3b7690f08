"""Entropy thresholds with a unit, and entropies of counts and distributions in closed form."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Unit = Literal["nats", "bits", "normalised"]
SEED_NATS = 0.5
SEED_EXPERTS = 8
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


def plug_in_nats(weights: ArrayLike) -> float:
    """Shannon entropy in nats of counts or probabilities, normalised to sum 1; ValueError when they sum to 0."""
    p = np.asarray(weights, np.float64).ravel()
    if p.sum() <= 0:
        raise ValueError("no_data: an entropy of no counts is undefined")
    p = p[p > 0] / p.sum()
    return float(-(p * np.log(p)).sum())


def normalised(nats: float, n_experts: int) -> float | None:
    """Entropy as a share of ln E; None at E = 1, where it is 0/0."""
    return None if n_experts == 1 else nats / math.log(n_experts)


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
    nats: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = -xlogy(p, p).sum(axis=-1)
    return nats


def top_k_entropy_nats(logits: ArrayLike, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Entropy in nats of the k largest probabilities, renormalised: another number than the full one, range [0, ln k]."""
    return softmax_entropy_nats(np.sort(np.asarray(logits, np.float64), axis=-1)[..., -k:])


def gini_simpson(weights: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """1 - sum p^2 over the last axis (seed 004's "Gini"), range [0, 1 - 1/k] for k renormalised weights."""
    p = np.asarray(weights, np.float64)
    spread: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = 1 - (p**2).sum(axis=-1)
    return spread


def confidence(weights: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(sum p^2 - 1/E) / (1 - 1/E) over the last axis of E probabilities, [0, 1]; ValueError at E = 1, where it is 0/0."""
    n = np.shape(weights)[-1]
    if n == 1:
        raise ValueError("k=1: the confidence of one probability is 0/0")
    share: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = 1 - gini_simpson(weights) / (1 - 1 / n)
    return share
