"""Estimates as arrays for drawing, and the marks that all figures of routing topology share: intervals, nulls, gated, undefined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.figures.columns import Floats
from analysis.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION

Flags = NDArray[np.bool_]

CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, "#8c6d31", "#5b4b8a")  # six of Okabe & Ito, then a brown and a violet of other lightness
UNDEFINED_FILL = "#d5d9dd"
HATCH = "/////"
NOT_GIVEN = "not given"
ARRAYS = ("value", "low", "high", "null", "null_low", "null_high", "gated", "reasons")
NARROW_IN = 5.0  # below this width legends stand in fewer columns


@dataclass(frozen=True)
class Marks:
    """Estimates of any shape as arrays of that shape, NaN where undefined or not given.

    gated: no verdict may rest on the number. reasons: why a value is undefined or gated, '' elsewhere. level: of the intervals.
    """

    value: Floats
    low: Floats
    high: Floats
    null: Floats
    null_low: Floats
    null_high: Floats
    gated: Flags
    reasons: NDArray[Any]
    level: float = 0.95

    @classmethod
    def of(cls, estimates: Any) -> Marks:
        """From nested sequences or an array of Estimate or None, or from plain numbers, which have neither interval nor null."""
        cells = estimates if isinstance(estimates, np.ndarray) else np.array(estimates, dtype=object)
        made = [_estimate(cell) for cell in cells.ravel().tolist()]
        numbers = {name: _column(made, name, cells.shape) for name in ("value", "low", "high", "null", "null_low", "null_high")}
        reasons = np.array([one.reason or one.gate or "" for one in made], dtype=object).reshape(cells.shape)
        gated = np.array([one.gate is not None and one.value is not None for one in made], dtype=np.bool_).reshape(cells.shape)
        return cls(**numbers, gated=gated, reasons=reasons, level=next((one.level for one in made if one.low is not None), 0.95))

    @property
    def defined(self) -> Flags:
        """Where there is a value."""
        return ~np.isnan(self.value)

    @property
    def has_interval(self) -> Flags:
        """Where there is an interval."""
        return self.defined & np.isfinite(self.low) & np.isfinite(self.high)

    @property
    def has_null(self) -> Flags:
        """Where the null has its central range."""
        return np.isfinite(self.null_low) & np.isfinite(self.null_high)

    @property
    def ends(self) -> Floats:
        """Every finite number that must fit on the axis, flat."""
        every = np.concatenate([part.ravel() for part in (self.value, self.low, self.high, self.null_low, self.null_high)])
        return np.asarray(every[np.isfinite(every)])

    def each(self, of: Callable[[NDArray[Any]], NDArray[Any]]) -> Marks:
        """The marks with every array passed through `of`, such as an index or a transposition."""
        arrays: dict[str, Any] = {name: np.asarray(of(getattr(self, name))) for name in ARRAYS}
        return replace(self, **arrays)


def _estimate(cell: Any) -> Estimate:
    if isinstance(cell, Estimate):
        return cell
    if cell is None or np.isnan(cell):
        return Estimate.undefined(NOT_GIVEN)
    return Estimate(float(cell), None, None, "", "", 0, "as given")


def _column(made: Sequence[Estimate], name: str, shape: tuple[int, ...]) -> Floats:
    numbers = [getattr(one, name) for one in made]
    return np.array([np.nan if n is None else n for n in numbers], dtype=np.float64).reshape(shape)


def whiskers(axes: Axes, at: Floats, marks: Marks, colour: str, *, horizontal: bool = False, width: float = 1.4) -> None:
    """The intervals as lines through `at`."""
    known = marks.has_interval
    if known.any():
        (axes.hlines if horizontal else axes.vlines)(at[known], marks.low[known], marks.high[known], color=colour, linewidth=width, zorder=4)


def undefined_marks(axes: Axes, at: Floats, marks: Marks, *, horizontal: bool = False) -> None:
    """A grey cross at the edge of the panel for each undefined value."""
    missing = at[~marks.defined]
    if not len(missing):
        return
    edge = np.full(len(missing), 0.02)
    place, transform = ((edge, missing), axes.get_yaxis_transform()) if horizontal else ((missing, edge), axes.get_xaxis_transform())
    axes.plot(*place, "x", color=GREY, markersize=4, transform=transform, zorder=5, clip_on=False, label="_undefined")


def bars(axes: Axes, at: Floats, marks: Marks, colours: Sequence[str], *, thickness: float = 0.7, horizontal: bool = False) -> None:
    """A bar per defined value with its interval; hatched where gated, a grey cross where undefined, the null's range behind it in grey."""
    known = marks.defined
    fill = [colours[i % len(colours)] for i in np.flatnonzero(known).tolist()]
    draw = axes.barh if horizontal else axes.bar
    drawn = draw(at[known], marks.value[known], thickness, color=fill, linewidth=0, zorder=2)
    for bar, gated in zip(drawn, marks.gated[known], strict=True):
        if gated:
            bar.set(hatch=HATCH, alpha=0.55, edgecolor=INK)
    null_bands(axes, at, marks, thickness, horizontal=horizontal)
    whiskers(axes, at, marks, INK, horizontal=horizontal, width=1.2 if len(at) <= 30 else 0.8)
    undefined_marks(axes, at, marks, horizontal=horizontal)


