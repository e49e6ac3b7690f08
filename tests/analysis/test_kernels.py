import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import kernels
from analysis.kernels import Tally, compiled, from_fixed, permute_within, scatter_layers, segment_sums, to_fixed


def test_fixed_point_holds_a_float32_of_at_least_a_256th_exactly():
    values = np.random.default_rng(0).uniform(2**-8, 8, 10_000).astype(np.float32)
    assert (from_fixed(to_fixed(values)) == values).all()


def test_fixed_point_error_is_half_of_the_last_bit():
    values = np.random.default_rng(0).uniform(0, 1, 10_000)
    assert np.abs(from_fixed(to_fixed(values)) - values).max() <= 2.0**-33


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-100, 100)), max_size=60), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_a_tally_is_a_dictionary_of_sums_however_the_rows_are_cut(rows, size):
    expected: dict[int, int] = {}
    tally = Tally(10, 2)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        keys = np.array([k for k, _ in part], np.int64)
        tally.add(keys, np.stack([np.ones(len(part), np.int64), np.array([v for _, v in part], np.int64)]))
        for key, value in part:
            expected[key] = expected.get(key, 0) + value
    keys, sums = tally.cells()
    assert dict(zip(keys.tolist(), sums[1].tolist())) == expected


def test_sparse_and_dense_tallies_agree(monkeypatch):
    rng = np.random.default_rng(0)
    parts = [(rng.integers(0, 500, 300), rng.integers(1, 9, (3, 300))) for _ in range(5)]
    dense = Tally(500, 3)
    monkeypatch.setattr(kernels, "DENSE_LIMIT", 100)
    sparse, eager, radix = Tally(500, 3), Tally(500, 3, pending=90), Tally(500, 3)
    radix.backend = "numba"
    for keys, values in parts:
        for tally in (dense, sparse, eager):
            tally.add(keys, values)
        radix.add(keys, values, summed=True)
    expected = dense.cells()
    for tally in (sparse, eager, radix):
        for a, b in zip(expected, tally.cells(), strict=True):
            assert (a == b).all()


@pytest.mark.parametrize("largest", [1, 7, 2047, 2048, 2**40, 2**62])
def test_the_radix_order_is_the_stable_order(largest):
    keys = np.random.default_rng(0).integers(0, largest, 3_000)
    assert (compiled("sort_order")(keys) == np.argsort(keys, kind="stable")).all()
    assert compiled("sort_order")(keys[:0]).shape == (0,)


def test_a_tally_waits_with_as_many_values_as_it_may_whatever_its_columns(monkeypatch):
    monkeypatch.setattr(kernels, "DENSE_LIMIT", 0)
    held = []
    for n_columns in (1, 20):
        tally = Tally(10**9, n_columns, pending=1_000)
        for start in range(0, 10_000, 40):
            tally.add(np.arange(start, start + 40) % 400, np.ones((n_columns, 40), np.int64))
            held.append(sum(len(keys) for keys, _ in tally._pending) * n_columns)
    assert max(held) <= 4_000  # half of the 400 cells x 20 columns


def test_segment_sums_of_nothing_is_nothing():
    keys, sums = segment_sums(np.zeros(0, np.int64), np.zeros((2, 0), np.int64))
    assert len(keys) == 0 and sums.shape == (2, 0)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_permutation_stays_inside_its_segment(backend):
    lengths = np.array([1, 5, 300, 2, 40], np.int64)
    starts = np.r_[0, np.cumsum(lengths)[:-1]]
    keys = np.random.default_rng(0).integers(0, 2**63, (6, 5)).astype(np.uint64)
    for rows in permute_within(starts, lengths, keys, backend):
        for start, length in zip(starts, lengths):
            assert sorted(rows[start : start + length]) == list(range(start, start + length))


def test_both_backends_shuffle_and_scatter_alike():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 60, 40)
    starts = np.r_[0, np.cumsum(lengths)[:-1]]
    keys = rng.integers(0, 2**63, (4, 40)).astype(np.uint64)
    plain, compiled = (permute_within(starts, lengths, keys, backend) for backend in ("numpy", "numba"))
    assert (plain == compiled).all()
    types, values = rng.integers(-1, 6, lengths.sum()), rng.integers(0, 99, (3, lengths.sum()))
    out = {backend: np.zeros((3, 6), np.int64) for backend in ("numpy", "numba")}
    for backend, sums in out.items():
        scatter_layers(types, plain[0], values, sums, backend)
    assert (out["numpy"] == out["numba"]).all()


def test_shuffles_are_uniform():
    # 6 orders of 3 rows, 60,000 draws: chi-square on 5 df stays below its 1 - 1e-6 quantile, 35.9
    keys = np.random.default_rng(0).integers(0, 2**63, (60_000, 1)).astype(np.uint64)
    rows = permute_within(np.array([0]), np.array([3]), keys, "numpy")
    seen = np.unique(rows @ np.array([9, 3, 1]), return_counts=True)[1]
    assert len(seen) == 6 and ((seen - 10_000) ** 2 / 10_000).sum() < 35.9
