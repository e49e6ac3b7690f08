"""The algebra of verdicts: an interval against a bound, AND and OR (metrics spec section 6); equivalence is in analysis.equivalence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hypotheses.claim import Criterion, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


class WeightedScoreError(TypeError):
    """Criteria are joined by AND or OR; a weighted sum would let a strong criterion buy off a failed one."""


def interval_outcome(criterion: Criterion, low: float, high: float) -> Outcome:
    """Supported iff every point of [low, high] satisfies the inequality, refuted iff none does, else inconclusive.

    '<' and '>' are strict: an interval that touches the threshold does not support. Raises ValueError if low > high or either is NaN.
    """
    if not low <= high:
        raise ValueError(f"criterion {criterion.name!r}: interval from {low} to {high} is not an interval")
    bound = criterion.bound
    if criterion.below is not None:
        whole, none = high < bound, low >= bound
    elif criterion.above is not None:
        whole, none = low > bound, high <= bound
    elif criterion.at_least is not None:
        whole, none = low >= bound, high < bound
    else:
        whole, none = high <= bound, low > bound
    return "supported" if whole else "refuted" if none else "inconclusive"


def is_upper(criterion: Criterion) -> bool:
    """Whether the claim says the value is small: then the interval's upper end is the conservative one."""
    return criterion.below is not None or criterion.at_most is not None


def all_of(outcomes: Iterable[Outcome], weights: Mapping[str, float] | None = None) -> Outcome:
    """Kleene AND: any refuted refutes, else any inconclusive is inconclusive; of nothing, inconclusive. Weights are refused."""
    return _joined(outcomes, weights, decisive="refuted", otherwise="supported")


def any_of(outcomes: Iterable[Outcome], weights: Mapping[str, float] | None = None) -> Outcome:
    """Kleene OR: any supported supports, else any inconclusive is inconclusive; of nothing, inconclusive. Weights are refused."""
    return _joined(outcomes, weights, decisive="supported", otherwise="refuted")


def _joined(outcomes: Iterable[Outcome], weights: Mapping[str, float] | None, *, decisive: Outcome, otherwise: Outcome) -> Outcome:
    if weights is not None:
        raise WeightedScoreError("weighted scores are refused: join criteria by all_of or any_of, and report each one")
    listed = list(outcomes)
    if decisive in listed:
        return decisive
    return "inconclusive" if not listed or "inconclusive" in listed else otherwise


def documents_to_settle(n_documents: int, detectable: float, distance: float) -> int | None:
    """Documents at which an effect of `distance` is detectable, if `detectable` is at n_documents and shrinks as 1/sqrt(n).

    None when the distance is 0: no sample settles a value that sits on its bound.
    """
    return None if distance == 0 else math.ceil(n_documents * (detectable / distance) ** 2)
