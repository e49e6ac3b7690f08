"""One estimate per MoE layer, with the mean over layers and the bound: where in the network does the pattern live?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.estimate import Estimate
from analysis.figures.style import BLUE, GREY, ORANGE, VERMILION, canvas, drawn, light_grid, per_cent


@dataclass(frozen=True)
class LayerSeries:
    """One metric over layers: `layers` in order of depth, `mean` their judged mean, `bound` its threshold if it has one."""

    title: str
    unit: str
    layers: Sequence[Estimate]
    mean: Estimate | None = None
    bound: float | None = None
    share: bool = False  # shown in per cent


def _panel(axes: Axes, series: LayerSeries) -> None:
    at = np.arange(len(series.layers))
    defined = [(x, e) for x, e in zip(at, series.layers, strict=True) if e.value is not None]
    mean = series.mean
    if mean is not None and mean.value is not None:
        if mean.low is not None and mean.high is not None:
            axes.axhspan(mean.low, mean.high, color=ORANGE, alpha=0.25, linewidth=0)
        axes.axhline(mean.value, color=ORANGE, linewidth=1.2, label="mean over layers, 95% interval")
    if series.bound is not None:
        axes.axhline(series.bound, color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)), label="bound")
    for x, estimate in defined:
        if estimate.low is not None and estimate.high is not None:
            axes.vlines(x, estimate.low, estimate.high, color=BLUE, linewidth=1.3)
    axes.plot(
        [x for x, _ in defined],
        [e.value for _, e in defined if e.value is not None],
        "o",
        color=BLUE,
        markersize=3.5,
        label="layer, 95% interval",
    )
    for x in sorted(set(at) - {x for x, _ in defined}):
        axes.plot(x, 0.04, "x", color=GREY, markersize=4, transform=axes.get_xaxis_transform())
    axes.set_title(series.title)
    axes.set_ylabel(series.unit)
    axes.set_xlim(-0.6, max(len(series.layers) - 0.4, 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlabel("MoE layer" + (" (\u00d7: undefined)" if len(defined) < len(at) else ""))
    if series.share:
        per_cent(axes)
    light_grid(axes)


@drawn
def layers_overview(series: Sequence[LayerSeries]) -> Figure:
    """Small panels, one per metric: estimates by layer with intervals, the mean over layers as a band, the bound dashed."""
    rows = max(1, math.ceil(len(series) / 2))
    figure = canvas(0.4 + 1.75 * rows)
    axes = figure.subplots(rows, 2, squeeze=False)
    for i, one in enumerate(series):
        _panel(axes[i // 2, i % 2], one)
    for unused in axes.flat[len(series) :]:
        unused.set_axis_off()
    named = {label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=3)
    return figure
