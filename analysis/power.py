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


def seeds_needed(effect_in_seed_sds: float, *, alpha: float = 0.05, power: float = 0.8, paired: bool = False) -> int:
    """Training seeds per arm (pairs, if paired) that show a mean difference of so many seed standard deviations with the given power.

    Two-sided t test, exact through the non-central t law: 1 SD needs 17 per arm, 2 SD 6 (metrics specification 4.5). paired: the standard
    deviation is that of the differences. ValueError where the effect is 0.
    """
    if effect_in_seed_sds == 0:
        raise ValueError("effect 0: no number of seeds shows it; state the smallest difference of interest")
    n = 2
    while seed_power(n, effect_in_seed_sds, alpha=alpha, paired=paired) < power:
        n += 1
    return n


def seed_power(n_seeds: int, effect_in_seed_sds: float, *, alpha: float = 0.05, paired: bool = False) -> float:
    """Power of a two-sided t test over n_seeds per arm (pairs, if paired) against a difference in seed standard deviations."""
    from scipy.special import stdtrit
    from scipy.stats import nct

    df = n_seeds - 1 if paired else 2 * (n_seeds - 1)
    shift = abs(effect_in_seed_sds) * (n_seeds if paired else n_seeds / 2) ** 0.5
    critical = float(stdtrit(df, 1 - alpha / 2))
    return float(nct.sf(critical, df, shift) + nct.cdf(-critical, df, shift))


def pairs_needed(correlation: float, bound: float = 0.0, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Independent pairs whose Fisher interval lies beyond `bound` with the given power: ((z_{1-a/2} + z_power) / (atanh r - atanh b))^2 + 3.

    ValueError where the correlation is the bound, or either is not inside (-1, 1).
    """
    from scipy.special import ndtri

    if correlation == bound or not (abs(correlation) < 1 and abs(bound) < 1):
        raise ValueError(f"correlation {correlation} and bound {bound}: two different numbers between -1 and 1 are needed")
    z = float(ndtri(1 - alpha / 2) + ndtri(power))
    return math.ceil((z / (math.atanh(correlation) - math.atanh(bound))) ** 2 + 3 - 1e-9)


def tokens_needed(active_X: int, active_Y: int, *, per_cell: int = 5) -> int:
    """Kept tokens below which a joint table is undersampled: per_cell x Kx x Ky (5 for information, 10 for a transfer's source)."""
    return per_cell * active_X * active_Y
