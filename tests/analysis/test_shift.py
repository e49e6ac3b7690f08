import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.arithmetic import mutual_information_bits
from analysis.kernels import Float
from analysis.moved_rows import MovedRows, RoutedDocuments, group_rows
from analysis.shift import ShiftPlan, draw_shifts, eligible, shift_source, shifted, shifted_information
from analysis.table_information import FixedLog
from tests.analysis.planted import documents, keys_of, reordered, sticky_topics


def joint(x, y, ex, ey):
    both = (x >= 0) & (y >= 0)
    out = np.zeros((ex, ey))
    np.add.at(out, (x[both], y[both]), 1)
    return out


def ragged(rng, n_documents=30, experts=(5, 3, 1), missing=0.1, **columns):
    lengths = rng.integers(1, 60, n_documents)
    layers = [rng.integers(0, e, lengths.sum()) for e in experts]
    layers[0][rng.random(len(layers[0])) < missing] = -1
    layers[1] = np.where(rng.random(len(layers[1])) < 0.5, np.maximum(layers[0], 0) % experts[1], layers[1])
    return documents(rng, layers, experts, lengths, **columns)


def slow_twin(given: RoutedDocuments, pairs, plan) -> tuple[Float, Float]:
    """One document, draw and pair at a time, from the definition."""
    kept = eligible(given, plan.drop_first)
    from analysis.moved_rows import seeded

    keys = seeded(kept.keys, plan.seed)
    observed = [mutual_information_bits(joint(kept.first_L[a], kept.first_L[b], kept.n_experts[a], kept.n_experts[b])) for a, b in pairs]
    null = np.empty((plan.n_draws, len(pairs)))
    for draw in range(plan.n_draws):
        s = draw_shifts(kept.lengths, keys, draw)
        for place, (a, b) in enumerate(pairs):
            y = np.concatenate([np.array([kept.first_L[b][first:end][(t - s[d]) % (end - first)] for t in range(end - first)], int)
                                for d, (first, end) in enumerate(zip(kept.starts[:-1], kept.starts[1:]))])
            null[draw, place] = mutual_information_bits(joint(kept.first_L[a], y, kept.n_experts[a], kept.n_experts[b]))
    return np.array(observed), null


PAIRS = [[0, 1], [1, 0], [1, 2], [0, 0]]


@pytest.mark.parametrize("drop_first", [0, 4])
def test_null_is_the_definition(drop_first):
    given = ragged(np.random.default_rng(drop_first))
    plan = ShiftPlan(n_draws=6, seed=3, drop_first=drop_first, backend="numpy")
    made = shifted_information(given, PAIRS, plan)
    observed, null = slow_twin(given, PAIRS, plan)
    np.testing.assert_allclose(made.observed, observed, atol=1e-9)
    np.testing.assert_allclose(made.null, null, atol=1e-9)
    assert made.n_tokens == eligible(given, drop_first).starts[-1] and 0 < made.left_out < 1


@pytest.mark.parametrize("kw", [{}, {"bands": True}, {"bands": True, "drop_first": 4}])
def test_same_bits_for_numpy_numba_one_and_two_threads(kw):
    given = ragged(np.random.default_rng(1), 40, (5, 300, 4), group=np.arange(40) % 7)
    plain = shifted_information(given, PAIRS, ShiftPlan(12, 5, 4, backend="numpy", **kw))
    for threads in (1, 2):
        fast = shifted_information(given, PAIRS, ShiftPlan(12, 5, 4, backend="numba", threads=threads, **kw))
        for name in ("observed", "null"):
            np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name))
        for field in dataclasses.fields(plain.interval):
            np.testing.assert_array_equal(getattr(fast.interval, field.name), getattr(plain.interval, field.name))


