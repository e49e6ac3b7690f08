"""Domains and experts over the layers: separation, naive and clustered tests, use by domain, kinds of experts, entropy of each domain.

D domain, E expert, L MoE layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from analysis.estimate import Estimate
from analysis.figures.columns import floats
from analysis.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, VERMILION, absent, canvas, drawn, letter, light_grid
from analysis.figures.topology_cells import Grid, cell_keys, paint, scale_bar
from analysis.figures.topology_curves import Curve, Line, curves
from analysis.figures.topology_marks import CYCLE, Marks, bars, keys, legend_above, note

SEED_P = 0.001  # seed 002, Part 6: line and "significant"
LINES_UP_TO = 8  # domains that get a line of their own


@dataclass(frozen=True)
class Separation:
    """Layers by depth, arrays [L].

    log10_p_naive: of the seed's chi-square; log10_p: of the clustered test, NaN where untestable; least_p: that permutations can show;
    information, strength: estimates of I(E;D) in bits and of Cramer's V.
    """

    depths: Sequence[int]
    log10_p_naive: ArrayLike
    log10_p: ArrayLike
    information: Sequence[Estimate | None]
    strength: Sequence[Estimate | None]
    least_p: float | None = None


@drawn
def separation_by_layer(shown: Separation) -> Figure:
    """Four panels over layers: -log10 p as the seed computes it, marked naive; of the clustered test; I(E;D); V; each in its own scale."""
    figure = canvas(4.8)
    panels = figure.subplots(2, 2)
    at = np.asarray(shown.depths, np.float64)
    _p_bars(panels[0, 0], at, -floats(shown.log10_p_naive), GREY, "no layer has a p")
    _p_bars(panels[0, 1], at, -floats(shown.log10_p), BLUE, "untestable: no p")
    letter(panels[0, 0], "a", "Naive: tokens as if independent (seed)")
    letter(panels[0, 1], "b", "Clustered: documents permuted")
    entries: list[Any] = [Patch(facecolor=GREY, label="naive, not to be used"), Patch(facecolor=BLUE, label="clustered"),
                          Line2D([], [], color=VERMILION, linestyle=(0, (5, 2)), linewidth=1.1, label="p = 0.001, the seed's line")]
    if shown.least_p:
        panels[0, 1].axhline(-math.log10(shown.least_p), color=INK, linewidth=0.8, linestyle=":")
        entries.append(Line2D([], [], color=INK, linewidth=0.8, linestyle=":", label="least p that the permutations can show"))
    for axes, layers, unit, place, title in ((panels[1, 0], shown.information, "bits", "c", "Information of expert and domain"),
                                             (panels[1, 1], shown.strength, "Cramer's V", "d", "Strength of association")):
        entries += curves(axes, Curve("layer", unit, np.asarray(shown.depths, np.int64), [Line("layer", Marks.of(list(layers)), BLUE)]))
        letter(axes, place, title)
    legend_above(figure, entries)
    note(figure, "The naive p grows with the number of tokens and measures that documents differ; it says nothing of domains. Panels a and b have "
                 "scales of their own.")
    return figure


def _p_bars(axes: Any, at: Any, values: Any, colour: str, missing: str) -> None:
    known = np.isfinite(values)
    if not known.any():
        absent(axes, missing)
        return
    axes.bar(at[known], values[known], 0.75, color=colour, linewidth=0)
    axes.axhline(-math.log10(SEED_P), color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)))
    axes.set_xlim(at.min() - 0.7, at.max() + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axes.set_xlabel("layer")
    axes.set_ylabel("\u2212log10 p")
    light_grid(axes)


@dataclass(frozen=True)
class DomainMap:
    """One heat map: P(e|d) [D, E] of a layer, or of a component of it."""

    title: str
    share: ArrayLike
    domains: Sequence[str]


@drawn
def domain_maps(maps: Sequence[DomainMap]) -> Figure:
    """Heat maps of domains by experts under one another on one colour scale: shares of a domain's choices."""
    if not maps:
        figure = canvas(1.2)
        absent(figure.subplots(), "nothing to show")
        return figure
    top = max((float(np.nanmax(floats(one.share))) for one in maps if np.isfinite(floats(one.share)).any()), default=1.0) or 1.0
    figure = canvas(0.7 + sum(0.75 + 0.15 * max(len(one.domains), 2) for one in maps))
    grids = []
    for place, (axes, one) in enumerate(zip(figure.subplots(len(maps), 1, squeeze=False)[:, 0], maps)):
        values = floats(one.share)
        last = place == len(maps) - 1
        grid = Grid(Marks.of(values), list(one.domains), [str(e) for e in range(values.shape[1])], "domain", "expert (id)" if last else "",
                    "P(e|d)", square=False, intervals=False, limits=(0.0, top), power=0.5)
        image = paint(axes, grid)
        letter(axes, "abcdefghijkl"[place % 12], one.title)
        if image is not None:
            scale_bar(axes, image, grid, place=(1.015, 0.0, 0.018, 1.0))
        grids.append(grid)
    legend_above(figure, cell_keys(grids))
    return figure


