"""The key figure: does the router hesitate less over frequent token types?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimate import Estimate
from analysis.figures.columns import FrequencyBins, TypeColumns
from analysis.figures.style import BLUE, GREY, INK, ORANGE, PALE, RASTERISE_ABOVE, SKY, VERMILION, WIDTH_IN, canvas, drawn, light_grid
from analysis.figures.words import interval, null_range, p_value, sample

MULTIPLES_PER_ROW = 4
MAX_MULTIPLES = 12


@dataclass(frozen=True)
class EntropyPanel:
    """One panel: token types, their bins, rho with interval and null, and the lines to draw.

    threshold_nats: the judged entropy threshold, nats. uniform_nats: ln E, the entropy of an undecided router.
    """

    types: TypeColumns
    bins: FrequencyBins
    rho: Estimate | None = None
    threshold_nats: float | None = None
    uniform_nats: float | None = None


def spread(n: int, at_most: int) -> list[int]:
    """Indices of at most `at_most` evenly spaced items of n, first and last included."""
    return sorted({round(float(i)) for i in np.linspace(0, n - 1, min(n, at_most))}) if n else []


def _cloud(axes: Axes, panel: EntropyPanel, size: float) -> None:
    types = panel.types
    seen = (types.frequency > 0) & np.isfinite(types.mean_entropy)
    judged = seen if types.judged is None else seen & types.judged
    eligible = np.zeros_like(seen) if types.eligible is None else types.eligible & seen
    raster = bool(seen.sum() > RASTERISE_ABOVE)
    for mask, colour, alpha, name in ((seen & ~judged & ~eligible, PALE, 0.6, "too rare on test to enter \u03c1"),
                                      (judged & ~eligible, SKY, 0.55, "types that \u03c1 is computed over"),
                                      (eligible, ORANGE, 0.85, "eligible for the fast path")):
        if mask.any():
            axes.scatter(types.frequency[mask], types.mean_entropy[mask], s=size, c=colour, alpha=alpha, linewidths=0, rasterized=raster,
                         label=f"{name} ({int(mask.sum()):,})")


def _trend(axes: Axes, bins: FrequencyBins) -> None:
    if bins.null_low is not None and bins.null_high is not None:
        axes.fill_between(bins.centre, bins.null_low, bins.null_high, color=GREY, alpha=0.28, linewidth=0, zorder=3, label="matched null, 95 %")
    if bins.null_mean is not None:
        axes.plot(bins.centre, bins.null_mean, color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=4)
    axes.plot(bins.centre, bins.mean, color=BLUE, marker="o", markersize=3, zorder=5, label="mean over types in a bin")
    if bins.mean_low is not None and bins.mean_high is not None:
        axes.vlines(bins.centre, bins.mean_low, bins.mean_high, color=BLUE, linewidth=1.4, zorder=5)


def _lines(axes: Axes, panel: EntropyPanel, *, named: bool) -> None:
    top = panel.uniform_nats
    if panel.threshold_nats is not None:
        axes.axhspan(0, panel.threshold_nats, color=VERMILION, alpha=0.08, linewidth=0, zorder=0)
        axes.axhline(panel.threshold_nats, color=VERMILION, linewidth=1.0, zorder=2)
    if top is not None:
        axes.axhline(top, color=GREY, linewidth=0.8, linestyle=":", zorder=2)
    if not named:
        return
    right = axes.get_yaxis_transform()
    if panel.threshold_nats is not None:
        axes.text(0.995, panel.threshold_nats, f"low entropy: below {panel.threshold_nats:.3f} nats ", transform=right, ha="right", va="top",
                  color=VERMILION, fontsize=7)
    if top is not None:
        axes.text(0.995, top, f"undecided router: ln E = {top:.2f} nats ", transform=right, ha="right", va="bottom", color=GREY, fontsize=7)


def _range(axes: Axes, panels: Sequence[EntropyPanel]) -> None:
    values = np.concatenate([p.types.mean_entropy for p in panels]) if panels else np.empty(0)
    values = values[np.isfinite(values)]
    top = max([float(values.max())] if len(values) else [1.0])
    ceiling = max([top, *(p.uniform_nats for p in panels if p.uniform_nats is not None)])
    axes.set_ylim(0, ceiling * 1.08)
    axes.set_xscale("log")


def _verdict_line(rho: Estimate) -> str:
    parts = [f"Spearman \u03c1 = {interval(rho)}" if rho.value is not None else f"\u03c1 {interval(rho)}", null_range(rho), sample(rho), p_value(rho.p)]
    return "     ".join(part for part in parts if part)


def _multiple(axes: Axes, panel: EntropyPanel) -> None:
    _cloud(axes, panel, 2.0)
    _trend(axes, panel.bins)
    _lines(axes, panel, named=False)
    axes.set_title(panel.types.label, fontsize=7.5)
    if panel.rho is not None and panel.rho.value is not None:
        axes.text(0.03, 0.03, f"\u03c1 = {interval(panel.rho, 2)}", transform=axes.transAxes, fontsize=6.5, va="bottom", color=INK,
                  bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}, zorder=6)


@drawn
def frequency_vs_entropy(overall: EntropyPanel, layers: Sequence[EntropyPanel] = ()) -> Figure:
    """Log frequency against mean routing entropy of token types: one large panel, and a small one per layer.

    overall: the mean over layers, or the only table there is. layers: drawn below, at most 12 evenly spaced ones, sharing both axes.
    """
    shown = [layers[i] for i in spread(len(layers), MAX_MULTIPLES)] if len(layers) > 1 else []
    rows = math.ceil(len(shown) / MULTIPLES_PER_ROW)
    columns = min(MULTIPLES_PER_ROW, len(shown)) or 1
    figure = canvas(3.9 + 1.55 * rows, WIDTH_IN)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[3.7] + [1.45] * rows)
    main = figure.add_subplot(grid[0, :])
    _range(main, [overall, *shown])
    _cloud(main, overall, 7.0)
    _trend(main, overall.bins)
    _lines(main, overall, named=True)
    light_grid(main)
    main.set_ylabel("mean routing entropy (nats)")
    main.set_xlabel(f"{overall.types.frequency_of} (log scale)")
    main.set_title(overall.types.label)
    if overall.rho is not None:
        main.text(0.0, 1.11, _verdict_line(overall.rho), transform=main.transAxes, fontsize=8.0, va="bottom")
    main.legend(loc="lower left", ncols=2, markerscale=1.6, frameon=True, framealpha=0.85, edgecolor="none")
    for i, panel in enumerate(shown):
        small = figure.add_subplot(grid[1 + i // columns, i % columns], sharex=main, sharey=main)
        _multiple(small, panel)
        small.tick_params(labelleft=i % columns == 0, labelbottom=i + columns >= len(shown))
        if i % columns == 0:
            small.set_ylabel("nats")
    return figure
