"""Router inputs of single tokens in two dimensions, coloured by the expert that took them, marked by domain, arms side by side.

T token. A picture of neighbourhoods: distances between clusters and their sizes mean nothing, and no verdict rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.columns import Floats
from analysis.figures.style import GREY, INK, absent, canvas, drawn, letter
from analysis.figures.topology_marks import CYCLE, note

MARKERS = "os^DvP*X<>hpd8"
PALETTE = "tab20"
LEGEND_EXPERTS = 32  # named in the legend; beyond, colours repeat and naming them would mislead


@dataclass(frozen=True)
class TokenCloud:
    """Tokens of one arm: points [T, 2], expert (first choice) and domain (place in `domains`) of each [T]; reason: why there are none."""

    name: str
    points: Floats
    expert: NDArray[np.integer]
    domain: NDArray[np.integer]
    domains: Sequence[str]
    reason: str = ""


def expert_colour(expert: int) -> str:
    """Colour of an expert: the cycle of eight, then twenty more, then again from the start."""
    if expert < len(CYCLE):
        return CYCLE[expert]
    return to_hex(colormaps[PALETTE]((expert - len(CYCLE)) % 20))


def cloud_panel(axes: Axes, cloud: TokenCloud) -> None:
    """The tokens of one arm in a panel without axes: the coordinates have no meaning of their own."""
    axes.set_xticks([])
    axes.set_yticks([])
    if not len(cloud.points):
        absent(axes, cloud.reason or "no token was kept")
        return
    for d in range(len(cloud.domains)):
        for expert in np.unique(cloud.expert[cloud.domain == d]).tolist():
            rows = (cloud.domain == d) & (cloud.expert == expert)
            axes.scatter(cloud.points[rows, 0], cloud.points[rows, 1], s=9, marker=MARKERS[d % len(MARKERS)], color=[expert_colour(expert)],
                         alpha=0.65, linewidths=0, rasterized=True, label="_tokens")
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#c9d0d6")


@drawn
def token_clustering(clouds: Sequence[TokenCloud], method: str = "t-SNE") -> Figure:
    """One panel per arm: tokens by `method`, colour the expert that is their first choice, marker their domain."""
    columns = min(max(len(clouds), 1), 3)
    rows = max(1, -(-len(clouds) // columns))
    figure = canvas(1.3 + 2.9 * rows if columns > 1 else 5.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (axes, cloud) in enumerate(zip(panels, clouds, strict=False)):
        cloud_panel(axes, cloud)
        letter(axes, "abcdefghijklmnop"[place % 16], cloud.name)
    for axes in panels[len(clouds):]:
        axes.set_axis_off()
    shown = [cloud for cloud in clouds if len(cloud.points)]
    if shown:
        figure.legend(handles=_entries(shown), loc="outside upper left", ncols=9, fontsize=6.0, handletextpad=0.2, columnspacing=0.8)
        tokens = ", ".join(f"{cloud.name}: {len(cloud.points):,} tokens" for cloud in shown)
        note(figure, f"{method} of router inputs; {tokens}. Colour: expert of first choice; marker: domain. Distances between clusters, their "
                     "sizes and their number are no evidence.")
    return figure


def _entries(clouds: Sequence[TokenCloud]) -> list[Artist]:
    domains = [Line2D([], [], marker=MARKERS[d % len(MARKERS)], linestyle="none", color=GREY, markersize=4, label=name)
               for d, name in enumerate(clouds[0].domains)]
    experts = sorted({int(e) for cloud in clouds for e in np.unique(cloud.expert)})
    if len(experts) > LEGEND_EXPERTS:
        return [*domains, Line2D([], [], linestyle="none", color=INK, label=f"{len(experts)} experts, colours repeat")]
    return [*domains, *(Line2D([], [], marker="s", linestyle="none", color=expert_colour(e), markersize=4, label=f"E{e}") for e in experts)]
