"""p-values."""
import numpy as np
from numpy.typing import ArrayLike
from analysis.arithmetic import Float


def p_value(observed: ArrayLike, null: ArrayLike) -> Float:
    """x"""
    value, draws = np.asarray(observed, np.float64), np.asarray(null, np.float64)
    p = (1 + (draws >= value).sum(axis=0)) / (len(draws) + 1)
    return np.where(np.isnan(value) | np.isnan(draws).any(axis=0), np.nan, p)
