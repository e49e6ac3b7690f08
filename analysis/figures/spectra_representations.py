"""Directions of the experts' mean outputs, projected without centring so that the origin stays the origin, in two and in three dimensions.

E expert, d dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.columns import Floats
from analysis.figures.spectra_experts import LETTERS
from analysis.figures.spectra_tokens import expert_colour
from analysis.figures.style import GREY, PALE, absent, canvas, drawn, letter, two_abreast
from analysis.figures.topology_marks import note

NAMED_UP_TO = 32
LIMIT = 1.05


@dataclass(frozen=True)
class ArmVectors:
    """One arm: unit vectors of its experts on three axes [E, 3], NaN for an expert without a vector; share [3]: of the squares on each axis.

    rms: root mean square off-diagonal cosine in all d dimensions; random: 1 / sqrt(d), that of random directions.
    """

    name: str
    points: Floats
    share: Sequence[float]
    rms: float | None = None
    random: float | None = None


@drawn
def representation_pca(arms: Sequence[ArmVectors]) -> Figure:
    """Per arm the expert directions as arrows from the origin: on the first two axes, and on the first three; many arms two abreast.

    Orthogonal experts of a space with many dimensions cannot look orthogonal in two: the number beside each name is measured in all.
    """
    rows, abreast, width = two_abreast(len(arms))
    figure = canvas(0.6 + 3.1 * rows, width)
    for row in range(max(len(arms), 1)):
        flat = figure.add_subplot(rows, 2 * abreast, 2 * row + 1)
        solid: Any = figure.add_subplot(rows, 2 * abreast, 2 * row + 2, projection="3d")
        if not arms:
            absent(flat, "no arm to show")
            solid.set_axis_off()
            continue
        arm = arms[row]
        known = np.isfinite(arm.points).all(axis=1)
        if not known.any():
            absent(flat, "no expert has an output on the probe set")
            solid.set_axis_off()
        else:
            _flat(flat, arm, known)
            _solid(solid, arm, known)
        letter(flat, LETTERS[row % len(LETTERS)], f"{arm.name}{_cosine(arm)}")
    note(figure, "Mean outputs of the experts over one probe set, unit length, projected on the axes with the largest squares, not centred. Numbers "
                 "beside the names: rms cosine between two experts in all dimensions, and what random directions give.")
    return figure


def _cosine(arm: ArmVectors) -> str:
    if arm.rms is None:
        return ""
    return f"\nrms cosine {arm.rms:.2f}" + ("" if arm.random is None else f", random {arm.random:.2f}")


def _flat(axes: Axes, arm: ArmVectors, known: Any) -> None:
    circle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(circle), np.sin(circle), color=PALE, linewidth=0.8, label="_unit")
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.axvline(0, color=GREY, linewidth=0.5)
    for e in np.flatnonzero(known).tolist():
        x, y = arm.points[e, :2].tolist()
        axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": expert_colour(e), "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0})
        if known.sum() <= NAMED_UP_TO:
            axes.text(1.07 * x, 1.07 * y, f"E{e}", fontsize=6.0, ha="center", va="center")
    axes.set_xlim(-1.15, 1.15)
    axes.set_ylim(-1.15, 1.15)
    axes.set_aspect("equal")
    axes.set_xlabel(f"axis 1 ({100 * arm.share[0]:.0f}% of squares)")
    axes.set_ylabel(f"axis 2 ({100 * arm.share[1]:.0f}%)")


def _solid(axes: Any, arm: ArmVectors, known: Any) -> None:
    for e in np.flatnonzero(known).tolist():
        x, y, z = arm.points[e].tolist()
        axes.plot([0, x], [0, y], [0, z], color=expert_colour(e), linewidth=1.2)
        axes.scatter([x], [y], [z], color=[expert_colour(e)], s=12, depthshade=False)
        if known.sum() <= NAMED_UP_TO:
            axes.text(x, y, z, f"E{e}", fontsize=5.5)
    axes.scatter([0], [0], [0], color="black", s=8)
    for limit, name, share in ((axes.set_xlim, "x", 0), (axes.set_ylim, "y", 1), (axes.set_zlim, "z", 2)):
        limit(-LIMIT, LIMIT)
        getattr(axes, f"set_{name}label")(f"axis {share + 1} ({100 * arm.share[share]:.0f}%)", fontsize=6.5, labelpad=-8)
    axes.tick_params(labelsize=5, pad=-3)
    axes.set_box_aspect((1, 1, 1))
