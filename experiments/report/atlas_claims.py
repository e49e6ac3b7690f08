"""The pages of the atlas' claims: criteria against their bounds, single layers, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.figures.forest import ForestMark, ForestPanel, forest
from analysis.figures.layers import LayerSeries, layers_overview
from experiments.report.atlas_view import read_first
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Section, Table
from experiments.report.topology_columns import View, bare, in_full, number_column, reason_column, why
from experiments.report.topology_controls import controls_panel
from experiments.report.verdict import WORDS, bound_words, is_share
from hypotheses.claim import CriterionFinding

MOST_LISTED = 64


def forest_section(view: View) -> Section:
    """Every criterion's estimate against its bound."""
    return Section("criteria-figure", "Criteria against their bounds", [
        Picture("criteria_forest", forest([_panel(one) for one in view.content.finding.criteria]),
                "Estimates with intervals over documents; the claim holds on the green side of the red bound.",
                "One panel per criterion.")], "overview")


def _panel(one: CriterionFinding) -> ForestPanel:
    criterion, value = one.criterion, one.estimate
    shown = value if value.reason is None else bare(None, reason=value.reason.partition(":")[0])
    label = f"this run, {criterion.level:.0%} interval" if value.low is not None else "this run, a point" if value.value is not None else "this run"
    below = criterion.below is not None or criterion.at_most is not None
    return ForestPanel(f"{criterion.name.replace('_', ' ')}: {bound_words(criterion)}   ({WORDS[one.outcome].lower()})", criterion.unit,
                       [ForestMark(label + (", gated" if value.gate else ""), shown)], criterion.bound, "below" if below else "above",
                       is_share(criterion.unit))


def layer_series(view: View, metric: str, title: str, mean: str | None = None, bound: float | None = None) -> LayerSeries | None:
    """One metric over the layers; None where the evaluation has no layers of it."""
    layers = view.content.evaluation.by_layer.get(metric, ())
    if not any(one.value is not None for one in layers):
        return None
    return LayerSeries(title, layers[0].unit, layers, None if mean is None else view.estimate(mean), bound, is_share(layers[0].unit))


def layers_section(series: Sequence[LayerSeries | None]) -> Section | None:
    """Single layers beside the judged mean; None without any."""
    known = [one for one in series if one is not None]
    if not known:
        return None
    return Section("by-layer", "Layer by layer", [
        Paragraph("Single layers are exploratory; only what the criteria name is judged.", "note"),
        Picture("by_layer", layers_overview(known), "Estimates of single layers with intervals over documents.", "Panels over layers.")], "key")


def layer_tables(view: View) -> Section | None:
    """Every estimate by layer, for the appendix."""
    blocks: list[Block] = []
    for metric, layers in sorted(view.content.evaluation.by_layer.items()):
        rows: list[list[Cell]] = [[number, one, one.unit, why(one)] for number, one in enumerate(layers[:MOST_LISTED])]
        blocks.append(Table(f"layers_{metric}", metric, [Column("layer", "number"), number_column("estimate [95% interval]"), Column("unit"),
                                                         reason_column()], rows, in_full([[one, why(one)] for one in layers])))
    return Section("appendix", "Appendix: single layers", blocks, "appendix") if blocks else None


def claim_panels(view: View, planted: Mapping[str, str], series: Sequence[LayerSeries | None], more: Sequence[Section] = ()) -> list[Section]:
    """Everything that a claim's page holds beside verdict and criteria."""
    found = [read_first(view), forest_section(view), controls_panel(view, planted), layers_section(series), *more, layer_tables(view)]
    return [one for one in found if one is not None]
