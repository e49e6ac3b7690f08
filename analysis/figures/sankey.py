"""Flows of tokens between the experts of adjacent layers: one self-contained page, and a drawing for print.

X, Y expert at the earlier and the later layer of a pair; L layer. Experts beyond the busiest of a layer are one node, "others", so that every
flow is in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from analysis.figures.columns import Floats
from analysis.figures.style import GREY, INK, WIDTH_IN, absent, canvas, drawn
from analysis.figures.topology_marks import CYCLE, note
from analysis.figures.words import percent

LAYERS_PER_ROW = 13  # of the drawing; deeper models continue in a further row, which repeats the last layer
NODE_WIDTH, NODE_GAP = 0.09, 0.012
PIXELS_PER_LAYER = 130
ONE_LAYER, NO_FLOW = "fewer than two layers: no flow to show", "no token has an expert at both layers of a pair"


@dataclass(frozen=True)
class Flows:
    """Tokens by expert of both layers, a table [X, Y] for each adjacent pair: counts or shares, not negative.

    layers: names of all L layers, 0.. if not given. n_experts: the busiest ones that keep a node of their own in each layer.
    min_share: links below this share of their pair's tokens are not drawn, and the note says how many tokens that leaves out.
    """

    tables: Sequence[NDArray[Any]]
    layers: Sequence[str] | None = None
    n_experts: int = 16
    min_share: float = 0.002
    title: str = "Flow of tokens between the experts of adjacent layers"


@dataclass(frozen=True)
class FlowGraph:
    """What is drawn. experts: ids that keep a node, by layer; the node after them is the others, n_others with a token.

    links [P]: shares [x, y] of the pair's tokens; drawn [P]: which links are drawn; carried: share of tokens in them, mean over pairs.
    """

    names: tuple[str, ...]
    experts: tuple[tuple[int, ...], ...]
    n_others: tuple[int, ...]
    links: tuple[Floats, ...]
    drawn: tuple[NDArray[np.bool_], ...]
    carried: float


def flow_graph(flows: Flows) -> FlowGraph:
    """Shares of tokens between the busiest experts of adjacent layers, all others as one node; every pair sums to 1, or 0 without a token.

    ValueError for tables that do not chain (the later layer of one is the earlier of the next) or hold a negative or undefined number.
    """
    tables = [np.asarray(table, np.float64) for table in flows.tables]
    for i, table in enumerate(tables):
        if table.ndim != 2 or not np.isfinite(table).all() or (table < 0).any():
            raise ValueError(f"tables[{i}]: give a table [X, Y] of counts, none negative or undefined")
        if i and tables[i - 1].shape[1] != table.shape[0]:
            before, after = tables[i - 1].shape[1], table.shape[0]
            raise ValueError(f"tables[{i}] starts from {after} experts, tables[{i - 1}] ends at {before}; give adjacent pairs of layers in order")
    names = tuple(str(i) for i in range(len(tables) + 1)) if flows.layers is None else tuple(flows.layers)
    if tables and len(names) != len(tables) + 1:
        raise ValueError(f"layers: {len(names)} names for {len(tables) + 1} layers")
    if not tables:
        return FlowGraph((), (), (), (), (), 0.0)
    loads = [tables[0].sum(axis=1), *(table.sum(axis=0) for table in tables)]
    experts = tuple(_busiest(load, flows.n_experts) for load in loads)
    links = tuple(_shares(table, experts[i], experts[i + 1]) for i, table in enumerate(tables))
    shown = tuple(link >= max(flows.min_share, 1e-15) for link in links)
    carried = float(np.mean([link[keep].sum() for link, keep in zip(links, shown, strict=True)]))
    n_others = tuple(int((load > 0).sum()) - len(kept) for load, kept in zip(loads, experts, strict=True))
    return FlowGraph(names, experts, n_others, links, shown, carried)


def _busiest(load: Floats, n: int) -> tuple[int, ...]:
    order = np.argsort(-load, kind="stable")[:n]
    return tuple(sorted(order[load[order] > 0].tolist()))


def _shares(table: Floats, rows: Sequence[int], columns: Sequence[int]) -> Floats:
    """Table over the kept experts and, last, all others; as shares of its sum."""
    def folded(one: Floats, kept: Sequence[int]) -> Floats:
        rest = np.setdiff1d(np.arange(len(one)), np.asarray(kept, np.int64))
        return np.concatenate([one[list(kept)], one[rest].sum(axis=0, keepdims=True)])

    small = folded(folded(table, rows).T, columns).T
    total = small.sum()
    return np.asarray(small / total if total > 0 else small)


def _words(graph: FlowGraph, flows: Flows) -> str:
    words = "Width: share of tokens. "
    if any(graph.n_others):
        words += f"Each layer shows its {flows.n_experts} busiest experts; all others are one grey node. "
    below = f"Links under {percent(flows.min_share)} of a pair's tokens are not drawn; together they carry {percent(1 - graph.carried)}. "
    return words + below + "A band joins two layers; it does not say that the same tokens go on together."


def node_name(graph: FlowGraph, layer: int, node: int) -> str:
    """'E17', or 'others (116)' for the node after the kept experts."""
    kept = graph.experts[layer]
    return f"E{kept[node]}" if node < len(kept) else f"others ({graph.n_others[layer]})"


def node_colour(graph: FlowGraph, layer: int, node: int) -> str:
    """Colour of a node: the cycle by expert id, grey for the others."""
    kept = graph.experts[layer]
    return CYCLE[kept[node] % len(CYCLE)] if node < len(kept) else GREY


@drawn
def sankey_figure(flows: Flows) -> Figure:
    """Flows between adjacent layers as bands, width by share of tokens, colour by the earlier expert; 13 layers a row."""
    graph = flow_graph(flows)
    n_layers = len(graph.names)
    rows = max(1, -(-(n_layers - 1) // (LAYERS_PER_ROW - 1)))
    figure = canvas(0.7 + 3.0 * rows if graph.carried else 2.4, WIDTH_IN)
    panels = figure.subplots(rows if graph.carried else 1, 1, squeeze=False)[:, 0]
    if not graph.carried:
        absent(panels[0], NO_FLOW if n_layers else ONE_LAYER)
        return figure
    for row, axes in enumerate(panels):
        first = row * (LAYERS_PER_ROW - 1)
        last = min(first + LAYERS_PER_ROW - 1, n_layers - 1)
        _row(axes, graph, first, last)
        axes.set_xlim(first - 0.25, max(last, first + min(n_layers - 1, LAYERS_PER_ROW - 1)) + 0.45)
    panels[0].set_title(flows.title)
    panels[-1].set_xlabel("MoE layer")
    note(figure, _words(graph, flows))
    return figure


def _heights(graph: FlowGraph, layer: int) -> Floats:
    """Share of tokens of each node of a layer."""
    if layer < len(graph.links):
        return np.asarray(graph.links[layer].sum(axis=1))
    return np.asarray(graph.links[layer - 1].sum(axis=0))


def _row(axes: Axes, graph: FlowGraph, first: int, last: int) -> None:
    tops: dict[int, Floats] = {}
    for layer in range(first, last + 1):
        heights = _heights(graph, layer)
        tops[layer] = np.concatenate([[0.0], np.cumsum(heights + NODE_GAP)[:-1]])
        for node, (top, height) in enumerate(zip(tops[layer].tolist(), heights.tolist(), strict=True)):
            if height > 0:
                colour = node_colour(graph, layer, node)
                axes.add_patch(Rectangle((layer - NODE_WIDTH / 2, top), NODE_WIDTH, height, color=colour, linewidth=0, zorder=3, label="_node"))
            if height > 0.018:
                axes.text(layer + NODE_WIDTH / 2 + 0.02, top + height / 2, node_name(graph, layer, node).split(" ")[0], fontsize=5.0, va="center",
                          color=INK, zorder=4)
    for layer in range(first, last):
        _bands(axes, graph, layer, tops[layer], tops[layer + 1])
    axes.set_ylim(1.0 + NODE_GAP * max(len(kept) + 1 for kept in graph.experts), -0.01)
    axes.set_xticks(range(first, last + 1), graph.names[first : last + 1])
    axes.set_yticks([])
    axes.set_ylabel("share of tokens")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _bands(axes: Axes, graph: FlowGraph, layer: int, tops: Floats, next_tops: Floats) -> None:
    links, shown = graph.links[layer], graph.drawn[layer]
    leave = tops[:, None] + np.cumsum(links, axis=1) - links
    into = links.sum(axis=0)
    scale = np.divide(_heights(graph, layer + 1), into, out=np.ones_like(into), where=into > 0)  # tables of neighbouring pairs may differ a little
    arrive = next_tops[None] + (np.cumsum(links, axis=0) - links) * scale
    left, right = layer + NODE_WIDTH / 2, layer + 1 - NODE_WIDTH / 2
    bend = (left + right) / 2
    for x, y in np.argwhere(shown).tolist():
        a, b = float(leave[x, y]), float(arrive[x, y])
        thick, thin = float(links[x, y]), float(links[x, y] * scale[y])
        outline = [(left, a), (bend, a), (bend, b), (right, b), (right, b + thin), (bend, b + thin), (bend, a + thick), (left, a + thick), (left, a)]
        codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.CLOSEPOLY]
        opacity = 0.15 if _both_others(graph, layer, x, y) else 0.38
        band = PathPatch(Path(outline, codes), facecolor=node_colour(graph, layer, x), alpha=opacity, linewidth=0, zorder=2, label="_band")
        axes.add_patch(band)


def sankey_html(flows: Flows) -> str:
    """The flows as one HTML page that needs no network: plotly's script is inside (about 5 MB), every word escaped.

    Hover tells experts and shares; a table of the strongest links stands below for readers without a script. Raises ModuleNotFoundError with
    the remedy where plotly is not installed, ValueError as flow_graph.
    """
    graph = flow_graph(flows)
    body = _plot(graph) if graph.carried else f"<p>{NO_FLOW if graph.names else ONE_LAYER}</p>"
    title = escape(flows.title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"<p>{escape(_words(graph, flows)) if graph.carried else ''}</p>\n<div class=\"flows\">{body}</div>\n{_table(graph)}\n</body>\n</html>\n"
    )


STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;color:#1c2733;margin:1.5rem auto;max-width:80rem;padding:0 1rem}h1{font-size:1.25rem}"
    ".flows{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}caption{text-align:left;padding:.4rem 0}"
    "th,td{padding:.15rem .8rem .15rem 0;text-align:left;border-bottom:1px solid #c9d0d6}"
)
TABLE_ROWS = 40


def plotly_objects() -> Any:
    """plotly.graph_objects; ModuleNotFoundError with the remedy where it is not installed."""
    from importlib import import_module

    try:
        return import_module("plotly.graph_objects")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError("the page of flows needs plotly: pip install plotly; sankey_figure draws the same flows without it") from missing


def _plot(graph: FlowGraph) -> str:
    plotly, n_layers = plotly_objects(), len(graph.names)
    links = [(layer, x, y) for layer in range(n_layers - 1) for x, y in np.argwhere(graph.drawn[layer]).tolist()]
    # plotly gives positions to the nodes that have a link, counted without the others: list no node without one
    nodes = sorted({(layer, x) for layer, x, _ in links} | {(layer + 1, y) for layer, _, y in links})
    number = {node: i for i, node in enumerate(nodes)}
    middles = _middles(graph)
    sankey = plotly.Sankey(
        arrangement="fixed", valueformat=".2%",
        node={
            "label": [escape(node_name(graph, layer, node)) for layer, node in nodes],
            "customdata": [escape(f"layer {graph.names[layer]}") for layer, _ in nodes],
            "color": [node_colour(graph, layer, node) for layer, node in nodes],
            "x": [inside(layer / (n_layers - 1)) for layer, _ in nodes],
            "y": [inside(middles[layer][node]) for layer, node in nodes],
            "hovertemplate": "%{customdata}, %{label}<br>%{value} of tokens<extra></extra>", "pad": 6, "thickness": 12, "line": {"width": 0},
        },
        link={
            "source": [number[layer, x] for layer, x, _ in links], "target": [number[layer + 1, y] for layer, _, y in links],
            "value": [float(graph.links[layer][x, y]) for layer, x, y in links],
            "color": [faint(node_colour(graph, layer, x), 0.15 if _both_others(graph, layer, x, y) else 0.38) for layer, x, y in links],
            "hovertemplate": "%{source.customdata}, %{source.label} to %{target.customdata}, %{target.label}<br>%{value} of tokens<extra></extra>",
        },
    )
    headings = [{"x": layer / (n_layers - 1), "y": 1.04, "text": escape(f"layer {name}"), "showarrow": False, "xref": "paper", "yref": "paper"}
                for layer, name in enumerate(graph.names)]
    layout = {"template": "none", "width": max(900, PIXELS_PER_LAYER * n_layers), "height": 640, "font": {"size": 11},
              "margin": {"l": 30, "r": 30, "t": 50, "b": 20}, "annotations": headings}
    page = plotly.Figure(sankey, layout=layout)
    return str(page.to_html(full_html=False, include_plotlyjs=True, include_mathjax=False, div_id="flows", config={"displaylogo": False}))


def inside(place: float) -> float:
    """A position that plotly takes: 0 counts as not given."""
    return min(max(place, 0.001), 0.999)


def _both_others(graph: FlowGraph, layer: int, x: int, y: int) -> bool:
    return x == len(graph.experts[layer]) and y == len(graph.experts[layer + 1])


def _middles(graph: FlowGraph) -> list[list[float]]:
    """Height of the middle of every node of each layer, 0 at the top to 1."""
    places = []
    for layer in range(len(graph.names)):
        heights = _heights(graph, layer) + NODE_GAP
        places.append(((np.cumsum(heights) - heights / 2) / heights.sum()).tolist())
    return places


def faint(colour: str, opacity: float) -> str:
    """The colour as plotly takes it, with an opacity."""
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return f"rgba({red},{green},{blue},{opacity})"


def _table(graph: FlowGraph) -> str:
    """The strongest links between two experts, in words."""
    links = [(float(graph.links[layer][x, y]), layer, x, y) for layer in range(len(graph.links)) for x, y in np.argwhere(graph.drawn[layer]).tolist()
             if x < len(graph.experts[layer]) and y < len(graph.experts[layer + 1])]
    links.sort(key=lambda link: (-link[0], link[1:]))
    if not links:
        return ""
    cells = [(graph.names[layer], node_name(graph, layer, x), graph.names[layer + 1], node_name(graph, layer + 1, y), percent(share, 2))
             for share, layer, x, y in links[:TABLE_ROWS]]
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    heading = "<tr><th>layer</th><th>expert</th><th>next layer</th><th>expert</th><th>share of tokens</th></tr>"
    caption = f"The {len(cells)} strongest of {len(links):,} links between two experts"
    return f"<table>\n<caption>{caption}</caption>\n<thead>{heading}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
