"""Every number that a trace alone can give, one row each: per layer, per adjacent pair of layers, with interval, null, gate or reason.

L MoE layer, E expert, D domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from analysis.loads import Loads, document_loads
from analysis.survey_domains import domain_rows
from analysis.survey_layers import pair_rows, sequence_rows
from analysis.survey_row import Row, SurveyPlan
from analysis.survey_usage import usage_rows
from analysis.trace import RoutingTrace

__all__ = ["Row", "SurveyPlan", "survey"]

Section = Callable[[RoutingTrace, Loads, SurveyPlan], Iterator[Row]]
SECTIONS: dict[str, Section] = {"usage": usage_rows, "domains": domain_rows, "layers": pair_rows, "sequence": sequence_rows}


def survey(trace: RoutingTrace, plan: SurveyPlan, *, stage: Callable[[str], Any] = str) -> Iterator[Row]:
    """Rows of every section of the plan, as they are made; `stage` is told each section's name before it begins.

    Nothing is left out in silence: what the trace cannot give comes as a row that is undefined, with the reason. Raises TraceError for
    rows that cannot be counted, ValueError for a split without documents and a section that does not exist.
    """
    unknown = [name for name in plan.sections if name not in SECTIONS]
    if unknown:
        raise ValueError(f"no section {unknown[0]!r}; choose among {', '.join(SECTIONS)}")
    documents = [d for d in trace.documents if d.split == plan.split]
    if not documents:
        have = ", ".join(sorted({d.split for d in trace.documents})) or "none"
        raise ValueError(f"split {plan.split!r}: no documents; the trace has splits: {have}")
    stage("loads")
    loads = document_loads(trace, plan.split, salt=plan.salt)
    for name in plan.sections:
        stage(name)
        yield from SECTIONS[name](trace, loads, plan)
