"""Clusters of experts: the dendrogram, the co-activation map in its order, and the network of experts that meet.

E expert, A expert in use, C cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from analysis.figures.columns import Floats, floats
from analysis.figures.style import GREY, INK, PALE, absent, canvas, drawn
from analysis.figures.topology_cells import Grid, cell_keys, ordered, paint, scale_bar, thin_ticks
from analysis.figures.topology_marks import CYCLE, Marks, legend_above, note

Int = NDArray[np.int64]

LEAST_SIDE = 0.2  # of a network's longer side: what its shorter one is drawn with at least
SPRINGS_UP_TO = 300  # nodes whose every distance is fitted (cubic); beyond, forces
NODE_GAP = 0.62


@dataclass(frozen=True)
class Dendrogram:
    """A clustering to draw. merges: scipy's linkage matrix [A - 1, 4]; experts: id of each leaf [A], in the order of `merges`.

    labels: cluster of each leaf [A]; none if not given. cut: height of the cut, a dashed line. quantity: what the heights are.
    """

    merges: ArrayLike
    experts: Sequence[int] | None = None
    labels: Sequence[int] | None = None
    cut: float | None = None
    quantity: str = "1 \u2212 Jaccard index"


@dataclass(frozen=True)
class Tree:
    """The drawn tree: brackets [A - 1, 4, 2] (x, height), leaves in order from the left [A], and the cluster of each bracket, -1 above a cut."""

    brackets: Floats
    leaves: Int
    cluster: Int


def tree(merges: ArrayLike, labels: Sequence[int] | None = None) -> Tree:
    """Leaf order and brackets of a linkage matrix, first child to the left as scipy draws it; no recursion, so any depth."""
    steps = np.asarray(merges, np.float64).reshape(-1, 4)
    n = len(steps) + 1
    children = steps[:, :2].astype(np.int64)
    leaves, stack = [], [2 * n - 2]
    while stack:
        node = stack.pop()
        if node < n:
            leaves.append(node)
        else:
            stack += [int(children[node - n, 1]), int(children[node - n, 0])]
    x, height, cluster = np.zeros(2 * n - 1), np.zeros(2 * n - 1), np.full(2 * n - 1, -1, np.int64)
    x[leaves] = np.arange(n)
    if labels is not None:
        cluster[:n] = labels
    brackets = np.zeros((n - 1, 4, 2))
    for i, (left, right) in enumerate(children.tolist()):
        x[n + i], height[n + i] = (x[left] + x[right]) / 2, steps[i, 2]
        cluster[n + i] = cluster[left] if cluster[left] == cluster[right] else -1
        brackets[i] = [(x[left], height[left]), (x[left], height[n + i]), (x[right], height[n + i]), (x[right], height[right])]
    return Tree(brackets, np.array(leaves, np.int64), cluster[n:])


def cluster_colour(cluster: int) -> str:
    """Colour of a cluster, grey for none; the cycle repeats after eight."""
    return GREY if cluster < 0 else CYCLE[cluster % len(CYCLE)]


def dendrogram_panel(axes: Axes, shown: Dendrogram) -> Int:
    """The tree in a panel, brackets inside a cluster in its colour; returns the leaves from the left."""
    merges = np.asarray(shown.merges, np.float64).reshape(-1, 4)
    if not len(merges):
        absent(axes, "fewer than two experts in use: nothing to cluster")
        return np.zeros(0, np.int64)
    drawn_tree = tree(merges, shown.labels)
    colours = [cluster_colour(c) for c in drawn_tree.cluster.tolist()]
    axes.add_collection(LineCollection(drawn_tree.brackets.tolist(), colors=colours, linewidths=1.0 if len(merges) < 200 else 0.6))
    n, top = len(drawn_tree.leaves), float(drawn_tree.brackets[..., 1].max())
    low = float(drawn_tree.brackets[..., 1][drawn_tree.brackets[..., 1] > 0].min(initial=top))
    if low > 0.6 * top:  # all merges near the top: start the axis there, and say so on it
        axes.set_ylim(low - 0.12 * (top - low) - 0.01, top + 0.05 * (top - low) + 0.002)
    else:
        axes.set_ylim(0, 1.05 * top or 1.0)
    axes.set_xlim(-0.7, n - 0.3)
    ids = drawn_tree.leaves if shown.experts is None else np.asarray(shown.experts)[drawn_tree.leaves]
    leaf_names(axes, [str(i) for i in ids.tolist()])
    if shown.cut is not None:
        axes.axhline(shown.cut, color=INK, linewidth=0.8, linestyle=(0, (5, 2)), label="_cut")
    axes.set_ylabel(f"height of the merge\n({shown.quantity})")
    axes.set_xlabel("expert (id), in the order of the tree" + ("; heights do not start at 0" if axes.get_ylim()[0] > 0 else ""))
    return drawn_tree.leaves


def leaf_names(axes: Axes, names: Sequence[str]) -> None:
    """Ids under all leaves: beside each other, upright from 33 on, in two heights from 97 on, thinned out from 257 on."""
    n = len(names)
    if n > 256:
        thin_ticks(axes.xaxis, names, 100)
        axes.tick_params(axis="x", rotation=90, labelsize=4.5)
        return
    axes.set_xticks(range(n), [name if n <= 96 or i % 2 == 0 else f"{name}     " for i, name in enumerate(names)])
    axes.tick_params(axis="x", length=1.5, rotation=0 if n <= 32 else 90, labelsize=7.0 if n <= 32 else 5.5 if n <= 64 else 4.6)


def cluster_keys(labels: Sequence[int], n_named: int = 8) -> list[Artist]:
    """Legend entries of the clusters with their sizes, at most n_named of them; the rest in one entry."""
    known = np.asarray(labels)
    sizes = {c: int((known == c).sum()) for c in sorted(set(known[known >= 0].tolist()))}
    first = list(sizes)[:n_named]
    entries: list[Artist] = [Line2D([], [], color=cluster_colour(c), linewidth=2.5, label=f"cluster {c + 1} ({sizes[c]})") for c in first]
    if len(sizes) > n_named:
        rest = len(sizes) - n_named
        entries.append(Line2D([], [], color="none", label=f"+ {rest} more {'cluster' if rest == 1 else 'clusters'}, colours repeat"))
    return entries


@drawn
def expert_dendrogram(shown: Dendrogram, title: str = "") -> Figure:
    """Dendrogram of experts from a given linkage, each cluster in its colour, every expert's id under its leaf up to 256."""
    figure = canvas(3.4)
    axes = figure.subplots()
    dendrogram_panel(axes, shown)
    if title:
        axes.set_title(title)
    if shown.labels is not None:
        legend_above(figure, cluster_keys(shown.labels))
    return figure


