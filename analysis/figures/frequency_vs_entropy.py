"""The key figure: does the router hesitate less over frequent token types?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimate import Estimate
from analysis.figures.columns import FrequencyBins, TypeColumns
from analysis.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    RASTERISE_ABOVE,
    SKY,
    VERMILION,
    canvas,
    drawn,
    light_grid,
    log_counts,
)
from analysis.figures.words import interval, null_range, p_value, sample

MULTIPLES_PER_ROW = 4
MAX_MULTIPLES = 12


@dataclass(frozen=True)
class EntropyPanel:
    """One panel: token types, their bins, rho with interval and null, and the lines to draw.

    threshold_nats: the judged entropy threshold, nats. uniform_nats: ln E, the entropy of an undecided router.
    eligible_from: frequency from which a type may be eligible, in units of the x axis; None if eligibility was decided on other counts.
    """

    types: TypeColumns
    bins: FrequencyBins
    rho: Estimate | None = None
    threshold_nats: float | None = None
    uniform_nats: float | None = None
    eligible_from: float | None = None


def spread(n: int, at_most: int) -> list[int]:
    """Indices of at most `at_most` evenly spaced items of n, first and last included."""
    return sorted({round(float(i)) for i in np.linspace(0, n - 1, min(n, at_most))}) if n else []


def cloud(axes: Axes, panel: EntropyPanel, size: float) -> None:
    """Scatter of the types: too rare for rho, in rho, eligible for the fast path."""
    types = panel.types
    seen = (types.frequency > 0) & np.isfinite(types.mean_entropy)
    judged = seen if types.judged is None else seen & types.judged
    eligible = np.zeros_like(seen) if types.eligible is None else types.eligible & seen
    raster = bool(seen.sum() > RASTERISE_ABOVE)
    groups = (
        (seen & ~judged & ~eligible, PALE, 0.6, "too rare on test documents for \u03c1"),
        (judged & ~eligible, SKY, 0.6, "in \u03c1, not eligible" if eligible.any() else "in \u03c1"),
        (eligible, ORANGE, 0.9, "eligible for the fast path"),
    )
    for mask, colour, alpha, name in groups:
        if mask.any():
            axes.scatter(
                types.frequency[mask],
                types.mean_entropy[mask],
                s=size,
                c=colour,
                alpha=alpha,
                linewidths=0,
                rasterized=raster,
                label=f"{name} ({int(mask.sum()):,} types)",
            )


def trend(axes: Axes, bins: FrequencyBins, *, small: bool = False) -> None:
    """Binned means with their intervals, over the band of the matched null."""
    if bins.null_low is not None and bins.null_high is not None:
        axes.fill_between(
            bins.centre, bins.null_low, bins.null_high, color=GREY, alpha=0.35, linewidth=0, zorder=3, label="matched null, 95%"
        )
    if bins.null_mean is not None:
        axes.plot(bins.centre, bins.null_mean, color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=4)
    has_interval = bins.mean_low is not None and bins.mean_high is not None
    label = "mean over types in a bin" + (", 95% interval" if has_interval else "")
    axes.plot(
        bins.centre,
        bins.mean,
        color=BLUE,
        marker="o",
        markersize=1.8 if small else 3.2,
        linewidth=1.0 if small else 1.4,
        zorder=5,
        label=label,
    )
    if bins.mean_low is not None and bins.mean_high is not None:
        axes.vlines(bins.centre, bins.mean_low, bins.mean_high, color=BLUE, linewidth=1.0 if small else 1.6, zorder=5)


def _region(axes: Axes, panel: EntropyPanel) -> None:
    if panel.threshold_nats is not None:
        axes.axhspan(0, panel.threshold_nats, color=VERMILION, alpha=0.07, linewidth=0, zorder=0)
        axes.axhline(panel.threshold_nats, color=VERMILION, linewidth=0.9, zorder=2)
        if panel.eligible_from is not None:
            right = axes.get_xlim()[1]
            axes.fill_between([panel.eligible_from, right], 0, panel.threshold_nats, color=VERMILION, alpha=0.10, linewidth=0, zorder=0)
            axes.set_xlim(right=right)
    if panel.uniform_nats is not None:
        axes.axhline(panel.uniform_nats, color=GREY, linewidth=0.8, linestyle=":", zorder=2)


def _names(axes: Axes, panel: EntropyPanel) -> None:
    at_right: Any = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "right", "fontsize": 7}
    if panel.threshold_nats is not None:
        axes.annotate(
            f"low entropy: below {panel.threshold_nats:.3f} nats",
            (0.995, panel.threshold_nats),
            xytext=(0, -3),
            va="top",
            color=VERMILION,
            **at_right,
        )
    if panel.uniform_nats is not None:
        axes.annotate(
            f"undecided router: ln E = {panel.uniform_nats:.2f} nats",
            (0.995, panel.uniform_nats),
            xytext=(0, 2),
            va="bottom",
            color=GREY,
            **at_right,
        )


def _ceiling(panels: Sequence[EntropyPanel]) -> float:
    values = np.concatenate([panel.types.mean_entropy for panel in panels])
    values = values[np.isfinite(values)]
    tops = [float(values.max())] if len(values) else []
    return 1.08 * max([*tops, *(p.uniform_nats for p in panels if p.uniform_nats is not None)], default=1.0)


def _statistics(rho: Estimate) -> str:
    first = f"Spearman \u03c1 = {interval(rho)}" if rho.value is not None else f"Spearman \u03c1 {interval(rho)}"
    return "      ".join(part for part in (first, null_range(rho), sample(rho), p_value(rho.p)) if part)


def _main(axes: Axes, panel: EntropyPanel) -> None:
    log_counts(axes)
    cloud(axes, panel, 7.0)
    trend(axes, panel.bins)
    _region(axes, panel)
    _names(axes, panel)
    light_grid(axes)
    axes.set_ylabel("mean routing entropy of the type (nats)")
    axes.set_xlabel(f"{panel.types.frequency_of} (log scale)")
    statistics = "" if panel.rho is None else f"\n{_statistics(panel.rho)}"
    axes.set_title(panel.types.label, pad=17 if statistics else 6)
    if statistics:
        axes.text(0.0, 1.0, statistics.strip(), transform=axes.transAxes, fontsize=8.0, va="bottom")
    axes.legend(loc="lower left", ncols=2, markerscale=1.7)


def _multiple(axes: Axes, panel: EntropyPanel) -> None:
    cloud(axes, panel, 2.2)
    trend(axes, panel.bins, small=True)
    _region(axes, panel)
    axes.set_title(panel.types.label, fontsize=7.5)
    if panel.rho is not None and panel.rho.value is not None:
        axes.text(
            0.03,
            0.04,
            f"\u03c1 = {interval(panel.rho, 2)}",
            transform=axes.transAxes,
            fontsize=6.5,
            va="bottom",
            color=INK,
            zorder=6,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0},
        )


@drawn
def frequency_vs_entropy(overall: EntropyPanel, layers: Sequence[EntropyPanel] = ()) -> Figure:
    """Log frequency against mean routing entropy of token types: one large panel, and a small one per layer.

    overall: the mean over layers, or the only table there is. layers: drawn below, at most 12 evenly spaced ones, sharing both axes.
    """
    shown = [layers[i] for i in spread(len(layers), MAX_MULTIPLES)] if len(layers) > 1 else []
    rows = math.ceil(len(shown) / MULTIPLES_PER_ROW)
    columns = min(MULTIPLES_PER_ROW, len(shown)) or 1
    figure = canvas(4.0 + 1.5 * rows)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[3.7] + [1.4] * rows)
    main = figure.add_subplot(grid[0, :])
    main.set_ylim(0, _ceiling([overall, *shown]))
    _main(main, overall)
    for i, panel in enumerate(shown):
        small = figure.add_subplot(grid[1 + i // columns, i % columns], sharex=main, sharey=main)
        _multiple(small, panel)
        small.tick_params(labelleft=i % columns == 0, labelbottom=i + columns >= len(shown), labelsize=6.5)
        if i % columns == 0:
            small.set_ylabel("nats")
    return figure
