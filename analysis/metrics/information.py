"""Information between the choices of two layers (seed 000, 1.A and 1.C).

X, Y expert chosen at layer l and l'; joint_XY: tokens counted by both choices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide, entropy_bits, mutual_information_bits
from analysis.registry import metric


def smaller_alphabet_bits(joint: ArrayLike) -> float:
    """log2 min(Ex, Ey): the largest mutual information of a joint table."""
    return float(np.log2(min(np.shape(joint)[-2:])))


@metric("mi_first_choice", unit="bits", bounds=(0.0, smaller_alphabet_bits), undefined="no_data: no token has both choices",
        source="seed 000, 1.A; Cover & Thomas 2.28", takes=("joint_XY",), invariant=("relabelling", "token order", "document order"),
        seed="MI(Expert_l, Expert_l+1)")
def mi_first_choice(joint_XY: ArrayLike) -> Float:
    """Mutual information of the first choices at two layers: I(X;Y) = H(X) + H(Y) - H(X,Y).

    joint_XY: counts [..., Ex, Ey]; gives [...]. Plug-in in [0, log2 min(Ex, Ey)]; the bias-corrected estimate may be negative.
    """
    return mutual_information_bits(joint_XY)


@metric("uncertainty_removed", unit="share of H(Y)", bounds=(0.0, 1.0), undefined="H(Y) = 0: the second layer has one expert",
        source="metrics specification 3.2", takes=("joint_XY",), invariant=("relabelling", "token order", "document order"))
def uncertainty_removed(joint_XY: ArrayLike) -> Float:
    """Share of the second layer's uncertainty that the first removes: u(Y|X) = I(X;Y) / H(Y), [0, 1]; NaN where H(Y) = 0."""
    joint = np.asarray(joint_XY, np.float64)
    return divide(mutual_information_bits(joint), entropy_bits(joint.sum(axis=-2)))
