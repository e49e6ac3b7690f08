"""Flow of tokens from domains to experts, arms side by side: one self-contained page, and bars for print.

D domain, E expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.sankey import STYLE, faint, inside, plotly_objects
from analysis.figures.spectra_tokens import expert_colour
from analysis.figures.style import absent, canvas, drawn, letter, per_cent
from analysis.figures.topology_marks import CYCLE, note
from analysis.figures.words import percent

TITLE = "Flow of tokens from domains to experts"
LEAST_SHARE = 0.002  # of an arm's selections, below which a link is not drawn
TABLE_ROWS = 40
GAP = 0.06
ABREAST = 2  # arms in a row of the page


@dataclass(frozen=True)
class ArmFlow:
    """One arm: selections [D, E] of each expert in each domain, and the names of the domains."""

    name: str
    counts: NDArray[np.integer]
    domains: Sequence[str]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of a domain's selections, each domain weighing 1/D: sums to 1 over the table, or to less where a domain is empty."""
        n = np.asarray(self.counts, np.float64)
        total = n.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(n, total, out=np.zeros_like(n), where=total > 0) / max(len(n), 1), np.float64)


def domain_flow_html(arms: Sequence[ArmFlow]) -> str:
    """The flows as one HTML page that needs no network (plotly's script is inside), every name escaped; a table of links for other readers.

    Raises ModuleNotFoundError with the remedy where plotly is not installed, ValueError for a table that does not fit its domains.
    """
    for arm in arms:
        if np.ndim(arm.counts) != 2 or len(arm.counts) != len(arm.domains) or (np.asarray(arm.counts) < 0).any():
            raise ValueError(f"{arm.name}: counts of shape {np.shape(arm.counts)} for {len(arm.domains)} domains; give selections [D, E] from 0")
    body = _plot(arms) if any(arm.shares.any() for arm in arms) else "<p>no token was routed</p>"
    words = (f"Left: domains, weighing alike; right: experts. Width: share of selections; links below {percent(LEAST_SHARE, 1)} of an arm's are not "
             "drawn. A domain that goes to few experts, and an expert that is fed by few domains, would show as few wide bands.")
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{TITLE}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{TITLE}</h1>\n<p>{escape(words)}</p>\n"
            f'<div class="flows">{body}</div>\n{_table(arms)}\n</body>\n</html>\n')


def _plot(arms: Sequence[ArmFlow]) -> str:
    plotly = plotly_objects()
    abreast = min(len(arms), ABREAST)
    rows = -(-len(arms) // abreast)
    width, height = (1 - GAP * (abreast - 1)) / abreast, (1 - GAP * (rows - 1)) / rows
    traces, headings = [], []
    for place, arm in enumerate(arms):
        left, top = place % abreast * (width + GAP), 1 - place // abreast * (height + GAP)
        traces.append(_trace(plotly, arm, (left, min(left + width, 1.0)), (max(top - height, 0.0), top)))
        headings.append({"x": left + width / 2, "y": top, "yshift": 20, "text": escape(arm.name), "showarrow": False, "xref": "paper",
                         "yref": "paper", "font": {"size": 14}})
    layout = {"template": "none", "width": max(640, 520 * abreast), "height": 640 * rows, "font": {"size": 11},
              "margin": {"l": 20, "r": 20, "t": 60, "b": 20}, "annotations": headings}
    page = plotly.Figure(traces, layout=layout)
    return str(page.to_html(full_html=False, include_plotlyjs=True, include_mathjax=False, div_id="domain_flow", config={"displaylogo": False}))


def _trace(plotly: Any, arm: ArmFlow, across: tuple[float, float], up: tuple[float, float]) -> Any:
    shares = arm.shares
    links = [(d, e) for d, e in np.argwhere(shares >= LEAST_SHARE).tolist()]
    n_domains = len(arm.domains)
    nodes = sorted({d for d, _ in links}) + sorted({n_domains + e for _, e in links})
    number = {node: i for i, node in enumerate(nodes)}
    colours = [CYCLE[n % len(CYCLE)] if n < n_domains else expert_colour(n - n_domains) for n in nodes]
    heights = [float(shares[n].sum()) if n < n_domains else float(shares[:, n - n_domains].sum()) for n in nodes]
    return plotly.Sankey(
        domain={"x": list(across), "y": list(up)}, arrangement="snap", valueformat=".2%",
        node={"label": [escape(arm.domains[n]) if n < n_domains else f"E{n - n_domains}" for n in nodes], "color": colours,
              "x": [inside(0.0 if n < n_domains else 1.0) for n in nodes], "y": _middles(nodes, heights, n_domains), "pad": 5, "thickness": 12,
              "line": {"width": 0}},
        link={"source": [number[d] for d, _ in links], "target": [number[n_domains + e] for _, e in links],
              "value": [float(shares[d, e]) for d, e in links], "color": [faint(CYCLE[d % len(CYCLE)], 0.38) for d, _ in links]})


def _middles(nodes: Sequence[int], heights: Sequence[float], n_domains: int) -> list[float]:
    """Height of the middle of each node, 0 at the top, domains and experts each in their own column."""
    out = []
    for side in (True, False):
        column = [height + 0.01 for node, height in zip(nodes, heights, strict=True) if (node < n_domains) is side]
        whole = np.cumsum(column)
        out += [inside(float(x)) for x in (whole - np.asarray(column) / 2) / (whole[-1] if len(whole) else 1.0)]
    return out


def _table(arms: Sequence[ArmFlow]) -> str:
    links = [(float(share), arm.name, arm.domains[d], e) for arm in arms
             for (d, e), share in np.ndenumerate(arm.shares * len(arm.domains)) if share > 0]
    if not links:
        return ""
    links.sort(key=lambda link: (-link[0], link[1:]))
    rows = "\n".join(f"<tr><td>{escape(arm)}</td><td>{escape(domain)}</td><td>E{e}</td><td>{percent(share)}</td></tr>"
                     for share, arm, domain, e in links[:TABLE_ROWS])
    return (f"<table>\n<caption>The {min(len(links), TABLE_ROWS)} strongest of {len(links):,} links</caption>\n<thead><tr><th>arm</th><th>domain</th>"
            f"<th>expert</th><th>share of the domain's selections</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>")


@drawn
def domain_flow(arms: Sequence[ArmFlow]) -> Figure:
    """The same for print: per arm and domain one bar, cut by expert in the expert's colour, P(e|d)."""
    figure = canvas(0.8 + sum(0.5 + 0.22 * len(arm.domains) for arm in arms) if arms else 2.0)
    panels = figure.subplots(max(len(arms), 1), 1, squeeze=False)[:, 0]
    if not arms:
        absent(panels[0], "no arm to show")
    for place, (axes, arm) in enumerate(zip(panels, arms, strict=False)):
        share = arm.shares * len(arm.domains)
        left = np.zeros(len(arm.domains))
        for e in range(share.shape[1]):
            axes.barh(np.arange(len(left)), share[:, e], 0.78, left=left, color=expert_colour(e), edgecolor="white", linewidth=0.4)
            for d in np.flatnonzero(share[:, e] > 0.045).tolist():
                axes.text(left[d] + share[d, e] / 2, d, f"E{e}", fontsize=5.2, ha="center", va="center", color="white")
            left = left + share[:, e]
        axes.set_yticks(np.arange(len(left)), list(arm.domains))
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        per_cent(axes, "x")
        letter(axes, "abcdefghijklmnop"[place % 16], arm.name)
    note(figure, "Share of each domain's selections that goes to each expert, experts in order of their number.")
    return figure
