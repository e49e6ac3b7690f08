"""Numbers and estimates in words, for annotations: minus signs, significant digits, undefined with its reason."""

from __future__ import annotations

from analysis.estimate import Estimate


def number(value: float | None, digits: int = 3) -> str:
    """Fixed-point with a true minus sign, which zero never has; 'undefined' for None."""
    if value is None:
        return "undefined"
    return f"{value:z.{digits}f}".replace("-", "\u2212")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; 'undefined' for None."""
    return "undefined" if value is None else f"{number(100 * value, digits)}%"


def p_value(p: float | None) -> str:
    """'p = 0.012', 'p = 3.2e-05' or 'p < 1e-300' (double precision underflows there); empty without p."""
    if p is None:
        return ""
    if p < 1e-300:
        return "p < 1e\u2212300"
    return f"p = {p:.3f}" if p >= 0.001 else f"p = {p:.1e}".replace("e-", "e\u2212")


def interval(estimate: Estimate, digits: int = 3) -> str:
    """'value [low, high]', the value alone if there is no interval, or 'undefined: reason'."""
    if estimate.value is None:
        return f"undefined: {estimate.reason}"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value, digits)
    return f"{number(estimate.value, digits)} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def sample(estimate: Estimate) -> str:
    """Sample size in words, such as 'n = 812 types'; empty if the estimate names none."""
    return "" if estimate.n is None else f"n = {estimate.n:,} {estimate.n_of or ''}".rstrip()


def null_range(estimate: Estimate, digits: int = 3) -> str:
    """'null 0.010 [-0.050, 0.060]'; empty without a null."""
    if estimate.null is None:
        return ""
    ends = (
        ""
        if estimate.null_low is None or estimate.null_high is None
        else (f" [{number(estimate.null_low, digits)}, {number(estimate.null_high, digits)}]")
    )
    return f"null {number(estimate.null, digits)}{ends}"
