import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import lags as module
from analysis.joint import transition_counts
from analysis.lags import lag_matches, lag_overlaps, lag_pairs
from analysis.trace import TraceError
from tests.references.slow_tables import slow_lags

LAGS = (1, 2, 3, 9, 40)


def documents(seed, n_experts, top_k, n=17):
    rng = np.random.default_rng(seed)
    starts = np.r_[0, np.cumsum(rng.integers(0, 30, n))]
    ids = np.argsort(rng.random((starts[-1], n_experts)), axis=1)[:, :top_k].T.copy()
    ids[rng.random(ids.shape) < 0.1] = -1
    return ids, starts, rng.integers(0, 4, n)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 2), (8, 8), (20, 3), (64, 2), (65, 2), (130, 1), (254, 1), (255, 1), (256, 2), (300, 3)])
@pytest.mark.parametrize("block", [2**18, 40])
def test_returns_are_those_of_plain_loops(n, k, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", block)
    ids, starts, group = documents(n, n, k)
    for rows, count in ((ids, lambda *a: lag_overlaps(ids, *a)), (ids[:1], lambda *a: lag_matches(ids[0], *a))):
        slow = np.array([slow_lags(rows.T.tolist(), starts.tolist(), lag) for lag in LAGS]).T
        by_group = np.array([slow[group == g].sum(axis=0) for g in range(group.max() + 1)])
        assert np.array_equal(count(starts, n, LAGS, group), by_group)
        assert np.array_equal(count(starts, n, LAGS), slow.sum(axis=0))


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_one_slot_overlaps_where_it_matches_and_matches_are_the_trace_of_transitions(seed, n):
    ids, starts, group = documents(seed, n, 1)
    matches = lag_matches(ids[0], starts, n, LAGS, group)
    assert np.array_equal(lag_overlaps(ids, starts, n, LAGS, group), matches)
    assert (matches <= lag_pairs(starts, LAGS, group)).all()
    assert matches.sum(0).tolist() == [int(np.trace(transition_counts(ids[0], starts, n, lag=lag, backend="numpy"))) for lag in LAGS]


def test_a_constant_stream_always_matches():
    starts = np.array([0, 5, 5, 17, 18])
    assert np.array_equal(lag_matches(np.zeros(18, np.uint8), starts, 256, LAGS), lag_pairs(starts, LAGS))
    assert lag_pairs(starts, LAGS).tolist() == [15, 13, 11, 3, 0]


def test_no_documents_no_matches():
    assert lag_matches(np.zeros(0, np.uint8), np.array([0]), 4, LAGS).tolist() == [0] * 5


def test_wrong_lags_groups_and_ids_are_refused():
    starts = np.array([0, 3])
    with pytest.raises(ValueError, match="a lag counts tokens ahead"):
        lag_matches(np.zeros(3, np.uint8), starts, 1, [0])
    with pytest.raises(ValueError, match="group: 2 entries for 1 documents"):
        lag_matches(np.zeros(3, np.uint8), starts, 1, [1], np.array([0, 1]))
    with pytest.raises(TraceError, match="expert 2 twice in the top-2 of row 1"):
        lag_overlaps(np.array([[0, 2, 0], [1, 2, 1]]), starts, 4, [1])
    with pytest.raises(TraceError, match="7 in slot 0 of row 1"):
        lag_overlaps(np.array([[0, 7, 0]]), starts, 4, [1])
