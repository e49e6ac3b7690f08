"""How routing entropy is distributed over occurrences and token types, and over ranges of frequency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimate import Estimate
from analysis.figures.columns import Floats, FrequencyBins, TypeColumns, by_range
from analysis.figures.frequency_vs_entropy import trend
from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    absent,
    canvas,
    drawn,
    letter,
    light_grid,
    log_counts,
    per_cent,
)
from analysis.figures.words import percent


@dataclass(frozen=True)
class EntropyDistribution:
    """What the figure shows, for one layer or the mean over layers.

    left, right, share: histogram [H] of `counted`, edges in nats, shares that sum to 1.
    thresholds_nats: name -> nats, the judged one first.
    shares_below: name of a threshold -> share of `counted` below it, with its interval.
    """

    left: Floats
    right: Floats
    share: Floats
    types: TypeColumns
    bins: FrequencyBins
    counted: str = "occurrences"
    thresholds_nats: Mapping[str, float] = field(default_factory=dict)
    shares_below: Mapping[str, Estimate] = field(default_factory=dict)
    uniform_nats: float | None = None


LINES = ((VERMILION, "-"), (PURPLE, (0, (5, 2))), (GREEN, (0, (1, 1.5))))


def _thresholds(axes: Axes, drawn_from: EntropyDistribution, *, vertical: bool, named: bool = False) -> None:
    for (name, nats), (colour, style) in zip(drawn_from.thresholds_nats.items(), LINES, strict=False):
        line = axes.axvline if vertical else axes.axhline
        line(nats, color=colour, linestyle=style, linewidth=1.1, label=f"{name}: {nats:.3f} nats" if named else None)


def _histogram(axes: Axes, shown: EntropyDistribution) -> None:
    width = shown.right - shown.left
    axes.bar(shown.left, shown.share, width=width, align="edge", color=SKY, edgecolor="white", linewidth=0.3)
    _thresholds(axes, shown, vertical=True, named=True)
    letter(axes, "a", f"Entropy of {shown.counted}")
    axes.set_xlabel("routing entropy (nats)")
    axes.set_ylabel(f"share of {shown.counted}")
    per_cent(axes)
    axes.set_ylim(top=1.45 * max(float(shown.share.max(initial=0.0)), 1e-9))
    axes.legend(loc="upper left")


def _cumulative(axes: Axes, shown: EntropyDistribution) -> None:
    axes.plot(np.r_[shown.left[:1], shown.right], np.r_[0.0, np.cumsum(shown.share)], color=BLUE, label=shown.counted)
    values = np.sort(shown.types.mean_entropy[np.isfinite(shown.types.mean_entropy)])
    if len(values) and shown.counted == "occurrences":
        axes.step(
            values, np.arange(1, len(values) + 1) / len(values), color=GREY, linewidth=1.0, where="post", label="token types, by their mean"
        )
    _thresholds(axes, shown, vertical=True)
    for (name, nats), (colour, _) in zip(shown.thresholds_nats.items(), LINES, strict=False):
        below = shown.shares_below.get(name)
        if below is None or below.value is None:
            continue
        if below.low is not None and below.high is not None:
            axes.vlines(nats, below.low, below.high, color=INK, linewidth=2.0, zorder=5)
        axes.plot(
            nats,
            below.value,
            "o",
            color=colour,
            markeredgecolor=INK,
            markersize=4.5,
            zorder=6,
            label=f"{percent(below.value)} below {nats:.3f}",
        )
    letter(axes, "b", "Cumulative distribution")
    axes.set_xlabel("routing entropy (nats)")
    axes.set_ylabel("share below")
    axes.set_ylim(0, 1)
    per_cent(axes)
    light_grid(axes)
    axes.legend(loc="lower right")


def _by_bin(axes: Axes, shown: EntropyDistribution) -> None:
    log_counts(axes)
    trend(axes, shown.bins)
    _thresholds(axes, shown, vertical=False)
    letter(axes, "c", "Mean entropy by frequency bin")
    axes.set_xlabel(shown.types.frequency_of)
    axes.set_ylabel("mean entropy (nats)")
    axes.set_ylim(bottom=0)
    light_grid(axes)
    axes.legend(loc="lower left")


def _boxes(axes: Axes, shown: EntropyDistribution) -> None:
    groups = by_range(shown.types.frequency, shown.types.mean_entropy)
    letter(axes, "d", "Entropy of types, by range of frequency")
    if not groups:
        absent(axes, "no token type has a mean entropy")
        return
    axes.boxplot(
        [values for _, values in groups],
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": SKY, "edgecolor": INK, "linewidth": 0.7, "alpha": 0.7},
        medianprops={"color": ORANGE, "linewidth": 1.8},
        whiskerprops={"color": INK, "linewidth": 0.7},
        capprops={"color": INK, "linewidth": 0.7},
    )
    _thresholds(axes, shown, vertical=False)
    axes.set_xticks(range(1, len(groups) + 1), [f"{label}\n({len(values):,})" for label, values in groups], fontsize=6.5)
    axes.set_xlabel(f"{shown.types.frequency_of}\n(number of types)")
    axes.set_ylabel("mean entropy (nats)")
    axes.set_ylim(bottom=0)
    light_grid(axes)


@drawn
def entropy_distribution(shown: EntropyDistribution) -> Figure:
    """Four panels: histogram with thresholds, cumulative distribution, mean by frequency bin with its null, boxes by frequency range."""
    figure = canvas(5.8)
    axes = figure.subplots(2, 2)
    _histogram(axes[0, 0], shown)
    _cumulative(axes[0, 1], shown)
    _by_bin(axes[1, 0], shown)
    _boxes(axes[1, 1], shown)
    return figure
