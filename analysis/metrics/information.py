"""Information between the choices of two layers (seed 000, 1.A and 1.C).

X, Y expert chosen at layer l and l'; joint_XY: tokens counted by both choices; V stratum (token type); D document. The tables come from
analysis.metrics.joint_tables. Plug-in values: the bias-corrected ones of analysis.estimation may be negative and are not clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide, entropy_bits, mutual_information_bits, plogp
from analysis.gates import TOKENS_PER_CELL
from analysis.registry import metric

NO_PAIR = "no_data: no token has both choices"
ROUNDING_BITS = 1e-12  # the information of a table that is independent but for the rounding of its shares
ORDERLESS = ("relabelling", "token order", "document order")


def smaller_alphabet_bits(joint: ArrayLike) -> float:
    """log2 min(Ex, Ey): the largest mutual information of a joint table."""
    return float(np.log2(min(np.shape(joint)[-2:])))


@metric("mi_first_choice", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_PAIR,
        source="seed 000, 1.A; Cover & Thomas 2.28", takes=("joint_XY",), invariant=ORDERLESS, seed="MI(Expert_l, Expert_l+1)")
def mi_first_choice(joint_XY: ArrayLike) -> Float:
    """Mutual information of the first choices at two layers: I(X;Y) = H(X) + H(Y) - H(X,Y).

    joint_XY: counts [..., Ex, Ey]; gives [...]. Plug-in in [0, log2 min(Ex, Ey)]; the bias-corrected estimate may be negative.
    """
    return mutual_information_bits(joint_XY)


@metric("mi_slot_average", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_PAIR, source="metrics specification 2.1 A2",
        takes=("joint_XY",), invariant=(*ORDERLESS, "slot order"), seed="MI(Expert_l, Expert_l+1)")
def mi_slot_average(joint_XY: ArrayLike) -> Float:
    """Mutual information of one expert drawn at random from each set: I of J = sum m_l m_l'^T / (|S_l| |S_l'|).

    joint_XY: slot_average_counts [..., Ex, Ey]; gives [...]. A lower bound of mi_set, never to be held against a threshold in bits:
    sets that predict each other perfectly give 0.21 bits at 4 experts and k = 2. At k = 1 it is mi_first_choice.
    """
    return mutual_information_bits(joint_XY)


@metric("mi_slot_average_ratio", unit="ratio", bounds=(0.0, None), undefined="the second layer's slots tell nothing of each other: k = E, or no data",
        source="metrics specification 2.1 A2", takes=("joint_XY", "square_XX"), invariant=(*ORDERLESS, "slot order"))
def mi_slot_average_ratio(joint_XY: ArrayLike, self_YY: ArrayLike) -> Float:
    """mi_slot_average over its value for the second layer with itself: I(J_ll') / I(J_l'l'), at least 0, and above 1 where k differs.

    joint_XY [..., Ex, Ey], self_YY [..., Ey, Ey], both slot_average_counts; gives [...], NaN where the self value is 0.
    """
    self_bits = mutual_information_bits(self_YY)
    return divide(mutual_information_bits(joint_XY), np.where(self_bits < ROUNDING_BITS, 0.0, self_bits))


@metric("mi_set", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_PAIR, source="metrics specification 2.1 A3",
        takes=("joint_XY",), estimator="group jackknife, gate N >= 5 x observed sets of both layers", invariant=(*ORDERLESS, "slot order"),
        seed="MI(Expert_l, Expert_l+1)")
def mi_set(joint_XY: ArrayLike) -> Float:
    """Mutual information of the two sets of experts, each set one symbol whatever its order: I(S_l; S_l').

    joint_XY: set_counts [..., sets of l, sets of l']; gives [...], at most log2 C(E, k). At k = 1 it is mi_first_choice.
    """
    return mutual_information_bits(joint_XY)


@metric("mi_soft", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_PAIR, source="metrics specification 2.1 A4",
        takes=("joint_XY",), invariant=ORDERLESS, seed="MI(Expert_l, Expert_l+1)")
def mi_soft(joint_XY: ArrayLike) -> Float:
    """Mutual information of an expert drawn from each router's full softmax: I of J = P_l^T P_l' / N, free of k.

    joint_XY: soft_counts [..., Ex, Ey], summed or averaged over tokens; gives [...]. Understates coupling, as mi_slot_average does.
    """
    return mutual_information_bits(joint_XY)


@metric("mi_per_expert", unit="bits", bounds=(0.0, 1.0), undefined=NO_PAIR, source="metrics specification 2.1 A5",
        takes=("indicators_XY",), invariant=(*ORDERLESS, "slot order"))
def mi_per_expert(indicators_XY: ArrayLike) -> Float:
    """Mean over (i, j) of the binary mutual information of `i in S_l` and `j in S_l'`: tiny, descriptive, never against a bits threshold.

    indicators_XY: indicator_counts [..., Ex + 1, Ey + 1]; gives [...]. All experts count, those without use with 0.
    """
    out: Float = per_expert_matrix(indicators_XY).mean(axis=(-2, -1))
    return out


def per_expert_matrix(indicators_XY: ArrayLike) -> Float:
    """Binary mutual information I(1[i in S_l]; 1[j in S_l']) in bits [..., Ex, Ey], each in [0, 1]; NaN for no counts."""
    n = np.asarray(indicators_XY, np.float64)
    both, x, y, total = n[..., :-1, :-1], n[..., :-1, -1:], n[..., -1:, :-1], n[..., -1:, -1:]
    cells = plogp(both) + plogp(x - both) + plogp(y - both) + plogp(total - x - y + both)
    margins = plogp(x) + plogp(total - x) + plogp(y) + plogp(total - y)
    out: Float = np.maximum(divide(cells - margins + plogp(total), total), 0.0)
    return out


@metric("u", unit="share of H(Y)", bounds=(0.0, 1.0), undefined="H(Y) = 0: the second layer has one expert",
        source="metrics specification 3.2", takes=("joint_XY",), invariant=ORDERLESS, seed="W% of maximum")
def uncertainty_removed(joint_XY: ArrayLike) -> Float:
    """Share of the second layer's uncertainty that the first removes: u(Y|X) = I(X;Y) / H(Y), [0, 1]; NaN where H(Y) = 0."""
    joint = np.asarray(joint_XY, np.float64)
    return divide(mutual_information_bits(joint), entropy_bits(joint.sum(axis=-2)))


@metric("nmi_sqrt", unit="ratio", bounds=(0.0, 1.0), undefined="H(X) = 0 or H(Y) = 0: a layer with one expert", source="metrics specification 3.2",
        takes=("joint_XY",), invariant=ORDERLESS)
def nmi_sqrt(joint_XY: ArrayLike) -> Float:
    """Mutual information over the geometric mean: I(X;Y) / sqrt(H(X) H(Y)), [0, 1]; NaN where either entropy is 0."""
    information, x, y = _terms(joint_XY)
    return divide(information, np.sqrt(x * y))


@metric("nmi_max", unit="ratio", bounds=(0.0, 1.0), undefined="H(X) = H(Y) = 0: two layers with one expert", source="metrics specification 3.2",
        takes=("joint_XY",), invariant=ORDERLESS)
def nmi_max(joint_XY: ArrayLike) -> Float:
    """Mutual information over the larger entropy: I(X;Y) / max(H(X), H(Y)), [0, 1]; NaN where both entropies are 0."""
    information, x, y = _terms(joint_XY)
    return divide(information, np.maximum(x, y))


@metric("nmi_mean", unit="ratio", bounds=(0.0, 1.0), undefined="H(X) = H(Y) = 0: two layers with one expert",
        source="sklearn, average_method='arithmetic'", takes=("joint_XY",), invariant=ORDERLESS)
def nmi_mean(joint_XY: ArrayLike) -> Float:
    """Mutual information over the arithmetic mean: 2 I(X;Y) / (H(X) + H(Y)), [0, 1]; NaN where both entropies are 0."""
    information, x, y = _terms(joint_XY)
    return divide(2 * information, x + y)


@metric("nmi_min", unit="ratio", bounds=(0.0, 1.0), undefined="H(X) = 0 or H(Y) = 0: a layer with one expert",
        source="sklearn, average_method='min'", takes=("joint_XY",), invariant=ORDERLESS)
def nmi_min(joint_XY: ArrayLike) -> Float:
    """Mutual information over the smaller entropy: I(X;Y) / min(H(X), H(Y)), [0, 1]; NaN where either entropy is 0."""
    information, x, y = _terms(joint_XY)
    return divide(information, np.minimum(x, y))


def _terms(joint_XY: ArrayLike) -> tuple[Float, Float, Float]:
    n = np.asarray(joint_XY, np.float64)
    return mutual_information_bits(n), entropy_bits(n.sum(axis=-1)), entropy_bits(n.sum(axis=-2))


def conditional_bits(joint_VXY: ArrayLike, kept: NDArray[np.bool_] | None = None) -> Float:
    """I(X;Y|V) = sum over strata of n_v / N times the plug-in I within v, bits [...]; kept [..., V]: the strata that count.

    joint_VXY: counts [..., V, Ex, Ey]. Nothing corrects the bias inside a stratum: a rare one tells log2 of its own tokens.
    """
    n = np.asarray(joint_VXY, np.float64)
    tokens = n.sum(axis=(-2, -1))
    weight = tokens if kept is None else np.where(kept, tokens, 0.0)
    within = np.where(tokens > 0, mutual_information_bits(n), 0.0)
    return divide((weight * within).sum(axis=-1), weight.sum(axis=-1))


def estimable(joint_VXY: ArrayLike) -> NDArray[np.bool_]:
    """Strata with tokens and n_v >= 5 Kx(v) Ky(v), K the experts active in the stratum, [..., V]."""
    n = np.asarray(joint_VXY, np.float64)
    active_x, active_y = (np.count_nonzero(n.sum(axis=axis), axis=-1) for axis in (-1, -2))
    tokens = n.sum(axis=(-2, -1))
    kept: NDArray[np.bool_] = (tokens > 0) & (tokens >= TOKENS_PER_CELL * active_x * active_y)
    return kept


@metric("mi_given_type", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined="undersampled: no type has 5 tokens per pair of its experts",
        source="metrics specification 2.1 A and 3.2", takes=("joint_VXY",), invariant=(*ORDERLESS, "type order"))
def mi_given_type(joint_VXY: ArrayLike) -> Float:
    """Coupling beyond the token's identity: I(X;Y|V) over the types with n_v >= 5 Kx(v) Ky(v), weighted by their tokens.

    joint_VXY: counts [..., V, Ex, Ey]; gives [...]. Read it with the share of tokens in those types, and with its within-type null.
    Over documents, fix the types first: conditional.given_type.
    """
    return conditional_bits(joint_VXY, estimable(joint_VXY))


@metric("mi_given_type_raw", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_PAIR, source="metrics specification 3.2, the biased form",
        takes=("joint_VXY",), invariant=(*ORDERLESS, "type order"), seed_form=True)
def mi_given_type_raw(joint_VXY: ArrayLike) -> Float:
    """I(X;Y|V) over every type, however rare: sum n_v / N I(X;Y|V=v); severely biased up by rare types, shown and never judged.

    joint_VXY: counts [..., V, Ex, Ey]; gives [...].
    """
    return conditional_bits(joint_VXY)


@metric("mi_within_document", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined=NO_PAIR, source="metrics specification 2.1 A",
        takes=("joint_VXY",), additive=True, estimator="none: descriptive", invariant=ORDERLESS)
def mi_within_document(joint_DXY: ArrayLike) -> Float:
    """Coupling inside documents: I(X;Y|D) = sum n_d / N I(X;Y|D=d), plug-in, biased up where documents are short.

    joint_DXY: counts [..., D, Ex, Ey]; gives [...]. Two layers that are independent inside each document give 0, whatever the topics.
    """
    return conditional_bits(joint_DXY)


@dataclass(frozen=True)
class DocumentDecomposition:
    """Pooled information and what the documents' composition has to do with it, plug-in bits; None where there is no token.

    total: I(X;Y). within_document: I(X;Y|D). composition: I(X;Y) - I(X;Y|D), at most h_document, below 0 where mixing hides coupling.
    h_document: H(D), the largest information that composition alone can make.
    """

    total: float | None
    within_document: float | None
    composition: float | None
    h_document: float | None
    reason: str | None = None


def document_decomposition(joint_DXY: ArrayLike) -> DocumentDecomposition:
    """I(X;Y) = I(X;Y|D) + [I(X;Y) - I(X;Y|D)] from counts per document [D, Ex, Ey]; undefined (`no_data`) without tokens."""
    n = np.asarray(joint_DXY, np.float64)
    if n.sum() == 0:
        return DocumentDecomposition(None, None, None, None, NO_PAIR)
    total, within = float(mutual_information_bits(n.sum(axis=0))), float(conditional_bits(n))
    return DocumentDecomposition(total, within, total - within, float(entropy_bits(n.sum(axis=(-2, -1)))))
