"""Experts against domains, arms side by side: affinity in both normalisations, purity with the line that chance gives.

E expert, D domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.columns import Floats
from analysis.figures.style import BLUE, GREY, INK, VERMILION, absent, canvas, drawn, letter, light_grid, two_abreast
from analysis.figures.topology_cells import Grid, paint, scale_bar
from analysis.figures.topology_marks import CYCLE, Marks, legend_above, note, undefined_marks, whiskers

PANEL_IN = 2.9
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class ArmAffinity:
    """One arm: log2 affinity [E, D] (estimates or numbers), P(e|d) [E, D] and P(d|e), balanced, [E, D]; NaN for an unused expert.

    columns_words: what `expert_given_domain` is, where loads are not known and it is not P(e|d).
    """

    name: str
    log2_affinity: Any
    expert_given_domain: Floats
    domain_given_expert: Floats
    domains: Sequence[str]
    columns_words: str = "P(expert | domain)"


@drawn
def affinity_heatmap(arms: Sequence[ArmAffinity]) -> Figure:
    """Three panels per arm: log2 affinity, then each domain's use of the experts and each expert's mix of domains; many arms two abreast.

    Affinity is red for an expert that avoids a domain, blue for one that it prefers. The two normalisations are P(e|d), whose columns sum
    to 1, and P(d|e), whose rows do.
    """
    rows, abreast, width = two_abreast(len(arms))
    figure = canvas(0.7 + PANEL_IN * rows, width)
    panels = figure.subplots(rows, 3 * abreast, squeeze=False).reshape(rows * abreast, 3)
    if not arms:
        for axes in panels.ravel():
            absent(axes, "no arm to show")
        return figure
    top = max((float(np.nanmax(arm.expert_given_domain)) for arm in arms if np.isfinite(arm.expert_given_domain).any()), default=1.0)
    for axes in panels[len(arms):].ravel():
        axes.set_axis_off()
    for row, arm in enumerate(arms):
        experts = [f"E{e}" for e in range(len(arm.expert_given_domain))]
        shown = (("log2 affinity (bits)", arm.log2_affinity, True, (-2.0, 2.0)), (arm.columns_words, arm.expert_given_domain, False, (0.0, top)),
                 ("P(domain | expert), domains alike", arm.domain_given_expert, False, (0.0, 1.0)))
        for place, (quantity, values, signed, limits) in enumerate(shown):
            axes = panels[row, place]
            grid = Grid(Marks.of(values), experts, list(arm.domains), "expert" if place == 0 else "", "", quantity, signed=signed, limits=limits,
                        square=False, intervals=False, numbers=abreast == 1, digits=1 if signed else 2)
            image = paint(axes, grid)
            if image is not None:
                scale_bar(axes, image, grid)
            if place == 0:
                letter(axes, LETTERS[row % len(LETTERS)], arm.name)
    note(figure, "Affinity P(e|d) / P(e), domains weighing alike; its mean over domains is 1 for every expert, whatever the routing. Columns of "
                 "P(e|d) and rows of P(d|e) sum to 1. Grey: unused expert.")
    return figure


@dataclass(frozen=True)
class ArmPurity:
    """One arm: purity of each expert [E] (estimates or numbers), the same under permuted domain labels [E], the mean of both."""

    name: str
    purity: Sequence[Any]
    null: Floats | None
    mean: float | None = None
    null_mean: float | None = None


@drawn
def purity_bars(arms: Sequence[ArmPurity], baseline: float | None = None) -> Figure:
    """A panel per arm: purity of every expert against what permuted domain labels give; baseline: 1/D, the seed's line."""
    rows, abreast, width = two_abreast(len(arms))
    figure = canvas(0.8 + 1.7 * rows, width)
    panels = figure.subplots(rows, abreast, squeeze=False).ravel()
    for place, (axes, arm) in enumerate(zip(panels, arms, strict=False)):
        _purity_panel(axes, arm, baseline)
        letter(axes, LETTERS[place % len(LETTERS)], arm.name)
    for axes in panels[len(arms):]:
        axes.set_axis_off()
    if not arms:
        absent(panels[0], "no arm to show")
        return figure
    for axes in panels[max(len(arms) - abreast, 0):len(arms)]:
        axes.set_xlabel("expert")
    entries: list[Artist] = [Patch(facecolor=CYCLE[0], label="purity, in-sample"), Line2D([], [], color=VERMILION, linestyle=(0, (4, 2)),
                             label="null: domains permuted over documents, mean"), Line2D([], [], marker="_", linestyle="none", color=INK,
                             markersize=8, label="null of each expert")]
    if baseline is not None:
        entries.append(Line2D([], [], color=GREY, linewidth=0.9, label=f"even use, 1/D = {baseline:.2f} (the seed's line)"))
    legend_above(figure, entries)
    note(figure, "In-sample purity picks an expert's domain on the tokens that it then counts: it is above 1/D without any specialisation, so read "
                 "it against the null.")
    return figure


def _purity_panel(axes: Any, arm: ArmPurity, baseline: float | None) -> None:
    marks = Marks.of(list(arm.purity))
    at = np.arange(len(marks.value), dtype=np.float64)
    if not marks.defined.any():
        absent(axes, "no expert has a purity")
        return
    known = marks.defined
    axes.bar(at[known], marks.value[known], 0.72, color=BLUE, linewidth=0, zorder=2, label="_purity")
    whiskers(axes, at, marks, INK, width=1.0)
    undefined_marks(axes, at, marks)
    if arm.null is not None:
        axes.plot(at, arm.null, "_", color=INK, markersize=9, markeredgewidth=1.4, zorder=5, label="_null")
    if arm.null_mean is not None:
        axes.axhline(arm.null_mean, color=VERMILION, linewidth=1.1, linestyle=(0, (4, 2)), zorder=4)
    if baseline is not None:
        axes.axhline(baseline, color=GREY, linewidth=0.9, zorder=1)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.7, len(at) - 0.3)
    axes.set_xticks(at, [f"E{i}" for i in range(len(at))], fontsize=6.0 if len(at) > 24 else 7.0)
    axes.tick_params(axis="x", rotation=90 if len(at) > 24 else 0, length=0)
    axes.set_ylabel("purity")
    light_grid(axes)
