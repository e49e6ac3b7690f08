"""How a statistic hangs on the smallest frequency that lets a token type in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.columns import Floats
from analysis.figures.style import BLUE, GREY, ORANGE, PALE, VERMILION, canvas, drawn, light_grid


@dataclass(frozen=True)
class CutOffs:
    """rho over types with at least min_count occurrences; arrays are [C], NaN where undefined or not given."""

    min_count: NDArray[np.int64]
    rho: Floats
    low: Floats
    high: Floats
    n_types: Floats
    null_low: Floats
    null_high: Floats


def _rho(axes: Axes, mean: CutOffs, layers: Sequence[CutOffs], judged: int, bound: float | None) -> None:
    at = np.arange(len(mean.min_count))
    for layer in layers:
        axes.plot(
            at[: len(layer.rho)], layer.rho, color=GREY, alpha=0.7, linewidth=0.8, label="single layers" if layer is layers[0] else None
        )
    axes.fill_between(at, mean.null_low, mean.null_high, color=GREY, alpha=0.3, linewidth=0, label="matched null, 95%")
    if bound is not None:
        axes.axhline(bound, color=VERMILION, linewidth=1.2, label=f"bound: below {bound:g}".replace("-", "\u2212"))
    axes.axhline(0, color=GREY, linewidth=0.7)
    known = np.isfinite(mean.low) & np.isfinite(mean.high)
    axes.vlines(at[known], mean.low[known], mean.high[known], color=BLUE, linewidth=1.8)
    axes.plot(at, mean.rho, "o-", color=BLUE, markersize=4, linewidth=1.0, label="mean over layers, 95% interval")
    if judged in mean.min_count:
        x = int(np.flatnonzero(mean.min_count == judged)[0])
        axes.plot(x, mean.rho[x], "o", color="none", markeredgecolor=ORANGE, markeredgewidth=1.8, markersize=9, label="the judged cut-off")
    axes.set_ylabel("Spearman \u03c1, frequency and entropy")
    light_grid(axes)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


@drawn
def rho_by_min_count(mean: CutOffs, layers: Sequence[CutOffs], *, judged: int, bound: float | None) -> Figure:
    """rho with interval and null against the smallest count, over the number of types that each cut-off keeps.

    mean: over layers; layers: single ones, drawn pale; judged: the declared cut-off.
    """
    figure = canvas(3.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _rho(top, mean, layers, judged, bound)
    at = np.arange(len(mean.min_count))
    below.bar(at, np.nan_to_num(mean.n_types), color=PALE, width=0.6)
    for x, n in zip(at, mean.n_types, strict=True):
        if np.isfinite(n):
            below.annotate(f"{n:,.0f}", (x, n), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7)
    below.set_ylim(0, 1.35 * max(float(np.nan_to_num(mean.n_types).max(initial=0.0)), 1.0))
    below.set_ylabel("types")
    below.set_yticks([])
    below.spines["left"].set_visible(False)
    below.set_xticks(at, [f"{n:,}" for n in mean.min_count])
    below.set_xlabel("smallest number of occurrences on test documents for a type to count")
    return figure
