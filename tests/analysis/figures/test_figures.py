"""Figures are drawn from arrays and estimates alone, whatever is missing, and leave matplotlib as they found it."""

from __future__ import annotations

import io
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PathCollection

from analysis.estimate import Estimate
from analysis.figures.columns import FrequencyBins, TypeColumns, by_range
from analysis.figures.fastpath_coverage import FastPathCoverage, fastpath_coverage
from analysis.figures.forest import ForestMark, ForestPanel, forest
from analysis.figures.frequency_vs_entropy import EntropyPanel, frequency_vs_entropy, spread
from analysis.figures.layers import LayerSeries, layers_overview
from analysis.figures.routing_stats import figures_of
from analysis.figures.sensitivity import CutOffs, rho_by_min_count
from analysis.figures.sweep import SweepPoints, sweep_overview

RHO = Estimate(
    -0.5, -0.6, -0.4, "rho", "document x type", 200, "two-way", n=300, n_of="types", null=0.0, null_low=-0.1, null_high=0.1, p=1e-20
)
UNDEFINED = Estimate.undefined("constant routing: every entropy is equal")


def seed_table(n_types=200, seed=0):
    rng = np.random.default_rng(seed)
    n_v = rng.zipf(1.4, n_types).clip(1, 10_000)
    return {
        "token_id": np.arange(n_types),
        "token_str": ["$x_1$ <b>"] * n_types,
        "frequency": n_v,
        "mean_entropy": rng.uniform(0, 2, n_types),
        "std_entropy": np.zeros(n_types),
        "mean_confidence": np.full(n_types, 0.5),
        "std_confidence": np.zeros(n_types),
        "routing_consistency": rng.uniform(0.3, 1, n_types),
        "top_expert": rng.integers(0, 8, n_types),
        "min_entropy": np.zeros(n_types),
        "max_entropy": np.full(n_types, 2.0),
    }


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    assert len(buffer.getvalue()) > 1000
    return figure


def texts(figure):
    return " ".join(
        text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, *axes.get_xticklabels(), *axes.get_yticklabels())
    )


def panel(n_types=200, rho=RHO, **more):
    table = seed_table(n_types) | more
    types = TypeColumns.of(table, "layer 0", min_count=50)
    return EntropyPanel(types, FrequencyBins.of_types(types.frequency, types.mean_entropy), rho, 0.5, math.log(8))


def test_the_seeds_columns_alone_give_its_four_figures():
    figures = figures_of(seed_table(), entropy_nats=0.5, n_experts=8)
    assert set(figures) == {"frequency_vs_entropy", "entropy_distribution", "routing_consistency", "fastpath_coverage"}
    assert [len([a for a in render(f).axes if a.get_title(loc="left")]) for f in figures.values()] == [1, 4, 4, 4]


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="no token type"):
        figures_of({name: column[:0] for name, column in seed_table().items()}, entropy_nats=0.5)


@pytest.mark.parametrize("column", [np.zeros(200), np.full(200, np.nan)])
def test_constant_and_missing_entropies_are_drawn(column):  # fault case 31
    figures = figures_of(seed_table() | {"mean_entropy": column}, entropy_nats=0.5, n_experts=8)
    for figure in figures.values():
        render(figure)


def test_one_type_one_occurrence():
    for figure in figures_of({name: column[:1] for name, column in seed_table().items()} | {"frequency": [1]}, entropy_nats=0.5).values():
        render(figure)


def test_the_key_figure_says_rho_interval_null_n_and_p():
    shown = texts(frequency_vs_entropy(panel()))
    assert "\u22120.500 [\u22120.600, \u22120.400]" in shown
    assert "null 0.000 [\u22120.100, 0.100]" in shown
    assert "n = 300 types" in shown
    assert "p = 1.0e\u221220" in shown


def test_an_undefined_rho_shows_its_reason():
    assert "undefined: constant routing" in texts(render(frequency_vs_entropy(panel(rho=UNDEFINED))))


def test_many_layers_become_twelve_multiples():
    figure = frequency_vs_entropy(panel(), [panel(30) for _ in range(40)])
    assert len(figure.axes) == 13
    assert spread(40, 12)[0] == 0 and spread(40, 12)[-1] == 39


def test_large_clouds_are_rasterised():
    clouds = [c for c in frequency_vs_entropy(panel(6_000)).axes[0].collections if isinstance(c, PathCollection)]
    assert clouds and all(c.get_rasterized() for c in clouds)
    assert not any(c.get_rasterized() for c in frequency_vs_entropy(panel()).axes[0].collections if isinstance(c, PathCollection))


def test_settings_of_the_caller_stay():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31.0}):
        figure = frequency_vs_entropy(panel())
        assert mpl.rcParams["font.size"] == 31.0
    assert figure.axes[0].yaxis.label.get_size() == 8.0
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in __import__("sys").modules or not mpl.pyplot.get_fignums()


def test_a_forest_keeps_the_row_of_an_undefined_estimate():
    marks = [ForestMark("this run", RHO), ForestMark("control", UNDEFINED, "control")]
    figure = render(forest([ForestPanel("rank_correlation", "rho", marks, -0.4, "below"), ForestPanel("empty", "rho", [])]))
    assert "undefined: constant routing" in texts(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["this run", "control"]


def test_layers_mark_undefined_ones():
    figure = render(layers_overview([LayerSeries("rho", "rho", [RHO, UNDEFINED, RHO], RHO, -0.4), LayerSeries("none", "rho", [UNDEFINED])]))
    assert "\u00d7: undefined" in figure.axes[0].get_xlabel()


def test_sensitivity_with_undefined_cut_offs():
    nan, zero = np.full(3, np.nan), np.zeros(3)
    one = CutOffs(np.array([1, 50, 200]), np.array([0.1, -0.2, np.nan]), nan, nan, np.array([500.0, 100.0, 2.0]), zero, zero)
    render(rho_by_min_count(one, [one, one], judged=50, bound=-0.4))


def test_sweep_without_choice_or_importances():
    values = np.array([0.1, 0.2])
    render(sweep_overview(SweepPoints(values, values, np.array([True, False]), np.array([False, True]))))


def test_coverage_without_anything_says_so():
    figure = render(fastpath_coverage(FastPathCoverage([], [("test", UNDEFINED)], None, None, 0.4)))
    assert "no threshold grid" in texts(figure)
    assert "undefined, constant routing" in texts(figure)


def test_bins_are_means_of_their_types():  # by hand: 1 and 2 fall into one bin of a quarter decade only if closer than 10**0.25
    bins = FrequencyBins.of_types(np.array([1.0, 1.0, 100.0]), np.array([1.0, 3.0, 5.0]))
    assert bins.mean.tolist() == [2.0, 5.0]
    assert bins.n_types.tolist() == [2.0, 1.0]


def test_ranges_leave_out_nan():
    groups = by_range(np.array([1.0, 5.0, 5.0, 60.0]), np.array([0.1, 0.2, np.nan, 0.4]), (1, 2, 50))
    assert [(label, values.tolist()) for label, values in groups] == [("1", [0.1]), ("2\u201349", [0.2]), ("50+", [0.4])]
