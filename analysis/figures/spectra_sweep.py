"""Trials of a sweep by their two objectives: information between domain and expert, held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import BLUE, GREY, INK, ORANGE, absent, canvas, drawn, light_grid


@dataclass(frozen=True)
class Trials:
    """mi_bits, loss_nats, complete, front: one entry a trial; chosen: (bits, nats) of the chosen one."""

    mi_bits: Sequence[float]
    loss_nats: Sequence[float]
    complete: Sequence[bool]
    front: Sequence[bool]
    chosen: tuple[float, float] | None = None


@drawn
def trials_figure(trials: Trials) -> Figure:
    """Complete trials, stopped ones and the front; better is to the right and down."""
    figure = canvas(3.4)
    axes = figure.subplots()
    bits, nats = np.asarray(trials.mi_bits, np.float64), np.asarray(trials.loss_nats, np.float64)
    complete, front = np.asarray(trials.complete, bool), np.asarray(trials.front, bool)
    if not len(bits):
        absent(axes, "no trial")
        return figure
    for mask, marker, colour, name in ((complete, "o", BLUE, "complete"), (~complete, "x", GREY, "stopped early")):
        if mask.any():
            axes.plot(bits[mask], nats[mask], marker, color=colour, markersize=5, linestyle="none", label=f"{name} ({int(mask.sum())})")
    order = np.argsort(bits[front], kind="stable")
    axes.plot(bits[front][order], nats[front][order], color=INK, linewidth=1.0, label="Pareto front")
    if trials.chosen is not None:
        axes.plot(*trials.chosen, "*", color=ORANGE, markeredgecolor=INK, markersize=11, linestyle="none", label="chosen", zorder=5)
    axes.set_xlabel("I(domain; expert), bits, calibration documents")
    axes.set_ylabel("loss, nats per token")
    axes.legend(loc="best")
    light_grid(axes)
    return figure