def test_order_of_documents_and_names_of_experts_change_nothing():
    rng = np.random.default_rng(2)
    given = ragged(rng, group=np.arange(30) % 5)
    plan = ShiftPlan(8, n_interval_draws=3, backend="numpy")
    made = shifted_information(given, PAIRS, plan)
    names = rng.permutation(5)
    renamed = dataclasses.replace(given, first_L=[np.where(given.first_L[0] < 0, -1, names[given.first_L[0]]), *given.first_L[1:]])
    for other in (reordered(given, rng.permutation(30)), renamed):
        again = shifted_information(other, PAIRS, plan)
        np.testing.assert_array_equal(again.observed, made.observed)
        np.testing.assert_array_equal(again.null, made.null)
        np.testing.assert_allclose(again.interval.low, made.interval.low, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(8, 200), min_size=1, max_size=30), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_shifts_are_in_their_range_and_cross_no_document(lengths, draw):
    lengths = np.array(lengths)
    s = draw_shifts(lengths, keys_of(len(lengths)), draw)
    least = np.minimum(16, lengths // 4)
    assert (s >= least).all() and (s <= lengths - least).all()
    starts = np.concatenate([[0], np.cumsum(lengths)])
    source = shift_source(starts, s, "numpy")
    document = np.repeat(np.arange(len(lengths)), lengths)
    assert (document[source] == document).all() and (np.sort(source) == np.arange(starts[-1])).all()
    np.testing.assert_array_equal(source, shift_source(starts, s, "numba"))


def test_shifts_are_uniform():
    s = draw_shifts(np.full(40_000, 12), keys_of(40_000), 0)
    counts = np.bincount(s, minlength=10)[3:10]
    assert counts.sum() == 40_000 and np.abs(counts - 40_000 / 7).max() < 5 * np.sqrt(40_000 / 7)


def test_shifted_is_the_formula():
    assert shifted([1, 2, 3, 4, 9, 8], [0, 4, 6], [1, 1]).tolist() == [4, 1, 2, 3, 8, 9]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_left_out_tables_are_those_of_the_other_documents(backend):
    """Each jackknife value is the excess of the documents that are left, under the shifts they had."""
    rng = np.random.default_rng(3)
    given = ragged(rng, group=np.arange(30) % 4)
    plan = ShiftPlan(5, n_interval_draws=5, backend=backend)
    made = shifted_information(given, PAIRS, plan)
    left_out = []
    for g in range(4):
        kept = given.take(np.repeat(given.group != g, given.lengths))
        left_out.append(shifted_information(dataclasses.replace(kept, group=None), PAIRS, plan).excess)
    left_out, n = np.array(left_out), 4
    np.testing.assert_allclose(made.interval.value, n * made.excess - (n - 1) * left_out.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(made.interval.se, np.sqrt((n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)), atol=1e-9)


def test_many_updates_and_few_give_the_same_left_out_value():
    """Dense and sparse forms of the compiled kernel, on either side of their switch."""
    rng = np.random.default_rng(4)
    for n_experts in (2, 40):
        x = rng.integers(0, n_experts, 2000)
        given = documents(rng, [x, (x + rng.integers(0, 2, 2000)) % n_experts], (n_experts, n_experts), np.full(50, 40), group=np.arange(50) % 10)
        plain, fast = (shifted_information(given, [[0, 1]], ShiftPlan(3, backend=b)) for b in ("numpy", "numba"))
        np.testing.assert_array_equal(plain.interval.se, fast.interval.se)


def test_size_is_nominal_on_sticky_topics_where_shuffles_fail():
    from analysis.permutation import p_value
    from analysis.shuffles import ShufflePlan, shuffled_information

    rejected, within, everywhere = 0, 0, 0
    for run in range(200):
        rng = np.random.default_rng([run, 7])
        given = documents(rng, sticky_topics(rng), (8, 8), np.full(40, 64))
        rejected += shifted_information(given, [[0, 1]], ShiftPlan(99, run, backend="numba", p_values=True)).p[0] <= 0.05
        if run < 40:
            null = shuffled_information(given, [[0, 1]], ShufflePlan(("document",), 99, run, backend="numba"))
            within += null.p[0] <= 0.05
            pooled = shuffled_information(given, [[0, 1]], ShufflePlan((), 99, run, backend="numba"))
            everywhere += p_value(pooled.observed, pooled.null)[0] <= 0.05
    assert 2 <= rejected <= 20  # nominal 10 of 200
    assert within >= 5 and everywhere == 40


def test_independent_layers_with_topics_have_no_excess_and_coupled_ones_do():
    values, covered = [], 0
    for run in range(60):
        rng = np.random.default_rng([run, 8])
        given = documents(rng, sticky_topics(rng, stay=0.3), (8, 8), np.full(40, 64), group=np.arange(40) % 20)
        made = shifted_information(given, [[0, 1]], ShiftPlan(25, run, backend="numba")).estimates()[0]
        values.append(made.plug_in)
        covered += made.low <= 0 <= made.high
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60) and covered >= 52
    rng = np.random.default_rng(9)
    given = documents(rng, sticky_topics(rng, coupling=0.3), (8, 8), np.full(40, 64), group=np.arange(40) % 20)
    strong = shifted_information(given, [[0, 1]], ShiftPlan(99, backend="numba", p_values=True))
    one = strong.estimates()[0]
    assert one.low > 0 and one.p == 0.01 and strong.z[0] > 5 and one.null_low <= one.null <= one.null_high < strong.observed[0]


def test_a_trend_of_positions_counts_as_coupling_until_bands_are_compared():
    rng = np.random.default_rng(10)
    lengths = np.full(80, 120)
    position = np.tile(np.arange(120), 80)
    band = np.searchsorted([0, 1, 4, 16, 64], position, side="right") - 1
    layers = [np.where(rng.random(len(band)) < 0.8, band, rng.integers(0, 5, len(band))) for _ in range(2)]
    given = documents(rng, layers, (5, 5), lengths)
    assert shifted_information(given, [[0, 1]], ShiftPlan(99, p_values=True)).p[0] == 0.01
    assert shifted_information(given, [[0, 1]], ShiftPlan(99, bands=True, drop_first=4, p_values=True)).p[0] > 0.05


def test_one_expert_has_no_information_and_no_excess():
    rng = np.random.default_rng(0)
    given = documents(rng, [np.zeros(320, int), rng.integers(0, 3, 320)], (1, 3), np.full(10, 32), group=np.arange(10))
    made = shifted_information(given, [[0, 1]], ShiftPlan(99, p_values=True))
    assert made.observed[0] == 0 and (made.null == 0).all() and made.p[0] == 1 and np.isnan(made.z[0]) and made.interval.se[0] == 0


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_no_eligible_document_is_undefined(backend):
    rng = np.random.default_rng(0)
    given = documents(rng, [rng.integers(0, 3, 21), rng.integers(0, 3, 21)], (3, 3), np.full(3, 7), group=np.arange(3))
    made = shifted_information(given, [[0, 1]], ShiftPlan(99, backend=backend, p_values=True))
    assert np.isnan(made.observed[0]) and made.left_out == 1 and made.n_documents == 0 and np.isnan(made.p[0])
    one = made.estimates()[0]
    assert one.value is None and one.reason.startswith("no_data")


def test_one_document_has_an_excess_and_no_interval():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, 64)
    made = shifted_information(documents(rng, [x, x], (3, 3), [64], group=np.zeros(1, int)), [[0, 1]], ShiftPlan(25))
    one = made.estimates()[0]
    assert one.value > 1 and one.low is None and one.se is None and one.p is None


