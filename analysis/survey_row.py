"""One row of a survey, and what a survey is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.estimate import Estimate
from analysis.registry import find

SEED_IS_PLUG_IN = ("mi_first_choice", "V", "domain_entropy", "transition_rate")


@dataclass(frozen=True)
class SurveyPlan:
    """split: documents to describe; salt: orders documents into jackknife groups (the declaration's seed); seed: of every random draw.

    n_shifts: circular shifts behind each null of adjacent layers (999 for a judged family, at least 99 for a p-value).
    """

    split: str = "test"
    salt: str = "0"
    seed: int = 0
    n_shifts: int = 199
    level: float = 0.95
    threads: int = 1
    sections: tuple[str, ...] = ("usage", "domains", "layers", "sequence")


@dataclass(frozen=True)
class Row:
    """A metric of one population: the fields that the metrics specification asks of every number (section 1).

    layers: keys of the layers it is of; part: of what (an expert, a domain), empty for the whole; n_tokens: kept tokens; n_active of
    n_experts: experts with a selection, summed over nothing (the smallest of the layers named).
    """

    metric: str
    estimand: str
    layers: tuple[str, ...]
    population: str
    n_documents: int
    n_tokens: int
    n_active: int | None
    n_experts: int | None
    estimate: Estimate
    part: str = ""

    @property
    def seed_name(self) -> str | None:
        """What the seeds call it."""
        return find(self.metric).seed

    @property
    def status(self) -> str:
        """`estimated`, `gated` (a number that no verdict may rest on), `undefined`, or `seed form`."""
        if self.estimate.value is None:
            return "undefined"
        if find(self.metric).seed_form:
            return "seed form"
        return "gated" if self.estimate.gate else "estimated"

    @property
    def reason(self) -> str | None:
        """Why it is undefined or gated."""
        return self.estimate.reason or self.estimate.gate

    @property
    def seed_value(self) -> float | None:
        """What the seed's own formula gives where that is the plug-in; a formula that differs has a row of its own, ending in _seed."""
        return self.estimate.plug_in if self.metric.startswith("usage_") or self.metric in SEED_IS_PLUG_IN else None

    @property
    def excess(self) -> float | None:
        """Plug-in less its null, whose bias is the same; None without a null, and where the value is an excess already."""
        one = self.estimate
        return None if one.plug_in is None or one.null is None or self.metric == "mi_excess" else one.plug_in - one.null

    def to_json(self) -> dict[str, Any]:
        """Flat fields, as a table wants them; `_low` and `_high` are the ends of the interval."""
        one = self.estimate
        return {
            "metric": self.metric, "seed_name": self.seed_name, "estimand": self.estimand, "layers": " > ".join(self.layers), "part": self.part,
            "population": self.population, "n_documents": self.n_documents, "n_tokens": self.n_tokens, "n_experts": self.n_experts,
            "n_active": self.n_active, "unit": one.unit, "value": one.value, "low": one.low, "high": one.high, "plug_in": one.plug_in,
            "seed_value": self.seed_value, "excess": self.excess, "null": one.null, "null_low": one.null_low, "null_high": one.null_high,
            "p": one.p, "se": one.se, "level": one.level, "method": one.method, "status": self.status, "reason": self.reason}
