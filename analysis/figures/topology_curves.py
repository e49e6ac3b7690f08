"""Lines of estimates along an axis of whole numbers (distance, lag, epoch), with intervals, nulls, gated and undefined points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from analysis.figures.columns import Floats
from analysis.figures.style import GREY, VERMILION, absent, canvas, light_grid
from analysis.figures.topology_marks import CYCLE, NARROW_IN, Marks, legend_above, undefined_marks, whiskers

MARKERS = ("o", "s", "^", "D", "v", "P")
TICKS = 12


@dataclass(frozen=True)
class Line:
    """One line of estimates; colour and marker are taken from the cycle if not given."""

    name: str
    marks: Marks
    colour: str | None = None


@dataclass(frozen=True)
class Curve:
    """A panel of lines over the same whole numbers `at`; bound: the declared threshold, a red line. log: `at` on a logarithmic axis.

    zero: whether 0 is on the panel, as a grey line.
    """

    x: str
    y: str
    at: NDArray[np.int64]
    lines: Sequence[Line] = field(default_factory=list)
    bound: float | None = None
    log: bool = False
    zero: bool = True


def line(axes: Axes, at: Floats, drawn: Line, colour: str, marker: str) -> list[Artist]:
    """One line with its intervals over the band of its null: gated points hollow, undefined ones a cross; returns its legend entries."""
    marks = drawn.marks
    if marks.has_null.any():
        axes.fill_between(at, marks.null_low, marks.null_high, color=colour, alpha=0.16, linewidth=0, zorder=1, label="_null")
    axes.plot(at, marks.value, color=colour, linewidth=1.1, zorder=3, label="_line")
    whiskers(axes, at, marks, colour)
    size = 4.0 if len(at) <= 16 else 2.6
    for which, face in ((marks.defined & ~marks.gated, colour), (marks.gated, "white")):
        if which.any():
            axes.plot(at[which], marks.value[which], marker, color=colour, markerfacecolor=face, markersize=size, zorder=5, label="_points")
    undefined_marks(axes, at, marks)
    return [Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1.1, label=drawn.name)]


def state_keys(every: Sequence[Marks], colour: str = GREY) -> list[Artist]:
    """Legend entries of intervals, null bands, gated and undefined points."""
    entries: list[Artist] = []
    level = next((marks.level for marks in every if marks.has_interval.any()), None)
    if level is not None:
        tick = {"marker": "|", "markersize": 8, "markeredgewidth": 1.6, "linestyle": "none"}
        entries.append(Line2D([], [], color=colour, label=f"{100 * level:g}% interval", **tick))  # type: ignore[arg-type]
    if any(marks.has_null.any() for marks in every):
        entries.append(Patch(facecolor=colour, alpha=0.3, label="null, central 95%"))
    if any(marks.gated.any() for marks in every):
        entries.append(Line2D([], [], color=colour, marker="o", markerfacecolor="white", linestyle="none", label="gated: no verdict rests on it"))
    if any((~marks.defined).any() for marks in every):
        entries.append(Line2D([], [], color=colour, marker="x", linestyle="none", markersize=4, label="undefined"))
    return entries


def curves(axes: Axes, panel: Curve) -> list[Artist]:
    """Draw all lines of a panel, moved aside from each other a little; returns the legend entries."""
    at = np.asarray(panel.at, np.float64)
    lines = [one for one in panel.lines if one.marks.value.size]
    if not lines:
        absent(axes, "no value to show")
        return []
    entries: list[Artist] = []
    if panel.bound is not None:
        axes.axhline(panel.bound, color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)), zorder=2)
        entries.append(Line2D([], [], color=VERMILION, linestyle=(0, (5, 2)), linewidth=1.1, label=f"declared bound: {panel.bound:g}"))
    if panel.zero:
        axes.axhline(0.0, color=GREY, linewidth=0.7, zorder=1)
    for i, one in enumerate(lines):
        aside = i - (len(lines) - 1) / 2
        moved = at * 1.02**aside if panel.log else at + 0.09 * _gap(at) * aside
        entries += line(axes, moved[: one.marks.value.size], one, one.colour or CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)])
    _whole_ticks(axes, at, log=panel.log)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    light_grid(axes)
    return entries + state_keys([one.marks for one in lines])


def _gap(at: Floats) -> float:
    return float(np.diff(np.unique(at)).min(initial=1.0)) if len(at) > 1 else 1.0


def _whole_ticks(axes: Axes, at: Floats, *, log: bool) -> None:
    """Ticks at the whole numbers themselves, thinned out where they are many or, on a logarithmic axis, close."""
    places = np.unique(at)
    if log:
        axes.set_xscale("log")
        shown = [places[0]]
        for place in places[1:]:
            if place >= 1.24 * shown[-1]:
                shown.append(place)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(shown, [f"{place:g}" for place in shown])
        axes.set_xlim(places[0] / 1.2, places[-1] * 1.2)
        return
    axes.set_xlim(places[0] - 0.5 * _gap(at), places[-1] + 0.5 * _gap(at))
    axes.xaxis.set_major_locator(FixedLocator(places.tolist()) if len(places) <= TICKS else MaxNLocator(TICKS, integer=True))


def curve_panel(panel: Curve, width_in: float, height_in: float = 2.9) -> Figure:
    """A figure of one panel of lines with its legend above; a narrow one is taller by the rows of its legend."""
    figure = canvas(height_in if width_in >= NARROW_IN else height_in + 0.5, width_in)
    legend_above(figure, curves(figure.subplots(), panel))
    return figure
