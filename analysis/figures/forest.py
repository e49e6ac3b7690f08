"""Intervals against bounds: one row of marks per estimate, one panel per criterion, each in its own unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimate import Estimate
from analysis.figures.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILION, canvas, drawn, light_grid, per_cent
from analysis.figures.words import interval, percent

Role = Literal["estimate", "null", "seed", "control"]
COLOURS = {"estimate": BLUE, "null": GREY, "seed": PURPLE, "control": INK}
MARKERS = {"estimate": "o", "null": "|", "seed": "D", "control": "s"}


@dataclass(frozen=True)
class ForestMark:
    """One row: an estimate with its interval (or a bare number), and what it is."""

    label: str
    estimate: Estimate
    role: Role = "estimate"


@dataclass(frozen=True)
class ForestPanel:
    """The rows of one criterion.

    bound: its threshold; passes: the side on which the claim holds; reference: a grey line, such as no change.
    """

    title: str
    unit: str
    marks: Sequence[ForestMark]
    bound: float | None = None
    passes: Literal["below", "above"] = "above"
    share: bool = False  # shown in per cent
    reference: float | None = None


def _words(estimate: Estimate, *, share: bool) -> str:
    if not share or estimate.value is None:
        return interval(estimate)
    ends = "" if estimate.low is None or estimate.high is None else f" [{percent(estimate.low)}, {percent(estimate.high)}]"
    return percent(estimate.value) + ends


def _limits(panel: ForestPanel) -> tuple[float, float]:
    ends = [end for mark in panel.marks for end in (mark.estimate.value, mark.estimate.low, mark.estimate.high) if end is not None]
    ends += [line for line in (panel.bound, panel.reference) if line is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = 0.12 * (high - low) or 0.1
    return low - margin, high + margin


def _row(axes: Axes, y: float, mark: ForestMark, *, share: bool) -> None:
    estimate, colour = mark.estimate, COLOURS[mark.role]
    if estimate.low is not None and estimate.high is not None:
        axes.plot(
            [estimate.low, estimate.high], [y, y], color=colour, linewidth=2.6 if mark.role == "estimate" else 1.6, solid_capstyle="butt"
        )
    if estimate.value is not None:
        hollow = mark.role == "seed"
        axes.plot(
            estimate.value, y, MARKERS[mark.role], color="white" if hollow else colour, markeredgecolor=colour, markersize=5.5, zorder=4
        )
    axes.annotate(
        _words(estimate, share=share),
        (1.0, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=GREY if estimate.value is None else INK,
        annotation_clip=False,
    )


def _panel(axes: Axes, panel: ForestPanel) -> None:
    low, high = _limits(panel)
    rows = range(len(panel.marks) - 1, -1, -1)
    if panel.bound is not None:
        inside = (low, panel.bound) if panel.passes == "below" else (panel.bound, high)
        axes.axvspan(*inside, color=GREEN, alpha=0.12, linewidth=0)
        axes.axvline(panel.bound, color=VERMILION, linewidth=1.3)
    if panel.reference is not None:
        axes.axvline(panel.reference, color=GREY, linewidth=0.9)
    for y, mark in zip(rows, panel.marks, strict=True):
        _row(axes, y, mark, share=panel.share)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, len(panel.marks) - 0.4)
    axes.set_yticks(list(rows), [mark.label for mark in panel.marks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")
    axes.set_title(panel.title)
    axes.set_xlabel(panel.unit)
    if panel.share:
        per_cent(axes, "x")


@drawn
def forest(panels: Sequence[ForestPanel]) -> Figure:
    """Estimates with intervals against their bounds; the side on which the claim holds is shaded green.

    A mark that is undefined keeps its row, with the reason in place of the numbers.
    """
    rows = [max(1, len(panel.marks)) for panel in panels] or [1]
    figure = canvas(0.3 + sum(0.62 + 0.23 * n for n in rows))
    grid = figure.add_gridspec(len(rows), 1, height_ratios=[n + 1.2 for n in rows])
    for i, panel in enumerate(panels):
        _panel(figure.add_subplot(grid[i, 0]), panel)
    return figure
