"""Where information between layers comes from: token, position, document, or none of them; and verdicts against other thresholds.

P pair of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.estimate import Estimate
from analysis.figures.style import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, WIDTH_IN, absent, canvas, drawn, letter, light_grid
from analysis.figures.topology_curves import Curve, Line, curves
from analysis.figures.topology_marks import Marks, bars, broken, keys, legend_above, note
from analysis.figures.words import number, percent

Verdict = Literal["supported", "inconclusive", "refuted"]
LEVELS: tuple[Verdict, ...] = ("refuted", "inconclusive", "supported")
EXPLORATORY = "EXPLORATORY: verdicts under other thresholds. Only the declared one counts."
LEVEL_FILL = {"refuted": VERMILION, "inconclusive": GREY, "supported": GREEN}


@dataclass(frozen=True)
class TermBars:
    """Terms of the decomposition in bits, by name, in each of the two orders; each order adds up to `total`.

    by_pair: the terms of the first order for each adjacent layer pair, name -> estimates [P]. left_out: share of tokens in no term.
    """

    forward: Mapping[str, Estimate]
    reverse: Mapping[str, Estimate]
    total: Estimate | None = None
    by_pair: Mapping[str, Sequence[Estimate | None]] | None = None
    left_out: float | None = None


def _chain(names: Sequence[str]) -> str:
    return " \u2192 ".join(name for name in names if name != "residual")


def _two_orders(axes: Axes, shown: TermBars) -> list[Artist]:
    names = list(dict.fromkeys([*shown.forward, *shown.reverse]))
    if not names:
        absent(axes, "nothing to decompose")
        return []
    at, every = np.arange(len(names), dtype=np.float64), []
    entries: list[Artist] = []
    for side, (terms, colour) in enumerate(((shown.forward, BLUE), (shown.reverse, ORANGE))):
        marks = Marks.of([terms.get(name) for name in names])
        bars(axes, at + 0.2 * (2 * side - 1), marks, [colour], thickness=0.36)
        entries.append(Patch(facecolor=colour, label=f"order: {_chain(list(terms))}"))
        every.append(marks)
    axes.axhline(0, color=INK, linewidth=0.7, zorder=3)
    if shown.total is not None and shown.total.value is not None:
        if shown.total.low is not None and shown.total.high is not None:
            axes.axhspan(shown.total.low, shown.total.high, color=GREY, alpha=0.18, linewidth=0, zorder=0)
        axes.axhline(shown.total.value, color=GREY, linewidth=1.1, linestyle=(0, (5, 2)), zorder=1)
        words = f"sum of the terms: {number(shown.total.value, 2)} bits"
        entries.append(Line2D([], [], color=GREY, linewidth=1.1, linestyle=(0, (5, 2)), label=words))
    axes.set_xticks(at, [name.replace(" ", "\n") for name in names])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("part of I between adjacent layers (bits)")
    axes.set_xlabel("source of the information")
    light_grid(axes)
    return [*entries, *keys(every)]


@drawn
def decomposition_bars(shown: TermBars) -> Figure:
    """Bars of token identity, position, document and residual, bits, with intervals, in both orders side by side.

    How far two bars of one term differ is how far the sources overlap. Beside it the terms for each adjacent layer pair, where given.
    """
    pairs = shown.by_pair or {}
    n_pairs = max((len(one) for one in pairs.values()), default=0)
    figure = canvas(3.5)
    panels = figure.subplots(1, 2 if n_pairs else 1, squeeze=False)[0]
    entries = _two_orders(panels[0], shown)
    if n_pairs:
        lines = [Line(name, Marks.of(list(one))) for name, one in pairs.items()]
        entries += curves(panels[1], Curve("layer pair (\u2113, \u2113 + 1), by \u2113", "part of I (bits)", np.arange(n_pairs), lines))
        letter(panels[0], "a", "Mean over adjacent pairs, both orders")
        letter(panels[1], "b", "By layer pair, first order")
    legend_above(figure, entries)
    left_out = "" if shown.left_out is None else f"{percent(shown.left_out)} of tokens are alone in their finest stratum and in no term. "
    differ = "Terms of the two orders differ by as much as the sources overlap; a term may be negative by chance."
    note(figure, left_out + differ if shown.forward or shown.reverse else "")
    return figure


@dataclass(frozen=True)
class ThresholdCurve:
    """The verdict that each threshold would give to one criterion: thresholds rising, verdicts alike long.

    declared: the threshold that counts; estimate: with the interval that decides.
    """

    name: str
    unit: str
    thresholds: Sequence[float]
    verdicts: Sequence[Verdict]
    declared: float
    estimate: Estimate | None = None


def _threshold_panel(axes: Axes, curve: ThresholdCurve) -> None:
    x, level = np.asarray(curve.thresholds, np.float64), np.array([LEVELS.index(one) for one in curve.verdicts], np.int64)
    axes.set_title(curve.name)
    if not len(x):
        absent(axes, "no threshold was tried")
        return
    middle = np.r_[x[:1], (x[1:] + x[:-1]) / 2, x[-1:]]
    for i, which in enumerate(level.tolist()):
        axes.axvspan(middle[i], middle[i + 1], color=LEVEL_FILL[LEVELS[which]], alpha=0.16, linewidth=0)
    axes.step(x, level, where="mid", color=INK, linewidth=1.3, zorder=3, label="_verdicts")
    estimate = curve.estimate
    if estimate is not None and estimate.value is not None:
        if estimate.low is not None and estimate.high is not None:
            axes.hlines(-0.45, estimate.low, estimate.high, color=BLUE, linewidth=2.4, zorder=4)
        face = "white" if estimate.gate else BLUE
        axes.plot(estimate.value, -0.45, "o", color=BLUE, markerfacecolor=face, markersize=4.5, zorder=5, label="_estimate")
    axes.axvline(curve.declared, color=VERMILION, linewidth=1.3, linestyle=(0, (5, 2)), zorder=2)
    axes.set_yticks(range(3), LEVELS)
    axes.set_ylim(-0.75, 2.3)
    axes.set_ylabel("verdict")
    axes.set_xlabel(f"threshold ({curve.unit})")


@drawn
def verdict_against_threshold(panels: Sequence[ThresholdCurve], *, width_in: float = WIDTH_IN) -> Figure:
    """The verdict as a step curve over thresholds, one panel per criterion, with the declared threshold and the interval that decides.

    Exploratory and labelled so: only the declared threshold gave a verdict, none of the others may be chosen afterwards.
    """
    columns = 2 if width_in > 5 and len(panels) > 1 else 1
    rows = max(1, -(-len(panels) // columns))
    figure = canvas((0.8 if width_in > 5 else 1.2) + 1.65 * rows, width_in)
    figure.suptitle(broken(EXPLORATORY, width_in, 15.0), fontsize=8, color=VERMILION, x=0.012, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, curve in zip(grid.flat, panels, strict=False):
        _threshold_panel(axes, curve)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if not panels:
        absent(grid.flat[0], "no criterion to show")
        return figure
    keys_ = [Line2D([], [], color=VERMILION, linewidth=1.3, linestyle=(0, (5, 2)), label="declared threshold"),
             Line2D([], [], color=BLUE, marker="o", linewidth=2.4, markersize=4.5, label="estimate with the interval that decides"),
             Line2D([], [], color=INK, linewidth=1.3, label="verdict the threshold would give")]
    figure.legend(handles=keys_, loc="outside lower left", ncols=1 if width_in < 5 else 3)
    return figure
