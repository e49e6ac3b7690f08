"""The panels of the topology hypothesis (seed 000), claim by claim, and its folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.estimate import Estimate
from analysis.figures.topology_composites import paper_clusters, paper_information, paper_retention
from analysis.figures.topology_decomposition import ThresholdCurve, verdict_against_threshold
from experiments.report import topology_clusters as clusters
from experiments.report import topology_domains as domains
from experiments.report import topology_layers as layers
from experiments.report import topology_predictor as predictor
from experiments.report import topology_sequence as sequence
from experiments.report.blocks import Block, Column, Link, Paragraph, Picture, Section, Table
from experiments.report.content import ReportContent
from experiments.report.display import level_words
from experiments.report.topology_claims import CLAIMS, caveats, claim_section, overview_table, seed_panel
from experiments.report.topology_columns import View, in_full, not_drawn, number_column, reason_column, why
from experiments.report.topology_controls import controls_panel
from experiments.report.topology_folder import FOLDER, SANKEY, folder
from experiments.report.topology_sweep import sweep_section
from hypotheses.judge import held_against_bound

MOST_LISTED_LAYERS = 32


def _not_data(view: View) -> list[Block]:
    return [domains.map_picture(view), domains.domains_table(view), domains.pairs_picture(view), *domains.topics_blocks(view),
            domains.usage_picture(view), *domains.specialisation_pictures(view), domains.extremes_table(view)]


def _structured(view: View) -> list[Block]:
    pages: list[Block] = []
    if layers.flows(view) is not None:
        pages.append(Link("Flow of tokens between layers, as a page of its own", f"../{FOLDER}/{SANKEY}"))
    return [*layers.blocks(view), *pages, clusters.dendrogram_picture(view), clusters.map_picture(view), clusters.network_picture(view),
            clusters.clarity_table(view), clusters.pairs_table(view), *sequence.blocks(view)]


def _generalises(view: View) -> list[Block]:
    return [predictor.retention_picture(view), predictor.retention_table(view), predictor.predictors_retention_table(view),
            clusters.consistency_table(view)]


def composites(view: View) -> Section:
    """The three figures of a paper: X, Y and Z of seed 000, 7."""
    between, across, tree = layers.cross_layer(view), domains.transfer(view), clusters.dendrogram(view)
    values, names = domains.specialisation(view)
    blocks: list[Block] = [Paragraph("Each is made of figures above, for a paper's page.")]
    if between is not None and across is not None:
        blocks.append(Picture("paper_x", paper_information(between, across), "Figure X: information between layers, and transferred between domains.",
                              "Two heat maps."))
    else:
        blocks.append(not_drawn("Figure X", view.estimate("transfer_info").reason or view.estimate("mi_first_choice").reason))
    if tree is not None and any(one.value is not None for one in values):
        from analysis.figures.topology_specialisation import Specialisation

        blocks.append(Picture("paper_y", paper_clusters(tree, Specialisation(values, names=names), names),
                              "Figure Y: clusters of experts, and specialisation.", "Dendrogram over specialisation."))
    else:
        blocks.append(not_drawn("Figure Y", view.estimate("coact_clarity").reason or view.estimate("mi_E_D").reason))
    points = predictor.points(view)
    if any(point.drawable for point in points):
        known = [point for point in points if point.drawable]
        blocks.append(Picture("paper_z", paper_retention(known, predictor.retention_words(view)), "Figure Z: transferred information against "
                                                                                                   "retention.",
                              "Scatter."))
    else:
        blocks.append(not_drawn("Figure Z", view.estimate("mi_vs_retention").reason))
    return Section("paper-figures", "Figures for a paper", blocks)


def threshold_section(view: View) -> Section | None:
    """The verdict under other thresholds, exploratory; None without a curve."""
    held = {one.criterion.name for one in view.content.finding.criteria if held_against_bound(one)}  # a flawed trace bars them afterwards
    found: dict[str, list[dict[str, object]]] = {}
    for row in view.rows("threshold_curve"):
        if row["criterion"] in held:
            found.setdefault(row["criterion"], []).append(row)
    curves = []
    for judged in view.content.finding.criteria:
        rows = found.get(judged.criterion.name)
        if rows:
            curves.append(ThresholdCurve(judged.criterion.name, judged.criterion.unit, [row["threshold"] for row in rows],  # type: ignore[misc]
                                         [row["outcome"] for row in rows], judged.criterion.bound, judged.estimate))  # type: ignore[misc]
    missing: dict[str, list[str]] = {}
    for judged in view.content.finding.criteria:
        if judged.criterion.name not in held:
            missing.setdefault(judged.reason, []).append(judged.criterion.name)
    blocks: list[Block] = [Paragraph("Exploratory: what other thresholds would have given. The declared ones alone are judged.", "warning")]
    if curves:
        blocks.append(Picture("verdict_against_threshold", verdict_against_threshold(curves), "Exploratory. The verdict as the threshold moves; "
                                                                                              "the dashed "
                              "line is the declared one.", "Step curves of the verdict."))
    blocks += [Paragraph(f"No threshold would settle {', '.join(names)}: {reason}.", "note") for reason, names in missing.items()]
    return Section("thresholds", "Verdicts against the threshold (exploratory)", blocks, "sensitivity")


def appendix(view: View) -> Section | None:
    """Every estimate by layer; None where there is none."""
    blocks: list[Block] = [
        Table(f"layers_{metric}", metric, [Column("layer", "number"), number_column(f"estimate [{level_words(values)}]"),
                                           Column("unit"), reason_column()],
              [[i, value, value.unit, why(value)] for i, value in enumerate(values[:MOST_LISTED_LAYERS])], _reasons(values))
        for metric, values in sorted(view.content.evaluation.by_layer.items()) if len(values)]
    if not blocks:
        return None
    return Section("appendix", "Appendix: single layers", [Paragraph("Single layers are exploratory; only their mean is judged.", "note"), *blocks],
                   "appendix")


def _reasons(values: Sequence[Estimate]) -> str:
    return in_full([[value, why(value)] for value in values])


def panels(content: ReportContent) -> Sequence[Section]:
    """All panels of the topology report."""
    view = View(content)
    parts = (_not_data(view), _structured(view), predictor.blocks(view), _generalises(view))
    found: list[Section | None] = [
        caveats(view), Section("claims", "The seed's four claims", [overview_table(view)], "overview"), controls_panel(view), seed_panel(view),
        *(claim_section(view, claim, blocks) for claim, blocks in zip(CLAIMS, parts, strict=True)), composites(view), threshold_section(view),
        sweep_section(view), appendix(view)]
    return [section for section in found if section is not None]


def extra_files(content: ReportContent, sections: Sequence[Section], figures: Path) -> Mapping[str, bytes]:
    """The seed's folder of results, by path inside the run directory."""
    return folder(View(content), sections, figures)
