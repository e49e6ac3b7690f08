"""The order of a report: what a reader asks first comes first."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.blocks import Block, Section
from experiments.report.content import ReportContent
from experiments.report.evidence import controls_section, provenance_section, quality_section, seed_section
from experiments.report.integrity import integrity_section
from experiments.report.verdict import criteria_section, settle_section, verdict_section


def placed(panels: Sequence[Section], place: str) -> list[Section]:
    """The panels of one place, in the order given."""
    return [panel for panel in panels if panel.place == place]


def assemble(content: ReportContent, panels: Sequence[Section]) -> list[Section]:
    """All sections of a report, in order.

    Verdict, caveats, criteria, what would settle it, controls, key figure, other figures, sensitivity, the seed's rule, extensions, integrity, data
    quality, provenance, appendix. A panel with place "overview", "controls" or "seed" goes inside the section of that name.
    """
    overview: list[Block] = [block for panel in placed(panels, "overview") for block in panel.blocks]
    sections = [
        verdict_section(content),
        *placed(panels, "caveats"),
        criteria_section(content.finding, overview),
        settle_section(content.finding),
        controls_section(content, placed(panels, "controls")),
        *placed(panels, "key"),
        *placed(panels, "figures"),
        *placed(panels, "sensitivity"),
        seed_section(content, placed(panels, "seed")),
        *placed(panels, "extension"),
        integrity_section(content.audit),
        quality_section(content),
        provenance_section(content),
        *placed(panels, "appendix"),
    ]
    return [section for section in sections if section is not None]
