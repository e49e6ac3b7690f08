from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import halves
from analysis import type_moments as module
from analysis.type_moments import TypeSums, type_moments
from tests.analysis.test_halves import bfloat16, by_definition, rows_of, softmax, widened

COLUMNS = tuple(module.TypeMoments.__dataclass_fields__)


def some(kind="float16", n=3_000, n_experts=8, n_types=40, seed=0):
    p = softmax(widened(rows_of(kind, n_experts, n, 2.0, seed)))
    p = {"float16": p.astype(np.float16), "bfloat16": bfloat16(p), "float32": p.astype(np.float32), "float64": p}[kind]
    rng = np.random.default_rng(seed)
    return (rng.zipf(1.5, n) % n_types).astype(np.int32), p


def lists(types, p, n_types):
    """Dictionary of lists, type by type, in float64 on the same values."""
    rows = defaultdict(list)
    entropy, _, confidence, first = by_definition(widened(p))
    for t, v in enumerate(types.tolist()):
        rows[v].append((entropy[t], confidence[t], int(first[t])))
    out = {name: np.full(n_types, np.nan) for name in COLUMNS}
    out["first_choices"], out["n"], out["top_expert"] = np.zeros((n_types, p.shape[1]), int), np.zeros(n_types, int), np.full(n_types, -1)
    for v, found in rows.items():
        h, c, e = (np.array(column) for column in zip(*found))
        out["n"][v] = len(h)
        out["first_choices"][v] = np.bincount(e, minlength=p.shape[1])
        out["top_expert"][v], out["routing_consistency"][v] = out["first_choices"][v].argmax(), out["first_choices"][v].max() / len(h)
        out["min_entropy"][v], out["max_entropy"][v], out["mean_entropy"][v], out["mean_confidence"][v] = h.min(), h.max(), h.mean(), c.mean()
        if len(h) > 1:
            out["std_entropy"][v], out["std_confidence"][v] = h.std(ddof=1), c.std(ddof=1)
    return out


