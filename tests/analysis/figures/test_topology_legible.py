"""Figures of routing topology draw without a warning and legibly, from 128 experts and 48 layers down to nothing at all."""

from __future__ import annotations

import io
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text

from analysis.figures.topology_clusters import (
    Coactivation,
    Dendrogram,
    ExpertNetwork,
    coactivation_map,
    expert_dendrogram,
    expert_network,
)
from analysis.figures.topology_composites import paper_clusters, paper_information, paper_retention
from analysis.figures.topology_decomposition import TermBars, ThresholdCurve, decomposition_bars, verdict_against_threshold
from analysis.figures.topology_domains import (
    Transfer,
    cross_domain_map,
    information_against_retention,
    information_per_pair,
)
from analysis.figures.topology_layers import CrossLayer, cross_layer_map, information_by_distance, information_per_layer
from analysis.figures.topology_pathways import CrossLayerPhi, Pathways, pathways, phi_map
from analysis.figures.topology_predictors import LearningCurve, Predictor, learning_curve, predictor_bars, predictor_map
from analysis.figures.topology_specialisation import (
    DomainExperts,
    Specialisation,
    domain_expert_map,
    most_and_least_specialised,
    specialisation_histogram,
)
from analysis.figures.topology_temporal import Chain, lag_agreement, markov_chain, transition_map
from tests.analysis.figures.topology_inputs import (
    DOMAINS,
    UNDEFINED,
    estimate,
    laid_out,
    layer_values,
    lift_of,
    linkage_of,
    marked,
    pathway_edges,
    predictors,
    probabilities,
    retention_points,
    series,
    specialisation,
    terms,
    threshold_curve,
)

