"""Where words and nodes go: labels beside points without covering each other, groups of nodes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.figures.columns import Floats
from analysis.figures.style import GREY, INK

Boxes = NDArray[np.float64]

DISTANCES = (1.0, 1.9, 2.9, 4.0, 5.5, 7.5, 10.0)  # of a label from its point, in line heights
CLEARANCE_POINTS, LINE_POINTS = 4.0, 0.8


def label_points(axes: Axes, x: Floats, y: Floats, labels: Sequence[str], lines: Boxes | None = None, *, size: float = 6.5) -> None:
    """Write each label near its point: the nearest of 56 places that covers least of the labels before it, of the points and the lines.

    lines [N, 4]: ends (x0, y0, x1, y1) of upright or level lines to keep clear of. Limits of the axes must stand. Places are tried in one
    order, so the same points give the same figure. A label moved far is tied to its point by a thin line.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    pixels = figure.dpi / 72
    at = axes.transData.transform(np.column_stack([x, y])) / pixels  # in points
    taken = list(np.column_stack([at - CLEARANCE_POINTS, at + CLEARANCE_POINTS]))
    if lines is not None and len(lines):
        ends = axes.transData.transform(lines.reshape(-1, 2)).reshape(-1, 4) / pixels
        taken += list(ends + np.array([-LINE_POINTS, -LINE_POINTS, LINE_POINTS, LINE_POINTS]))
    frame = np.asarray(axes.get_window_extent().extents) / pixels
    for i, ((px, py), label) in enumerate(zip(at, labels, strict=True)):
        width, height = 0.6 * size * len(label), 1.25 * size
        places = [_place(px, py, width, height, distance, side) for distance, side in product(DISTANCES, range(8))]
        costs = [_covered(box, taken) + 4 * _outside(box, frame) + 0.02 * order * width for order, box in enumerate(places)]
        best = int(np.argmin(costs))
        left, bottom, right, top = places[best]
        taken.append(places[best])
        tie = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if best >= 8 else None
        axes.annotate(label, (x[i], y[i]), xytext=((left + right) / 2 - px, (bottom + top) / 2 - py), textcoords="offset points", ha="center",
                      va="center", fontsize=size, color=INK, arrowprops=tie, zorder=7,
                      bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.3})


def _place(px: float, py: float, width: float, height: float, distance: float, side: int) -> Boxes:
    """Box of a label at one of eight sides of its point: right, left, above, below, and the corners."""
    across, up = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))[side]
    reach = distance * height * 0.8
    centre_x = px + across * (width / 2 + (reach if up == 0 else reach * 0.5))
    centre_y = py + up * reach
    return np.array([centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2])


def _covered(box: Boxes, taken: Sequence[Boxes]) -> float:
    others = np.array(taken)
    wide = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    high = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float((np.maximum(wide, 0) * np.maximum(high, 0)).sum())


def _outside(box: Boxes, frame: Boxes) -> float:
    inside = max(0.0, min(box[2], frame[2]) - max(box[0], frame[0])) * max(0.0, min(box[3], frame[3]) - max(box[1], frame[1]))
    return float((box[2] - box[0]) * (box[3] - box[1]) - inside)


def lying(nodes: Floats) -> Floats:
    """Nodes [n, 2] about their centre, turned so that they spread widest from left to right."""
    centred = nodes - nodes.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    if len(axes) < 2:
        return np.asarray(centred)
    turned = centred @ (axes * np.where(axes.sum(axis=1) < 0, -1.0, 1.0)[:, None]).T
    return np.asarray(turned - (turned.max(axis=0) + turned.min(axis=0)) / 2)


def apart(nodes: Floats, least: float, rounds: int = 100) -> Floats:
    """Nodes [n, 2] pushed away from each other until none are nearer than `least`, or after so many rounds."""
    at = nodes + 1e-6 * np.column_stack([np.cos(np.arange(len(nodes))), np.sin(np.arange(len(nodes)))])  # equal places must differ to part
    for _ in range(rounds):
        gap = at[:, None] - at
        distance = np.sqrt((gap**2).sum(axis=-1)) + np.eye(len(at)) * 1e9
        push = np.maximum(least - distance, 0.0)
        if not push.any():
            break
        at = at + 0.5 * (gap * (push / distance)[..., None]).sum(axis=1)
    return at


def side_by_side(groups: Sequence[Floats], radii: Sequence[float]) -> list[Floats]:
    """Node positions of each group [n, 2] about its own centre, moved so that groups fill rows of a wide page, largest first as given.

    radii: room that each group needs about its centre.
    """
    row_width = 1.35 * float(np.sqrt(sum((2 * r) ** 2 for r in radii))) if len(radii) else 0.0
    placed, x, y, row_height = [], 0.0, 0.0, 0.0
    for nodes, radius in zip(groups, radii, strict=True):
        if x > 0 and x + 2 * radius > row_width:
            x, y, row_height = 0.0, y - row_height, 0.0
        placed.append(nodes + np.array([x + radius, y - radius]))
        x, row_height = x + 2 * radius, max(row_height, 2 * radius)
    return placed