@drawn
def expert_kinds(layers: Sequence[str], kinds: Sequence[tuple[str, Sequence[int]]]) -> Figure:
    """Stacked bars: experts of each layer by what their interval says; kinds: (name, number in each layer), bottom first."""
    figure = canvas(2.7)
    axes = figure.subplots()
    colours = {"specialist": BLUE, "generalist": GREEN, "undetermined": PALE, "unused": GREY}
    at, below = np.arange(len(layers)), np.zeros(len(layers))
    for name, numbers in kinds:
        axes.bar(at, numbers, 0.8, bottom=below, color=colours.get(name, PURPLE), linewidth=0, label=name)
        below = below + np.asarray(numbers, np.float64)
    if below.max(initial=0.0) > 0:
        quarter = below / 4
        axes.plot(at, quarter, "_", color=VERMILION, markersize=max(4.0, 160 / max(len(layers), 1)), markeredgewidth=1.2)
    step = max(1, -(-len(layers) // 24))
    axes.set_xticks(at[::step], [layers[i] for i in at[::step]])
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_xlabel("layer")
    axes.set_ylabel("experts")
    light_grid(axes)
    entries: list[Any] = [Patch(facecolor=colours.get(name, PURPLE), label=name) for name, numbers in kinds if sum(numbers)]
    entries.append(Line2D([], [], marker="_", color=VERMILION, linestyle="none", markersize=9, markeredgewidth=1.2,
                          label="a quarter: the seed's specialists, whatever the data"))
    legend_above(figure, entries)
    return figure


@drawn
def domain_entropies(found: Sequence[Sequence[Estimate]], domains: Sequence[str], depths: Sequence[int], largest: float) -> Figure:
    """Entropy of each domain's use of the experts over the layers, bits; found [D][L]; largest: log2 E, the most there can be.

    One layer or many domains: bars of the first layer given, else a line per domain.
    """
    figure = canvas(3.1)
    axes = figure.subplots()
    if len(depths) > 1 and len(domains) <= LINES_UP_TO:
        lines = [Line(name, Marks.of(layers), CYCLE[i % len(CYCLE)]) for i, (name, layers) in enumerate(zip(domains, found))]
        entries: list[Any] = list(curves(axes, Curve("layer", "entropy of use (bits)", np.asarray(depths, np.int64), lines, zero=False)))
    else:
        marks = Marks.of([layers[0] for layers in found])
        at = np.arange(len(domains), dtype=np.float64)
        bars(axes, at, marks, [BLUE])
        axes.set_xticks(at, list(domains), rotation=40, ha="right", rotation_mode="anchor")
        axes.set_ylim(0.0, 1.05 * max(largest, float(np.nanmax(marks.ends)) if marks.ends.size else 0.0) or None)
        axes.set_ylabel("entropy of use (bits)")
        entries = list(keys([marks]))
    axes.axhline(largest, color=ORANGE, linewidth=1.0, linestyle="--")
    light_grid(axes)
    legend_above(figure, [*entries, Line2D([], [], color=ORANGE, linestyle="--", linewidth=1.0, label=f"log2 E = {largest:.2f}: even use")])
    return figure
