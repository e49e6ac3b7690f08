"""The sections of an atlas in order: read first, data, usage, domains, layers, sequence, next steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.report import atlas_domains, atlas_next, atlas_sequence, atlas_usage
from experiments.report.atlas_view import read_first
from experiments.report.blocks import Paragraph, Section
from experiments.report.content import ReportContent
from experiments.report.topology_columns import View
from hypotheses.claim import Evaluation, Finding

FILES = ("Files of seed 001, by its names, lie in atlas/ beside report/: comprehensive_expert_statistics.json, proper_3d_statistics.json, "
         "sample_trace_paths.json, layer_X_expert_frequency.png for every layer, and the figures above; whole tables in atlas/tables/.")


def view_of(content: ReportContent, description: Evaluation) -> View:
    """The description of the trace that a finding's content is of."""
    return View(replace(content, evaluation=description))


def sections(view: View, findings: Sequence[Finding]) -> list[Section]:
    """Every section of the atlas."""
    return [
        read_first(view),
        Section("overview", "The data", atlas_usage.overview_blocks(view)),
        Section("usage", "How the experts are used", atlas_usage.blocks(view)),
        Section("domains", "Experts and domains", atlas_domains.domain_blocks(view)),
        Section("layers", "Layers: how far domains are apart", atlas_domains.layer_blocks(view)),
        Section("sequence", "Along a document", atlas_sequence.blocks(view)),
        Section("next", "Next steps", [*atlas_next.blocks(view, findings), Paragraph(FILES, "note")]),
    ]
