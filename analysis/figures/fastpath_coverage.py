"""How many occurrences a lookup table of eligible token types would route, and how that hangs on the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.figures.columns import Floats
from analysis.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    SKY,
    VERMILION,
    absent,
    canvas,
    colour_bar,
    drawn,
    letter,
    light_grid,
    log_counts,
    per_cent,
)
from analysis.figures.words import percent


@dataclass(frozen=True)
class EligibleShare:
    """Share of token types and of their occurrences that are eligible; one row of panel a."""

    label: str
    of_types: float
    of_occurrences: float


@dataclass(frozen=True)
class ThresholdGrid:
    """Coverage over a grid of thresholds, on calibration documents.

    min_counts [C] occurrences; max_entropy [H] as a share of ln E, or nats, see `entropy_unit`; coverage [C, H].
    judged, chosen: (min_count, max_entropy) of the declared thresholds and of the sweep's choice.
    """

    min_counts: Floats
    max_entropy: Floats
    coverage: NDArray[np.float64]
    entropy_unit: str = "share of ln E"
    judged: tuple[float, float] | None = None
    chosen: tuple[float, float] | None = None


@dataclass(frozen=True)
class CumulativeCoverage:
    """Share of occurrences covered by the m most frequent types, and by the eligible ones among them; arrays are [M]."""

    m: Floats
    coverage: Floats
    eligible: Floats | None = None


@dataclass(frozen=True)
class FastPathCoverage:
    """The four panels. bars: (label, coverage); bound: the criterion's."""

    shares: Sequence[EligibleShare]
    bars: Sequence[tuple[str, Estimate]]
    grid: ThresholdGrid | None
    cumulative: CumulativeCoverage | None
    bound: float | None = None


def _shares(axes: Axes, rows: Sequence[EligibleShare]) -> None:
    letter(axes, "a", "Eligible and non-eligible")
    if not rows:
        absent(axes, "no token type was judged for eligibility")
        return
    at = np.arange(len(rows))[::-1].astype(float)
    for shift, values, colour, name in (
        (0.2, [row.of_types for row in rows], SKY, "of types"),
        (-0.2, [row.of_occurrences for row in rows], ORANGE, "of occurrences"),
    ):
        axes.barh(at + shift, 1.0, height=0.36, color=PALE, alpha=0.45)
        axes.barh(at + shift, values, height=0.36, color=colour)
        for y, value in zip(at + shift, values, strict=True):
            inside = value > 0.6
            axes.text(
                value + (-0.015 if inside else 0.015),
                y,
                f"{percent(value)} {name}",
                va="center",
                ha="right" if inside else "left",
                fontsize=6.5,
            )
    axes.set_yticks(at, [row.label for row in rows])
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("share eligible (grey: not eligible)")
    per_cent(axes, "x")


def _bars(axes: Axes, bars: Sequence[tuple[str, Estimate]], bound: float | None) -> None:
    letter(axes, "b", "Occurrences covered")
    defined = [(label, estimate) for label, estimate in bars if estimate.value is not None]
    for i, (_, estimate) in enumerate(defined):
        assert estimate.value is not None
        axes.bar(i, estimate.value, width=0.6, color=BLUE if i == 0 else SKY)
        top = estimate.value
        if estimate.low is not None and estimate.high is not None:
            axes.vlines(i, estimate.low, estimate.high, color=INK, linewidth=1.6)
            top = max(top, estimate.high)
        axes.annotate(percent(estimate.value), (i, top), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=7)
    if bound is not None:
        axes.axhline(bound, color=VERMILION, linewidth=1.1, label=f"bound: above {percent(bound, 0)}")
        axes.legend(loc="upper right")
    undefined = "\n".join(f"{label}: undefined, {estimate.reason}" for label, estimate in bars if estimate.value is None).replace(
        "\n,", ","
    )
    if undefined:
        axes.text(0.02, 0.97, undefined, transform=axes.transAxes, va="top", fontsize=6.5, color=GREY, wrap=True)
    highest = max([e.high if e.high is not None else e.value or 0.0 for _, e in defined], default=0.0)
    axes.set_ylim(0, min(1.1, 1.3 * max(highest, bound or 0.0, 0.05)))
    axes.set_xticks(range(len(defined)), [label for label, _ in defined], fontsize=6.5)
    axes.set_ylabel("share of occurrences")
    per_cent(axes)
    light_grid(axes)


def _heatmap(axes: Axes, grid: ThresholdGrid | None) -> None:
    letter(axes, "c", "Coverage on calibration, by thresholds")
    if grid is None or not grid.coverage.size:
        absent(axes, "no threshold grid was computed")
        return
    values = 100 * grid.coverage
    columns, rows = np.arange(len(grid.min_counts)), np.arange(len(grid.max_entropy))
    image = axes.pcolormesh(
        columns, rows, values.T, cmap="cividis", shading="nearest", vmin=0, vmax=max(float(np.nanmax(values)), 1e-9), rasterized=True
    )
    for point, marker, name in ((grid.judged, "X", "declared"), (grid.chosen, "*", "sweep's choice")):
        if point is not None:
            x, y = np.interp(point[0], grid.min_counts, columns), np.interp(point[1], grid.max_entropy, rows)
            axes.plot(x, y, marker, color="white", markeredgecolor=VERMILION, markeredgewidth=1.2, markersize=9)
            words = axes.annotate(name, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7, color="white")
            words.set_path_effects([withStroke(linewidth=1.8, foreground=INK)])
    colour_bar(axes, image, "share of occurrences", lambda value: f"{value:.3g}%")
    ticks_x, ticks_y = columns[:: max(1, len(columns) // 6)], rows[:: max(1, len(rows) // 6)]
    axes.set_xticks(ticks_x, [f"{grid.min_counts[i]:,.0f}" for i in ticks_x])
    axes.set_yticks(ticks_y, [f"{grid.max_entropy[i]:.2f}" for i in ticks_y])
    axes.set_xlabel("smallest frequency (occurrences)")
    axes.set_ylabel(f"largest mean entropy ({grid.entropy_unit})")


def _cumulative(axes: Axes, curve: CumulativeCoverage | None) -> None:
    letter(axes, "d", "Cumulative coverage")
    if curve is None or not len(curve.m):
        absent(axes, "no cumulative coverage was computed")
        return
    log_counts(axes)
    axes.plot(curve.m, curve.coverage, color=GREY, label="m most frequent types")
    if curve.eligible is not None:
        axes.plot(curve.m, curve.eligible, color=ORANGE, label="of which low entropy")
        axes.fill_between(curve.m, curve.eligible, color=ORANGE, alpha=0.15, linewidth=0)
    if curve.m[-1] > 1000:
        share = float(np.interp(1000, curve.m, curve.coverage))
        axes.plot(1000, share, "o", color=INK, markersize=4, linestyle="none", label=f"top 1,000 types: {percent(share)}")
    axes.set_xlabel("m, token types in order of frequency")
    axes.set_ylabel("share of occurrences")
    axes.set_ylim(0, 1.02)
    per_cent(axes)
    light_grid(axes)
    axes.legend(loc="upper left")


@drawn
def fastpath_coverage(shown: FastPathCoverage) -> Figure:
    """Four panels: eligible shares, coverage against the bound, coverage over a grid of thresholds, cumulative coverage."""
    figure = canvas(5.8)
    axes = figure.subplots(2, 2)
    _shares(axes[0, 0], shown.shares)
    _bars(axes[0, 1], shown.bars, shown.bound)
    _heatmap(axes[1, 0], shown.grid)
    _cumulative(axes[1, 1], shown.cumulative)
    return figure
