"""Figures of arms side by side, from arrays alone: hostile names, unused experts, nothing to show."""

from __future__ import annotations

import io

import numpy as np
import pytest

from analysis.estimate import Estimate
from analysis.figures.spectra_experts import ArmAffinity, ArmPurity, affinity_heatmap, purity_bars
from analysis.figures.spectra_flow import ArmFlow, domain_flow, domain_flow_html
from analysis.figures.spectra_representations import ArmVectors, representation_pca
from analysis.figures.spectra_tokens import TokenCloud, expert_colour, token_clustering

DOMAINS = ["code", "<script>alert(1)</script>", "$x_1$"]


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert len(buffer.getvalue()) > 500
    return figure


def cloud(name, n=40, experts=12):
    rng = np.random.default_rng(0)
    return TokenCloud(name, rng.normal(size=(n, 2)), rng.integers(0, experts, n), rng.integers(0, 3, n), DOMAINS)


@pytest.mark.parametrize("clouds", [[], [cloud("a")], [cloud("a"), cloud("b", 0)], [cloud(str(i)) for i in range(4)], [cloud("many", 400, 60)]])
def test_clouds_are_drawn_with_all_their_tokens(clouds):
    figure = drawn(token_clustering(clouds))
    shown = sum(len(path.get_offsets()) for axes in figure.axes for path in axes.collections)
    assert shown == sum(len(one.points) for one in clouds)


def test_colours_tell_experts_apart_as_long_as_there_are_colours():
    assert len({expert_colour(e) for e in range(28)}) == 28


def test_heat_maps_hold_unused_experts_and_undefined_cells():
    log2 = np.full((4, 3), Estimate.undefined("unused_expert"), object)
    share = np.array([[0.5, 0.2, 0.1], [0.5, 0.3, 0.9], [0.0, 0.5, 0.0], [np.nan] * 3])
    figure = drawn(affinity_heatmap([ArmAffinity("one", log2, share, share, DOMAINS), ArmAffinity("two", share, share, share, DOMAINS)]))
    assert len([axes for axes in figure.axes if axes.images]) >= 5  # the sixth has no value at all
    drawn(affinity_heatmap([]))


def test_bars_stand_beside_their_null():
    figure = drawn(purity_bars([ArmPurity("one", [0.5, None, 0.9], np.array([0.4, np.nan, 0.35]), 0.7, 0.38)], 1 / 3))
    lines = {float(line.get_ydata()[0]) for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1}
    assert {0.38, 1 / 3} <= lines
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.5, 0.9]
    drawn(purity_bars([]))


def test_arrows_start_at_the_origin():
    points = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [np.nan] * 3])
    figure = drawn(representation_pca([ArmVectors("one", points, [0.5, 0.5, 0.0], 0.0, 0.1), ArmVectors("none", np.full((2, 3), np.nan), [0, 0, 0])]))
    arrows = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None) is not None]
    assert [(text.xyann, tuple(text.xy)) for text in arrows] == [((0, 0), (1.0, 0.0)), ((0, 0), (0.0, 1.0))]
    drawn(representation_pca([]))


def test_the_page_of_flows_escapes_and_stands_alone():
    page = domain_flow_html([ArmFlow("<b>arm</b>", np.array([[3, 1], [0, 4], [0, 0]]), DOMAINS)])
    assert "<script>alert" not in page
    assert "<b>arm</b>" not in page
    assert "cdn" not in page.split("<script", 1)[0]


def test_flows_weigh_domains_alike():
    flow = ArmFlow("one", np.array([[30, 10], [0, 4], [0, 0]]), DOMAINS)
    np.testing.assert_allclose(flow.shares, [[0.25, 1 / 12], [0.0, 1 / 3], [0.0, 0.0]])
    drawn(domain_flow([flow]))
    drawn(domain_flow([]))


def test_a_table_that_does_not_fit_its_domains_is_refused():
    with pytest.raises(ValueError, match="3 domains"):
        domain_flow_html([ArmFlow("one", np.ones((2, 2), np.int64), DOMAINS)])


@pytest.mark.parametrize("n", [1, 2, 3, pytest.param(12, marks=pytest.mark.slow)])
def test_every_arm_has_its_panels_and_its_letter(n):
    share = np.array([[0.5, 0.2, 0.1], [0.5, 0.8, 0.9]])
    names = [f"arm {i}" for i in range(n)]
    heat = affinity_heatmap([ArmAffinity(name, share, share, share, DOMAINS) for name in names])
    bars = purity_bars([ArmPurity(name, [0.5, 0.4], None) for name in names])
    arrows = representation_pca([ArmVectors(name, np.eye(3), [0.4, 0.3, 0.3]) for name in names])
    for figure in (heat, bars, arrows):
        titles = [axes.get_title(loc="left").partition("   ") for axes in figure.axes if axes.get_title(loc="left")]
        assert [title for _, _, title in titles] == names
        assert len({which for which, _, _ in titles}) == n
        assert figure.get_figwidth() == (7.2 if n <= 2 else 11.5)
    assert len([axes for axes in heat.axes if axes.images]) == 3 * n