def assert_same(a, b):
    assert all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in COLUMNS)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_columns_are_those_of_lists(kind, backend):
    types, p = some(kind)
    found, expected = type_moments(types, p, 45, backend=backend), lists(types, p, 45)
    for name in COLUMNS:
        assert np.allclose(getattr(found, name), expected[name], rtol=0, atol=1e-7, equal_nan=True), name
    assert found.n.sum() == len(types) and np.isnan(found.mean_entropy[found.n == 0]).all() and (found.n == 0).any()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@given(st.integers(0, 300), st.sampled_from([1, 2, 8, 20]), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_backend_row_order_and_slices_change_no_bit(kind, n, n_experts, n_types, seed):
    types, p = some(kind, n, n_experts, n_types, seed)
    whole = type_moments(types, p, n_types, backend="numba")
    order = np.random.default_rng(seed).permutation(n)
    assert_same(whole, type_moments(types[order], p[order], n_types, backend="numpy"))
    sliced = TypeSums(n_types, n_experts)
    for part in np.array_split(order, 3):
        sliced.add(types[part], p[part], backend="numba")
    assert_same(whole, sliced.moments())
    assert whole.n.tolist() == np.bincount(types, minlength=n_types).tolist()


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(module, "COMPILED_FROM", 500)
    types, p = some(n=5_000)
    assert_same(type_moments(types, p, 40, threads=1), type_moments(types, p, 40, threads=3))


def test_a_memory_map_is_read_as_an_array(tmp_path):
    types, p = some()
    np.save(tmp_path / "p.npy", p)
    assert_same(type_moments(types, p, 40), type_moments(types, np.load(tmp_path / "p.npy", mmap_mode="r"), 40, backend="numba"))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_known_columns_count_alike(backend, dtype):
    types, p = some()
    found = halves.of_probabilities(p)
    sums = TypeSums(40, 8)
    sums.add_columns(types, found.entropy_nats.astype(dtype), found.confidence.astype(dtype), found.first.astype(np.uint8), backend=backend)
    mine, whole = sums.moments(), type_moments(types, p, 40)
    assert np.array_equal(mine.first_choices, whole.first_choices)
    if dtype == np.float64:
        assert_same(mine, whole)
    assert np.allclose(mine.mean_entropy, whole.mean_entropy, rtol=0, atol=1e-3 if dtype == np.float16 else 1e-6, equal_nan=True)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_type_whose_rows_are_equal_has_no_spread(backend):
    p = np.tile(np.array([[0.7, 0.2, 0.1]], np.float16), (1_000, 1))
    found = type_moments(np.zeros(1_000, np.int64), p, 2, backend=backend)
    assert found.std_entropy[0] == 0 and found.std_confidence[0] == 0 and found.min_entropy[0] == found.max_entropy[0]
    assert found.routing_consistency[0] == 1 and found.top_expert.tolist() == [0, -1]
    assert np.isnan(type_moments(np.array([1]), p[:1], 2, backend=backend).std_entropy).all()


def test_sums_past_32_bits_are_exact():
    sums = TypeSums(1, 2)
    sums.add(np.zeros(4, np.int64), np.array([[0.5, 0.5], [1, 0], [0.75, 0.25], [1, 0]], np.float16), backend="numpy")
    for _ in range(29):  # 4 rows x 2^29, beyond 2^31
        sums.merge(sums)
    found = sums.moments()
    assert found.n.tolist() == [4 * 2**29] and found.first_choices.tolist() == [[4 * 2**29, 0]]
    assert found.mean_confidence[0] == 0.8125 and found.std_confidence[0] == pytest.approx(np.std([0.5, 1, 0.75, 1]), rel=1e-9)
    assert found.max_entropy[0] == pytest.approx(np.log(2), abs=1e-8) and found.min_entropy[0] == 0


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_refused_row_is_named_by_its_place_in_the_whole(backend, monkeypatch):
    monkeypatch.setattr(module, "COMPILED_FROM", 700)
    monkeypatch.setattr(halves, "BLOCK_VALUES", 800)
    types, p = some()
    for row in (0, 1_500, 2_999):
        for value, message in ((np.nan, f"row {row} is outside"), (0.0, f"row {row} sums to")):
            broken = p.copy()
            broken[row] = value
            with pytest.raises(ValueError, match=message):
                type_moments(types, broken, 40, threads=2, backend=backend)


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.array([0, 5]), np.full((2, 2), 0.5, np.float16), 5), "types: 5 at row 1, but there are 5 types"),
    ((np.array([0, -1]), np.full((2, 2), 0.5, np.float16), 5), "types: -1 at row 1"),
    ((np.array([0.0, 1.0]), np.full((2, 2), 0.5, np.float16), 5), "types: float64"),
    ((np.array([0]), np.full((2, 2), 0.5, np.float16), 5), r"probabilities: shape \(2, 2\)"),
    ((np.array([0]), np.full((1, 2), 0.5, np.float16), 0), "n_types, n_experts: 0, 2"),
])
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        type_moments(*arguments)


@pytest.mark.parametrize(("columns", "message"), [
    (([0.5, 9.0], [0.5, 0.5], [0, 1]), "entropy_nats: 9.0 at row 1"),
    (([0.5, np.nan], [0.5, 0.5], [0, 1]), "entropy_nats: nan at row 1"),
    (([0.5, 0.5], [0.5, 1.5], [0, 1]), "confidence: 1.5 at row 1"),
    (([0.5, 0.5], [0.5, 0.5], [0, 2]), "first: 2 at row 1"),
    (([0.5], [0.5, 0.5], [0, 1]), "entropy_nats: shape"),
])
def test_bad_columns_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        TypeSums(3, 2).add_columns(np.array([0, 1]), *columns)
