"""Information between layers: map over all pairs, against distance, per layer.

L layer, G distance between layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from analysis.estimate import Estimate
from analysis.figures.columns import floats
from analysis.figures.style import BLUE, SKY, WIDTH_IN, absent, canvas, drawn, letter
from analysis.figures.topology_cells import ENTROPY, TEXT_UP_TO, Grid, cell_keys, numbered, paint, scale_bar
from analysis.figures.topology_curves import Curve, Line, curve_panel
from analysis.figures.topology_marks import Marks, bars, keys, legend_above, note, readable_on
from analysis.figures.words import number


@dataclass(frozen=True)
class CrossLayer:
    """Information between all pairs of layers.

    information [L, L]: I(X_l; X_l') in bits, Estimates or numbers; its diagonal is not read. entropy [L]: H(X_l), bits, drawn on the
    diagonal in its own colours. excess [L, L]: the part beyond the circular-shift null, bits. layers: their names, 0.. if not given.
    """

    information: Any
    entropy: ArrayLike | None = None
    excess: Any = None
    layers: Sequence[str] | None = None


def _off_diagonal(values: Any) -> Marks:
    marks = Marks.of(values)
    if marks.value.ndim != 2:
        marks = Marks.of(np.empty((0, 0)))
    own = np.eye(len(marks.value), dtype=np.bool_)
    return replace(marks, value=np.where(own, np.nan, marks.value), gated=marks.gated & ~own)


def _grid(marks: Marks, names: Sequence[str], quantity: str, top: float) -> Grid:
    return Grid(marks, names, names, "MoE layer \u2113", "MoE layer \u2113\u2032", quantity, limits=(0.0, top), intervals=False)


def layer_map(axes: Axes, marks: Marks, entropy: ArrayLike | None, grid: Grid) -> Grid:
    """One map over layer pairs, its diagonal in the colours of H; returns the grid as drawn, for its legend."""
    image = paint(axes, grid)
    if image is None:
        return grid
    n = len(marks.value)
    own = np.full(n, np.nan) if entropy is None else floats(entropy)
    diagonal = np.full((n, n), np.nan)
    np.fill_diagonal(diagonal, own)
    whole = Normalize(0.0, float(np.nanmax(own)) if np.isfinite(own).any() else 1.0)
    blank = np.ma.masked_where(~np.eye(n, dtype=np.bool_), np.zeros((n, n)))
    axes.imshow(blank, norm=Normalize(0, 1), cmap="Greys", interpolation="nearest", zorder=2, label="_blank")
    above = axes.imshow(np.ma.masked_invalid(diagonal), norm=whole, cmap=ENTROPY, interpolation="nearest", zorder=2.1, label="_entropy")
    if n <= TEXT_UP_TO:
        for i in np.flatnonzero(np.isfinite(own)).tolist():
            ink = readable_on(colormaps[ENTROPY](float(whole(own[i]))))
            axes.text(i, i, f"H\n{number(own[i], 2)}", ha="center", va="center", fontsize=6.0, color=ink, zorder=6)
    if not np.isfinite(own).any():
        scale_bar(axes, image, grid)
        return grid
    scale_bar(axes, image, grid, place=(1.03, 0.0, 0.04, 0.56))
    entropy_grid = replace(grid, marks=Marks.of(own), quantity="H(layer \u2113) (bits)", limits=(0.0, float(np.nanmax(own)) or 1.0))
    scale_bar(axes, above, entropy_grid, place=(1.03, 0.64, 0.04, 0.36))
    return grid


def _largest(*every: Marks) -> float:
    finite = np.concatenate([marks.value[np.isfinite(marks.value)] for marks in every])
    return float(finite.max(initial=0.0)) or 1.0


def _undefined_off_diagonal(grid: Grid) -> Grid:
    """The grid whose diagonal no longer counts as undefined, for the legend."""
    value = grid.marks.value.copy()
    np.fill_diagonal(value, 0.0)
    return replace(grid, marks=replace(grid.marks, value=value))


@drawn
def cross_layer_map(shown: CrossLayer) -> Figure:
    """Heat map of I(X_l; X_l') over all layer pairs, bits, beside the excess over the circular shift where given.

    The diagonal holds H(X_l), the entropy of the layer, in its own colours: it is not information between layers.
    """
    maps = [_off_diagonal(values) for values in (shown.information, shown.excess) if values is not None]
    figure = canvas(3.6 if len(maps) > 1 else 4.6, WIDTH_IN if len(maps) > 1 else 5.6)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    names = shown.layers if shown.layers is not None else numbered(len(maps[0].value))
    top, grids = _largest(*maps), []
    titles = ("Information between layers", "Beyond the circular shift")
    labels = ("I(layer \u2113; layer \u2113\u2032) (bits)", "I \u2212 mean over shifts (bits)")
    for i, (axes, marks) in enumerate(zip(panels, maps, strict=True)):
        grid = _grid(marks, names, labels[i], top)
        grids.append(_undefined_off_diagonal(layer_map(axes, marks, shown.entropy if i == 0 else None, grid)))
        if marks.value.size:
            letter(axes, "ab"[i], titles[i])
    legend_above(figure, cell_keys(grids))
    diagonal = "Diagonal: H(layer), the entropy of the layer itself, not information between layers; white where it is not given. "
    note(figure, diagonal + "Colours start at 0; the estimates are not clipped." if len(maps[0].value) else "")
    return figure


@drawn
def information_by_distance(
    series: Mapping[str, Sequence[Estimate | None]], distances: Sequence[int] | None = None, *, bound: float | None = None,
    width_in: float = WIDTH_IN,
) -> Figure:
    """Mean information of the layer pairs at each distance, bits, with intervals, one line per series, over the band of its null.

    series: name -> Estimate per distance, such as I, its excess over the circular shift, and given the token type. distances: 1.. if not
    given. bound: the declared threshold of the first series, at distance 1.
    """
    at = np.arange(1, 1 + max((len(one) for one in series.values()), default=0)) if distances is None else np.asarray(distances)
    lines = [Line(name, Marks.of(list(one))) for name, one in series.items()]
    return curve_panel(Curve("distance between layers (number of MoE layers)", "mean information over pairs (bits)", at, lines, bound), width_in)


@drawn
def information_per_layer(
    estimates: Sequence[Estimate | None], entropy: ArrayLike | None = None, *, layers: Sequence[str] | None = None, width_in: float = WIDTH_IN,
) -> Figure:
    """Bar per layer: mean of its information with the other L - 1 layers, bits, inside an outline of its entropy H(X_l)."""
    from analysis.figures.topology_cells import thin_ticks

    marks, figure = Marks.of(list(estimates)), canvas(2.7, width_in)
    axes, at = figure.subplots(), np.arange(len(estimates), dtype=np.float64)
    if not len(at):
        absent(axes, "no layer to show")
        return figure
    entries = [Patch(facecolor=BLUE, label="mean information with the other layers"), *keys([marks])]
    if entropy is not None:
        axes.bar(at, np.nan_to_num(floats(entropy)), 0.8, facecolor="#f3f8fc", edgecolor=SKY, linewidth=0.8, zorder=1, label="_entropy")
        entries.insert(1, Patch(facecolor="#f3f8fc", edgecolor=SKY, label="H(layer): the most there could be"))
    bars(axes, at, marks, [BLUE])
    axes.set_xlim(-0.6, len(at) - 0.4)
    thin_ticks(axes.xaxis, layers if layers is not None else numbered(len(at)), int(width_in * 3.4))
    axes.set_xlabel("MoE layer")
    axes.set_ylabel("information (bits)")
    legend_above(figure, entries)
    return figure
