"""The threshold sweep: what coverage costs in agreement, and which threshold matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.figures.columns import Floats
from analysis.figures.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    RASTERISE_ABOVE,
    SKY,
    VERMILION,
    absent,
    canvas,
    drawn,
    letter,
    light_grid,
    per_cent,
)


@dataclass(frozen=True)
class SweepPoints:
    """Trials of the sweep, on calibration documents; arrays are [S].

    coverage, agreement: shares. asked: proposed by the sampler rather than by the grid. front: on the Pareto front.
    judged, chosen: (coverage, agreement) of the declared thresholds and of the sweep's choice, on calibration documents;
    confirmed: the choice on test documents, as two estimates.
    """

    coverage: Floats
    agreement: Floats
    asked: NDArray[np.bool_]
    front: NDArray[np.bool_]
    judged: tuple[float, float] | None = None
    chosen: tuple[float, float] | None = None
    confirmed: tuple[Estimate, Estimate] | None = None
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # objective -> knob -> share


def _front(axes: Axes, points: SweepPoints) -> None:
    raster = len(points.coverage) > RASTERISE_ABOVE
    for mask, colour, size, name in ((~points.asked, PALE, 6, "grid"), (points.asked, SKY, 14, "sampled by the study")):
        if mask.any():
            axes.scatter(
                points.coverage[mask],
                points.agreement[mask],
                s=size,
                color=colour,
                linewidths=0,
                rasterized=raster,
                label=f"{name} ({int(mask.sum()):,} trials)",
            )
    order = np.argsort(points.coverage[points.front], kind="stable")
    axes.plot(
        points.coverage[points.front][order],
        points.agreement[points.front][order],
        color=BLUE,
        marker="o",
        markersize=2.5,
        label="Pareto front",
    )
    for point, marker, colour, name in (
        (points.judged, "X", VERMILION, "declared thresholds"),
        (points.chosen, "*", ORANGE, "chosen, on calibration"),
    ):
        if point is not None:
            axes.plot(*point, marker, color=colour, markeredgecolor=INK, markersize=10, linestyle="none", label=name, zorder=5)
    _confirmed(axes, points)
    letter(axes, "a", "Coverage against agreement with the router")
    axes.set_xlabel("coverage: share of occurrences routed by the table")
    axes.set_ylabel("agreement: table's expert is the router's")
    per_cent(axes, "x")
    per_cent(axes)
    light_grid(axes)
    axes.legend(loc="best")


def _confirmed(axes: Axes, points: SweepPoints) -> None:
    if points.confirmed is None:
        return
    x, y = points.confirmed
    if x.value is None or y.value is None:
        return
    if x.low is not None and x.high is not None:
        axes.hlines(y.value, x.low, x.high, color=GREEN, linewidth=1.6, zorder=6)
    if y.low is not None and y.high is not None:
        axes.vlines(x.value, y.low, y.high, color=GREEN, linewidth=1.6, zorder=6)
    axes.plot(
        x.value, y.value, "D", color=GREEN, markeredgecolor=INK, markersize=5, linestyle="none", label="chosen, on test (95%)", zorder=7
    )


def _importances(axes: Axes, importances: Mapping[str, Mapping[str, float]]) -> None:
    letter(axes, "b", "Importance of the thresholds")
    if not importances:
        absent(axes, "no importances were computed")
        return
    knobs = list(dict.fromkeys(knob for shares in importances.values() for knob in shares))
    height = 0.6 / len(importances)
    for i, ((objective, shares), colour) in enumerate(zip(importances.items(), (SKY, ORANGE, GREEN), strict=False)):
        at = np.arange(len(knobs))[::-1] - height * (i - (len(importances) - 1) / 2)
        axes.barh(at, [shares.get(knob, 0.0) for knob in knobs], height=height * 0.9, color=colour, label=f"for {objective}")
    axes.set_yticks(np.arange(len(knobs))[::-1], [knob.replace("_", " ") for knob in knobs], fontsize=7)
    axes.set_xlim(0, 1)
    per_cent(axes, "x")
    axes.set_xlabel("share in reaching the best tenth")
    axes.legend(loc="best")


@drawn
def sweep_overview(points: SweepPoints) -> Figure:
    """Two panels: every trial with the Pareto front, the declared and the chosen point; importance of each threshold."""
    figure = canvas(3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
    _front(left, points)
    _importances(right, points.importances)
    return figure
