"""Information across domains: map over ordered pairs, bars of declared pairs, and information against retention.

D domain (row: source A, column: target B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.estimate import Estimate
from analysis.figures.style import BLUE, GREEN, GREY, INK, VERMILION, WIDTH_IN, absent, canvas, drawn, light_grid
from analysis.figures.topology_cells import Grid, cell_keys, outline, paint, scale_bar
from analysis.figures.topology_marks import NARROW_IN, Marks, bars, broken, keys, legend_above, note
from analysis.figures.topology_places import label_points
from analysis.figures.words import interval

ARROW = " \u2192 "
LABELLED_UP_TO = 12  # points named beside their mark; beyond, numbers with a key
REASON_CHARACTERS = 34


@dataclass(frozen=True)
class Transfer:
    """Transferred information T(A to B) of ordered pairs, estimates [D, D] with the target's own information on the diagonal, bits."""

    estimates: Any
    names: Sequence[str]
    over: str = "mean over adjacent layers"


def transfer_panel(axes: Axes, shown: Transfer, *, intervals: bool = True) -> Grid:
    """The heat map of ordered pairs in a panel; returns its grid, for the legend."""
    marks = Marks.of(shown.estimates)
    if marks.value.ndim != 2:
        marks = Marks.of(np.empty((0, 0)))
    with np.errstate(invalid="ignore"):
        around_zero = (marks.low <= 0) & (marks.high >= 0) & marks.defined
    label = f"{100 * marks.level:g}% interval holds 0"
    quantity = "T(A \u2192 B) (bits)" + (f", {shown.over}" if intervals and shown.over else "")
    grid = Grid(marks, shown.names, shown.names, "source domain A", "target domain B", quantity, signed=True,
                dots=around_zero, dot_label=label, intervals=intervals)
    image = paint(axes, grid)
    if image is not None:
        outline(axes, range(len(marks.value)))
        scale_bar(axes, image, grid)
    return grid


@drawn
def cross_domain_map(shown: Transfer) -> Figure:
    """Heat map of the information that a transition table of domain A transfers to domain B, bits, colours diverging about 0.

    Framed diagonal: the information of the domain itself, the most that any source can transfer.
    """
    n = len(shown.names)
    figure = canvas(min(5.0, 2.4 + 0.5 * n), 3.6 + 0.8 * n if n < 4 else 6.2 if n <= 6 else WIDTH_IN)
    grid = transfer_panel(figure.subplots(), shown)
    legend_above(figure, [*cell_keys([grid]), Line2D([], [], marker="s", linestyle="none", color="white", markeredgecolor=GREY,
                                                     label="framed: I of the domain itself, the ceiling of its column")])
    below_zero = "Red: A's transition table predicts B worse than B's own loads do. Ordered pairs: T is not symmetric."
    note(figure, below_zero if grid.marks.value.size else "")
    return figure


@drawn
def information_per_pair(
    pairs: Sequence[tuple[str, str]], estimates: Sequence[Estimate | None], *, bounds: Sequence[float] = (0.0, 0.5),
    ceilings: Sequence[Estimate | None] = (), width_in: float = WIDTH_IN,
) -> Figure:
    """Bar per declared ordered pair (source, target): transferred information, bits, against the declared bounds.

    ceilings: the target's own information, a green tick at the end of the reach of each bar. An undefined pair keeps its row and reason.
    """
    figure = canvas((1.0 if width_in >= NARROW_IN else 1.6) + 0.26 * max(len(pairs), 3), width_in)
    axes, at = figure.subplots(), np.arange(len(pairs), dtype=np.float64)[::-1]
    if not len(pairs):
        absent(axes, "no pair of domains is declared")
        return figure
    marks = Marks.of(list(estimates))
    entries: list[Artist] = [Patch(facecolor=BLUE, label="T(A \u2192 B)")]
    bars(axes, at, marks, [BLUE], horizontal=True)
    if ceilings:
        top = Marks.of(list(ceilings))
        axes.plot(top.value, at, "|", color=GREEN, markersize=11, markeredgewidth=2, label="_ceiling", zorder=5)
        entries.append(Line2D([], [], marker="|", color=GREEN, linestyle="none", markersize=9, markeredgewidth=2, label="I of the target itself"))
    for bound in bounds:
        axes.axvline(bound, color=VERMILION if bound else INK, linewidth=1.1 if bound else 0.8, linestyle=(0, (5, 2)) if bound else "-", zorder=1)
    if any(bounds):
        stated = ", ".join(f"{bound:g}" for bound in bounds if bound)
        entries.append(Line2D([], [], color=VERMILION, linestyle=(0, (5, 2)), linewidth=1.1, label=f"declared bound: {stated} bits"))
    if width_in >= NARROW_IN:
        row_words(axes, at, estimates)
    axes.set_yticks(at, [ARROW.join(pair) for pair in pairs])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(pairs) - 0.4)
    axes.set_xlabel("transferred information (bits)")
    axes.set_ylabel("source \u2192 target")
    light_grid(axes, "x")
    legend_above(figure, [*entries, *keys([marks])])
    return figure


