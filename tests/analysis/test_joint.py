from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import joint
from analysis.joint import coactivation_counts, crossing, joint_counts, set_codes, topk_joint_counts, transition_counts
from analysis.trace import TraceError
from tests.references.slow_tables import slow_joint

BACKENDS = ("numpy", "numba")
SHAPES = [(7, 1, 5, 1), (8, 2, 8, 2), (5, 2, 9, 3), (300, 1, 3, 3), (256, 1, 256, 1), (1, 1, 1, 1), (4, 4, 4, 1)]
COUNTS = (lambda ids: topk_joint_counts(ids, ids, 4, 4), lambda ids: coactivation_counts(ids, 4), lambda ids: set_codes(ids, 4))


def chosen(rng, n_rows, n_experts, top_k, dropped=0.0):
    """Sets [K, T] of distinct experts, some slots dropped."""
    ids = np.argsort(rng.random((n_rows, n_experts)), axis=1)[:, :top_k].T.copy()
    ids[rng.random(ids.shape) < dropped] = -1
    return ids


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n_x", "k_x", "n_y", "k_y"), SHAPES)
def test_every_pair_of_slots_is_counted_once(backend, n_x, k_x, n_y, k_y):
    rng = np.random.default_rng(n_x)
    for dropped in (0.0, 0.2):
        x, y = chosen(rng, 200, n_x, k_x, dropped), chosen(rng, 200, n_y, k_y, dropped)
        expected = slow_joint(x.T.tolist(), y.T.tolist(), n_x, n_y)
        found = topk_joint_counts(x, y, n_x, n_y, backend=backend)
        assert found.dtype == np.int64 and found.shape == (n_x, n_y)
        assert np.array_equal(found, expected)
        assert np.array_equal(topk_joint_counts(y, x, n_y, n_x, backend=backend), expected.T)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.integers(0, 80))
