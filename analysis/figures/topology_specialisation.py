"""Which experts work for which domains: map, distribution of specialisation, the most and the least specialised.

D domain, E expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from analysis.estimate import Estimate
from analysis.figures.columns import floats
from analysis.figures.style import BLUE, GREY, INK, ORANGE, VERMILION, WIDTH_IN, absent, canvas, drawn, letter, light_grid
from analysis.figures.topology_cells import Grid, cell_keys, paint, scale_bar
from analysis.figures.topology_marks import Marks, keys, legend_above, note, whiskers

BINS = 40  # at most


@dataclass(frozen=True)
class DomainExperts:
    """probability [D, E]: P(e|d), each domain a whole of 1 whatever its size. affinity [D, E]: log2 of P(e|d) over the mean of all domains.

    order: expert ids from left to right, such as along a dendrogram; by id if not given.
    """

    probability: Any
    affinity: Any
    domains: Sequence[str]
    order: Sequence[int] | None = None


@drawn
def domain_expert_map(shown: DomainExperts) -> Figure:
    """Two heat maps of domains by experts: P(e|d), domain-balanced, and the log2 affinity, diverging about 0, bits."""
    maps = [Marks.of(values) for values in (shown.probability, shown.affinity)]
    maps = [marks if marks.value.ndim == 2 else Marks.of(np.empty((0, 0))) for marks in maps]
    order = list(range(maps[0].value.shape[1]) if shown.order is None else shown.order)
    maps = [marks.each(lambda array: array[:, order]) if marks.value.size else marks for marks in maps]
    experts, sorted_by = [str(i) for i in order], "" if shown.order is None else ", in the given order"
    titles = ("Share of a domain's choices that go to the expert", "Affinity: against the mean of all domains")
    labels = ("P(e|d)", "log2 affinity (bits)")
    figure = canvas(1.3 + 2 * (0.55 + 0.19 * max(len(shown.domains), 2)))
    grids = []
    for i, (axes, marks) in enumerate(zip(figure.subplots(2, 1), maps, strict=True)):
        grid = Grid(marks, list(shown.domains), experts, "domain", f"expert (id){sorted_by}", labels[i], signed=i == 1, square=False,
                    intervals=False)
        image = paint(axes, grid)
        letter(axes, "ab"[i], titles[i])
        if image is not None:
            scale_bar(axes, image, grid, place=(1.015, 0.0, 0.018, 1.0))
        grids.append(grid)
    legend_above(figure, cell_keys(grids))
    return figure


@dataclass(frozen=True)
class Specialisation:
    """Specialisation of experts, 0 (serves all domains alike) to 1 (serves one): estimates or numbers of all experts of all layers, flat.

    null: the same under permuted domain labels, flat. specialist_above, generalist_below: declared bounds. names: of each expert.
    """

    values: Any
    null: ArrayLike | None = None
    specialist_above: float | None = 0.1
    generalist_below: float | None = 0.02
    names: Sequence[str] | None = None


def histogram_panel(axes: Axes, shown: Specialisation) -> list[Artist]:
    """The distribution over experts with that under permuted labels and the declared bounds; returns legend entries."""
    value = Marks.of(shown.values).value
    known = value[np.isfinite(value)]
    if not len(known):
        absent(axes, "no expert has a specialisation")
        return []
    null = np.empty(0) if shown.null is None else floats(shown.null)
    null = null[np.isfinite(null)]
    low, high = min(0.0, float(known.min())), max(float(known.max()), float(null.max(initial=0.0)), shown.specialist_above or 0.0)
    edges = np.linspace(low, high + 1e-9 + 0.02 * (high - low), min(BINS, max(10, int(2.5 * len(known) ** 0.5))) + 1)
    axes.hist(known, bins=edges.tolist(), weights=np.full(len(known), 1 / len(known)), color=BLUE, alpha=0.85, label="_values")
    entries: list[Artist] = [Patch(facecolor=BLUE, alpha=0.85, label=f"experts ({len(known):,})")]
    if len(null):
        axes.hist(null, bins=edges.tolist(), weights=np.full(len(null), 1 / len(null)), histtype="step", color=INK, linewidth=1.1, label="_null")
        entries.append(Patch(facecolor="none", edgecolor=INK, label="null: domain labels permuted"))
    for bound, colour, words in ((shown.specialist_above, VERMILION, "specialist above"), (shown.generalist_below, ORANGE, "generalist below")):
        if bound is not None:
            axes.axvline(bound, color=colour, linewidth=1.1, linestyle=(0, (5, 2)))
            entries.append(Line2D([], [], color=colour, linewidth=1.1, linestyle=(0, (5, 2)), label=f"{words} {bound:g}"))
    if len(known) < len(value):
        entries.append(Line2D([], [], color="none", label=f"{len(value) - len(known):,} undefined (unused) left out"))
    axes.set_xlabel("specialisation (share of log2 D)")
    axes.set_ylabel("share of experts")
    light_grid(axes)
    return entries


@drawn
def specialisation_histogram(shown: Specialisation, *, width_in: float = WIDTH_IN) -> Figure:
    """Histogram of specialisation over experts, shares, beside that of permuted domain labels; 0 serves all domains alike, 1 serves one."""
    figure = canvas(3.0 if width_in > 5 else 3.5, width_in)
    legend_above(figure, histogram_panel(figure.subplots(), shown))
    return figure


def most_and_least(marks: Marks, n: int) -> tuple[list[int], list[int]]:
    """Places of the n most and the n least specialised, none in both: largest first, and smallest first."""
    known = np.flatnonzero(marks.defined)
    rising = known[np.argsort(marks.value[known], kind="stable")].tolist()
    n_most = min(n, -(-len(rising) // 2))
    return rising[::-1][:n_most], rising[: min(n, len(rising) - n_most)]


def extremes_panel(axes: Axes, marks: Marks, which: Sequence[int], names: Sequence[str], colour: str) -> None:
    """One row per expert: its value with interval, gated ones hollow."""
    if not which:
        absent(axes, "no expert left")
        return
    rows = marks.each(lambda array: array[list(which)])
    at = np.arange(len(which), dtype=np.float64)[::-1]
    whiskers(axes, at, rows, colour, horizontal=True)
    for chosen, face in ((~rows.gated, colour), (rows.gated, "white")):
        if chosen.any():
            axes.plot(rows.value[chosen], at[chosen], "o", color=colour, markerfacecolor=face, markersize=3.5, zorder=5, label="_points")
    known = rows.has_null
    if known.any():
        axes.hlines(at[known], rows.null_low[known], rows.null_high[known], color=GREY, linewidth=5, alpha=0.4, zorder=1, label="_null")
    axes.set_yticks(at, [names[i] for i in which], fontsize=6.5 if len(which) > 12 else 7.0)
    axes.set_ylim(-0.7, len(which) - 0.3)
    axes.tick_params(axis="y", length=0)
    light_grid(axes, "x")
    axes.set_xlabel("specialisation (share)")
    axes.set_ylabel("expert")


def extremes_keys(marks: Marks) -> list[Artist]:
    """Legend entries of the rows of experts."""
    hollow = Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="none", markersize=3.5, label="gated: no verdict rests on it")
    return [hollow if str(key.get_label()).startswith("gated") else key for key in keys([marks]) if key.get_label() != "undefined"]


@drawn
def most_and_least_specialised(estimates: Sequence[Estimate | None], names: Sequence[str], *, n: int = 20) -> Figure:
    """The n most and the n least specialised experts, each with its interval, shares; no expert is in both halves.

    Chosen by their point estimates among many: the largest are largest partly by chance, so read the intervals.
    """
    marks = Marks.of(list(estimates))
    most, least = most_and_least(marks, n)
    figure = canvas(1.3 + 0.145 * max(len(most), 4))
    for axes, which, colour, title, place in zip(figure.subplots(1, 2), (most, least), (BLUE, ORANGE),
                                                 (f"The {len(most)} most specialised", f"The {len(least)} least specialised"), "ab", strict=True):
        extremes_panel(axes, marks, which, names, colour)
        letter(axes, place, title)
    legend_above(figure, extremes_keys(marks))
    undefined = int((~marks.defined).sum())
    words = "Ranked by point estimates: the extremes of many are extreme partly by chance. "
    note(figure, words + (f"Left out for want of a value: {undefined:,}." if undefined else "") if len(most) else "")
    return figure
