"""The pictures of the VAR hypothesis, drawn from a report's content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.columns import TypeColumns, floats
from analysis.figures.entropy_distribution import EntropyDistribution, entropy_distribution
from analysis.figures.fastpath_coverage import EligibleShare, FastPathCoverage, fastpath_coverage
from analysis.figures.frequency_vs_entropy import EntropyPanel, frequency_vs_entropy, spread
from analysis.figures.layers import LayerSeries, layers_overview
from analysis.figures.routing_consistency import routing_consistency
from analysis.figures.sensitivity import rho_by_min_count
from experiments.report.blocks import Picture
from experiments.report.content import ReportContent
from experiments.report.var_tables import (
    cumulative_coverage,
    cut_offs,
    entropy_histogram,
    frequency_bins,
    layers_in,
    mean_rows,
    rows_of,
    threshold_grid,
    type_columns,
)
from hypotheses.claim import Criterion, Evaluation

HALF_NAT, HALF_BIT = 0.5, 0.5 * math.log(2)  # seed 003 gives 0.5 without a unit
THRESHOLD_OF_UNIFORM = 0.5 / math.log(8)  # 0.5 nats at the seed's 8 experts, as a share of ln E
FREQUENCY_THRESHOLD = 50
MAX_ROWS = 6  # layers in panel a of the coverage figure

SERIES = (
    ("freq_entropy_rho", "Frequency\u2013entropy correlation", "Spearman \u03c1"),
    ("entropy_share_below", "Occurrences with low entropy", "share"),
    ("fastpath_coverage", "Fast-path coverage", "share of occurrences"),
    ("fastpath_agreement", "Agreement of the table with the router", "share of covered"),
    ("entropy_mean_normalised", "Mean routing entropy", "share of ln E"),
    ("collision", "Collision (routing consistency)", "share"),
)


def facts_number(evaluation: Evaluation, name: str, default: float) -> float:
    """A number among the facts, or the declared default of seed 003."""
    value = evaluation.facts.get(name)
    return default if value is None else float(value)


def min_type_count(evaluation: Evaluation) -> int:
    """Occurrences that a type needs on test documents to enter the judged rho."""
    return int(facts_number(evaluation, "min_type_count", FREQUENCY_THRESHOLD))


def uniform_nats(content: ReportContent, layer: int | None) -> float | None:
    """ln E of a layer, or its mean over layers; None for a single expert."""
    experts = [meta.n_experts for meta in content.trace.meta.layers]
    chosen = experts if layer is None else experts[layer : layer + 1]
    value = float(np.mean([math.log(n) for n in chosen])) if chosen else 0.0
    return value if value > 0 else None


def threshold_nats(content: ReportContent, layer: int | None) -> float | None:
    """The judged entropy threshold in nats, of a layer or averaged; None for a single expert."""
    stated = [one.get("threshold_nats") for one in content.evaluation.facts.get("layers", ())]
    chosen = [float(one) for one in (stated if layer is None else stated[layer : layer + 1]) if one is not None]
    if chosen and all(nats > 0 for nats in chosen):
        return float(np.mean(chosen))
    uniform = uniform_nats(content, layer)
    return None if uniform is None else THRESHOLD_OF_UNIFORM * uniform


def _panel(content: ReportContent, layer: int | None) -> EntropyPanel:
    evaluation = content.evaluation
    types = type_columns(evaluation, layer, min_type_count(evaluation))
    by_layer = evaluation.by_layer.get("freq_entropy_rho", ())
    rho = evaluation.estimates.get("freq_entropy_rho") if layer is None else by_layer[layer] if layer < len(by_layer) else None
    return EntropyPanel(types, frequency_bins(evaluation, layer, types), rho, threshold_nats(content, layer), uniform_nats(content, layer))


def key_picture(content: ReportContent) -> Picture:
    """frequency_vs_entropy: the mean over layers, and each layer."""
    layers = layers_in(content.evaluation.tables["routing_stats"])
    figure = frequency_vs_entropy(_panel(content, None), [_panel(content, layer) for layer in layers] if len(layers) > 1 else ())
    several = "" if len(layers) <= 12 else f" Twelve of the {len(layers)} layers are drawn, evenly spaced; the appendix lists all."
    return Picture(
        "frequency_vs_entropy",
        figure,
        "Each point is a token type (an entry of the vocabulary). Frequency is counted on other documents than entropy. "
        "Blue: mean over the types of a frequency bin. Grey band: the matched null, in which entropies are exchanged between types inside "
        "the same document and position band. "
        "Red: the region counted as low entropy; the claim needs frequent types to lie in it." + several,
        "Scatter of token frequency against mean routing entropy: one panel for the mean over layers, one small panel per layer.",
    )


def _shares_below(evaluation: Evaluation) -> dict[str, Estimate]:
    ids = {"judged": "entropy_share_below", "0.5 nats": "entropy_share_below_half_nat", "0.5 bits": "entropy_share_below_half_bit"}
    return {name: evaluation.estimates[metric] for name, metric in ids.items() if metric in evaluation.estimates}


def _of_types(types: TypeColumns, top: float) -> tuple[Any, Any, Any]:
    known = types.mean_entropy[np.isfinite(types.mean_entropy)]
    edges = np.linspace(0, max(top, float(known.max(initial=0.0))), 51)
    return edges[:-1], edges[1:], np.histogram(known, bins=edges)[0] / max(len(known), 1)


def entropy_picture(content: ReportContent) -> Picture:
    """entropy_distribution: four panels over the mean of all layers."""
    evaluation = content.evaluation
    types = type_columns(evaluation, None, min_type_count(evaluation))
    uniform, judged = uniform_nats(content, None), threshold_nats(content, None)
    histogram = entropy_histogram(evaluation, None)
    thresholds = {} if judged is None else {"judged": judged}
    if judged is None or abs(judged - HALF_NAT) > 1e-9:
        thresholds["0.5 nats"] = HALF_NAT
    thresholds["0.5 bits"] = HALF_BIT
    left, right, share = histogram if histogram is not None else _of_types(types, uniform or 1.0)
    shown = EntropyDistribution(
        left,
        right,
        share,
        types,
        frequency_bins(evaluation, None, types),
        "occurrences" if histogram else "token types",
        thresholds,
        _shares_below(evaluation) if histogram else {},
        uniform,
    )
    return Picture(
        "entropy_distribution",
        entropy_distribution(shown),
        "Routing entropy in nats, mean over layers. a, b: an occurrence counts once; vertical lines are the judged threshold (24% of "
        "the entropy of an undecided router) and the literal 0.5 in nats and in bits; dots give the share below each, with its 95% "
        "interval. c: mean over the types of a bin, with the matched null in grey. d: median, quartiles, and 5% to 95% of the types.",
        "Four panels: histogram and cumulative distribution of routing entropy, mean entropy by frequency, box plots by frequency range.",
    )


def consistency_picture(content: ReportContent) -> Picture:
    """routing_consistency: four panels over the mean of all layers."""
    evaluation = content.evaluation
    ids = {
        "modal share (seed form)": "consistency_modal",
        "collision (unbiased)": "collision",
        "modal share at 50 occurrences": "consistency_rarefied",
    }
    means = {
        label: evaluation.estimates[metric]
        for label, metric in ids.items()
        if metric in evaluation.estimates and evaluation.estimates[metric].value is not None
    }
    types = type_columns(evaluation, None, min_type_count(evaluation))
    return Picture(
        "routing_consistency",
        routing_consistency(types, means),
        "How steadily a token type is routed, mean over layers. Modal share is the seed's measure: the share of occurrences that go "
        "to the type's most frequent expert; it is 1 for a type seen once, whatever the router does. The dashed line is what it would "
        "be by chance, for a type of that frequency. Collision is free of that bias: the share of experts that two occurrences of the "
        "type have in common.",
        "Four panels: routing consistency against frequency, its distribution, against entropy, and by frequency range.",
    )


def _eligible_shares(content: ReportContent) -> list[EligibleShare]:
    evaluation = content.evaluation
    stats = evaluation.tables["routing_stats"]
    if "eligible" not in stats:
        return []
    rows = []
    for layer in layers_in(stats):
        one = rows_of(stats, layer)
        eligible, n_v = floats(one["eligible"]), floats(one["frequency"])
        if n_v.sum() > 0:
            rows.append(EligibleShare(f"layer {layer}", float(eligible.mean()), float((n_v * eligible).sum() / n_v.sum())))
    if len(rows) < 2:
        return rows
    mean = EligibleShare("mean", float(np.mean([row.of_types for row in rows])), float(np.mean([row.of_occurrences for row in rows])))
    return [mean, *(rows[i] for i in spread(len(rows), MAX_ROWS))]


def bound_of(content: ReportContent, metric: str) -> Criterion | None:
    """The criterion that judges a metric, if one does."""
    return next((judged.criterion for judged in content.finding.criteria if judged.criterion.metric == metric), None)


def coverage_picture(content: ReportContent, chosen: tuple[float, float] | None = None) -> Picture:
    """fastpath_coverage: four panels. chosen: (min_count, max entropy as a share of ln E) of the sweep."""
    evaluation = content.evaluation
    ids = (
        ("test\n(judged)", "fastpath_coverage"),
        ("calibration", "fastpath_coverage_calibration"),
        ("seed form,\nsame tokens", "fastpath_coverage_seed"),
    )
    bars = [(label, evaluation.estimates[metric]) for label, metric in ids if metric in evaluation.estimates]
    grid = threshold_grid(evaluation)
    if grid is not None:
        declared = facts_number(evaluation, "frequency_threshold", FREQUENCY_THRESHOLD)
        height = (threshold_nats(content, None) or 0.0) / (1.0 if grid.entropy_unit == "nats" else uniform_nats(content, None) or 1.0)
        grid = replace(grid, judged=(declared, height), chosen=chosen)
    criterion = bound_of(content, "fastpath_coverage")
    shown = FastPathCoverage(
        _eligible_shares(content), bars, grid, cumulative_coverage(evaluation), None if criterion is None else criterion.bound
    )
    return Picture(
        "fastpath_coverage",
        fastpath_coverage(shown),
        "The fast path routes a token by a lookup table instead of the router, if its type is frequent and its entropy low on "
        "calibration documents. a: share of types and of occurrences eligible. b: occurrences covered on held-out test documents, "
        "which is judged; on the calibration documents where eligibility was decided; and by the seed's rule, which decides and "
        "counts on the same tokens. c: coverage if the thresholds were others. d: what the m most frequent types cover, mean over "
        "layers.",
        "Four panels: eligible shares, coverage with its bound, coverage over a grid of thresholds, cumulative coverage.",
    )


def layers_picture(content: ReportContent) -> Picture | None:
    """Per-layer estimates of the judged metrics and their companions; None without any."""
    evaluation = content.evaluation
    series = []
    for metric, title, unit in SERIES:
        if metric in evaluation.by_layer and len(evaluation.by_layer[metric]):
            criterion = bound_of(content, metric)
            series.append(
                LayerSeries(
                    title,
                    unit,
                    evaluation.by_layer[metric],
                    evaluation.estimates.get(metric),
                    None if criterion is None else criterion.bound,
                    unit.startswith("share"),
                )
            )
    if not series:
        return None
    return Picture(
        "layers",
        layers_overview(series),
        "Each layer by itself, with its 95% interval. Only the mean over layers (orange) is judged; single layers are exploratory, "
        "and with many of them some intervals miss their true value by chance.",
        "Small panels of estimates by layer, one per metric.",
    )


def sensitivity_picture(content: ReportContent) -> Picture | None:
    """rho against the smallest count; None without the table."""
    table: Mapping[str, Any] | None = content.evaluation.tables.get("rho_sensitivity")
    if table is None or not len(table["min_count"]):
        return None
    layers: Sequence[int] = layers_in(table)
    criterion = bound_of(content, "freq_entropy_rho")
    figure = rho_by_min_count(
        cut_offs(mean_rows(table, "min_count")),
        [cut_offs(rows_of(table, one)) for one in layers] if len(layers) > 1 else [],
        judged=min_type_count(content.evaluation),
        bound=None if criterion is None else criterion.bound,
    )
    return Picture(
        "rho_by_min_count",
        figure,
        "The correlation when token types need more or fewer occurrences to count. Rare types have noisy means, which pulls the "
        "correlation towards zero or turns its sign; the judged cut-off is circled.",
        "Correlation with interval against the smallest count, over numbers of types.",
    )
