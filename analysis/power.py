"""How much a number of documents can show: design effect, documents needed."""

from __future__ import annotations

import math


def documents_needed(sd_between_documents: float, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Documents that show `difference` with the given power: ((z_{1-alpha/2} + z_power) sd / difference)^2, rounded up.

    ValueError where the difference is 0: no number of documents shows it.
    """
    from scipy.special import ndtri

    if difference == 0:
        raise ValueError("difference 0: no number of documents shows it; state the smallest difference of interest")
    z = float(ndtri(1 - alpha / 2) + ndtri(power))
    return math.ceil((z * sd_between_documents / difference) ** 2)


def design_effect(icc: float, mean_length: float, cv_length: float = 0.0) -> float:
    """Variance inflation of token means by documents: 1 + ((1 + cv^2) m - 1) ICC (metrics specification 7)."""
    return 1 + ((1 + cv_length**2) * mean_length - 1) * icc


def effective_tokens(n_documents: int, mean_length: float, icc: float, cv_length: float = 0.0) -> float:
    """Independent tokens that carry as much as n_documents of mean_length tokens."""
    return n_documents * mean_length / design_effect(icc, mean_length, cv_length)


def minimum_detectable_effect(half_width: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest distance from a threshold found with the given power, from the half-width of the 1 - alpha interval."""
    from scipy.special import ndtri

    z = float(ndtri(1 - alpha / 2))
    return half_width * (z + float(ndtri(power))) / z
