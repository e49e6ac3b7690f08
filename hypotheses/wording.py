"""A finding in words."""

from __future__ import annotations

from hypotheses.claim import CriterionFinding, Finding


def criterion_words(one: CriterionFinding) -> str:
    """The bound, the value and its interval, as one clause."""
    asked = f"{one.criterion.name} asks for {one.criterion.unit} {one.criterion.inequality}"
    estimate = one.estimate
    if estimate.value is None:
        return f"{asked}, and there is no value"
    if estimate.low is None or estimate.high is None:
        return f"{asked}; it is {estimate.value:.3g}, without an interval"
    return (f"{asked}; it is {estimate.value:.3g}, {estimate.level:.0%} interval [{estimate.low:.3g}, {estimate.high:.3g}] "
            f"over {estimate.n_units:,} {'training seeds' if estimate.resampled == 'seed' else 'documents'}")


def sentence(finding: Finding) -> str:
    """One plain sentence: the verdict, and the bound, value and interval of the criterion that limits it."""
    if finding.verdict is None:
        return f"NO VERDICT on {finding.title!r}: {finding.reason}."
    limiting = next((one for one in finding.criteria if one.criterion.name == finding.limiting), None)
    if limiting is None:
        return f"{finding.verdict.upper()}: {finding.title!r} has no criteria."
    words = f"{finding.verdict.upper()}: {finding.title!r}: {criterion_words(limiting)}"
    if limiting.outcome != "inconclusive":
        return f"{words}."
    settle = f"; what would settle it: {limiting.settle}" if limiting.settle else ""
    return f"{words}, inconclusive because {limiting.reason}{settle}."
