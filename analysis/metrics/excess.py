"""Information between layers beyond what the documents' composition alone gives.

R draw of a null, X, Y expert at two layers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, mutual_information_bits
from analysis.metrics.information import smaller_alphabet_bits
from analysis.registry import metric


def most_bits(*tables: ArrayLike) -> float:
    """log2 min(Ex, Ey): neither the information nor that of a shift exceeds it."""
    return smaller_alphabet_bits(tables[0])


@metric("mi_excess", unit="bits", bounds=(lambda *tables: -most_bits(*tables), most_bits), source="metrics specification 2.1 A and 3.3",
        undefined="no_data: no document of 8 tokens has both choices", takes=("joint_XY", "shifts_RXY"),
        estimator="group jackknife of I - null mean", invariant=("relabelling", "document order"))
def mi_excess(joint_XY: ArrayLike, shifts_RXY: ArrayLike) -> Float:
    """Information beyond circular shifts: I(X;Y) - mean over draws of I(X;Y shifted inside its document), bits.

    joint_XY: counts [..., X, Y]; shifts_RXY: the tables of R draws [..., R, X, Y] of the same documents. Gives [...], may be negative. NaN
    for no counts. analysis.shift draws the shifts and gives the interval.
    """
    excess: Float = mutual_information_bits(joint_XY) - mutual_information_bits(np.asarray(shifts_RXY, np.float64)).mean(axis=-1)
    return excess