def test_a_map_of_all_pairs_has_no_p_values():
    given = ragged(np.random.default_rng(0))
    with pytest.raises(ValueError, match="p_values=True"):
        _ = shifted_information(given, PAIRS, ShiftPlan(99)).p
    with pytest.raises(ValueError, match="999"):
        _ = shifted_information(given, PAIRS, ShiftPlan(50, p_values=True)).p


@pytest.mark.parametrize("layers, experts, words", [
    ([[0, 1, 5], [0, 0, 0]], (3, 3), "layer 0: expert ids 0..5"), ([[0, 1, 1], [0, -2, 0]], (3, 3), "layer 1"),
    ([[0.5, 1.0, 1.0], [0, 0, 0]], (3, 3), "integers"), ([[0, 1, 1], [0, 0]], (3, 3), "different numbers of tokens"),
    ([[0, 1, 1], [0, 0, 0]], (2**15, 2**15), "coarsen")])
def test_bad_choices_are_named(layers, experts, words):
    with pytest.raises(ValueError, match=words):
        MovedRows.of([np.array(layer) for layer in layers], experts, "numpy")


def test_bad_documents_are_named():
    x = np.zeros(10, int)
    with pytest.raises(ValueError, match="starts"):
        RoutedDocuments([x, x], (1, 1), np.array([0, 5]), keys_of(1))
    with pytest.raises(ValueError, match="keys"):
        RoutedDocuments([x, x], (1, 1), np.array([0, 10]), keys_of(2))
    with pytest.raises(ValueError, match="position"):
        shifted_information(RoutedDocuments([x, x], (1, 1), np.array([0, 10]), keys_of(1)), [[0, 1]], ShiftPlan(5, drop_first=4))
    with pytest.raises(ValueError, match="a null needs a draw"):
        shifted_information(ragged(np.random.default_rng(0)), [[0, 1]], ShiftPlan(0))
    with pytest.raises(ValueError, match="layer pairs"):
        shifted_information(RoutedDocuments([x, x], (1, 1), np.array([0, 10]), keys_of(1)), [[0, 2]], ShiftPlan(5))


