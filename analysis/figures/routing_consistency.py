"""How steadily a token type is routed: the seed's modal share, the unbiased collision, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimate import Estimate
from analysis.figures.columns import Floats, FrequencyBins, TypeColumns, by_range
from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RASTERISE_ABOVE,
    absent,
    canvas,
    colour_bar,
    count,
    drawn,
    letter,
    light_grid,
    log_counts,
    per_cent,
)
from analysis.figures.words import interval

Series = tuple[str, Floats, str]  # label, values [V], colour


def series_of(types: TypeColumns) -> list[Series]:
    """The consistency measures that the table has, each with its label and colour."""
    known = (
        ("modal share (seed form)", types.consistency, ORANGE),
        ("collision (unbiased)", types.collision, BLUE),
        ("modal share at 50 occurrences", types.consistency_rarefied, GREEN),
    )
    return [(label, values, colour) for label, values, colour in known if values is not None and np.isfinite(values).any()]


def _line(axes: Axes, types: TypeColumns, values: Floats, label: str, **style: object) -> None:
    bins = FrequencyBins.of_types(types.frequency, values)
    axes.plot(bins.centre, bins.mean, label=label, **style)  # type: ignore[arg-type]


def _against_frequency(axes: Axes, types: TypeColumns) -> None:
    log_counts(axes)
    for label, values, colour in series_of(types)[:2]:
        axes.scatter(types.frequency, values, s=3, color=colour, alpha=0.22, linewidths=0, rasterized=len(values) > RASTERISE_ABOVE)
        _line(axes, types, values, label, color=colour, zorder=4)
    if types.consistency_null is not None:
        _line(axes, types, types.consistency_null, "modal share under the null", color=GREY, linestyle=(0, (4, 2)), zorder=5)
    letter(axes, "a", "Consistency against frequency")
    axes.set_xlabel(types.frequency_of)
    axes.set_ylabel("consistency (share)")
    axes.set_ylim(0, 1.02)
    light_grid(axes)
    axes.legend(loc="upper right")


def _distribution(axes: Axes, types: TypeColumns, means: Mapping[str, Estimate]) -> None:
    edges, highest = np.linspace(0, 1, 41), 0.0
    for label, values, colour in series_of(types):
        known = values[np.isfinite(values)]
        words = f"{label}\nmean {interval(means[label])}" if label in means else label
        shares = np.histogram(known, bins=edges)[0] / len(known)
        axes.stairs(shares, edges, fill=True, alpha=0.25, color=colour)
        axes.stairs(shares, edges, color=colour, linewidth=1.1, label=words)
        highest = max(highest, float(shares.max()))
    axes.set_ylim(0, max(1.75 * highest, 1e-9))  # room for the legend
    letter(axes, "b", "Distribution over token types")
    axes.set_xlabel("consistency (share)")
    axes.set_ylabel("share of types")
    per_cent(axes)
    axes.set_xlim(0, 1)
    axes.legend(loc="upper right")


def _against_entropy(axes: Axes, types: TypeColumns) -> None:
    letter(axes, "c", "Consistency against entropy")
    values = types.collision if types.collision is not None else types.consistency
    if values is None:
        absent(axes, "the table has no consistency column")
        return
    seen = np.isfinite(values) & np.isfinite(types.mean_entropy) & (types.frequency > 0)
    order = np.flatnonzero(seen)[np.argsort(types.frequency[seen], kind="stable")]
    points = axes.scatter(
        types.mean_entropy[order],
        values[order],
        s=4,
        c=np.log10(types.frequency[order]),
        cmap="viridis_r",
        alpha=0.8,
        linewidths=0,
        rasterized=len(order) > RASTERISE_ABOVE,
    )
    colour_bar(axes, points, "occurrences", lambda exponent: count(round(10**exponent)))
    axes.set_xlabel("mean routing entropy (nats)")
    axes.set_ylabel("collision (share)" if types.collision is not None else "modal share")
    axes.set_ylim(0, 1.02)
    light_grid(axes)


def _by_range(axes: Axes, types: TypeColumns) -> None:
    letter(axes, "d", "By range of frequency")
    drawn_series = series_of(types)
    if types.consistency_null is not None:
        drawn_series.append(("modal share under the null", types.consistency_null, GREY))
    every = types.frequency[types.frequency > 0]
    labels = [label for label, _ in by_range(every, every)]
    for i, (name, values, colour) in enumerate(drawn_series):
        groups = dict(by_range(types.frequency, values))
        at = [labels.index(label) + 0.16 * (i - (len(drawn_series) - 1) / 2) for label in groups if label in labels]
        quartiles = np.array([np.quantile(group, (0.25, 0.5, 0.75)) for label, group in groups.items() if label in labels])
        if len(quartiles):
            axes.vlines(at, quartiles[:, 0], quartiles[:, 2], color=colour, linewidth=2.2, alpha=0.6)
            axes.plot(at, quartiles[:, 1], "o", color=colour, markersize=3.5, label=name)
    axes.set_xticks(range(len(labels)), labels, fontsize=6.5)
    axes.set_xlabel(f"{types.frequency_of}\n(dot: median type; bar: middle half of types)")
    axes.set_ylabel("consistency (share)")
    axes.set_ylim(0, 1.02)
    light_grid(axes)


@drawn
def routing_consistency(types: TypeColumns, means: Mapping[str, Estimate] | None = None) -> Figure:
    """Four panels: consistency against frequency with its null, its distribution, against entropy, by range of frequency.

    means: label of a measure (see series_of) -> its mean over types with interval, printed in the legend.
    """
    figure = canvas(5.8)
    axes = figure.subplots(2, 2)
    _against_frequency(axes[0, 0], types)
    _distribution(axes[0, 1], types, means or {})
    _against_entropy(axes[1, 0], types)
    _by_range(axes[1, 1], types)
    return figure