@dataclass(frozen=True)
class Coactivation:
    """Co-activation of experts. lift [E, E]: log2 of observed over expected under fixed k and the same loads, its diagonal not read.

    order: expert ids along the dendrogram (unused experts left out); labels [E]: cluster of each expert, -1 none.
    """

    lift: ArrayLike
    order: Sequence[int]
    labels: Sequence[int] | None = None
    quantity: str = "log2 of co-activation over chance (bits)"


@drawn
def coactivation_map(shown: Coactivation) -> Figure:
    """Heat map of log2 co-activation lift, experts in the order of the dendrogram, clusters framed and marked at the edge in their colour.

    A pair that never met is NaN (grey) or -infinity (the darkest red, and the colour bar is pointed). Diagonal blank: an expert meets itself.
    """
    figure = canvas(5.4, 6.2)
    axes = figure.subplots()
    lift, order = floats(shown.lift), list(shown.order)
    values = ordered(lift, order, order) if len(order) else np.empty((0, 0))
    marks = Marks.of(values)
    names = [str(i) for i in order]
    grid = Grid(marks, names, names, "expert (id), in the order of the tree", "expert (id), in the order of the tree", shown.quantity, signed=True)
    image = paint(axes, grid)
    if image is not None:
        scale_bar(axes, image, grid)
        blank = np.ma.masked_where(~np.eye(len(order), dtype=np.bool_), np.zeros((len(order), len(order))))
        axes.imshow(blank, cmap="Greys", vmin=0, vmax=1, interpolation="nearest", zorder=2, label="_diagonal")
        _cluster_frames(axes, shown, order)
    undefined = values[~np.eye(len(order), dtype=np.bool_)]
    shown_keys = cell_keys([Grid(Marks.of(undefined[None]), [], [], "", "", "")])
    for key in shown_keys:
        key.set_label("undefined (a pair that never met)")
    legend_above(figure, [*shown_keys, *([] if shown.labels is None else cluster_keys([shown.labels[e] for e in order], 6))])
    n_unused = len(lift) - len(order)
    note(figure, f"{n_unused} of {len(lift)} experts without a token are left out." if n_unused else "")
    return figure


