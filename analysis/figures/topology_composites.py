"""The three figures of a paper on routing topology, each made of figures that also stand alone (seed 000, section 7: X, Y and Z)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from analysis.figures.style import BLUE, ORANGE, canvas, drawn, letter
from analysis.figures.topology_cells import cell_keys
from analysis.figures.topology_clusters import Dendrogram, cluster_keys, dendrogram_panel
from analysis.figures.topology_domains import RetentionPoint, Transfer, information_against_retention, transfer_panel
from analysis.figures.topology_layers import CrossLayer, cross_layer_panel
from analysis.figures.topology_marks import Marks, legend_above, note
from analysis.figures.topology_specialisation import Specialisation, extremes_keys, extremes_panel, histogram_panel, most_and_least

PANEL_EXTREMES = 10


@drawn
def paper_information(layers: CrossLayer, domains: Transfer) -> Figure:
    """Figure X: information between all layers (bits, H on the diagonal) beside information transferred between domains (bits)."""
    figure = canvas(3.5)
    left, right = figure.subplots(1, 2)
    cells = cross_layer_panel(left, layers)
    transfer = transfer_panel(right, domains, intervals=False)
    letter(left, "a", "Between layers")
    letter(right, "b", "Transferred between domains")
    legend_above(figure, cell_keys([cells, transfer]))
    over = f"b: {domains.over}; framed" if domains.over else "b, framed"
    note(figure, f"a, diagonal: entropy of the layer itself. {over} diagonal: information of the domain itself, the ceiling of its column; "
                 "red: the source's transition table misleads.")
    return figure


@drawn
def paper_clusters(clusters: Dendrogram, specialisation: Specialisation, names: Sequence[str]) -> Figure:
    """Figure Y: dendrogram of experts over the distribution of specialisation and its ten largest and ten smallest values with intervals.

    names: of the experts of `specialisation`, in its order.
    """
    figure = canvas(5.9)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.15, 1.0], width_ratios=[1.2, 1, 1])
    top, histogram, most_panel, least_panel = (figure.add_subplot(grid[where]) for where in ((0, slice(None)), (1, 0), (1, 1), (1, 2)))
    dendrogram_panel(top, clusters)
    entries = histogram_panel(histogram, specialisation)
    marks = Marks.of(specialisation.values)
    most, least = most_and_least(marks, PANEL_EXTREMES)
    extremes_panel(most_panel, marks, most, names, BLUE)
    extremes_panel(least_panel, marks, least, names, ORANGE)
    titles = ("Experts that are chosen together", "Specialisation", "Most specialised", "Least specialised")
    for axes, which, title in zip((top, histogram, most_panel, least_panel), "abcd", titles, strict=True):
        letter(axes, which, title)
    legend_above(figure, [*([] if clusters.labels is None else cluster_keys(clusters.labels, 4)), *entries, *extremes_keys(marks)])
    return figure


@drawn
def paper_retention(points: Sequence[RetentionPoint], verdict: str) -> Figure:
    """Figure Z: transferred information (bits) against retention, every ordered pair with both intervals, and the verdict in words."""
    return information_against_retention(points, verdict)

