"""Where calibration documents would put each knob of the analysis, beside where it is declared; exploratory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import GREEN, INK, ORANGE, PALE, VERMILION, WIDTH_IN, absent, canvas, drawn, letter, light_grid

LOG_FROM = 20.0  # ratio of the largest to the smallest value beyond which a knob's axis is logarithmic


@dataclass(frozen=True)
class KnobCurve:
    """One objective against one knob: grid (x, y) with NaN where undefined, trials of the study, chosen and declared.

    declared_x: None where the declared setting is a rule, not a number; test: (chosen, declared) on test documents, None where not known.
    """

    knob: str
    objective: str
    grid: tuple[Sequence[float], Sequence[float]]
    trials: tuple[Sequence[float], Sequence[float]]
    chosen: tuple[float, float]
    declared_x: float | None
    declared_y: float | None
    test: tuple[float | None, float | None] = (None, None)


def _panel(axes: Axes, curve: KnobCurve, which: str) -> None:
    letter(axes, which, curve.objective.replace("_", " "))
    x, y = (np.asarray(one, np.float64) for one in curve.grid)
    known = np.isfinite(y)
    tried_x, tried_y = (np.asarray(one, np.float64) for one in curve.trials)
    axes.scatter(tried_x, tried_y, s=11, color=PALE, edgecolor=INK, linewidths=0.3, zorder=2, label="_trials")
    axes.plot(x[known], y[known], color=INK, linewidth=1.1, marker=".", markersize=3, zorder=3, label="_grid")
    if curve.declared_x is not None:
        axes.axvline(curve.declared_x, color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)), zorder=1)
    if curve.declared_y is not None:
        axes.axhline(curve.declared_y, color=VERMILION, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1)
    axes.plot(*curve.chosen, "*", color=ORANGE, markeredgecolor=INK, markersize=10, zorder=5, label="_chosen")
    at_chosen, at_declared = curve.test
    if at_chosen is not None:
        axes.plot(curve.chosen[0], at_chosen, "D", color=GREEN, markeredgecolor=INK, markersize=4.5, zorder=6, label="_test")
    if at_declared is not None and curve.declared_x is not None:
        axes.plot(curve.declared_x, at_declared, "D", color="white", markeredgecolor=GREEN, markersize=4.5, zorder=6, label="_test declared")
    if known.any() and x[known].min() > 0 and x[known].max() / x[known].min() > LOG_FROM:
        axes.set_xscale("log")
    elif (x == np.round(x)).all():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _within(axes, curve, y[known])
    axes.set_xlabel(curve.knob.replace("_", " "))
    axes.set_ylabel("bits" if "bits" in curve.objective else "share")
    light_grid(axes)


def _within(axes: Axes, curve: KnobCurve, grid_y: np.ndarray) -> None:
    """Limits by grid, chosen and declared points: a trial far below would flatten the rest."""
    values = np.array([*grid_y, curve.chosen[1], *(one for one in (curve.declared_y, *curve.test) if one is not None)], np.float64)
    low, high = float(values.min()), float(values.max())
    room = 0.08 * (high - low) or 0.05
    axes.set_ylim(low - room, high + room)


@drawn
def knob_sweep(curves: Sequence[KnobCurve], *, width_in: float = WIDTH_IN) -> Figure:
    """One panel per objective: exact grid, trials of the study, the point that calibration documents prefer, and the declared setting."""
    columns = 2 if len(curves) > 1 else 1
    rows = max(1, -(-len(curves) // columns))
    figure = canvas(0.5 + 2.1 * rows, width_in)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, (axes, curve) in enumerate(zip(grid.flat, curves, strict=False)):
        _panel(axes, curve, "abcdefgh"[number])
    for axes in grid.flat[len(curves):]:
        axes.set_axis_off()
    if not curves:
        absent(grid.flat[0], "no knob has an objective")
        return figure
    keys = [Line2D([], [], color=INK, marker=".", markersize=3, linewidth=1.1, label="exact grid"),
            Line2D([], [], color=PALE, marker="o", markeredgecolor=INK, markersize=3.5, linestyle="none", label="study's trials"),
            Line2D([], [], color=ORANGE, marker="*", markeredgecolor=INK, markersize=8, linestyle="none", label="preferred on calibration"),
            Line2D([], [], color=VERMILION, linestyle=(0, (5, 2)), linewidth=1.1, label="declared"),
            Line2D([], [], color=GREEN, marker="D", markeredgecolor=INK, markersize=4.5, linestyle="none", label="on test (open: declared)")]
    figure.legend(handles=keys, loc="outside lower left", ncols=5)
    return figure
