"""Margins and overlap sizes of lagged pairs against loops over documents, and what they make with the other counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.estimation import Groups, estimates
from analysis.joint import transition_counts
from analysis.lag_tables import lag_loads, lag_overlap_sizes
from analysis.lags import lag_matches, lag_overlaps, lag_pairs
from analysis.metrics.sequence import lag_jaccard, lag_kappa, lag_overlap, lag_overlap_kappa

Int = NDArray[np.int64]


def random_documents(seed: int, lengths: list[int], k: int) -> tuple[NDArray[np.int16], Int]:
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((sum(lengths), 6)) + np.linspace(0, 0.5, 6), axis=1)[:, :k].astype(np.int16)
    ids[rng.random(ids.shape) < 0.1] = -1
    return np.ascontiguousarray(ids.T), np.r_[0, np.cumsum(lengths)].astype(np.int64)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_tables_are_those_of_loops(seed: int, lengths: list[int], k: int, lag: int) -> None:
    ids, starts = random_documents(seed, lengths, k)
    group = np.arange(len(lengths)) % 2
    sources, targets, sizes = np.zeros((2, 6), int), np.zeros((2, 6), int), np.zeros((2, k + 1), int)
    for number, (begin, end) in enumerate(zip(starts, starts[1:])):
        for t in range(begin, end - lag):
            one, other = ({e for e in ids[:, row].tolist() if e >= 0} for row in (t, t + lag))
            sources[number % 2, list(one)] += 1
            targets[number % 2, list(other)] += 1
            sizes[number % 2, len(one & other)] += 1
    n = int(group.max()) + 1
    found = lag_loads(ids, starts, 6, lag, group)
    np.testing.assert_array_equal(found[0], sources[:n])
    np.testing.assert_array_equal(found[1], targets[:n])
    np.testing.assert_array_equal(lag_overlap_sizes(ids, starts, 6, lag, group), sizes[:n])
    np.testing.assert_array_equal(lag_loads(ids, starts, 6, lag)[1], targets.sum(axis=0))
    np.testing.assert_array_equal(lag_overlap_sizes(ids, starts, 6, lag), sizes.sum(axis=0))


@pytest.mark.parametrize("lag", [1, 5])
def test_matches_and_margins_give_the_kappa_of_the_transition_table(lag: int) -> None:
    rng = np.random.default_rng(1)
    ids, starts = rng.integers(0, 5, (1, 300)).astype(np.uint8), np.array([0, 40, 41, 200, 300])
    kappa = lag_overlap_kappa(lag_matches(ids[0], starts, 5, [lag])[0], *lag_loads(ids, starts, 5, lag), lag_pairs(starts, [lag])[0])
    assert kappa == pytest.approx(float(lag_kappa(transition_counts(ids[0], starts, 5, lag=lag))), abs=1e-12)


def test_sets_have_overlaps_and_intervals_over_documents() -> None:
    rng = np.random.default_rng(2)
    ids = np.ascontiguousarray(np.argsort(rng.random((2000, 8)), axis=1)[:, :3].T.astype(np.uint8))
    starts, group = np.arange(0, 2001, 50), np.arange(40)
    matches, pairs = lag_overlaps(ids, starts, 8, [1], group)[:, 0], lag_pairs(starts, [1], group)
    sources, targets = lag_loads(ids, starts, 8, 1, group)
    sizes = lag_overlap_sizes(ids, starts, 8, 1, group)
    np.testing.assert_array_equal(sizes @ np.arange(4), matches)
    np.testing.assert_array_equal(sizes.sum(axis=1), pairs[:, 0])
    assert lag_overlap(matches.sum(), sources.sum(axis=0)) > lag_jaccard(sizes.sum(axis=0))
    found = estimates("lag_overlap_kappa", Groups((matches, sources, targets, pairs[:, 0]), 40))[()]
    assert found.low < 0 < found.high and found.half_width < 0.1


def test_bad_input_names_itself() -> None:
    ids, starts = random_documents(3, [4, 3], 2)
    with pytest.raises(ValueError, match="lag 0"):
        lag_loads(ids, starts, 6, 0)
    for count in (lag_loads, lag_overlap_sizes):
        with pytest.raises(ValueError, match="but there are 4 experts"):
            count(ids, starts, 4)
        with pytest.raises(ValueError, match="twice in the top-2 of row 3"):
            count(np.array([[0, 1, 2, 3, 0, 1, 2], [1, 2, 3, 3, 1, 2, 3]]), starts, 4)
        with pytest.raises(ValueError, match="integers"):
            count(ids.astype(float), starts, 6)
    with pytest.raises(ValueError, match="starts end at row 6 of 7"):
        lag_overlap_sizes(ids, starts - 1, 6)
    with pytest.raises(ValueError, match="3 entries for 2 documents"):
        lag_loads(ids, starts, 6, group=np.arange(3))
    empty = lag_loads(ids[:, :0], np.zeros(1, np.int64), 6)
    assert empty[0].shape == (6,) and not empty[0].any()