def row_words(axes: Axes, at: Any, estimates: Sequence[Estimate | None], digits: int = 2) -> None:
    """The numbers of each row, or the reason why there are none, to the right of the panel."""
    for y, estimate in zip(at, estimates, strict=True):
        words = "not given" if estimate is None else interval(estimate, digits)
        if len(words) > REASON_CHARACTERS:
            words = words[: REASON_CHARACTERS - 1].rstrip() + "\u2026"
        known = estimate is not None and estimate.value is not None
        axes.annotate(words, (1.0, y), xycoords=axes.get_yaxis_transform(), xytext=(5, 0), textcoords="offset points", va="center", fontsize=6.5,
                      color=INK if known else GREY, annotation_clip=False)


@dataclass(frozen=True)
class RetentionPoint:
    """One ordered pair of domains: the information transferred, bits, and the share of accuracy retained."""

    label: str
    information: Estimate
    retention: Estimate

    @property
    def drawable(self) -> bool:
        """Whether both numbers are defined."""
        return self.information.value is not None and self.retention.value is not None

    @property
    def gated(self) -> bool:
        """Whether no verdict may rest on either number."""
        return self.information.gate is not None or self.retention.gate is not None


def retention_panel(axes: Axes, points: Sequence[RetentionPoint]) -> tuple[list[Artist], str]:
    """The scatter with intervals; returns legend entries, and words on the key and on points that are not drawn. Names come last: `name_points`."""
    shown = [point for point in points if point.drawable]
    if not shown:
        absent(axes, "no pair has both numbers")
        return [], _left_out(points)
    x, y = (Marks.of([getattr(point, name) for point in shown]) for name in ("information", "retention"))
    axes.set_xlim(*_room(x))
    axes.set_ylim(*_room(y))
    for reference, line in ((0.0, axes.axvline), (0.0, axes.axhline), (1.0, axes.axhline)):
        line(reference, color=GREY, linewidth=0.8, linestyle=":" if reference else "-", zorder=1)
    across = np.column_stack([x.low, y.value, x.high, y.value])[x.has_interval]
    upright = np.column_stack([x.value, y.low, x.value, y.high])[y.has_interval]
    for ends in (across, upright):
        axes.add_collection(LineCollection(ends.reshape(-1, 2, 2).tolist(), colors=BLUE, linewidths=0.9, alpha=0.55, zorder=3), autolim=False)
    gated = np.array([point.gated for point in shown])
    for which, face in ((~gated, BLUE), (gated, "white")):
        if which.any():
            axes.plot(x.value[which], y.value[which], "o", color=BLUE, markerfacecolor=face, markersize=5, zorder=5, label="_points")
    axes.set_xlabel("transferred information T(A \u2192 B) (bits)")
    axes.set_ylabel("retention R(A \u2192 B) (share of B's own accuracy)")
    light_grid(axes)
    key = "" if len(shown) <= LABELLED_UP_TO else "  ".join(f"{i + 1}\u00a0{point.label.replace(' ', chr(160))}" for i, point in enumerate(shown))
    entries: list[Artist] = [Line2D([], [], marker="o", color=BLUE, linestyle="none", label="ordered pair of domains")]
    if x.has_interval.any() or y.has_interval.any():
        entries.append(Line2D([], [], color=BLUE, linewidth=0.9, alpha=0.55, label=f"{100 * x.level:g}% interval"))
    if gated.any():
        entries.append(Line2D([], [], marker="o", color=BLUE, markerfacecolor="white", linestyle="none", label="gated: no verdict rests on it"))
    if axes.get_ylim()[1] > 1:
        entries.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="1: all of B's own accuracy"))
    return entries, "\n".join(part for part in (key, _left_out(points)) if part)


def name_points(axes: Axes, points: Sequence[RetentionPoint]) -> None:
    """Write the names beside the points, or their numbers where they are many; to be called when everything around them is in place."""
    shown = [point for point in points if point.drawable]
    if not shown:
        return
    x, y = (Marks.of([getattr(point, name) for point in shown]) for name in ("information", "retention"))
    across = np.column_stack([x.low, y.value, x.high, y.value])[x.has_interval]
    upright = np.column_stack([x.value, y.low, x.value, y.high])[y.has_interval]
    labels = [point.label if len(shown) <= LABELLED_UP_TO else str(i + 1) for i, point in enumerate(shown)]
    label_points(axes, x.value, y.value, labels, np.concatenate([across, upright]))


def _room(marks: Marks) -> tuple[float, float]:
    """Ends of an axis with room around all values and intervals."""
    low, high = float(marks.ends.min()), float(marks.ends.max())
    margin = 0.1 * (high - low) or 0.1
    return low - margin, high + margin


def _left_out(points: Sequence[RetentionPoint]) -> str:
    missing = [f"{p.label} ({p.information.reason or p.retention.reason})" for p in points if not p.drawable]
    return f"Not drawn, undefined: {'; '.join(missing)}." if missing else ""


@drawn
def information_against_retention(points: Sequence[RetentionPoint], verdict: str, *, width_in: float = WIDTH_IN) -> Figure:
    """Scatter of transferred information against retention, each ordered pair with both intervals and its name.

    verdict: what the caller concludes (correlation, interval, p, verdict), written over the points; nothing is fitted here. Beyond 12
    points names become numbers with a key.
    """
    figure = canvas(4.1 if len(points) <= LABELLED_UP_TO else 4.6, width_in)
    axes = figure.subplots()
    axes.set_title(broken(verdict, width_in - 0.5, 17.5), fontsize=7.5, fontweight="normal")
    entries, words = retention_panel(axes, points)
    legend_above(figure, entries)
    note(figure, words)
    name_points(axes, points)
    return figure