NARROW_IN = 3.5
TOPICS = [f"wiki topic {i}" for i in range(11)]
LARGE = {
    "cross_layer_map 48": lambda: cross_layer_map(CrossLayer(marked(layer_values(48)), np.linspace(3, 4, 48), layer_values(48) - 0.2)),
    "information_by_distance": lambda: information_by_distance(series(47), bound=1.5),
    "information_by_distance narrow": lambda: information_by_distance(series(11), bound=1.5, width_in=NARROW_IN),
    "information_per_layer": lambda: information_per_layer(marked(np.ones(48)), np.full(48, 3.0)),
    "information_per_layer narrow": lambda: information_per_layer(marked(np.ones(12)), width_in=NARROW_IN),
    "cross_domain_map": lambda: cross_domain_map(Transfer(marked(layer_values(11) - 0.5), TOPICS)),
    "information_per_pair": lambda: information_per_pair([(a, b) for a in DOMAINS for b in DOMAINS if a != b], marked(np.linspace(-0.2, 1, 30))),
    "information_against_retention": lambda: information_against_retention(retention_points(30), "Spearman: INCONCLUSIVE. " * 6),
    "predictor_bars": lambda: predictor_bars(predictors(), bound=(2.2, "best baseline + 0.1 bits")),
    "learning_curve": lambda: learning_curve(LearningCurve(range(50), marked(np.ones((48, 50))), marked(np.ones(50)))),
    "learning_curve narrow": lambda: learning_curve(LearningCurve(range(9), marked(np.ones((4, 9))), marked(np.ones(9))), width_in=NARROW_IN),
    "predictor_map": lambda: predictor_map(marked(np.ones((48, 6))), DOMAINS),
    "coactivation_map": lambda: coactivation_map(Coactivation(lift_of(128), np.random.default_rng(0).permutation(128)[1:], np.arange(128) // 11)),
    "expert_network": lambda: expert_network(ExpertNetwork(lift_of(128), 1.0, np.full(128, 1 / 128), (np.arange(128) % 4).tolist())),
    "phi_map": lambda: phi_map(CrossLayerPhi(probabilities(128) - 0.1, ("46", "47"), probabilities(128) > 0.3)),
    "pathways": lambda: pathways(pathway_edges(48, 128)),
    "domain_expert_map": lambda: domain_expert_map(DomainExperts(np.full((11, 128), 1 / 128), np.zeros((11, 128)), TOPICS)),
    "specialisation_histogram": lambda: specialisation_histogram(specialisation(1536)),
    "specialisation_histogram narrow": lambda: specialisation_histogram(specialisation(64), width_in=NARROW_IN),
    "most_and_least_specialised": lambda: most_and_least_specialised(specialisation(1536).values, [f"L{i // 128} E{i % 128}" for i in range(1536)]),
    "transition_map": lambda: transition_map(probabilities(128)),
    "markov_chain": lambda: markov_chain(Chain(probabilities(128), np.r_[np.full(127, 1 / 127), 0.0])),
    "lag_agreement": lambda: lag_agreement([1, 2, 4, 8, 16, 32, 64], marked(np.ones(7)), marked(np.ones(7)), [("layer 0", marked(np.zeros(7)))]),
    "decomposition_bars": lambda: decomposition_bars(terms()),
    "verdict_against_threshold": lambda: verdict_against_threshold([threshold_curve()] * 3),
    "verdict_against_threshold narrow": lambda: verdict_against_threshold([threshold_curve()], width_in=NARROW_IN),
    "paper_information": lambda: paper_information(CrossLayer(layer_values(48), np.full(48, 4.0)), Transfer(marked(layer_values(6) - 0.5), DOMAINS)),
}
DENDROGRAMS = {
    "expert_dendrogram": lambda: expert_dendrogram(Dendrogram(linkage_of(128), labels=(np.arange(128) % 4).tolist(), cut=0.1)),
    "paper_clusters": lambda: paper_clusters(Dendrogram(linkage_of(16)), specialisation(128), [f"L3 E{i}" for i in range(128)]),
}
SMALL = {
    "paper_retention": lambda: paper_retention(retention_points(3), "INCONCLUSIVE"),
    "cross_layer_map": lambda: cross_layer_map(CrossLayer(marked(layer_values(4)), np.linspace(3, 4, 4))),
    "cross_layer_map one layer": lambda: cross_layer_map(CrossLayer([[UNDEFINED]], [2.0])),
    "information_by_distance": lambda: information_by_distance(series(1)),
    "information_per_layer": lambda: information_per_layer([UNDEFINED], [0.0]),
    "cross_domain_map": lambda: cross_domain_map(Transfer(marked(layer_values(6) - 0.5), DOMAINS)),
    "cross_domain_map one domain": lambda: cross_domain_map(Transfer([[estimate(1)]], ["only"])),
    "information_per_pair": lambda: information_per_pair([("a", "b")], [UNDEFINED], ceilings=[UNDEFINED], width_in=NARROW_IN),
    "information_against_retention": lambda: information_against_retention(retention_points(1), "one pair", width_in=NARROW_IN),
    "predictor_bars": lambda: predictor_bars([Predictor("uniform", UNDEFINED)]),
    "learning_curve": lambda: learning_curve(LearningCurve([0], [[estimate(1)]], [UNDEFINED], ("table", UNDEFINED))),
    "predictor_map": lambda: predictor_map([[UNDEFINED]], ["only"]),
    "expert_dendrogram": lambda: expert_dendrogram(Dendrogram([[0, 1, 0.0, 2]])),
    "coactivation_map": lambda: coactivation_map(Coactivation([[np.nan, -np.inf], [-np.inf, np.nan]], [1, 0], [0, 0])),
    "expert_network": lambda: expert_network(ExpertNetwork([[np.nan, 1.0], [1.0, np.nan]], 0.5)),
    "phi_map": lambda: phi_map(CrossLayerPhi([[np.nan]], ("0", "1"), [[False]])),
    "pathways": lambda: pathways(pathway_edges(2, 6)),
    "domain_expert_map": lambda: domain_expert_map(DomainExperts([[1.0, 0.0]], [[0.0, -np.inf]], ["only"], [1, 0])),
    "specialisation_histogram": lambda: specialisation_histogram(Specialisation([0.0, UNDEFINED])),
    "most_and_least_specialised": lambda: most_and_least_specialised([estimate(0.2)], ["L0 E0"]),
    "transition_map": lambda: transition_map([[1.0]], order=[0]),
    "markov_chain": lambda: markov_chain(Chain([[0.5, 0.5], [np.nan, np.nan]], [1.0, 0.0])),
    "lag_agreement": lambda: lag_agreement([1], [UNDEFINED]),
    "decomposition_bars": lambda: decomposition_bars(TermBars({"residual": UNDEFINED}, {})),
    "verdict_against_threshold": lambda: verdict_against_threshold([ThresholdCurve("none", "bits", [], [], 0.5)]),
    "paper_information": lambda: paper_information(CrossLayer([[UNDEFINED]]), Transfer([[UNDEFINED]], ["only"])),
}
EMPTY = {
    "cross_layer_map": lambda: cross_layer_map(CrossLayer([], [])),
    "information_by_distance": lambda: information_by_distance({}),
    "information_per_layer": lambda: information_per_layer([]),
    "cross_domain_map": lambda: cross_domain_map(Transfer([], [])),
    "information_per_pair": lambda: information_per_pair([], []),
    "information_against_retention": lambda: information_against_retention([], "nothing to say"),
    "predictor_bars": lambda: predictor_bars([]),
    "learning_curve": lambda: learning_curve(LearningCurve([], [])),
    "predictor_map": lambda: predictor_map([], DOMAINS),
    "expert_dendrogram": lambda: expert_dendrogram(Dendrogram([])),
    "coactivation_map": lambda: coactivation_map(Coactivation(np.empty((0, 0)), [])),
    "expert_network": lambda: expert_network(ExpertNetwork(np.empty((0, 0)), 0.5)),
    "phi_map": lambda: phi_map(CrossLayerPhi([], ("0", "1"))),
    "pathways": lambda: pathways(Pathways([], [], [], [], [])),
    "domain_expert_map": lambda: domain_expert_map(DomainExperts([], [], [])),
    "specialisation_histogram": lambda: specialisation_histogram(Specialisation([])),
    "most_and_least_specialised": lambda: most_and_least_specialised([], []),
    "transition_map": lambda: transition_map([]),
    "markov_chain": lambda: markov_chain(Chain([], [])),
    "lag_agreement": lambda: lag_agreement([], []),
    "decomposition_bars": lambda: decomposition_bars(TermBars({}, {})),
    "verdict_against_threshold": lambda: verdict_against_threshold([]),
    "paper_clusters": lambda: paper_clusters(Dendrogram([]), Specialisation([]), []),
}


def all_axes(figure):
    inset = [child for axes in figure.axes for child in axes.child_axes]
    return [axes for axes in (*figure.axes, *inset) if axes.axison]


def tick_labels(axis):
    """The tick labels that are drawn, and every one that there is."""
    low, high = sorted(axis.get_view_interval())
    every = [(tick.get_loc(), label) for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)]
    return [label for at, label in every if label.get_visible() and label.get_text() and low <= at <= high], [label for _, label in every]


def overlap(one, other, slack=1.0):
    return one.x0 < other.x1 - slack and other.x0 < one.x1 - slack and one.y0 < other.y1 - slack and other.y0 < one.y1 - slack


@pytest.mark.parametrize("name", LARGE)
def test_large_figures_are_legible(name):
    figure = laid_out(LARGE[name])
    renderer = figure._get_renderer()
    ticks = []
    for axis in (axis for axes in all_axes(figure) for axis in (axes.xaxis, axes.yaxis)):
        shown, every = tick_labels(axis)
        ticks += every
        boxes = [label.get_window_extent(renderer) for label in shown]
        assert all(within(box, figure.bbox) for box in boxes)
        if shown and shown[0].get_rotation() in (0, 90):
            assert not any(overlap(a, b) for a, b in combinations(boxes, 2)), axis.get_label_text()
    not_drawn = {id(text) for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    others = [text for text in figure.findobj(Text) if text.get_text().strip() and id(text) not in {*map(id, ticks)} | not_drawn]
    for text in others:
        assert within(Text.get_window_extent(text, renderer), figure.bbox), text.get_text()
    around = [*figure.legends, *(one for one in (figure._supxlabel, figure._suptitle) if one is not None)]
    for axes in figure.axes:
        assert not any(overlap(one.get_window_extent(renderer), axes.get_tightbbox(renderer)) for one in around)


def within(box, frame, slack=1.5):
    return box.width == 0 or (box.x0 >= -slack and box.y0 >= -slack and box.x1 <= frame.x1 + slack and box.y1 <= frame.y1 + slack)


@pytest.mark.parametrize("name", DENDROGRAMS | SMALL)
def test_small_figures_draw_and_name_their_axes(name):
    figure = laid_out((DENDROGRAMS | SMALL)[name])
    for axes in figure.axes:
        if axes.axison and axes.has_data() and len(axes.get_xticks()):
            assert axes.get_xlabel() and axes.get_ylabel(), name


@pytest.mark.parametrize("name", EMPTY)
def test_empty_figures_say_so(name):
    figure = laid_out(EMPTY[name])
    assert any(text.get_text() for axes in figure.axes for text in axes.texts)


def test_settings_of_the_caller_stay():
    before = dict(mpl.rcParams)
    laid_out(SMALL["cross_domain_map"])
    assert dict(mpl.rcParams) == before


def test_the_same_numbers_give_the_same_picture():
    pictures = []
    for _ in range(2):
        buffer = io.BytesIO()
        expert_network(ExpertNetwork(lift_of(24), 1.0)).savefig(buffer, format="png", dpi=50, metadata={"Software": None})
        pictures.append(buffer.getvalue())
    assert pictures[0] == pictures[1]
