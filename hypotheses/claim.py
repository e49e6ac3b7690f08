"""The nouns of a claim: Criterion, Gate, Hypothesis; and what comes of judging one: CriterionFinding, Finding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from analysis.estimate import Estimate

Outcome = Literal["supported", "refuted", "inconclusive"]


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8: the bytes that are fingerprinted (metrics.md section 6)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class Gate:
    """Smallest sample on which a verdict is given; below it the number is printed and the outcome is inconclusive."""

    min_documents: int = 100
    min_documents_per_domain: int = 50
    min_types: int = 0


@dataclass(frozen=True, slots=True)
class Criterion:
    """A bound that the whole interval of one estimate must respect. Exactly one of the four bounds is set.

    metric: key of the estimate; unit: unit of bound and estimate; source: where the threshold comes from.
    """

    name: str
    metric: str
    unit: str
    population: str
    source: str
    below: float | None = None
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    level: float = 0.95
    gate: Gate = Gate()

    def __post_init__(self) -> None:
        if sum(bound is not None for bound in (self.below, self.above, self.at_least, self.at_most)) != 1:
            raise ValueError(f"criterion {self.name!r}: set exactly one of below, above, at_least, at_most")

    @property
    def bound(self) -> float:
        """The threshold."""
        return next(b for b in (self.below, self.above, self.at_least, self.at_most) if b is not None)

    @property
    def inequality(self) -> str:
        """The bound in words, such as '< -0.4'."""
        sign = {"below": "<", "above": ">", "at_least": ">=", "at_most": "<="}
        return next(f"{sign[name]} {getattr(self, name):g}" for name in sign if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Band:
    """A named grade of a seed: it holds where the value respects the bound, everywhere if none is set. Listed from best to worst."""

    grade: str
    below: float | None = None
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` respects every bound that is set."""
        return ((self.below is None or value < self.below) and (self.above is None or value > self.above)
                and (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most))


@dataclass(frozen=True)
class Hypothesis:
    """A claim with its pass/fail criteria, joined by AND, frozen before any test document is read."""

    name: str
    title: str
    claim: str
    source: str
    criteria: tuple[Criterion, ...]
    null: str
    controls: tuple[str, ...] = ()
    bands: Mapping[str, tuple[Band, ...]] = field(default_factory=dict)  # criterion name -> bands
    settings: Mapping[str, Any] = field(default_factory=dict)  # values of [analysis] that the criteria mean; others are post hoc
    seed_rule: str | None = None  # name of the seed's own binary rule in seed_rules.RULES
    expects: Mapping[str, Mapping[str, tuple[Outcome, ...]]] = field(default_factory=dict)  # control -> criterion -> outcomes it may have

    def declaration(self) -> dict[str, Any]:
        """Plain values of everything that decides the verdict; `expects` only where it says something."""
        fields = asdict(self)
        if not self.expects:
            del fields["expects"]
        return fields

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the declaration."""
        return fingerprint(self.declaration())


@dataclass(frozen=True)
class Evaluation:
    """What a hypothesis' evaluate() hands to judge, tables and figures.

    estimates: layer-averaged estimates by metric name. by_layer: the same names, one Estimate per MoE layer.
    tables: name -> column name -> array or list, all columns of a table equally long.
    facts: plain JSON values (sample sizes, thresholds, seed's own numbers).
    """

    estimates: Mapping[str, Estimate]
    by_layer: Mapping[str, tuple[Estimate, ...]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CriterionFinding:
    """One criterion judged: the estimate, the outcome, why, and what would settle it."""

    criterion: Criterion
    estimate: Estimate
    outcome: Outcome
    reason: str
    settle: str | None = None
    point_grade: str | None = None
    guaranteed_grade: str | None = None


@dataclass(frozen=True)
class Finding:
    """A hypothesis judged. `verdict` is None when the controls failed: then there is no verdict, and `reason` says so."""

    hypothesis: str
    title: str
    claim: str
    fingerprint: str
    verdict: Outcome | None
    reason: str
    limiting: str | None
    criteria: tuple[CriterionFinding, ...]
    controls: Mapping[str, Any] = field(default_factory=dict)
    seed_verdict: Mapping[str, Any] = field(default_factory=dict)
    registration: Mapping[str, Any] = field(default_factory=dict)
    point_grade: str | None = None
    guaranteed_grade: str | None = None