def null_bands(axes: Axes, at: Floats, marks: Marks, thickness: float, *, horizontal: bool = False) -> None:
    """The null's central range across each bar, as a grey box."""
    known = marks.has_null
    if not known.any():
        return
    size, start = marks.null_high[known] - marks.null_low[known], marks.null_low[known]
    style: Any = {"facecolor": GREY, "alpha": 0.75, "edgecolor": "white", "linewidth": 0.4, "zorder": 3, "label": "_null"}
    if horizontal:
        axes.barh(at[known], size, thickness * 0.55, left=start, **style)
    else:
        axes.bar(at[known], size, thickness * 0.55, bottom=start, **style)


def keys(every: Iterable[Marks], *, colour: str = INK) -> list[Artist]:
    """Legend entries for what occurs among the marks: interval, null, gated, undefined."""
    shown = [marks for marks in every if marks.value.size]
    entries: list[Artist] = []
    with_interval = [marks for marks in shown if marks.has_interval.any()]
    if with_interval:
        entries.append(Line2D([], [], color=colour, linewidth=1.4, label=f"{100 * with_interval[0].level:g}% interval"))
    if any(marks.has_null.any() for marks in shown):
        entries.append(Patch(facecolor=GREY, alpha=0.6, label="null, central 95%"))
    if any(marks.gated.any() for marks in shown):
        entries.append(gated_key())
    if any((~marks.defined).any() for marks in shown):
        entries.append(Line2D([], [], color=GREY, marker="x", linestyle="none", markersize=4, label="undefined"))
    return entries


def gated_key() -> Artist:
    """Legend entry of hatched values."""
    return Patch(facecolor="white", edgecolor=INK, hatch=HATCH, linewidth=0.4, label="gated: no verdict rests on it")


def legend_above(figure: Figure, entries: Sequence[Artist]) -> None:
    """One legend over the whole figure, in as many columns as its width holds; entries of the same name once."""
    named = {str(entry.get_label()): entry for entry in entries}
    if named:
        columns = _columns([len(name) for name in named], float(figure.get_figwidth()))
        figure.legend(handles=list(named.values()), loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2)


def _columns(lengths: Sequence[int], width_in: float) -> int:
    """Most columns, filled downwards, whose longest names fit side by side."""
    for columns in range(min(len(lengths), 5), 1, -1):
        rows = -(-len(lengths) // columns)
        longest = [max(lengths[start : start + rows]) for start in range(0, len(lengths), rows)]
        if sum(0.062 * n + 0.45 for n in longest) < width_in:
            return columns
    return 1


def broken(text: str, width_in: float, per_inch: float = 19.0) -> str:
    """Text with line breaks so that it fits a width at 6.5 points."""
    import textwrap

    characters = max(20, int((width_in - 0.2) * per_inch))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, characters))


def note(figure: Figure, text: str) -> None:
    """A sentence under the whole figure, broken to its width."""
    if text:
        lines = broken(text, float(figure.get_figwidth()))
        figure.supxlabel(lines, fontsize=6.5, color=GREY, x=0.012, ha="left", linespacing=1.25)


def readable_on(colour: tuple[float, ...]) -> str:
    """Ink or white, whichever stands out on a fill (relative luminance of sRGB, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "white" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.24 else INK
