"""The panels of the VAR hypothesis (seed 003): its four figures and what belongs beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from analysis.figures.frequency_vs_entropy import EntropyPanel, frequency_vs_entropy
from experiments.report.blocks import Picture, Section
from experiments.report.content import ReportContent
from experiments.report.var_tables import frequency_bins, layers_in, type_columns
from hypotheses.claim import Evaluation

THRESHOLD_OF_UNIFORM = 0.5 / math.log(8)  # seed 003: 0.5 nats at 8 experts


def entropy_panel(content: ReportContent, layer: int | None) -> EntropyPanel:
    """The key figure's panel for one layer, or for the mean over layers (None)."""
    evaluation = content.evaluation
    types = type_columns(evaluation, layer, min_count=judged_min_count(evaluation))
    layers = content.trace.meta.layers
    uniform = float(np.mean([math.log(m.n_experts) for m in layers])) if layer is None else math.log(layers[layer].n_experts)
    by_layer = evaluation.by_layer.get("freq_entropy_rho", ())
    rho = evaluation.estimates.get("freq_entropy_rho") if layer is None else by_layer[layer] if layer < len(by_layer) else None
    return EntropyPanel(types, frequency_bins(evaluation, layer, types), rho, THRESHOLD_OF_UNIFORM * uniform if uniform > 0 else None,
                        uniform if uniform > 0 else None)


def judged_min_count(evaluation: Evaluation) -> int:
    """Occurrences that a type needs on test documents to enter the judged rho."""
    return int(evaluation.facts.get("min_type_count", 50))


def key_figure(content: ReportContent) -> Section:
    """frequency_vs_entropy, over the mean of all layers and layer by layer."""
    layers = layers_in(content.evaluation.tables["routing_stats"])
    figure = frequency_vs_entropy(entropy_panel(content, None), [entropy_panel(content, layer) for layer in layers])
    caption = ("Each point is a token type. Blue: mean over the types of a frequency bin, with its 95% interval. Grey band: the matched null, in which "
               "entropies are exchanged between types inside the same document and position band. Red: the region counted as low entropy.")
    return Section("key-figure", "Frequency against routing entropy",
                   [Picture("frequency_vs_entropy", figure, caption, "Scatter of token frequency against mean routing entropy, one panel per layer")], "key")


def panels(content: ReportContent) -> Sequence[Section]:
    """All panels of the VAR report."""
    if "routing_stats" not in content.evaluation.tables:
        return []
    return [key_figure(content)]
