"""Retention: how much of a target domain's predictability a predictor fitted on another domain keeps (seed 000, 1.B and 3).

D document of the target domain, X, Y expert at layer l and l + 1. right_AB, right_BB, right_AA: tokens (or set recall summed over tokens)
that a predictor fitted on the first domain gets right on the second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.kernels import Int
from analysis.metrics.transfer import log2_transition
from analysis.registry import metric

LEAST_ADVANTAGE = 0.02  # metrics specification 2.1: a denominator at or below it is not one
ROUNDING = 1e-12  # 0.52 - 0.50 is above 0.02 in binary


@metric("retention", unit="ratio", bounds=(None, None), undefined="Acc_BB - c_B <= 0.02: the target's own predictor beats its modal expert by "
        "too little for a ratio", source="metrics specification 2.1, Retention", takes=("right", "right", "right", "tokens"),
        estimator="paired group jackknife", invariant=("document order",), seed="retention rate")
def retention(right_AB: ArrayLike, right_BB: ArrayLike, right_mode: ArrayLike, tokens: ArrayLike = 1.0) -> Float:
    """Chance-corrected retention R(A->B) = (Acc_AB - c_B) / (Acc_BB - c_B) on the same documents of B.

    right_AB, right_BB: tokens of B predicted right by the predictor of A and of B; right_mode: by B's modal expert (c_B); tokens: of B;
    all [...], or three accuracies with tokens 1. (-inf, ~1]; 0 is no better than the modal expert. NaN where the denominator is at most
    0.02 or there is no token. The predictor of B must not have seen these documents.
    """
    n = np.asarray(tokens, np.float64)
    upper, lower = (divide(np.asarray(right, np.float64) - np.asarray(right_mode, np.float64), n) for right in (right_AB, right_BB))
    enough = np.nan_to_num(lower, nan=0.0) > LEAST_ADVANTAGE + ROUNDING
    return divide(upper, np.where(enough, lower, 0.0))


@metric("retention_over_target_seed", unit="ratio", bounds=(None, None), undefined="no_data: the target's own predictor is never right",
        source="seed 000, 1.B", takes=("right", "right"), estimator="paired group jackknife", invariant=("document order",),
        seed="retention rate (of the target's own predictor)", seed_form=True)
def retention_over_target_seed(right_AB: ArrayLike, right_BB: ArrayLike) -> Float:
    """The seed's retention read as Acc_AB / Acc_BB on the same tokens; [...]. Wrong with it: a constant guess already retains c_B / Acc_BB."""
    return divide(right_AB, right_BB)


@metric("retention_over_source_seed", unit="ratio", bounds=(None, None), undefined="no_data: a domain without tokens, or Acc_AA = 0",
        source="seed 000, 1.B", takes=("right", "tokens", "right", "tokens"), estimator="two-sample group jackknife",
        invariant=("document order",), seed="retention rate (of the accuracy at home)", seed_form=True)
def retention_over_source_seed(right_AB: ArrayLike, tokens_B: ArrayLike, right_AA: ArrayLike, tokens_A: ArrayLike) -> Float:
    """The seed's retention read as Acc_AB / Acc_AA; [...]. Wrong with it: other documents above and below, so an easier target looks retained."""
    return divide(divide(right_AB, tokens_B), divide(right_AA, tokens_A))


def markov_prediction(joint_A: ArrayLike, smoothing: float = 1.0) -> Int:
    """argmax_y q_A(y|x), the expert that A's transition table predicts after each x; [..., Ex], ties to the lowest id.

    joint_A: counts [..., Ex, Ey]. After an x that A never saw it is A's modal expert; -1 where A is empty.
    """
    n = np.asarray(joint_A, np.float64)
    best = log2_transition(n, smoothing).argmax(axis=-1)
    out: Int = np.where(n.sum(axis=(-2, -1))[..., None] > 0, best, -1)
    return out


def right_by_document(prediction_X: ArrayLike, joint_DXY: ArrayLike) -> NDArray[np.generic]:
    """Tokens of each document whose next expert is the predicted one: sum_x n_D[x, prediction[x]]; [D].

    prediction_X: expert after each x, -1 for none; joint_DXY: tokens of the target's documents [D, Ex, Ey].
    """
    n, predicted = np.asarray(joint_DXY), np.asarray(prediction_X, np.int64)
    if predicted.shape != n.shape[1:2] or (predicted >= n.shape[2]).any():
        raise ValueError(f"prediction_X {predicted.shape} with experts up to {predicted.max(initial=-1)} does not fit joint_DXY {n.shape}")
    hit = np.take_along_axis(n, np.maximum(predicted, 0)[None, :, None], axis=2)[:, :, 0]
    out: NDArray[np.generic] = (hit * (predicted >= 0)).sum(axis=1)
    return out


def right_by_mode(counts_DE: ArrayLike) -> NDArray[np.generic]:
    """Tokens of each document [D] at the modal expert of all of them (lowest id of equals): c_B summed per document.

    counts_DE: first choices of B's documents at layer l + 1. The mode stays the same in every jackknife replicate.
    """
    n = np.asarray(counts_DE)
    out: NDArray[np.generic] = n[:, int(n.sum(axis=0).argmax())]
    return out
