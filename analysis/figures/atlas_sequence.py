"""Experts along a document: selection traces of single documents, use over positions, repetition from layer to layer.

T token, E expert, B bin of positions, L MoE layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from analysis.figures.columns import floats
from analysis.figures.style import absent, canvas, drawn, letter, light_grid
from analysis.figures.topology_cells import Grid, cell_keys, paint, scale_bar
from analysis.figures.topology_curves import Curve, Line, curves
from analysis.figures.topology_marks import CYCLE, Marks, broken, legend_above, note


@dataclass(frozen=True)
class SelectionTrace:
    """First choices of one document at one layer: expert of each position."""

    title: str
    position: ArrayLike
    expert: ArrayLike


@drawn
def selection_traces(rows: Sequence[Sequence[SelectionTrace]], n_experts: int) -> Figure:
    """Small panels, a row per document and a column per layer: the first choice of each token, runs of one expert joined by a line.

    Expert ids are names: heights mean nothing beyond being the same or another.
    """
    if not rows or not rows[0]:
        figure = canvas(1.2)
        absent(figure.subplots(), "no document to show")
        return figure
    figure = canvas(0.6 + 1.35 * len(rows))
    panels = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey=True)
    for i, row in enumerate(rows):
        for j, (axes, one) in enumerate(zip(panels[i], row)):
            x, y = floats(one.position), floats(one.expert)
            same = np.flatnonzero(np.diff(y) == 0)
            for at in same.tolist():
                axes.plot(x[at : at + 2], y[at : at + 2], color=CYCLE[i % len(CYCLE)], linewidth=2.2, solid_capstyle="round")
            axes.plot(x, y, color=CYCLE[i % len(CYCLE)], linewidth=0.3, alpha=0.35)
            axes.plot(x, y, ".", color=CYCLE[i % len(CYCLE)], markersize=3.2)
            axes.set_title(broken(one.title, 7.0 / len(row), 16.0), fontsize=7, fontweight="normal")
            axes.set_ylim(-1, n_experts)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            light_grid(axes)
            if i == len(rows) - 1:
                axes.set_xlabel("position")
            if j == 0:
                axes.set_ylabel("expert (id)")
    note(figure, "Thick lines: the next token has the same first choice. Ids are names, so that only equality of heights means something.")
    return figure


@drawn
def usage_timeline(shares: Sequence[ArrayLike], titles: Sequence[str], bins: Sequence[str]) -> Figure:
    """Heat maps of experts by place in the document, one panel a layer, on one colour scale: shares of the choices made there, [B, E] each."""
    if not shares:
        figure = canvas(1.2)
        absent(figure.subplots(), "no position to show")
        return figure
    tops = [float(np.nanmax(floats(one))) for one in shares if np.isfinite(floats(one)).any()]
    top = max(tops, default=1.0) or 1.0
    figure = canvas(3.4)
    panels = figure.subplots(1, len(shares), squeeze=False)[0]
    grids = []
    for place, (axes, share, title) in enumerate(zip(panels, shares, titles)):
        values = floats(share).T
        grid = Grid(Marks.of(values), [str(e) for e in range(len(values))], list(bins), "expert (id)" if place == 0 else "",
                    "position in the document", "share of choices", square=False, intervals=False, limits=(0.0, top), power=0.5)
        image = paint(axes, grid)
        letter(axes, "abcdef"[place % 6], title)
        if image is not None and place == len(shares) - 1:
            scale_bar(axes, image, grid)
        grids.append(grid)
    legend_above(figure, cell_keys(grids))
    return figure


@drawn
def repetition_by_layer(lines: Sequence[tuple[str, Sequence[Any]]], depths: Sequence[int], bound: float | None = None) -> Figure:
    """Repetition beyond chance over the layers, a line for each form, with intervals; 0 is chance, 1 always the same."""
    figure = canvas(3.0)
    shown = [Line(name, Marks.of(list(layers)), CYCLE[i % len(CYCLE)]) for i, (name, layers) in enumerate(lines)]
    panel = Curve("layer", "\u03ba (0: chance, 1: always)", np.asarray(depths, np.int64), shown, bound)
    legend_above(figure, curves(figure.subplots(), panel))
    return figure
