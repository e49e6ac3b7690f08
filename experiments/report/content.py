"""What a report is written from: the finding, and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from analysis.trace import TraceMeta
from experiments.report.blocks import Section
from hypotheses.claim import Evaluation, Finding


@dataclass(frozen=True)
class TraceFacts:
    """A trace in numbers: what was kept, what was left out, what happened while it was collected.

    n_rows: kept tokens. excluded: tokens left out, by reason ("padding", "special", ...).
    conformance: verdict and checks of the first batch.
    events: such as halved batches, in order. digest: SHA-256 over the logical columns.
    """

    meta: TraceMeta
    n_rows: int
    excluded: Mapping[str, int]
    conformance: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    digest: str


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows. Mappings hold plain JSON values; None means the stage was not part of the run.

    audit: what audit.json holds, and under `arms` what arms/audit.json does. panels: the hypothesis' own sections; found by the hypothesis'
    name if None. quality: one mapping per data-quality remark (check, outcome, detail).
    """

    finding: Finding
    evaluation: Evaluation
    trace: TraceFacts
    corpus: Mapping[str, Any]
    provenance: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    fastpath: Mapping[str, Any] | None = None
    controls: Mapping[str, Any] = field(default_factory=dict)
    quality: Sequence[Mapping[str, Any]] = ()
    audit: Mapping[str, Any] | None = None
    panels: PanelMaker | None = None


PanelMaker: TypeAlias = Callable[[ReportContent], Sequence[Section]]