@settings(max_examples=40, deadline=None)
def test_the_margins_are_the_loads_and_relabelling_permutes_the_table(seed, n_x, n_y, n_rows):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, n_x, n_rows), rng.integers(0, n_y, n_rows)
    table = joint_counts(x, y, n_x, n_y, backend="numpy")
    assert np.array_equal(table.sum(1), np.bincount(x, minlength=n_x)) and np.array_equal(table.sum(0), np.bincount(y, minlength=n_y))
    assert np.array_equal(joint_counts(x, y, n_x, n_y, backend="numba"), table)
    new_x, new_y, order = rng.permutation(n_x), rng.permutation(n_y), rng.permutation(n_rows)
    assert np.array_equal(joint_counts(new_x[x][order], new_y[y][order], n_x, n_y)[np.ix_(new_x, new_y)], table)


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_do_not_depend_on_the_size_of_a_chunk(backend, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = chosen(rng, 500, 6, 2, 0.1), chosen(rng, 500, 6, 2)
    whole = topk_joint_counts(x, y, 6, 6, backend=backend), coactivation_counts(x, 6, backend=backend)
    monkeypatch.setattr(joint, "CHUNK_ROWS", 7)
    monkeypatch.setattr(joint, "NUMPY_ROWS", 3)
    assert np.array_equal(topk_joint_counts(x, y, 6, 6, backend=backend), whole[0])
    assert np.array_equal(coactivation_counts(x, 6, backend=backend), whole[1])


def test_chunks_add_up_beyond_32_bits(monkeypatch):
    def full(x, y, bounds, tables, backend):
        tables[...] = 2**32 - 1

    monkeypatch.setattr(joint, "add_segments", full)
    monkeypatch.setattr(joint, "CHUNK_ROWS", 10)
    ids = np.zeros(30, np.uint8)
    assert joint_counts(ids, ids, 1, 1).tolist() == [[3 * (2**32 - 1)]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_segments_have_tables_of_their_own(backend):
    rng = np.random.default_rng(1)
    x, y = joint.symbols(chosen(rng, 300, 5, 1), 5), joint.symbols(chosen(rng, 300, 6, 2), 6)
    bounds = np.array([10, 10, 120, 290, 290])
    for dtype in (np.uint16, np.uint32, np.int64):
        tables = joint.segment_table(4, 5, 6, dtype)
        joint.add_segments(x, y, bounds, tables, backend)
        joint.add_segments(x, y, bounds, tables, backend)
        for g in range(4):
            rows = slice(bounds[g], bounds[g + 1])
            expected = slow_joint(x.ids[:, rows].T.tolist(), y.ids[:, rows].T.tolist(), 5, 6)
            assert np.array_equal(tables[g, :, :6], 2 * expected)
    with pytest.raises(ValueError, match="tables of 5 x 4 do not hold 5 x 6 symbols"):
        joint.add_segments(x, y, bounds, joint.segment_table(4, 5, 4, np.uint16), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "k"), [(8, 2), (9, 4), (6, 6), (5, 1), (300, 3)])
def test_coactivation_counts_every_pair_of_members_and_single_counts_on_the_diagonal(backend, n, k):
    ids = chosen(np.random.default_rng(n), 150, n, k, 0.1)
    expected = slow_joint(ids.T.tolist(), ids.T.tolist(), n, n)
    found = coactivation_counts(ids, n, backend=backend)
    assert np.array_equal(found, expected) and np.array_equal(found, found.T)
    assert np.array_equal(coactivation_counts(ids[::-1], n, backend=backend), found)


def test_coactivation_is_not_of_neighbouring_ranks_only():
    assert coactivation_counts(np.array([[0], [1], [2]]), 3)[0, 2] == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lag", [1, 2, 7, 50])
def test_transitions_stay_within_documents(backend, lag):
    rng = np.random.default_rng(lag)
    lengths = [5, 1, 0, 30, 2, 12]
    starts = np.r_[0, np.cumsum(lengths)]
    x = rng.integers(-1, 4, starts[-1])
    pairs = [(x[t], x[t + lag]) for a, b in zip(starts, starts[1:]) for t in range(a, b - lag)]
    expected = slow_joint([[i] for i, _ in pairs], [[j] for _, j in pairs], 4, 4)
    assert np.array_equal(transition_counts(x, starts, 4, lag=lag, backend=backend), expected)
    of = np.repeat(np.arange(6), lengths)
    across = [t for t in range(len(x) - lag) if of[t] != of[t + lag]]
    assert crossing(starts, lag, len(x)).tolist() == across


def test_a_lag_below_one_is_refused():
    with pytest.raises(ValueError, match="lag 0"):
        transition_counts(np.zeros(3, np.int64), np.array([0, 3]), 1, lag=0)


@pytest.mark.parametrize(("n", "k"), [(8, 2), (9, 4), (5, 5), (4, 1), (257, 2)])
def test_set_codes_number_the_sets(n, k):
    smaller = sum(comb(n, s) for s in range(k))
    every = np.array(list(combinations(range(n), k))).T
    codes = set_codes(every, n)
    assert sorted(codes.tolist()) == list(range(smaller, smaller + comb(n, k)))
    assert np.array_equal(set_codes(np.random.default_rng(0).permuted(every, axis=0), n), codes)


def test_a_set_with_dropped_slots_is_the_set_of_the_others():
    ids = np.array([[3, -1, 5, -1], [-1, 3, 3, -1], [5, 5, -1, -1]])
    codes = set_codes(ids, 6).tolist()
    assert codes[0] == codes[1] == codes[2] == set_codes(np.array([[5], [3]]), 6)[0] and codes[3] == 0


def test_sets_of_a_large_layer_have_codes_and_of_a_huge_one_are_refused():
    ids = chosen(np.random.default_rng(0), 50, 384, 8)
    codes = set_codes(ids, 384)
    assert len(set(codes.tolist())) == 50 and codes.max() < sum(comb(384, s) for s in range(9)) and codes.min() >= 0
    with pytest.raises(TraceError, match="more sets than 63 bits count; take first choices"):
        set_codes(chosen(np.random.default_rng(0), 5, 512, 16), 512)


@pytest.mark.parametrize("count", COUNTS)
def test_an_id_out_of_range_is_named(count):
    for wrong in (4, -2):
        with pytest.raises(TraceError, match=rf"{wrong} in slot 1 of row 2, but there are 4 experts; correct n_experts"):
            count(np.array([[0, 1, 2], [1, 0, wrong]]))
    with pytest.raises(TraceError, match="float64 of shape .*; expert ids are integers"):
        count(np.zeros((1, 3)))


@pytest.mark.parametrize("count", [coactivation_counts, set_codes, lambda ids, n: topk_joint_counts(ids, ids, n, n)])
def test_an_expert_twice_in_one_row_is_refused(count):
    with pytest.raises(TraceError, match="expert 2 twice in the top-3 of row 1"):
        count(np.array([[0, 2], [1, 1], [2, 2]]), 3)
    count(np.array([[0, -1], [1, 1], [2, -1]]), 3)


def test_layers_of_different_length_are_refused():
    with pytest.raises(TraceError, match="3 rows of x but 2 of y"):
        joint_counts(np.zeros(3, np.uint8), np.zeros(2, np.uint8), 1, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows_are_no_counts(backend):
    none = np.zeros((2, 0), np.uint8)
    assert not topk_joint_counts(none, none, 3, 4, backend=backend).any()
    assert not coactivation_counts(none, 3, backend=backend).any() and set_codes(none, 3).shape == (0,)
    assert not transition_counts(none[0], np.array([0]), 3, backend=backend).any()


def test_a_read_only_or_strided_array_counts_as_any_other():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 6, (100, 2)).astype(np.uint8)
    ids.flags.writeable = False
    assert np.array_equal(joint_counts(ids[:, 0], ids[:, 1], 6, 6, backend="numba"), joint_counts(ids[:, 0], ids[:, 1], 6, 6, backend="numpy"))
