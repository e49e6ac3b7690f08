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
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from analysis.estimate import Estimate
from analysis.figures.columns import Floats, floats
from analysis.figures.style import BLUE, SKY, WIDTH_IN, absent, canvas, drawn, letter
from analysis.figures.topology_cells import ENTROPY, TEXT_UP_TO, Grid, cell_keys, numbered, paint, scale_bar, thin_ticks
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


def _map(axes: Axes, grid: Grid, entropy: ArrayLike | None) -> Grid:
    """One map over layer pairs, its diagonal in the colours of H; returns the grid whose diagonal no longer counts as undefined."""
    image, n = paint(axes, grid), len(grid.rows)
    if image is None:
        return grid
    own = np.full(n, np.nan) if entropy is None else floats(entropy)
    if len(own) != n:
        raise ValueError(f"entropy: {len(own)} values for {n} layers; give H of every layer, NaN where undefined")
    blank = np.ma.masked_where(~np.eye(n, dtype=np.bool_), np.zeros((n, n)))
    axes.imshow(blank, norm=Normalize(0, 1), cmap="Greys", interpolation="nearest", zorder=2, label="_blank")
    if np.isfinite(own).any():
        top = float(np.nanmax(own)) or 1.0
        above = _diagonal(axes, own, Normalize(0.0, top))
        scale_bar(axes, image, grid, place=(1.03, 0.0, 0.04, 0.56))
        entropy_grid = replace(grid, marks=Marks.of(own), quantity="H(\u2113) (bits)", limits=(0.0, top))
        scale_bar(axes, above, entropy_grid, place=(1.03, 0.64, 0.04, 0.36))
    else:
        scale_bar(axes, image, grid)
    value = grid.marks.value.copy()
    np.fill_diagonal(value, 0.0)
    return replace(grid, marks=replace(grid.marks, value=value))


def _diagonal(axes: Axes, own: Floats, scale: Normalize) -> AxesImage:
    cells = np.full((len(own), len(own)), np.nan)
    np.fill_diagonal(cells, own)
    drawn_cells = axes.imshow(np.ma.masked_invalid(cells), norm=scale, cmap=ENTROPY, interpolation="nearest", zorder=2.1, label="_entropy")
    for i in np.flatnonzero(np.isfinite(own)).tolist() if len(own) <= TEXT_UP_TO else ():
        ink = readable_on(colormaps[ENTROPY](float(scale(own[i]))))
        axes.text(i, i, f"H\n{number(own[i], 2)}", ha="center", va="center", fontsize=6.0, color=ink, zorder=6)
    return drawn_cells


def _largest(*every: Marks) -> float:
    finite = np.concatenate([marks.value[np.isfinite(marks.value)] for marks in every])
    return float(finite.max(initial=0.0)) or 1.0


def cross_layer_panel(axes: Axes, shown: CrossLayer, *, excess: bool = False, top: float | None = None) -> Grid:
    """The map of the information, or of its excess, in a panel; returns its grid, for the legend. top: end of the colour scale."""
    marks = _off_diagonal(shown.excess if excess else shown.information)
    names = shown.layers if shown.layers is not None else numbered(len(marks.value))
    quantity = "I \u2212 mean over shifts (bits)" if excess else "I(\u2113; \u2113\u2032) (bits)"
    grid = Grid(marks, names, names, "MoE layer \u2113", "MoE layer \u2113\u2032", quantity, limits=(0.0, top or _largest(marks)), intervals=False)
    return _map(axes, grid, None if excess else shown.entropy)


@drawn
def cross_layer_map(shown: CrossLayer) -> Figure:
    """Heat map of I(X_l; X_l') over all layer pairs, bits, beside the excess over the circular shift where given, in the same colours.

    The diagonal holds H(X_l), the entropy of the layer, in its own colours: it is not information between layers.
    """
    parts = (False,) if shown.excess is None else (False, True)
    top = _largest(*(_off_diagonal(shown.excess if excess else shown.information) for excess in parts))
    figure = canvas(3.6 if len(parts) > 1 else 4.6, WIDTH_IN if len(parts) > 1 else 5.6)
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    grids = [cross_layer_panel(axes, shown, excess=excess, top=top) for axes, excess in zip(panels, parts, strict=True)]
    some = bool(grids[0].marks.value.size)
    for axes, which, title in zip(panels, "ab", ("Information between layers", "Beyond the circular shift"), strict=False):
        if some and len(parts) > 1:
            letter(axes, which, title)
    legend_above(figure, cell_keys(grids))
    diagonal = "Diagonal: H(\u2113), the entropy of the layer itself, not information between layers; white where it is not given. "
    note(figure, diagonal + "Colours start at 0; the estimates are not clipped." if some else "")
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
    return curve_panel(Curve("distance between layers (number of MoE layers)", "mean over pairs (bits)", at, lines, bound), width_in)


@drawn
def information_per_layer(
    estimates: Sequence[Estimate | None], entropy: ArrayLike | None = None, *, layers: Sequence[str] | None = None, width_in: float = WIDTH_IN,
) -> Figure:
    """Bar per layer: mean of its information with the other L - 1 layers, bits, inside an outline of its entropy H(X_l)."""
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
