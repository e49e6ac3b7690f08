"""What all figures of routing topology rest on: estimates as arrays, cells, curves, and where words and nodes go."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.estimate import Estimate
from analysis.figures.topology_cells import Grid, cell_keys, colour_limits, paint, scale_bar, thin_ticks
from analysis.figures.topology_curves import Curve, Line, curves
from analysis.figures.topology_marks import NOT_GIVEN, Marks, bars, broken, keys, readable_on
from analysis.figures.topology_places import apart, label_points, lying, side_by_side

DEFINED = Estimate(1.0, 0.5, 1.5, "bits", "document", 40, "jackknife", level=0.9, null=0.1, null_low=0.0, null_high=0.2)
GATED = Estimate(2.0, 1.0, 3.0, "bits", "document", 40, "jackknife", gate="undersampled: 10 tokens")
UNDEFINED = Estimate.undefined("no_data: no token has both choices")


def labels(entries):
    return [entry.get_label() for entry in entries]


def grid(values, **more):
    marks = Marks.of(values)
    rows, columns = ([str(i) for i in range(n)] for n in marks.value.shape)
    return Grid(marks, rows, columns, "row", "column", "amount (bits)", **more)


def test_marks_keep_numbers_reasons_and_gates():
    marks = Marks.of([[DEFINED, GATED], [UNDEFINED, None]])
    np.testing.assert_array_equal(marks.value, [[1.0, 2.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(marks.low, [[0.5, 1.0], [np.nan, np.nan]])
    assert marks.null_high[0, 0] == 0.2
    assert marks.gated.tolist() == [[False, True], [False, False]]
    assert marks.reasons.tolist() == [["", "undersampled: 10 tokens"], ["no_data: no token has both choices", NOT_GIVEN]]
    assert marks.level == 0.9
    assert sorted(marks.ends.tolist()) == [0.0, 0.2, 0.5, 1.0, 1.0, 1.5, 2.0, 3.0]


def test_plain_numbers_have_no_interval():
    marks = Marks.of(np.array([0.5, np.nan, -1.0]))
    assert marks.defined.tolist() == [True, False, True]
    assert not marks.has_interval.any() and not marks.has_null.any()


def test_each_passes_every_array():
    marks = Marks.of([[DEFINED, GATED, UNDEFINED]]).each(np.transpose)
    assert marks.value.shape == marks.gated.shape == marks.reasons.shape == (3, 1)


@pytest.mark.parametrize("empty", [[], [[]], np.empty((0, 0))])
def test_nothing_is_no_mark(empty):
    assert Marks.of(empty).value.size == 0
    assert keys([Marks.of(empty)]) == []


def test_keys_name_what_occurs():
    named = labels(keys([Marks.of([DEFINED, GATED, UNDEFINED])]))
    assert named == ["90% interval", "null, central 95%", "gated: no verdict rests on it", "undefined"]
    assert labels(keys([Marks.of([1.0, 2.0])])) == []


@pytest.mark.parametrize("horizontal", [False, True])
def test_bars_have_the_values_and_hatch_the_gated(horizontal):
    axes = Figure().subplots()
    bars(axes, np.arange(3.0), Marks.of([DEFINED, GATED, UNDEFINED]), ["red"], horizontal=horizontal)
    size = [bar.get_width() if horizontal else bar.get_height() for bar in axes.patches]
    assert size == pytest.approx([1.0, 2.0, 0.2])  # two values, one null range
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, True, False]
    assert sorted(map(tuple, np.array(axes.collections[0].get_segments())[:, :, 0 if horizontal else 1].tolist())) == [(0.5, 1.5), (1.0, 3.0)]
    assert [line.get_label() for line in axes.lines] == ["_undefined"]


def test_cells_mask_undefined_and_hatch_gated():
    axes = Figure().subplots()
    image = paint(axes, grid([[DEFINED, GATED], [UNDEFINED, 0.25]]))
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), -1), [[1.0, 2.0], [-1, 0.25]])
    hatched = [c for c in axes.collections if isinstance(c, PolyCollection)]
    assert [len(c.get_paths()) for c in hatched] == [1]
    assert image.get_clim() == (0.0, 2.0)
    assert "1.00\n[0.50, 1.50]" in [text.get_text() for text in axes.texts]
    assert labels(cell_keys([grid([[DEFINED, GATED], [UNDEFINED, 0.25]])])) == ["undefined", "gated: no verdict rests on it"]


def test_small_gated_cells_bear_a_stroke_each():
    cells = np.full((30, 30), 1.0, object)
    cells[3, 7] = cells[20, 20] = GATED
    axes = Figure().subplots()
    paint(axes, grid(cells))
    strokes = next(c for c in axes.collections if c.get_label() == "_gated").get_segments()
    assert [segment.mean(axis=0).tolist() for segment in strokes] == [[7.0, 3.0], [20.0, 20.0]]


def test_signed_cells_diverge_about_zero_and_infinite_ones_point_the_bar():
    shown = grid(np.array([[-np.inf, 0.5], [-2.0, np.nan]]), signed=True)
    assert colour_limits(shown) == (-2.0, 2.0)
    axes = Figure().subplots()
    image = paint(axes, shown)
    assert image.get_array()[0, 0] == -2.0
    assert scale_bar(axes, image, shown).get_ylabel() == "amount (bits)"
    assert "\u2212\u221e" in [text.get_text() for text in axes.texts]


def test_negative_amounts_are_painted_at_the_end_but_written_as_they_are():
    axes = Figure().subplots()
    image = paint(axes, grid(np.array([[-0.25, 1.0]])))
    assert image.get_array().tolist() == [[0.0, 1.0]]
    assert [text.get_text() for text in axes.texts] == ["\u22120.25", "1.00"]


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.zeros((1, 1))])
def test_constant_and_missing_cells(values):
    figure = Figure()
    axes, shown = figure.subplots(), grid(values)
    scale_bar(axes, paint(axes, shown), shown)
    figure.draw_without_rendering()


@pytest.mark.parametrize(("n", "at_most", "shown"), [(5, 10, 5), (48, 12, 12), (128, 12, 8), (1, 3, 1)])
def test_ticks_thin_out(n, at_most, shown):
    axis = Figure().subplots().xaxis
    thin_ticks(axis, [str(i) for i in range(n)], at_most)
    assert len(axis.get_ticklocs()) == shown
    assert axis.get_ticklabels()[0].get_text() == "0"


def test_curves_draw_the_points_given():
    axes = Figure().subplots()
    entries = curves(axes, Curve("x", "y", np.array([1, 2, 4]), [Line("a", Marks.of([DEFINED, GATED, UNDEFINED]))], 1.5))
    by_label = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(by_label["_line"].get_xydata(), [[1, 1], [2, 2], [4, np.nan]])
    assert by_label["_undefined"].get_xdata().tolist() == [4.0]
    assert [line.get_markerfacecolor() for line in axes.lines if line.get_label() == "_points"] == ["#0072B2", "white"]
    assert "declared bound: 1.5" in labels(entries)


@pytest.mark.parametrize("log", [False, True])
def test_lines_over_the_same_numbers_stand_aside(log):
    axes = Figure().subplots()
    curves(axes, Curve("x", "y", np.array([1, 2, 4]), [Line(name, Marks.of([DEFINED] * 3)) for name in "ab"], log=log))
    first, second = (line.get_xdata() for line in axes.lines if line.get_label() == "_line")
    assert (first < second).all() and (second < first * 1.15).all()
    assert [tick for tick in axes.get_xticks() if tick in (1, 2, 4)] == [1, 2, 4]


def boxes(axes):
    renderer = axes.figure.canvas.get_renderer()
    return [Text.get_window_extent(text, renderer) for text in axes.texts]  # not the line that ties it to its point


@pytest.mark.parametrize("n", [2, 7, 12])
def test_labels_of_crowded_points_do_not_cover_each_other(n):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rng = np.random.default_rng(n)
    figure = Figure(figsize=(7, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    x, y = rng.uniform(0.4, 0.6, n), rng.uniform(0.4, 0.6, n)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(axes, x, y, [f"domain {i} to {i + 1}" for i in range(n)])
    figure.draw_without_rendering()
    placed = boxes(axes)
    assert len(placed) == n
    assert not any(a.overlaps(b) for i, a in enumerate(placed) for b in placed[:i])
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in placed)


def test_coinciding_nodes_part():
    moved = apart(np.zeros((5, 2)), 1.0)
    gaps = np.linalg.norm(moved[:, None] - moved, axis=-1)[np.triu_indices(5, 1)]
    assert gaps.min() > 0.95


def test_a_standing_group_lies_down():
    assert np.ptp(lying(np.array([[0.0, 0.0], [0.1, 3.0], [0.0, 5.0]])), axis=0).tolist() == pytest.approx([5.0, 0.08], abs=0.03)
    assert lying(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]


def test_groups_do_not_touch():
    ring = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    placed = side_by_side([ring] * 7, [1.2] * 7)
    centres = np.array([nodes.mean(axis=0) for nodes in placed])
    gaps = np.linalg.norm(centres[:, None] - centres, axis=-1)[np.triu_indices(7, 1)]
    assert gaps.min() >= 2.4 - 1e-9
    assert side_by_side([], []) == []


def test_ink_stands_out():
    assert readable_on((1.0, 1.0, 1.0, 1.0)) != "white"
    assert readable_on((0.0, 0.1, 0.3, 1.0)) == "white"


def test_words_break_to_the_width():
    assert max(len(line) for line in broken("word " * 60, 3.5).split("\n")) <= 63
    assert broken("", 3.5) == ""
