"""Routing along a document: transitions from token to token, agreement at a lag, the strongest transitions as a chain.

E expert, M lag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import ArrayLike

from analysis.estimate import Estimate
from analysis.figures.columns import Floats, floats
from analysis.figures.style import INK, absent, canvas, drawn, letter
from analysis.figures.topology_cells import AMOUNT, Grid, cell_keys, ordered, paint, scale_bar
from analysis.figures.topology_curves import Curve, Line, curves
from analysis.figures.topology_marks import UNDEFINED_FILL, Marks, legend_above, note, readable_on
from analysis.figures.words import percent

WHY_KAPPA = (
    "Agreement is \u03ba: how much more often a token {back} later has the same expert than the loads alone would give, over the most it could be. "
    "It is no Pearson correlation of expert ids: ids are names, and renumbering the experts would change such a correlation at will."
)


@drawn
def transition_map(probability: Any, *, order: Sequence[int] | None = None, step: str = "next token") -> Figure:
    """Heat map of P(expert of the next token | expert of this token), rows summing to 1, square-root colours; an unused row is grey.

    probability [E, E]: Estimates or numbers. order: expert ids as drawn, by id if not given.
    """
    marks = Marks.of(probability)
    if marks.value.ndim != 2:
        marks = Marks.of(np.empty((0, 0)))
    ids = list(range(len(marks.value)) if order is None else order)
    marks = marks.each(lambda array: ordered(array, ids, ids)) if len(ids) else marks
    names = [str(i) for i in ids]
    quantity = f"P(expert of {step} | expert now), square-root scale"
    grid = Grid(marks, names, names, "expert now (id)", f"expert of {step} (id)", quantity, power=0.5, intervals=False)
    figure = canvas(5.3, 6.2)
    axes = figure.subplots()
    image = paint(axes, grid)
    if image is not None:
        scale_bar(axes, image, grid)
    legend_above(figure, cell_keys([grid]))
    note(figure, "" if order is None or not ids else "Experts in the given order.")
    return figure


@drawn
def lag_agreement(lags: Sequence[int], kappa: Sequence[Estimate | None], information: Sequence[Estimate | None] = (),
                  layers: Sequence[tuple[str, Sequence[Estimate | None]]] = ()) -> Figure:
    """Lag kappa with intervals against the lag, over the null of shuffled documents; lag information, bits, beside it where given.

    layers: (name, kappa per lag) drawn too, such as single layers. The label says why this is no Pearson correlation of ids.
    """
    figure = canvas(3.3)
    panels = figure.subplots(1, 2 if len(information) else 1, squeeze=False)[0]
    at = np.asarray(lags, np.int64)
    log = len(at) > 2 and bool(at.max() >= 12 * at.min())
    x, entries = "lag (tokens, logarithmic)" if log else "lag (tokens)", []
    lines = [Line("mean over layers" if layers else "all layers", Marks.of(list(kappa))), *(Line(name, Marks.of(list(one))) for name, one in layers)]
    entries += curves(panels[0], Curve(x, "lag \u03ba (0: chance, 1: always the same)", at, lines, log=log))
    if len(information):
        entries += curves(panels[1], Curve(x, "information between tokens (bits)", at, [Line(lines[0].name, Marks.of(list(information)))], log=log))
        letter(panels[0], "a", "Agreement beyond chance")
        letter(panels[1], "b", "Information at a lag")
    legend_above(figure, entries)
    note(figure, WHY_KAPPA.format(back="that much") if len(at) else "")
    return figure


@dataclass(frozen=True)
class Chain:
    """probability [E, E]: P(e'|e), rows sum to 1. loads [E]: share of tokens of each expert. top: how many transitions are drawn."""

    probability: ArrayLike
    loads: ArrayLike
    top: int = 24
    layer: str = ""


def strongest_transitions(probability: Any, loads: Any, top: int) -> list[tuple[int, int, float]]:
    """The transitions between different experts with the largest flow P(e) P(e'|e): (from, to, flow), largest first."""
    flow = floats(loads)[:, None] * floats(probability)
    flow = np.where(np.eye(len(flow), dtype=np.bool_) | ~(flow > 0), 0.0, flow)
    order = np.argsort(-flow, axis=None, kind="stable")[:top]
    return [(int(i // len(flow)), int(i % len(flow)), float(flow.flat[i])) for i in order if flow.flat[i] > 0]


@drawn
def markov_chain(shown: Chain) -> Figure:
    """The strongest transitions between different experts as arrows on a ring: width by flow, colour by probability.

    A node's area is the expert's load and its colour the probability of staying. Transitions beyond the strongest are not drawn.
    """
    probability, loads = floats(shown.probability), floats(shown.loads)
    kept = strongest_transitions(probability, loads, shown.top) if probability.ndim == 2 and len(probability) else []
    figure = canvas(5.2 if kept else 2.4, 6.6)
    axes = figure.subplots()
    if not kept:
        absent(axes, "no transition between different experts")
        return figure
    nodes = sorted({node for edge in kept for node in edge[:2]})
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(nodes)) / len(nodes)
    at = {node: (float(np.cos(a)), float(np.sin(a))) for node, a in zip(nodes, angle, strict=True)}
    own = [float(probability[n, n]) for n in nodes]
    scale = PowerNorm(0.5, 0.0, max(*(float(probability[i, j]) for i, j, _ in kept), *(p for p in own if p == p), 1e-12))
    area = _areas(loads, nodes)
    _arrows(axes, kept, at, probability, scale, {n: float(np.sqrt(a) / 2) for n, a in zip(nodes, area, strict=True)})
    fills = [_shades()(float(scale(p))) if p == p else to_rgba(UNDEFINED_FILL) for p in own]
    axes.scatter([at[n][0] for n in nodes], [at[n][1] for n in nodes], s=area, c=fills, edgecolors=INK, linewidths=0.7, zorder=4)
    for n, fill in zip(nodes, fills, strict=True):
        axes.text(*at[n], str(n), ha="center", va="center", fontsize=7 if len(nodes) <= 24 else 5.5, color=readable_on(fill), zorder=5)
    grid = Grid(Marks.of(probability[nodes]), [], [], "", "", "P(next expert | expert), square-root scale", limits=(0.0, float(scale.vmax or 1.0)))
    scale_bar(axes, ScalarMappable(scale, _shades()), grid, place=(1.02, 0.1, 0.03, 0.8))
    axes.set(aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    axes.set_axis_off()
    share, total = sum(edge[2] for edge in kept), float(np.nansum(loads))
    stay = float(np.nansum(loads * np.diag(probability)))
    layer = f"Layer {shown.layer}: " if shown.layer else ""
    note(figure, f"{layer}the {len(kept)} transitions of largest flow carry {percent(share / total)} of all steps; {percent(stay / total)} stay "
                 "with the expert (colour of the node). Node area: load. Arrow width: flow.")
    return figure


def _shades() -> LinearSegmentedColormap:
    """The colours of amounts without their palest third, which no thin arrow would show."""
    return LinearSegmentedColormap.from_list("arrows", colormaps[AMOUNT](np.linspace(0.33, 1.0, 64)))


def _areas(loads: Floats, nodes: Sequence[int]) -> list[float]:
    largest = float(np.nanmax(loads[list(nodes)])) or 1.0
    room = 330.0 if len(nodes) <= 24 else 150.0
    return [float((70 if max(nodes) < 100 else 115) + room * max(loads[n], 0.0) / largest) for n in nodes]


def _arrows(axes: Axes, kept: Sequence[tuple[int, int, float]], at: dict[int, tuple[float, float]], probability: Floats, scale: Normalize,
            radius: dict[int, float]) -> None:
    largest = max(flow for _, _, flow in kept)
    for source, target, flow in reversed(kept):
        colour = _shades()(float(scale(probability[source, target])))
        arrow = FancyArrowPatch(at[source], at[target], connectionstyle="arc3,rad=0.14", arrowstyle="-|>", mutation_scale=7 + 5 * flow / largest,
                                linewidth=0.6 + 2.6 * flow / largest, color=colour, shrinkA=radius[source], shrinkB=radius[target] + 1, zorder=2)
        arrow.set_label("_transition")
        axes.add_patch(arrow)
