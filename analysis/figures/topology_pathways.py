"""From one layer's experts to another's: the correlation map of a pair of layers, and the pathways through the network.

X, Y expert at the earlier and the later layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from analysis.figures.style import BLUE, GREY, INK, PALE, RASTERISE_ABOVE, VERMILION, absent, canvas, drawn
from analysis.figures.topology_cells import STEPS, Grid, cell_keys, numbered, ordered, paint, scale_bar, thin_ticks
from analysis.figures.topology_marks import Marks, legend_above, note
from analysis.figures.words import number

IDS_UP_TO = 32  # experts a layer whose nodes bear their ids
LAYERS_WITH_IDS = 16


@dataclass(frozen=True)
class CrossLayerPhi:
    """phi [X, Y] of being chosen at two layers, in [-1, 1], NaN where an indicator is constant. kept [X, Y]: the edges that are published.

    rows, columns: expert ids in the order drawn, by id if not given. layers: names of the earlier and the later one. absent: what a cell
    without phi is, where not undefined.
    """

    phi: Any
    layers: tuple[str, str]
    kept: ArrayLike | None = None
    kept_words: str = "published edge: |\u03c6| \u2265 0.1 and q < 0.05"
    rows: Sequence[int] | None = None
    columns: Sequence[int] | None = None
    absent: str = ""


@drawn
def phi_map(shown: CrossLayerPhi) -> Figure:
    """Heat map of phi between the experts of two layers, diverging about 0; published edges dotted, undefined cells grey."""
    marks = Marks.of(shown.phi)
    if marks.value.ndim != 2:
        marks = Marks.of(np.empty((0, 0)))
    rows = list(range(marks.value.shape[0]) if shown.rows is None else shown.rows)
    columns = list(range(marks.value.shape[1]) if shown.columns is None else shown.columns)
    marks = marks.each(lambda array: ordered(array, rows, columns))
    kept = None if shown.kept is None else np.asarray(shown.kept, np.bool_)[np.ix_(np.array(rows, int), np.array(columns, int))]
    grid = Grid(marks, [str(i) for i in rows], [str(i) for i in columns], f"expert at layer {shown.layers[0]} (id)",
                f"expert at layer {shown.layers[1]} (id)", "\u03c6 (correlation of being chosen)", signed=True, dots=kept,
                dot_label=shown.kept_words, intervals=False, absent=shown.absent)
    figure = canvas(5.3, 6.2)
    axes = figure.subplots()
    image = paint(axes, grid)
    if image is not None:
        scale_bar(axes, image, grid)
    legend_above(figure, cell_keys([grid]))
    return figure


@dataclass(frozen=True)
class Pathways:
    """Edges between experts of adjacent layers. Arrays are [N]: layer of the earlier expert, its id, id of the later one, phi.

    n_experts [L]: experts of each layer. cut_words: what was kept, in the caller's words.
    """

    layer: ArrayLike
    source: ArrayLike
    target: ArrayLike
    phi: ArrayLike
    n_experts: Sequence[int]
    cut_words: str = ""
    layers: Sequence[str] | None = None


@drawn
def pathways(shown: Pathways) -> Figure:
    """Experts as points, layer by layer; edges of adjacent layers, width by |phi|, blue above 0 (together), red below (instead).

    Nothing says that one token takes a whole path: every edge is about two layers.
    """
    phi, layer = np.asarray(shown.phi, np.float64), np.asarray(shown.layer, np.int64)
    ends = [np.asarray(ids, np.int64) for ids in (shown.source, shown.target)]
    n_layers, most = len(shown.n_experts), max(shown.n_experts, default=0)
    figure = canvas(min(6.2, 2.2 + 0.14 * most) if most else 2.4)
    axes = figure.subplots()
    if not most:
        absent(axes, "no layer to show")
        return figure
    strength = np.abs(phi) / (np.nanmax(np.abs(phi), initial=0.0) or 1.0)
    order = np.argsort(strength, kind="stable")
    segments = np.stack([np.column_stack([layer, ends[0]]), np.column_stack([layer + 1, ends[1]])], axis=1)[order]
    thick = 2.6 if len(phi) < 400 else 1.3
    lines = LineCollection(segments.tolist(), linewidths=0.2 + thick * strength[order] ** 2, alpha=0.8 if len(phi) < 400 else 0.6, label="_edges",
                           colors=[BLUE if value > 0 else VERMILION for value in phi[order]], zorder=2, rasterized=len(phi) > RASTERISE_ABOVE)
    axes.add_collection(lines)
    _nodes(axes, shown, n_layers, most)
    strongest = f"widest: |\u03c6| = {number(float(np.nanmax(np.abs(phi))), 2)}" if len(phi) else "no edge above the cut-off"
    signs = ((BLUE, "\u03c6 > 0: chosen together", phi > 0), (VERMILION, "\u03c6 < 0: instead of each other", phi < 0))
    entries: list[Artist] = [Line2D([], [], color=colour, linewidth=2, label=words) for colour, words, which in signs if which.any()]
    legend_above(figure, [*entries, Line2D([], [], color="none", label=strongest)])
    note(figure, f"{len(phi):,} edges. {shown.cut_words}".strip())
    return figure


def _nodes(axes: Any, shown: Pathways, n_layers: int, most: int) -> None:
    x = np.repeat(np.arange(n_layers), shown.n_experts)
    y = np.concatenate([np.arange(n) for n in shown.n_experts])
    named = most <= IDS_UP_TO and n_layers <= LAYERS_WITH_IDS
    area, face, edge = (70.0, "white", 0.5) if named else (16 * 32 / max(most, 32), PALE, 0.2)
    axes.scatter(x, y, s=area, color=face, edgecolors=GREY, linewidths=edge, zorder=3)
    if named:
        for place_x, place_y in zip(x.tolist(), y.tolist(), strict=True):
            axes.text(place_x, place_y, str(place_y), ha="center", va="center", fontsize=5.5, color=INK, zorder=4)
    thin_ticks(axes.xaxis, shown.layers if shown.layers is not None else numbered(n_layers), 30)
    step = next((s for s in STEPS if -(-most // s) <= 20), most)
    axes.set_yticks(range(0, most, step))
    axes.set_xlim(-0.5, n_layers - 0.5)
    axes.set_ylim(most - 0.3, -0.7)
    axes.set_xlabel("MoE layer")
    axes.set_ylabel("expert (id)")
    axes.spines[:].set_visible(False)
