"""What a predictor of experts knows: bars beside its baselines, the learning curve, and a map over layers and domains.

L layer, D domain, T training epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.estimate import Estimate
from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    SKY,
    VERMILION,
    WIDTH_IN,
    absent,
    canvas,
    colour_bar,
    drawn,
    letter,
    light_grid,
)
from analysis.figures.topology_cells import Grid, cell_keys, paint, scale_bar
from analysis.figures.topology_curves import TICKS, Line, line, state_keys
from analysis.figures.topology_domains import row_words
from analysis.figures.topology_marks import Marks, bars, keys, legend_above, whiskers

Role = Literal["predictor", "ablation", "baseline", "perfect"]
FILL = {"predictor": BLUE, "ablation": SKY, "baseline": PALE, "perfect": "#f3f8fc"}
ROLE_WORDS = {"predictor": "predictor", "ablation": "ablation", "baseline": "baseline", "perfect": "perfect: MI = H of the routing"}
SHADES = "viridis"


@dataclass(frozen=True)
class Predictor:
    """One row: I(predicted; actual), bits; for the perfect one H of the actual choice. accuracy: shares by name of the measure, such as top-1."""

    name: str
    information: Estimate
    role: Role = "baseline"
    accuracy: dict[str, Estimate] = field(default_factory=dict)


def _rows(axes: Axes, predictors: Sequence[Predictor], estimates: Sequence[Estimate | None], *, words: bool) -> Marks:
    marks, at = Marks.of(list(estimates)), np.arange(len(predictors), dtype=np.float64)[::-1]
    bars(axes, at, marks, [FILL[one.role] for one in predictors], horizontal=True)
    for patch in axes.patches:
        patch.set(linewidth=0.6, edgecolor=INK if patch.get_hatch() else GREY)
    if words:
        row_words(axes, at, estimates)
    axes.set_ylim(-0.6, len(predictors) - 0.4)
    light_grid(axes, "x")
    return marks


@drawn
def predictor_bars(predictors: Sequence[Predictor], *, bound: tuple[float, str] | None = None) -> Figure:
    """Bars of I(predicted; actual) with intervals, bits: predictor, ablation, every baseline, and H as the perfect predictor's bar.

    Beside them the accuracies, for information is blind to labels: a predictor that permutes experts keeps all its bits and is never right.
    bound: (bits, its words), such as the best baseline and the declared margin.
    """
    measures = list(dict.fromkeys(name for one in predictors for name in one.accuracy))
    figure = canvas(1.15 + 0.26 * max(len(predictors), 2))
    panels = figure.subplots(1, 1 + len(measures), sharey=True, squeeze=False, width_ratios=[1.5] + [1.0] * len(measures))[0]
    if not predictors:
        absent(panels[0], "no predictor to show")
        return figure
    drawn_marks = [_rows(panels[0], predictors, [one.information for one in predictors], words=not measures)]
    panels[0].set_xlabel("I(predicted; actual) (bits)")
    panels[0].set_ylabel("predictor")
    panels[0].set_yticks(np.arange(len(predictors))[::-1], [one.name for one in predictors])
    entries: list[Artist] = [Patch(facecolor=FILL[role], edgecolor=GREY, linewidth=0.6, label=ROLE_WORDS[role])
                             for role in FILL if any(one.role == role for one in predictors)]
    if bound is not None:
        panels[0].axvline(bound[0], color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)), zorder=5)
        entries.append(Line2D([], [], color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)), label=bound[1]))
    for axes, measure in zip(panels[1:], measures, strict=True):
        applies = [one for one in predictors if one.role != "perfect"]
        known = Marks.of([one.accuracy.get(measure) for one in applies])
        _rows(axes, predictors, [one.accuracy.get(measure, _whole(one)) for one in predictors], words=False)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel(f"{measure} (share)")
        drawn_marks.append(known)
    for axes, title in zip(panels, ("Information", *measures), strict=True):
        axes.tick_params(axis="y", length=0)
        if measures:
            letter(axes, "abcdef"[list(panels).index(axes)], title)
    legend_above(figure, [*entries, *keys(drawn_marks)])
    return figure


def _whole(predictor: Predictor) -> Estimate | None:
    """The perfect predictor is always right; another one without the measure has none."""
    return Estimate(1.0, None, None, "share", "", 0, "by definition") if predictor.role == "perfect" else None


@dataclass(frozen=True)
class LearningCurve:
    """I(predicted; actual) after each epoch on held-out documents, bits: by_layer [L][T], mean [T] over layers.

    best_baseline, entropy: level lines with their names, such as the best table and H of the routing.
    """

    epochs: Sequence[int]
    by_layer: Any
    mean: Sequence[Estimate | None] = ()
    best_baseline: tuple[str, Estimate] | None = None
    entropy: tuple[str, float] | None = None


def _levels(axes: Axes, shown: LearningCurve) -> list[Artist]:
    entries: list[Artist] = []
    if shown.best_baseline is not None and shown.best_baseline[1].value is not None:
        name, best = shown.best_baseline
        if best.low is not None and best.high is not None:
            axes.axhspan(best.low, best.high, color=ORANGE, alpha=0.25, linewidth=0, zorder=1)
        axes.axhline(shown.best_baseline[1].value, color=ORANGE, linewidth=1.2, zorder=2)
        entries.append(Line2D([], [], color=ORANGE, linewidth=1.2, label=name))
    if shown.entropy is not None:
        axes.axhline(shown.entropy[1], color=GREEN, linewidth=1.1, linestyle=(0, (1, 1.5)), zorder=2)
        entries.append(Line2D([], [], color=GREEN, linewidth=1.1, linestyle=(0, (1, 1.5)), label=shown.entropy[0]))
    return entries


@drawn
def learning_curve(shown: LearningCurve, *, width_in: float = WIDTH_IN) -> Figure:
    """Lines of I(predicted; actual) over training epochs, one per layer shaded by depth, the mean over layers with its intervals in black."""
    figure = canvas(3.1 if width_in > 5 else 3.5, width_in)
    axes, at = figure.subplots(), np.asarray(shown.epochs, np.float64)
    layers = Marks.of(shown.by_layer)
    if not len(at) or not (layers.value.size or len(shown.mean)):
        absent(axes, "no epoch to show")
        return figure
    n_layers = len(layers.value) if layers.value.ndim == 2 else 0
    depth = Normalize(0, max(n_layers - 1, 1))
    for i in range(n_layers):
        one, colour = layers.each(lambda array, i=i: array[i]), colormaps[SHADES](float(depth(i)))  # type: ignore[misc]
        style = {"marker": "o", "markersize": 2.5} if n_layers <= 8 or len(at) == 1 else {}
        axes.plot(at, one.value, color=colour, linewidth=1.0, alpha=0.9, zorder=3, label=f"_layer {i}", **style)  # type: ignore[arg-type]
        if n_layers <= 8:
            whiskers(axes, at, one, colour, width=0.9)  # type: ignore[arg-type]
    entries, every = _levels(axes, shown), [layers] if n_layers <= 8 else []
    if len(shown.mean):
        mean = Marks.of(list(shown.mean))
        entries = [*line(axes, at, Line("mean over layers", mean), INK, "o"), *entries]
        every.append(mean)
    if n_layers > 1:
        colour_bar(axes, ScalarMappable(depth, SHADES), "MoE layer", lambda value: f"{value:.0f}")
    axes.set_xlabel("training epoch")
    axes.set_ylabel("I(predicted; actual) (bits)")
    axes.xaxis.set_major_locator(MaxNLocator(TICKS if width_in > 5 else 6, integer=True, min_n_ticks=1))
    light_grid(axes)
    legend_above(figure, [*entries, *state_keys(every)])
    return figure


@drawn
def predictor_map(estimates: Any, domains: Sequence[str], *, layers: Sequence[str] | None = None,
                  quantity: str = "I(predicted; actual) (bits)") -> Figure:
    """Heat map of the predictor's information by layer and domain, estimates [L, D], bits; many layers lie along the x axis."""
    marks = Marks.of(estimates)
    if marks.value.ndim != 2:
        marks = Marks.of(np.empty((0, len(domains))))
    n_layers = len(marks.value)
    names = list(layers) if layers is not None else [str(i) for i in range(n_layers)]
    grid = Grid(marks, names, list(domains), "MoE layer", "domain", quantity, square=False)
    if n_layers > len(domains):
        grid = Grid(marks.each(np.transpose), list(domains), names, "domain", "MoE layer", quantity, square=False)
    figure = canvas(1.1 + 0.36 * max(len(grid.rows), 3))
    axes = figure.subplots()
    image = paint(axes, grid)
    if image is not None:
        scale_bar(axes, image, grid, place=(1.015, 0.0, 0.02, 1.0))
    legend_above(figure, cell_keys([grid]))
    return figure
