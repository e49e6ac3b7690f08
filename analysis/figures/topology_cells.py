"""Heat maps of estimates: one painter for every matrix, with ticks that thin out, hatched gated cells and grey undefined ones.

R row, C column. Colours: light to dark for amounts, red to blue through white for signed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize, PowerNorm
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures.columns import Floats
from analysis.figures.style import GREY, INK, absent
from analysis.figures.topology_marks import HATCH, UNDEFINED_FILL, Flags, Marks, gated_key, readable_on
from analysis.figures.words import number

AMOUNT, SIGNED, ENTROPY = "YlGnBu", "RdBu", "Oranges"
CHARACTER_IN = 0.066  # width of a character of a tick label
TEXT_UP_TO, INTERVAL_UP_TO, HATCH_UP_TO, DOTS_UP_TO = 8, 6, 16, 48  # cells a side that hold a number, an interval, a hatch, a dot
STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1_000)


@dataclass(frozen=True)
class Grid:
    """One heat map: marks [R, C] with names of rows and columns and the labels of its axes; `quantity` with its unit labels the colours.

    signed: colours diverge about 0. dots: cells to mark, in the words of dot_label. limits: ends of the colour scale; else the values'.
    power: exponent of the colour scale, below 1 to spread out small values. intervals: write them into cells where there is room.
    numbers: write values into cells where there is room. absent: what a cell without a value is, where not undefined.
    """

    marks: Marks
    rows: Sequence[str]
    columns: Sequence[str]
    row_axis: str
    column_axis: str
    quantity: str
    signed: bool = False
    dots: Flags | None = None
    dot_label: str = ""
    limits: tuple[float, float] | None = None
    power: float = 1.0
    square: bool = True
    intervals: bool = True
    numbers: bool = True
    digits: int = 2
    absent: str = ""


def thin_ticks(axis: Axis, names: Sequence[str], at_most: int) -> None:
    """Name every n-th position of an axis of cells, n a round number such that at most `at_most` are named."""
    step = next((s for s in STEPS if -(-len(names) // s) <= at_most), len(names) or 1)
    shown = range(0, len(names), step)
    axis.set_ticks(list(shown), [names[i] for i in shown])
    axis.set_tick_params(length=2.0 if len(names) > 1 else 0.0)


def colour_limits(grid: Grid) -> tuple[float, float]:
    """Ends of the colour scale: 0 to the largest value, or symmetric about 0 where signed."""
    if grid.limits is not None:
        return grid.limits
    finite = grid.marks.value[np.isfinite(grid.marks.value)]
    if grid.signed:
        top = float(np.abs(finite).max(initial=0.0)) or 1.0
        return -top, top
    return 0.0, float(finite.max(initial=0.0)) or 1.0


def paint(axes: Axes, grid: Grid) -> AxesImage | None:
    """Draw the cells with ticks, hatching and dots; None, with words in place of cells, where there is no cell."""
    if not grid.marks.value.size:
        absent(axes, "no value to show")
        return None
    low, high = colour_limits(grid)
    norm = Normalize(low, high) if grid.power == 1.0 else PowerNorm(grid.power, low, high)
    colours = colormaps[SIGNED if grid.signed else AMOUNT].with_extremes(bad=UNDEFINED_FILL)
    values = np.where(np.isinf(grid.marks.value), np.sign(grid.marks.value) * 1e30, grid.marks.value)
    shown = np.ma.masked_invalid(np.clip(values, low, high))
    image = axes.imshow(shown, norm=norm, cmap=colours, interpolation="nearest", aspect="equal" if grid.square else "auto")
    _frame(axes, grid)
    hatch(axes, grid.marks.gated)
    _dots(axes, grid)
    _numbers(axes, grid, colours, norm)
    return image


def _frame(axes: Axes, grid: Grid) -> None:
    full_width, full_height = _inches(axes)
    width, height = axes.get_position().width * full_width, axes.get_position().height * full_height
    widest = max((len(name) for name in grid.columns), default=1)
    ids = widest <= 3  # numbers may thin out beside each other; names turn first
    horizontal = ids or CHARACTER_IN * (widest + 1.5) * len(grid.columns) <= width
    room = max(2, int(width / (0.09 * widest + 0.08 if ids else 0.16)))
    thin_ticks(axes.xaxis, grid.columns, len(grid.columns) if horizontal and not ids else room)
    thin_ticks(axes.yaxis, grid.rows, max(2, int(height / 0.16)))
    if not horizontal:
        axes.tick_params(axis="x", rotation=90 if len(grid.columns) > 12 else 40)
        if len(grid.columns) <= 12:
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel(grid.column_axis)
    axes.set_ylabel(grid.row_axis)
    axes.spines[:].set_visible(False)


def _inches(axes: Axes) -> tuple[float, float]:
    figure = axes.get_figure(root=True)
    return (figure.get_figwidth(), figure.get_figheight()) if figure is not None else (1.0, 1.0)


def hatch(axes: Axes, cells: Flags) -> None:
    """Hatch the given cells; where cells are small one stroke through each, for lines of a hatch would miss some of them."""
    if not cells.any():
        return
    if max(cells.shape) > HATCH_UP_TO:
        row, column = np.nonzero(cells)
        strokes = np.stack([np.column_stack([column - 0.5, row + 0.5]), np.column_stack([column + 0.5, row - 0.5])], axis=1)
        axes.add_collection(LineCollection(strokes.tolist(), colors=INK, linewidths=0.5, alpha=0.7, zorder=3, label="_gated"), autolim=False)
        return
    edges = [np.arange(n + 1) - 0.5 for n in (cells.shape[1], cells.shape[0])]
    mesh = axes.pcolor(*edges, np.ma.masked_where(~cells, np.ones(cells.shape)), facecolor="none", edgecolor=INK, linewidth=0, hatch=HATCH)
    mesh.set(hatch_linewidth=0.5, alpha=0.6, label="_gated")
    axes.set_xlim(-0.5, cells.shape[1] - 0.5)
    axes.set_ylim(cells.shape[0] - 0.5, -0.5)


def _dots(axes: Axes, grid: Grid) -> None:
    if grid.dots is None or not grid.dots.any():
        return
    rows, columns = np.nonzero(grid.dots)
    side = max(grid.dots.shape)
    lift = 0.32 if side <= TEXT_UP_TO else 0.0  # above the number
    many = side > DOTS_UP_TO
    look = {"s": 0.8, "facecolor": INK, "linewidths": 0} if many else {"s": 7, "facecolor": "white", "edgecolor": INK, "linewidths": 0.6}
    axes.scatter(columns, rows - lift, zorder=5, label="_dots", **look)  # type: ignore[arg-type]


def _numbers(axes: Axes, grid: Grid, colours: Colormap, norm: Normalize) -> None:
    marks = grid.marks
    if not grid.numbers or max(marks.value.shape) > TEXT_UP_TO:
        return
    with_interval = grid.intervals and max(marks.value.shape) <= INTERVAL_UP_TO
    size = 5.2 if with_interval and marks.value.shape[1] > 5 else 6.0  # an interval and its halo stay in their cell
    for (row, column), value in np.ndenumerate(marks.value):
        if np.isnan(value):
            continue
        text = number(float(value), grid.digits) if np.isfinite(value) else "\u221e" if value > 0 else "\u2212\u221e"
        if with_interval and marks.has_interval[row, column]:
            text += f"\n[{number(float(marks.low[row, column]), grid.digits)}, {number(float(marks.high[row, column]), grid.digits)}]"
        ink = readable_on(colours(float(np.clip(norm(np.clip(value, norm.vmin, norm.vmax)), 0, 1))))
        shift = 0.16 if grid.dots is not None and grid.dots[row, column] else 0.0
        axes.text(column, row + shift, text, ha="center", va="center", fontsize=size, color=ink, zorder=6,
                  bbox=_halo(ink) if marks.gated[row, column] else None)


def _halo(ink: str) -> dict[str, object]:
    return {"facecolor": "white" if ink == INK else INK, "alpha": 0.55, "edgecolor": "none", "pad": 0.4}


def scale_bar(axes: Axes, image: ScalarMappable, grid: Grid, *, place: tuple[float, float, float, float] = (1.03, 0.0, 0.04, 1.0)) -> Axes:
    """The colour bar at the right edge of a panel; pointed where values lie beyond its ends."""
    low, high = colour_limits(grid)
    known = grid.marks.value[~np.isnan(grid.marks.value)]
    slack = 1e-9 * max(abs(low), abs(high), 1e-12)
    under, over = bool((known < low - slack).any()), bool((known > high + slack).any())
    extend = "both" if under and over else "min" if under else "max" if over else "neither"
    inside = axes.inset_axes(place)
    figure = axes.get_figure(root=True)
    assert figure is not None
    ticks = FuncFormatter(lambda value, _: f"{value:.4g}".replace("-", "\u2212"))
    bar = figure.colorbar(image, cax=inside, ticks=MaxNLocator(max(2, int(6 * place[3]))), format=ticks, extend=extend)
    bar.set_label(grid.quantity, fontsize=7)
    bar.outline.set_visible(False)
    inside.tick_params(labelsize=6.5)
    return inside


def cell_keys(grids: Sequence[Grid]) -> list[Artist]:
    """Legend entries of what occurs in the grids: gated, undefined, dots."""
    entries: list[Artist] = []
    if any(np.isnan(grid.marks.value).any() for grid in grids):
        entries.append(Patch(facecolor=UNDEFINED_FILL, label=next((grid.absent for grid in grids if grid.absent), "undefined")))
    if any(grid.marks.gated.any() for grid in grids):
        entries.append(gated_key())
    for grid in grids:
        if grid.dots is not None and grid.dots.any() and grid.dot_label:
            entries.append(Line2D([], [], marker="o", linestyle="none", color="white", markeredgecolor=INK, markersize=3.5, label=grid.dot_label))
    return entries


def numbered(n: int) -> list[str]:
    """Names of n layers or experts: their ids."""
    return [str(i) for i in range(n)]


def outline(axes: Axes, cells: Sequence[int]) -> None:
    """A thin frame around the diagonal cells at the given places."""
    from matplotlib.patches import Rectangle

    for i in cells:
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=GREY, linewidth=0.9, zorder=4))


def ordered(values: Floats, rows: Sequence[int], columns: Sequence[int]) -> Floats:
    """values with its rows and columns in the given order."""
    return values[np.ix_(np.asarray(rows, np.int64), np.asarray(columns, np.int64))]
