"""Flows between the experts of adjacent layers: shares that add up, a drawing, and a page that loads nothing and escapes every word."""

from __future__ import annotations

import re
import sys
import warnings

import numpy as np
import pytest

from analysis.figures.sankey import Flows, flow_graph, node_name, sankey_figure, sankey_html


def tables(n_layers, n_experts, n=4000):
    rng = np.random.default_rng(0)
    made, x = [], rng.integers(0, n_experts, n)
    for _ in range(n_layers - 1):
        y = np.where(rng.random(n) < 0.6, rng.permutation(n_experts)[x], rng.integers(0, n_experts, n))
        table = np.zeros((n_experts, n_experts), np.int64)
        np.add.at(table, (x, y), 1)
        made.append(table)
        x = y
    return made


def bands(axes):
    return [patch for patch in axes.patches if patch.get_label() == "_band"]


def test_shares_by_hand():  # 10 tokens: 4 go 0 to 1, 3 go 1 to 0, 2 go 2 to 1, 1 goes 2 to 2
    graph = flow_graph(Flows([np.array([[0, 4, 0], [3, 0, 0], [0, 2, 1]])], n_experts=2, min_share=0.15))
    assert graph.experts == ((0, 1), (0, 1)) and graph.n_others == (1, 1)
    np.testing.assert_allclose(graph.links[0], [[0, 0.4, 0], [0.3, 0, 0], [0, 0.2, 0.1]])
    assert graph.drawn[0].tolist() == [[False, True, False], [True, False, False], [False, True, False]]
    assert graph.carried == pytest.approx(0.9)
    assert [node_name(graph, 0, node) for node in range(3)] == ["E0", "E1", "others (1)"]


@pytest.mark.parametrize("n_experts", [1, 5, 16, 200])
def test_nothing_is_lost_in_the_others(n_experts):
    graph = flow_graph(Flows(tables(4, 16), n_experts=n_experts, min_share=0.0))
    assert [link.sum() for link in graph.links] == pytest.approx([1.0] * 3)
    for early, late in zip(graph.links, graph.links[1:], strict=False):
        np.testing.assert_allclose(early.sum(axis=0), late.sum(axis=1))
    assert graph.carried == pytest.approx(1.0)


def test_an_unused_expert_has_no_node():
    graph = flow_graph(Flows([np.array([[0, 0], [0, 5]])]))
    assert graph.experts == ((1,), (1,)) and graph.n_others == (0, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 2))], r"tables\[1\] starts from 2 experts, tables\[0\] ends at 3"),
        ([np.array([[-1.0]])], "none negative or undefined"),
        ([np.array([[np.nan]])], "none negative or undefined"),
        ([np.zeros(3)], r"tables\[0\]: give a table"),
    ],
)
def test_tables_that_make_no_flow_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        flow_graph(Flows(wrong))
    with pytest.raises(ValueError, match="layers: 1 names for 2 layers"):
        flow_graph(Flows([np.eye(2)], layers=["0"]))


@pytest.mark.parametrize(("n_layers", "n_experts", "rows"), [(2, 6, 1), (13, 128, 1), (27, 128, 3)])
def test_deep_models_continue_in_further_rows(n_layers, n_experts, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = sankey_figure(Flows(tables(n_layers, n_experts)))
        figure.draw_without_rendering()
    assert len(figure.axes) == rows
    named = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert list(dict.fromkeys(named)) == [str(i) for i in range(n_layers)]
    graph = flow_graph(Flows(tables(n_layers, n_experts)))
    assert sum(len(bands(axes)) for axes in figure.axes) == sum(int(shown.sum()) for shown in graph.drawn)


def test_bands_are_as_thick_as_their_share():
    figure = sankey_figure(Flows([np.array([[3, 0], [0, 1]])]))
    thick = [abs(band.get_path().vertices[7, 1] - band.get_path().vertices[0, 1]) for band in bands(figure.axes[0])]
    assert thick == pytest.approx([0.75, 0.25])
    nodes = [patch.get_height() for patch in figure.axes[0].patches if patch.get_label() == "_node"]
    assert nodes == pytest.approx([0.75, 0.25, 0.75, 0.25])


def test_the_note_says_what_is_not_drawn():
    figure = sankey_figure(Flows([np.array([[98, 0], [0, 2]])], min_share=0.05))
    assert "together they carry 2.0%" in figure.get_supxlabel().replace("\n", " ")
    assert "others" not in figure.get_supxlabel()


@pytest.mark.parametrize(("empty", "words"), [([], "fewer than two layers"), ([np.zeros((4, 4))], "no token has an expert at both layers")])
def test_no_flow_is_said_in_words(empty, words):
    assert words in sankey_figure(Flows(empty)).axes[0].texts[0].get_text()
    assert words in sankey_html(Flows(empty))


def test_without_plotly_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match="pip install plotly"):
        sankey_html(Flows(tables(2, 4)))


def test_the_page_escapes_its_title_without_plotly_too():
    page = sankey_html(Flows([], title="<script>alert(1)</script> & \"more\""))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;" in page


def own_part(page):
    """The page without the library's own script."""
    return page[: page.index("<script")] + page[page.rindex("window.PLOTLYENV") :]


def test_the_page_is_whole_escaped_and_the_same_every_time():
    pytest.importorskip("plotly")
    flows = Flows(tables(3, 4), layers=["0", "</script><img src=x onerror=alert(1)>", "%{label}"], title="<b>flows</b>")
    page = sankey_html(flows)
    assert page == sankey_html(flows)
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", page)
    assert "<img" not in own_part(page) and "<b>" not in own_part(page)
    assert "&lt;b&gt;flows&lt;/b&gt;" in page
    assert "The 32 strongest of 32 links between two experts" in page


def test_the_page_positions_only_nodes_with_a_link():
    pytest.importorskip("plotly")
    import json

    page = sankey_html(Flows([np.array([[5, 0, 0], [0, 5, 0], [0, 0, 0]]), np.array([[5, 0], [0, 5], [0, 0]])]))
    numbers = json.loads(re.search(r'"node":(\{.*?\}),"valueformat"', page[page.rindex("Plotly.newPlot") :]).group(1))
    assert numbers["label"] == ["E0", "E1"] * 3
    assert numbers["x"] == [0.001, 0.001, 0.5, 0.5, 0.999, 0.999]
    assert numbers["y"][0] < numbers["y"][1]
