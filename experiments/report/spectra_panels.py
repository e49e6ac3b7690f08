"""The panels of the SPECTRA hypothesis (seed 004), part by part, and its folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.report import spectra_pictures as pictures
from experiments.report import spectra_tables as tables
from experiments.report.blocks import Block, Link, Paragraph, Section
from experiments.report.content import ReportContent
from experiments.report.spectra_claims import CLAIMS, PLANTED, caveats, overview, seed_panel
from experiments.report.spectra_folder import FOLDER, SANKEY, folder
from experiments.report.spectra_integrity import arms_integrity
from experiments.report.spectra_summary import paper_paragraph
from experiments.report.spectra_sweep import sweep_section
from experiments.report.topology_claims import claim_section
from experiments.report.topology_columns import View
from experiments.report.topology_controls import controls_panel
from experiments.report.topology_panels import appendix, threshold_section

PART = "Part {number}: {outcome}. What the seed expects: {evidence}."


def _orthogonality(view: View) -> list[Block]:
    return [pictures.representation_picture(view), tables.references_table(view)]


def _specialisation(view: View) -> list[Block]:
    layer = pictures.layer_shown(view)
    pages: list[Block] = [Link("Flow of tokens from domains to experts, as a page of its own",
                               f"../{FOLDER}/{SANKEY}")] if pictures.flows(view) else []
    umap: list[Block] = [pictures.tokens_picture(view, "UMAP", "token_clustering_umap")] if any(row["method"] == "UMAP"
                                                                                                for row in view.rows("tokens")) \
        else []
    return [tables.layers_table(view), pictures.affinity_picture(view), pictures.purity_picture(view), *pages, pictures.flow_picture(view),
            pictures.tokens_picture(view), *umap, tables.experts_table(view, layer), tables.samples_table(view, layer)]


def _loss(view: View) -> list[Block]:
    return [tables.training_table(view), tables.checks_table(view)]


def _comparison(view: View) -> Section:
    return Section("comparison", "Switch top-2 against SPECTRA", [
        tables.comparison_table(view), tables.marks_table(view), pictures.comparison_picture(view), tables.pairs_table(view),
        tables.arms_table(view), tables.differences_table(view)], "key")


def _paper(view: View) -> Section:
    return Section("paper", "A paragraph for a paper", [Paragraph("Worded by the verdicts above; another run words it anew.", "note"),
                                                        Paragraph(paper_paragraph(view))], "extension")


def panels(content: ReportContent) -> Sequence[Section]:
    """All panels of the SPECTRA report."""
    view = View(content)
    parts: tuple[list[Block], ...] = (_orthogonality(view), _specialisation(view), [tables.collapse_table(view)], _loss(view))
    found: list[Section | None] = [
        caveats(view), overview(view), controls_panel(view, PLANTED), seed_panel(view), _comparison(view),
        *(claim_section(view, claim, blocks, PART) for claim, blocks in zip(CLAIMS, parts, strict=True)), sweep_section(view), _paper(view),
        arms_integrity(view), threshold_section(view), appendix(view)]
    return [section for section in found if section is not None]


def extra_files(content: ReportContent, sections: Sequence[Section], figures: Path) -> Mapping[str, bytes]:
    """The seed's folder of results, by path inside the run directory."""
    return folder(View(content), sections, figures)
