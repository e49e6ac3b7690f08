"""How much each expert is used: loads of one layer, of all layers, and the statistics of seed 001 from layer to layer.

L MoE layer, E expert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from analysis.figures.columns import floats
from analysis.figures.style import BLUE, GREY, INK, VERMILION, absent, canvas, count, drawn, letter, light_grid
from analysis.figures.topology_cells import Grid, cell_keys, paint, scale_bar
from analysis.figures.topology_curves import Curve, Line, curves
from analysis.figures.topology_marks import Marks, legend_above, note

LABELLED_UP_TO = 40  # experts whose bars are all labelled


@dataclass(frozen=True)
class LayerLoads:
    """n [E]: selections of each expert; uniform: central 95 % of one expert's load under uniform routing, None where not known."""

    n: ArrayLike
    layer: str
    uniform: tuple[float, float] | None = None


@drawn
def expert_frequency(shown: LayerLoads) -> Figure:
    """Bar per expert of one layer: its selections, against an even load and the range of one expert under uniform routing."""
    n = floats(shown.n)
    figure = canvas(2.9)
    axes = figure.subplots()
    if not len(n) or not n.sum() > 0:
        absent(axes, f"no selection at layer {shown.layer}")
        return figure
    entries: list[Line2D | Patch] = [Patch(facecolor=BLUE, label="selections"),
                                     Line2D([], [], color=VERMILION, linewidth=1.2, label=f"even load: {n.mean():,.1f}")]
    if shown.uniform is not None:
        axes.axhspan(*shown.uniform, color=GREY, alpha=0.3, linewidth=0, zorder=1)
        entries.append(Patch(facecolor=GREY, alpha=0.3, label="one expert under uniform routing, 95%"))
    axes.bar(np.arange(len(n)), n, 0.8, color=BLUE, linewidth=0, zorder=2)
    axes.axhline(float(n.mean()), color=VERMILION, linewidth=1.2, zorder=3)
    unused = np.flatnonzero(n == 0)
    if len(unused):
        axes.plot(unused, np.zeros(len(unused)), "x", color=INK, markersize=3, zorder=4, clip_on=False)
        entries.append(Line2D([], [], marker="x", color=INK, linestyle="none", markersize=4, label=f"unused: {len(unused)}"))
    axes.set_xlim(-0.7, len(n) - 0.3)
    if len(n) <= LABELLED_UP_TO:
        axes.set_xticks(range(len(n)))
        axes.tick_params(axis="x", labelsize=6 if len(n) > 20 else 7.5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(16, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: count(value))
    axes.set_xlabel("expert (id)")
    axes.set_ylabel("selections")
    axes.set_title(f"Layer {shown.layer}: use of its experts")
    light_grid(axes)
    legend_above(figure, entries)
    return figure


@drawn
def load_map(shares: Sequence[ArrayLike], layers: Sequence[str]) -> Figure:
    """Heat map of layers by experts: log2 of an expert's load over an even one, so that 0 is even, 1 twice as much; unused is grey.

    shares: for each layer the share of its selections that go to each expert [E]; layers of fewer experts are grey beyond them.
    """
    size = max((len(floats(one)) for one in shares), default=0)
    ratio = np.full((len(shares), size), np.nan)
    for row, one in zip(ratio, shares):
        share = floats(one)
        with np.errstate(divide="ignore"):
            row[: len(share)] = np.where(share > 0, np.log2(share * len(share)), np.nan)
    figure = canvas(min(7.0, 1.3 + max(0.16 * len(shares), 0.8)))
    axes = figure.subplots()
    grid = Grid(Marks.of(ratio), list(layers), [str(e) for e in range(size)], "MoE layer", "expert (id)", "log2 of load over even load", signed=True,
                square=False, intervals=False, limits=_limits(ratio))
    image = paint(axes, grid)
    if image is not None:
        scale_bar(axes, image, grid, place=(1.015, 0.0, 0.018, 1.0))
    legend_above(figure, [Patch(facecolor=one.get_facecolor(), label="unused") if one.get_label() == "undefined" else one  # type: ignore[attr-defined]
                          for one in cell_keys([grid])])
    return figure


def _limits(ratio: ArrayLike) -> tuple[float, float]:
    known = np.abs(floats(ratio))
    top = min(float(np.nanmax(known)) if np.isfinite(known).any() else 1.0, 3.0) or 1.0
    return -top, top


@dataclass(frozen=True)
class LayerStatistic:
    """One statistic over the layers: estimates [L] with their uniform null, its unit, and the seed's name for it."""

    name: str
    unit: str
    layers: Sequence[object]


@drawn
def comparative_statistics(statistics: Sequence[LayerStatistic], depths: Sequence[int]) -> Figure:
    """Small panels, one per statistic: layers with intervals over the band of uniform routing with as many selections."""
    n_rows = max(1, math.ceil(len(statistics) / 2))
    figure = canvas(0.7 + 1.7 * n_rows)
    panels = figure.subplots(n_rows, 2, squeeze=False)
    entries = []
    marks = [Marks.of(list(one.layers)) for one in statistics]
    for place, (axes, one, mark) in enumerate(zip(panels.flat, statistics, marks)):
        found = curves(axes, Curve("layer", one.unit, np.asarray(depths, np.int64), [Line("layer", mark, BLUE)], zero=False))
        if place == 0:
            entries = found
        null = mark.null
        if np.isfinite(null).any():
            axes.plot(depths, null, color=GREY, linewidth=1.0, linestyle=":", zorder=2)
        letter(axes, "abcdefghijklmnop"[place], one.name)
    for unused in panels.flat[len(statistics):]:
        unused.set_axis_off()
    if any(np.isfinite(mark.null).any() for mark in marks):
        entries.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.0, label="uniform routing"))
    legend_above(figure, entries)
    note(figure, "Every statistic depends on the number of selections; uniform routing of as many is drawn beside it.")
    return figure