def test_fixed_logarithm_is_n_log_n_below_and_above_its_table():
    from analysis.moved_rows import compiled

    n = np.unique(np.concatenate([np.arange(70_000), np.random.default_rng(0).integers(2**16, 2**33, 3000), 2 ** np.arange(16, 33)]))
    log = FixedLog.of(2**33)
    made = log(n)
    np.testing.assert_allclose(made / 2.0**log.bits, n * np.log2(np.maximum(n, 1)), rtol=2e-15, atol=2.0**-log.bits)
    parts = compiled("_xlogx")
    assert all(parts(np.int64(i), log.values, log.logs, 2.0**log.bits) == j for i, j in zip(n[::37].tolist(), made[::37].tolist()))
    with pytest.raises(ValueError, match="sample"):
        FixedLog.of(2**41)


def test_counts_beyond_the_table_of_logarithms_are_right():
    rng = np.random.default_rng(0)
    x = (rng.random(300_000) < 0.02).astype(int)
    y = np.where(rng.random(300_000) < 0.5, x, rng.integers(0, 2, 300_000))
    given = documents(rng, [x, y], (2, 2), np.full(100, 3000), group=np.arange(100) % 5)
    plain, fast = (shifted_information(given, [[0, 1]], ShiftPlan(2, backend=b)) for b in ("numpy", "numba"))
    assert plain.observed[0] == pytest.approx(float(mutual_information_bits(joint(x, y, 2, 2))), abs=1e-10)
    np.testing.assert_array_equal(plain.null, fast.null)
    np.testing.assert_array_equal(plain.interval.low, fast.interval.low)


def test_rows_of_a_group_are_together():
    given = ragged(np.random.default_rng(0), group=np.arange(30) * 7 % 4 + 3)
    order, bounds = group_rows(given)
    groups = np.repeat(given.group, given.lengths)[order]
    assert (np.diff(groups) >= 0).all() and bounds[-1] == len(order) and len(bounds) == 5


def test_shifts_behind_a_p_value_are_the_whole_group():
    """Documents of 8 tokens: every shift from 0 to 7 comes up alike; the excess keeps 2 to 6."""
    lengths, keys = np.full(40_000, 8), keys_of(40_000)
    whole, kept = np.bincount(draw_shifts(lengths, keys, 1, whole=True), minlength=9), np.bincount(draw_shifts(lengths, keys, 1), minlength=9)
    assert whole[8] == 0 and abs(whole[:8] - 5000).max() < 5 * np.sqrt(5000)
    assert (kept[[0, 1, 7, 8]] == 0).all() and abs(kept[2:7] - 8000).max() < 5 * np.sqrt(8000)
