"""Figures of routing topology put the numbers that they are given on the axes: what is checked is the artists' data."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch

from analysis.figures.style import BLUE, GREEN, VERMILION
from analysis.figures.topology_clusters import (
    Coactivation,
    Dendrogram,
    ExpertNetwork,
    coactivation_map,
    edges_above,
    expert_dendrogram,
    expert_network,
    place_nodes,
    tree,
)
from analysis.figures.topology_decomposition import decomposition_bars, verdict_against_threshold
from analysis.figures.topology_domains import (
    RetentionPoint,
    Transfer,
    cross_domain_map,
    information_against_retention,
    information_per_pair,
)
from analysis.figures.topology_layers import CrossLayer, cross_layer_map
from analysis.figures.topology_marks import Marks
from analysis.figures.topology_pathways import CrossLayerPhi, Pathways, pathways, phi_map
from analysis.figures.topology_predictors import LearningCurve, learning_curve, predictor_bars
from analysis.figures.topology_specialisation import (
    DomainExperts,
    Specialisation,
    domain_expert_map,
    most_and_least,
    specialisation_histogram,
)
from analysis.figures.topology_temporal import Chain, lag_agreement, markov_chain, strongest_transitions, transition_map
from tests.analysis.figures.topology_inputs import (
    UNDEFINED,
    estimate,
    laid_out,
    layer_values,
    lift_of,
    linkage_of,
    predictors,
    retention_points,
    terms,
    texts,
    threshold_curve,
)


def images(axes):
    return {image.get_label(): image.get_array() for image in axes.images}


def test_the_diagonal_of_the_layer_map_is_entropy_and_never_information():
    values = layer_values(4)
    axes = cross_layer_map(CrossLayer(values, [3.0, 3.5, np.nan, 4.0])).axes[0]
    shown = images(axes)
    cells = next(array for label, array in shown.items() if label not in ("_blank", "_entropy"))
    assert np.ma.getmaskarray(cells).diagonal().all()
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(cells[off], values[off])
    assert np.ma.filled(shown["_entropy"].diagonal(), -1).tolist() == [3.0, 3.5, -1, 4.0]
    assert [bar.get_ylabel() for bar in axes.child_axes] == ["I(\u2113; \u2113\u2032) (bits)", "H(\u2113) (bits)"]
    with pytest.raises(ValueError, match="entropy: 3 values for 4 layers"):
        cross_layer_map(CrossLayer(values, [1.0, 2.0, 3.0]))


def test_the_transfer_map_diverges_about_zero_and_marks_intervals_that_hold_it():
    cells = [[estimate(1.2), estimate(-0.5)], [estimate(0.05), estimate(1.0)]]
    axes = cross_domain_map(Transfer(cells, ["a", "b"])).axes[0]
    image = axes.images[0]
    np.testing.assert_allclose(image.get_array(), [[1.2, -0.5], [0.05, 1.0]])
    assert image.get_clim() == (-1.2, 1.2)
    dots = next(c for c in axes.collections if c.get_label() == "_dots")
    assert np.round(dots.get_offsets()).tolist() == [[0.0, 1.0]]


def test_pairs_keep_their_order_their_row_and_their_reason():
    figure = information_per_pair([("a", "b"), ("b", "a")], [estimate(0.7), UNDEFINED], ceilings=[estimate(1.1), estimate(1.2)])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a \u2192 b", "b \u2192 a"]
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in axes.patches] == [(1.0, pytest.approx(0.7))]
    assert next(line for line in axes.lines if line.get_label() == "_ceiling").get_xdata().tolist() == [1.1, 1.2]
    assert "0.70 [0.60, 0.80]" in texts(figure) and "undefined: no_data" in texts(figure)


def test_retention_puts_both_numbers_both_intervals_and_the_verdict():
    points = [RetentionPoint("a \u2192 b", estimate(0.4, 0.1), estimate(0.7, 0.05)), RetentionPoint("b \u2192 a", UNDEFINED, estimate(0.9))]
    figure = information_against_retention(points, "r = 0.6: INCONCLUSIVE")
    axes = figure.axes[0]
    assert next(line for line in axes.lines if line.get_label() == "_points").get_xydata().tolist() == [[0.4, 0.7]]
    segments = [segment.tolist() for c in axes.collections if isinstance(c, LineCollection) for segment in c.get_segments()]
    np.testing.assert_allclose(segments, [[[0.3, 0.7], [0.5, 0.7]], [[0.4, 0.65], [0.4, 0.75]]])
    assert axes.get_title(loc="left") == "r = 0.6: INCONCLUSIVE"
    assert "Not drawn, undefined: b \u2192 a (no_data" in texts(figure).replace("\n", " ")


def test_many_points_get_numbers_with_a_key():
    figure = information_against_retention(retention_points(20), "")
    assert {text.get_text() for text in figure.axes[0].texts} == {str(i) for i in range(1, 21)}
    assert "20\u00a0" in texts(figure)


def test_predictor_bars_end_with_entropy_as_the_perfect_bar():
    figure = predictor_bars(predictors())
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in figure.axes[0].patches}
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[-1] == "perfect" and widths[0] == pytest.approx(3.4)
    assert widths[5] == pytest.approx(1.6) and 1 not in widths  # the modal expert is undefined
    assert figure.axes[1].get_xlabel() == "top-1 (share)"


def test_the_learning_curve_draws_each_layer_and_the_mean():
    by_layer = np.array([[0.1, 0.5], [0.2, np.nan]])
    figure = learning_curve(LearningCurve([1, 2], by_layer, [estimate(0.15), estimate(0.6)], ("table", estimate(0.4)), ("H", 2.0)))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_array_equal([lines["_layer 0"].get_ydata(), lines["_layer 1"].get_ydata()], by_layer)
    assert lines["_line"].get_ydata().tolist() == [0.15, 0.6]
    levels = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_transform() == figure.axes[0].get_yaxis_transform()]
    assert {0.4, 2.0} <= set(levels)


@pytest.mark.parametrize("n", [2, 17, 128])
def test_the_tree_is_scipys(n):
    from scipy.cluster.hierarchy import dendrogram

    merges = linkage_of(n)
    made, reference = tree(merges), dendrogram(merges, no_plot=True)
    assert made.leaves.tolist() == reference["leaves"]
    theirs = sorted(zip((np.array(reference["icoord"]) / 10 - 0.5).tolist(), reference["dcoord"], strict=True))
    ours = sorted((bracket[:, 0].tolist(), bracket[:, 1].tolist()) for bracket in made.brackets)
    np.testing.assert_allclose(ours, theirs)


def test_a_chain_of_thousands_of_merges_needs_no_recursion():
    n = 3000
    merges = np.array([[0, 1, 0.1, 2], *[[n + i - 1, i + 1, 0.1 + i / n, i + 2] for i in range(1, n - 1)]])
    assert sorted(tree(merges).leaves.tolist()) == list(range(n))


def test_leaves_bear_the_ids_of_their_experts_and_clusters_their_colour():
    axes = expert_dendrogram(Dendrogram([[0, 1, 0.2, 2], [2, 3, 0.9, 3]], experts=[7, 3, 5], labels=[0, 0, 1], cut=0.5)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "7", "3"]
    colours = [tuple(c) for c in axes.collections[0].get_colors()]
    assert colours[0] == to_rgba(BLUE) and colours[1] != to_rgba(BLUE)
    assert next(line for line in axes.lines if line.get_label() == "_cut").get_ydata()[0] == 0.5


def test_coactivation_is_drawn_in_the_order_of_the_tree():
    lift = lift_of(5)
    axes = coactivation_map(Coactivation(lift, [4, 2, 0], [0, 0, 1, 1, 1])).axes[0]
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan), lift[np.ix_([4, 2, 0], [4, 2, 0])])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "2", "0"]
    assert images(axes)["_diagonal"].mask.sum() == 6


def test_the_network_has_the_edges_above_the_cut_off_only():
    lift = np.array([[9.0, 2.0, 0.5, np.nan], [2.0, 9.0, 1.0, 0.1], [0.5, 1.0, 9.0, np.inf], [np.nan, 0.1, np.inf, 9.0]])
    edges, weights = edges_above(lift, 0.5)
    assert edges.tolist() == [[2, 3], [0, 1], [1, 2]] and weights.tolist() == [np.inf, 2.0, 1.0]
    figure = laid_out(lambda: expert_network(ExpertNetwork(lift, 0.5, max_edges=2)))
    assert len(next(c for c in figure.axes[0].collections if c.get_label() == "_edges").get_segments()) == 2
    assert "(3 pairs). The 2 strongest are drawn. Without an edge, not drawn: 0 of 4" in texts(figure).replace("\n", " ")


def test_the_layout_of_the_network_is_the_same_every_time():
    edges, weights = edges_above(lift_of(40), 0.8)
    assert place_nodes(edges, weights, 0) == place_nodes(edges, weights, 0)
    positions = np.array(list(place_nodes(edges, weights, 0).values()))
    assert np.linalg.norm(positions[:, None] - positions, axis=-1)[np.triu_indices(len(positions), 1)].min() > 0.3


def test_phi_keeps_its_cells_and_dots_the_published_edges():
    phi = np.array([[0.3, -0.2, np.nan], [0.0, 0.1, np.nan]])
    axes = phi_map(CrossLayerPhi(phi, ("3", "4"), phi > 0.2, rows=[1, 0])).axes[0]
    np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), np.nan), phi[[1, 0]])
    assert axes.get_ylabel() == "expert at layer 3 (id)"
    assert np.round(next(c for c in axes.collections if c.get_label() == "_dots").get_offsets()).tolist() == [[0.0, 1.0]]


def test_pathways_join_the_experts_given():
    axes = pathways(Pathways([0, 1], [2, 0], [1, 3], [0.5, -0.25], [4, 4, 4])).axes[0]
    edges = next(c for c in axes.collections if c.get_label() == "_edges")
    drawn = {tuple(map(tuple, segment.tolist())): tuple(colour) for segment, colour in zip(edges.get_segments(), edges.get_colors(), strict=True)}
    opaque = {ends: colour[:3] for ends, colour in drawn.items()}
    assert opaque == {((0, 2), (1, 1)): to_rgba(BLUE)[:3], ((1, 0), (2, 3)): to_rgba(VERMILION)[:3]}


def test_domains_by_experts_show_shares_and_affinities():
    share, affinity = np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([[0.58, -1.0], [-1.0, 0.58]])
    figure = domain_expert_map(DomainExperts(share, affinity, ["a", "b"], [1, 0]))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), share[:, ::-1])
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), affinity[:, ::-1])
    assert [bar.get_ylabel() for axes in figure.axes for bar in axes.child_axes] == ["P(e|d)", "log2 affinity (bits)"]


def test_the_histogram_holds_every_expert():
    values = [0.0, 0.05, 0.3, 1.0, np.nan]
    axes = specialisation_histogram(Specialisation(np.array(values), specialist_above=0.1, generalist_below=None)).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1.0)
    assert "1 undefined (unused) left out" in texts(axes.figure)


@pytest.mark.parametrize(("n", "most", "least"), [(5, [4, 3, 2], [0, 1]), (100, list(range(99, 79, -1)), list(range(20))), (1, [0], []), (0, [], [])])
def test_no_expert_is_among_the_most_and_the_least(n, most, least):
    assert most_and_least(Marks.of(np.arange(n, dtype=float)), 20) == (most, least)


def test_transitions_keep_rows_and_leave_unused_ones_grey():
    axes = transition_map(np.array([[0.9, 0.1], [np.nan, np.nan]])).axes[0]
    assert np.ma.filled(axes.images[0].get_array(), -1).tolist() == [[0.9, 0.1], [-1, -1]]
    assert axes.get_ylabel() == "expert now (id)"


def test_the_chain_draws_the_largest_flows_between_different_experts():  # flows by hand: 0.5*0.2, 0.3*0.6, 0.2*0.5 and so on
    probability, loads = np.array([[0.7, 0.2, 0.1], [0.6, 0.4, 0.0], [0.5, 0.0, 0.5]]), np.array([0.5, 0.3, 0.2])
    kept = strongest_transitions(probability, loads, 3)
    assert [(i, j) for i, j, _ in kept] == [(1, 0), (0, 1), (2, 0)]
    assert [flow for *_, flow in kept] == pytest.approx([0.18, 0.10, 0.10])
    figure = markov_chain(Chain(probability, loads, top=3, layer="5"))
    assert sum(isinstance(patch, FancyArrowPatch) for patch in figure.axes[0].patches) == 3
    assert "Layer 5: the 3 transitions of largest flow carry 38.0% of all steps; 57.0% stay" in texts(figure).replace("\n", " ")


def test_lag_agreement_says_why_ids_are_not_correlated():
    figure = lag_agreement([1, 2], [estimate(0.3, null=0.0), estimate(0.1)], [estimate(0.5), UNDEFINED])
    assert next(line for line in figure.axes[0].lines if line.get_label() == "_line").get_ydata().tolist() == [0.3, 0.1]
    assert "no Pearson correlation of expert ids" in texts(figure).replace("\n", " ")
    assert "bits" in figure.axes[1].get_ylabel()


def test_decomposition_draws_both_orders():
    axes = decomposition_bars(terms()).axes[0]
    heights = sorted(round(bar.get_height(), 2) for bar in axes.patches if abs(bar.get_width() - 0.36) < 1e-9)
    assert heights == [-0.03, 0.2, 0.3, 0.3, 0.35, 0.66, 0.8]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["token\nidentity", "position", "document", "residual"]
    shown = texts(axes.figure)
    assert "order: token identity \u2192 position \u2192 document" in shown and "order: document \u2192 position \u2192 token identity" in shown


def test_the_threshold_curve_is_exploratory_and_marks_the_declared_one():
    figure = verdict_against_threshold([threshold_curve()])
    axes = figure.axes[0]
    step = next(line for line in axes.lines if line.get_label() == "_verdicts")
    assert step.get_ydata().tolist() == [2] * 16 + [1] * 3 + [0] * 12
    assert any(line.get_color() == VERMILION and line.get_xdata()[0] == 1.5 for line in axes.lines)
    assert figure.get_suptitle().startswith("EXPLORATORY")
    assert axes.patches[0].get_facecolor()[:3] == to_rgba(GREEN)[:3]


@pytest.mark.parametrize("n_nodes", [2, 9])
def test_nodes_in_a_row_are_inside_their_axes(n_nodes: int) -> None:
    lift = np.full((n_nodes, n_nodes), -1.0)
    for node in range(n_nodes - 1):
        lift[node, node + 1] = lift[node + 1, node] = 2.0
    figure = expert_network(ExpertNetwork(lift, 0.5))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    (nodes,) = [one for one in axes.collections if len(one.get_offsets()) == n_nodes]
    area = axes.get_window_extent()
    radius = np.sqrt(nodes.get_sizes().max() / np.pi) * figure.dpi / 72
    x, y = axes.transData.transform(nodes.get_offsets()).T
    assert x.min() - radius >= area.x0 and x.max() + radius <= area.x1
    assert y.min() - radius >= area.y0 and y.max() + radius <= area.y1
