"""Permutation p-values of drawn and of enumerated nulls.

M draw. Whole documents change labels in analysis.label_permutation, tokens move in analysis.shift and analysis.shuffles, experts change names in
analysis.coactivation_consistency, domains in analysis.correlation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float


def p_value(observed: ArrayLike, null: ArrayLike, ties: float = 0.0, *, exact: bool = False) -> Float:
    """p = (1 + #{null >= observed}) / (M + 1) over the first axis of null [M, ...]: (0, 1]; NaN where either is NaN.

    ties: relative difference up to which a draw counts as equal. exact: null is every arrangement, the observed one among them, so that
    p = #{null >= observed} / M. ValueError for no draw. Source: Phipson & Smyth 2010; metrics specification 3.3.
    """
    value, draws = np.asarray(observed, np.float64), np.asarray(null, np.float64)
    if not len(draws):
        raise ValueError("a permutation p needs at least one draw")
    reached = (draws >= value - ties * np.maximum(np.abs(value), 1.0)).sum(axis=0)
    p = reached / len(draws) if exact else (1 + reached) / (len(draws) + 1)
    return np.asarray(np.where(np.isnan(value) | np.isnan(draws).any(axis=0), np.nan, p), np.float64)