def _cluster_frames(axes: Axes, shown: Coactivation, order: Sequence[int]) -> None:
    if shown.labels is None:
        return
    labels = np.array([shown.labels[e] for e in order])
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    ends = np.r_[starts[1:], len(labels)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        box = np.array([(start, start), (end, start), (end, end), (start, end), (start, start)]) - 0.5
        axes.plot(box[:, 0], box[:, 1], color=INK, linewidth=0.7, zorder=4, label="_frame", clip_on=False)
        axes.plot([start - 0.5, end - 0.5], [1.012, 1.012], color=cluster_colour(int(labels[start])), linewidth=4, solid_capstyle="butt",
                  transform=axes.get_xaxis_transform(), clip_on=False, label="_strip")


@dataclass(frozen=True)
class ExpertNetwork:
    """Experts as nodes; pairs whose lift [E, E] exceeds cut_off as edges. loads [E]: shares of tokens; labels [E]: clusters, -1 none.

    cut_off comes from the caller, in the unit of the lift. At most max_edges edges are drawn, the strongest.
    """

    lift: ArrayLike
    cut_off: float
    loads: ArrayLike | None = None
    labels: Sequence[int] | None = None
    unit: str = "bits"
    max_edges: int = 1_500
    seed: int = 0


def edges_above(lift: Any, cut_off: float) -> tuple[Int, Floats]:
    """Pairs (i < j) whose lift exceeds the cut-off [N, 2], with their lifts, strongest first."""
    values = floats(lift)
    i, j = np.triu_indices(len(values), 1)
    weights = values[i, j]
    kept = np.flatnonzero(np.where(np.isnan(weights), -np.inf, weights) > cut_off)
    kept = kept[np.argsort(-weights[kept], kind="stable")]
    return np.column_stack([i[kept], j[kept]]).astype(np.int64), np.asarray(weights[kept])


def place_nodes(edges: Int, weights: Floats, seed: int) -> dict[int, tuple[float, float]]:
    """Positions of the nodes with an edge: each connected part drawn by springs from a fixed start, parts side by side."""
    import networkx as nx

    from analysis.figures.topology_places import apart, lying, side_by_side

    graph = nx.Graph()
    graph.add_weighted_edges_from((int(a), int(b), float(w)) for (a, b), w in zip(edges, weights, strict=True))
    parts = sorted((sorted(part) for part in nx.connected_components(graph)), key=lambda part: (-len(part), part))
    radii = [0.55 * np.sqrt(len(part)) + 0.45 for part in parts]
    placed, radii_drawn = [], []
    for part, radius in zip(parts, radii, strict=True):
        subgraph = nx.Graph()
        subgraph.add_nodes_from(part)  # in order of id: the layout depends on it
        subgraph.add_edges_from(sorted(tuple(sorted(edge)) for edge in graph.subgraph(part).edges))
        at = nx.kamada_kawai_layout(subgraph) if len(part) <= SPRINGS_UP_TO else nx.spring_layout(subgraph, seed=seed, iterations=200, method="force")
        xy = np.array([at[node] for node in part])
        xy = apart(lying(xy) / (np.abs(lying(xy)).max() or 1.0) * (radius - 0.4), NODE_GAP)
        radii_drawn.append(max(radius, float(np.abs(xy).max()) + 0.4))
        placed.append(xy)
    groups = side_by_side(placed, radii_drawn)
    return {node: (float(x), float(y)) for part, xy in zip(parts, groups, strict=True) for node, (x, y) in zip(part, xy, strict=True)}


@drawn
def expert_network(shown: ExpertNetwork) -> Figure:
    """Network of experts whose co-activation lift exceeds the caller's cut-off: node area by load, edge width by lift, colour by cluster.

    Distances on the page mean nothing beyond being joined. Experts without an edge are counted, not drawn.
    """
    lift = floats(shown.lift)
    edges, weights = edges_above(lift, shown.cut_off) if lift.ndim == 2 and len(lift) else (np.empty((0, 2), np.int64), np.empty(0))
    figure = canvas(5.6 if len(edges) else 2.4)
    axes = figure.subplots()
    n_all = len(edges)
    edges, weights = edges[: shown.max_edges], weights[: shown.max_edges]
    words = f"Edges: log2 lift above {shown.cut_off:g} {shown.unit}, the cut-off as declared ({n_all:,} pairs)."
    if not n_all:
        absent(axes, f"no pair of experts has a lift above {shown.cut_off:g} {shown.unit}")
        return figure
    if n_all > len(edges):
        words += f" The {len(edges):,} strongest are drawn."
    at = place_nodes(edges, weights, shown.seed)
    _network(axes, shown, at, edges, weights)
    words += f" Without an edge, not drawn: {len(lift) - len(at)} of {len(lift)} experts. Place on the page carries no meaning."
    if shown.labels is not None:
        legend_above(figure, cluster_keys([shown.labels[e] for e in sorted(at)]))
    note(figure, words)
    return figure


def _network(axes: Axes, shown: ExpertNetwork, at: dict[int, tuple[float, float]], edges: Int, weights: Floats) -> None:
    finite = weights[np.isfinite(weights)]
    top = float(finite.max(initial=shown.cut_off))
    strength = np.clip((weights - shown.cut_off) / ((top - shown.cut_off) or 1.0), 0, 1)
    lines = [[at[int(a)], at[int(b)]] for a, b in edges]
    crowd = 1.0 if len(edges) < 300 else 0.5
    axes.add_collection(LineCollection(lines, linewidths=(0.4 + 2.4 * strength) * crowd, colors=PALE if crowd == 1.0 else GREY,
                                       alpha=0.9 if crowd == 1.0 else 0.35, zorder=1, label="_edges"))
    nodes = sorted(at)
    loads = np.ones(len(shown.labels or floats(shown.lift))) if shown.loads is None else floats(shown.loads)
    largest = float(np.nanmax(loads[nodes])) or 1.0
    area = 40 + 200 * np.nan_to_num(loads[nodes]) / largest if len(nodes) <= 40 else 52 + 80 * np.nan_to_num(loads[nodes]) / largest
    colours = [cluster_colour(-1 if shown.labels is None else shown.labels[n]) for n in nodes]
    x, y = (np.array([at[n][place] for n in nodes]) for place in (0, 1))
    axes.scatter(x, y, s=area.tolist(), c=colours, edgecolors="white", linewidths=0.6, zorder=3, clip_on=False)
    for n in nodes:
        size = 6.5 if len(nodes) <= 40 else 4.6 if n < 100 else 3.9
        axes.text(*at[n], str(n), ha="center", va="center", fontsize=size, color="white", fontweight="bold", zorder=4)
    axes.set_aspect("equal")
    half = [float(np.ptp(one)) / 2 + NODE_GAP / 2 for one in (x, y)]
    for middle, own, other, limit in ((np.ptp(x) / 2 + x.min(), *half, axes.set_xlim), (np.ptp(y) / 2 + y.min(), *half[::-1], axes.set_ylim)):
        room = max(own, LEAST_SIDE * other)  # nodes in a row have no height of their own
        limit(middle - room, middle + room)
    axes.set_axis_off()

