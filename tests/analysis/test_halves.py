import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import halves
from analysis.halves import entropy_of_probabilities, of_logits, of_probabilities
from tests.references.cases import case

COLUMNS = ("entropy_nats", "simpson", "confidence", "first")


def bfloat16(reals):
    """Patterns of the nearest bfloat16, half to even."""
    bits = np.asarray(reals, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)


def widened(rows):
    return halves.values(False)[rows] if rows.dtype == np.uint16 else rows.astype(np.float64)


def softmax(x):
    weight = np.exp(x - x.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def by_definition(p):
    p = p / p.sum(axis=-1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1), (p**2).sum(axis=-1), p.max(axis=-1), p.argmax(axis=-1)


def rows_of(kind, n_experts, n=200, spread=2.0, seed=0):
    x = np.clip(np.random.default_rng([seed, n_experts]).normal(size=(n, n_experts)) * spread, -60_000, 60_000)
    return {"float16": x.astype(np.float16), "bfloat16": bfloat16(x), "float32": x.astype(np.float32), "float64": x}[kind]


KINDS = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("n_experts", [1, 2, 7, 8, 64, 128, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_float64_on_the_same_values(kind, n_experts):
    logits = rows_of(kind, n_experts)
    p = softmax(widened(logits))
    p = {"float16": p.astype(np.float16), "bfloat16": bfloat16(p), "float32": p.astype(np.float32), "float64": p}[kind]
    for found, expected in ((of_logits(logits), by_definition(softmax(widened(logits)))), (of_probabilities(p), by_definition(widened(p)))):
        for name, values, tolerance in zip(COLUMNS, expected, (6e-6, 1e-6, 1e-6, 0)):
            assert np.abs(getattr(found, name) - values).max() <= tolerance, name


@pytest.mark.parametrize("spread", [0.0, 0.01, 5.0, 20.0, 500.0, 30_000.0])
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_logits_of_any_size(kind, spread):
    logits = rows_of(kind, 32, spread=spread)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = of_logits(logits)
    assert np.abs(found.entropy_nats - by_definition(softmax(widened(logits)))[0]).max() < 6e-6
    assert found.entropy_nats.min() >= 0 and found.simpson.max() <= 1 + 1e-9


def test_many_experts_just_above_nothing_are_not_lost():
    x = np.full((3, 256), -20.0, np.float16)
    x[:, 5] = 0
    assert of_logits(x).entropy_nats == pytest.approx(by_definition(softmax(x.astype(np.float64)))[0], abs=6e-6)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@given(st.integers(1, 40), st.integers(1, 30), st.floats(0, 40), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_plain_and_compiled_rows_are_the_same_bits(kind, n, n_experts, spread, seed):
    logits = rows_of(kind, n_experts, n, spread, seed)
    logits[:: 3, 0] = np.float16(-0.0).view(np.uint16) if kind == "bfloat16" else -0.0
    p = softmax(widened(logits))
    p = p.astype(np.float16) if kind == "float16" else bfloat16(p)
    for function, rows in ((of_logits, logits), (of_probabilities, p)):
        plain, fast = function(rows, backend="numpy"), function(rows, backend="numba")
        assert all(np.array_equal(getattr(plain, name), getattr(fast, name)) for name in COLUMNS)
    assert np.array_equal(entropy_of_probabilities(p, backend="numba"), of_probabilities(p, backend="numpy").entropy_nats)


def test_blocks_change_nothing(monkeypatch):
    p, logits = softmax(rows_of("float64", 8, 3_000)).astype(np.float16), rows_of("float16", 8, 3_000)
    whole, whole_logits = of_probabilities(p, backend="numpy"), of_logits(logits, backend="numpy")
    assert np.array_equal(entropy_of_probabilities(p, backend="numba"), whole.entropy_nats)
    monkeypatch.setattr(halves, "BLOCK_VALUES", 100)
    assert np.array_equal(of_probabilities(p, backend="numpy").simpson, whole.simpson)
    assert np.array_equal(of_logits(logits, backend="numpy").entropy_nats, whole_logits.entropy_nats)
    assert np.array_equal(entropy_of_probabilities(p, backend="numpy"), whole.entropy_nats)


def test_reference_cases_in_float64():
    given_, expected = case("E03")
    found = of_logits(np.array(given_["logits"]))
    assert found.entropy_nats == pytest.approx(expected["full_nats"], abs=1e-9)
    top2 = -np.sort(-softmax(np.array(given_["logits"])), axis=1)[:, :2]
    assert of_probabilities(top2, any_sum=True).entropy_nats == pytest.approx(expected["top2_renorm_nats"], abs=1e-9)
    assert int((found.entropy_nats < 0.5).sum()) == expected["n_below_half_full_nats"]
    given_, expected = case("A09")
    found = of_probabilities(np.array(given_["probabilities"]))
    assert found.entropy_nats / np.log(2) == pytest.approx(expected["entropy"], abs=1e-9)
    assert found.simpson == pytest.approx(expected["simpson"], abs=1e-9) and found.entropy_nats.shape == ()


def test_reference_cases_in_16_bits_are_near():
    logits = np.array(case("E03")[0]["logits"])
    expected = by_definition(softmax(logits.astype(np.float16).astype(np.float64)))[0]
    assert of_logits(logits.astype(np.float16)).entropy_nats == pytest.approx(expected, abs=6e-6)


def test_float16_rows_that_do_not_sum_to_1_are_renormalised_and_the_largest_deviation_is_kept():
    p = np.array([[0.25, 0.25, 0.25, 0.25], [0.2502, 0.25, 0.25, 0.25]], np.float16)
    found = of_probabilities(p)
    assert found.largest_deviation == pytest.approx(abs(p[1].astype(np.float64).sum() - 1)) and found.largest_deviation > 0
    assert found.entropy_nats == pytest.approx(by_definition(p.astype(np.float64))[0], abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_far_from_1_are_refused_unless_declared(kind):
    p = np.full((4, 4), 0.25)
    p[2] = [0.4, 0.3, 0.2, 0.0]
    rows = {"float16": p.astype(np.float16), "bfloat16": bfloat16(p), "float32": p.astype(np.float32), "float64": p}[kind]
    for backend in ("numpy", "numba"):
        for function in (of_probabilities, entropy_of_probabilities):
            with pytest.raises(ValueError, match=r"row 2 sums to 0\.\d+, further than 0.00\d+ from 1; .*any_sum"):
                function(rows, backend=backend)
        found = of_probabilities(rows, any_sum=True, backend=backend)
        assert found.entropy_nats == pytest.approx(by_definition(widened(rows))[0], abs=1e-6)
        assert found.largest_deviation == pytest.approx(0.1, abs=2e-3)
        assert np.array_equal(entropy_of_probabilities(rows, any_sum=True, backend=backend), found.entropy_nats)


def test_sigmoid_scores_of_many_experts():
    scores = np.random.default_rng(0).uniform(0, 1, (50, 256)).astype(np.float16)
    for backend in ("numpy", "numba"):
        found = of_probabilities(scores, any_sum=True, backend=backend)
        for name, values in zip(COLUMNS, by_definition(scores.astype(np.float64))):
            assert np.abs(getattr(found, name) - values).max() < 1e-7, name


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.25, 1.5])
def test_values_that_are_no_probabilities_are_refused_with_their_row(value, backend):
    for dtype in (np.float16, "bfloat16", np.float64):
        p = np.full((5, 4), 0.25)
        p[3, 1] = value
        rows = bfloat16(p) if dtype == "bfloat16" else p.astype(dtype)
        for function in (of_probabilities, entropy_of_probabilities):
            with pytest.raises(ValueError, match="row 3"):
                function(rows, backend=backend)


@pytest.mark.parametrize("any_sum", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_row_of_zeros_has_no_distribution(any_sum, dtype):
    p = np.full((3, 2), 0.5, dtype)
    p[1] = 0
    with pytest.raises(ValueError, match="row 1 sums to 0"):
        of_probabilities(p, any_sum=any_sum)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", KINDS)
def test_minus_infinity_is_a_mask_only_where_declared(kind, backend):
    x = np.random.default_rng(0).normal(size=(6, 5))
    x[4, 2] = x[5, 0] = -np.inf
    rows = {"float16": x.astype(np.float16), "bfloat16": bfloat16(x), "float32": x.astype(np.float32), "float64": x}[kind]
    with pytest.raises(ValueError, match="logit of row 4 is -inf, but no masking is declared"):
        of_logits(rows, backend=backend)
    found = of_logits(rows, masked=True, backend=backend)
    wide = widened(rows)
    assert found.entropy_nats[4] == pytest.approx(by_definition(softmax(np.delete(wide[4:5], 2, axis=1)))[0][0], abs=6e-6)
    assert found.first.tolist() == wide.argmax(axis=1).tolist()
    gone = np.vstack([x, np.full((1, 5), -np.inf)])
    gone = {"float16": gone.astype(np.float16), "bfloat16": bfloat16(gone), "float32": gone.astype(np.float32), "float64": gone}[kind]
    with pytest.raises(ValueError, match="logit of row 6 is -inf, as all of the row are"):
        of_logits(gone, masked=True, backend=backend)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_without_a_softmax_are_refused(kind, value, backend):
    x = np.zeros((4, 3))
    x[2, 1] = value
    rows = {"float16": x.astype(np.float16), "bfloat16": bfloat16(x), "float32": x.astype(np.float32), "float64": x}[kind]
    for masked in (False, True):
        with pytest.raises(ValueError, match="logit of row 2 is NaN or"):
            of_logits(rows, masked=masked, backend=backend)


def test_equal_values_give_the_lowest_expert():
    assert of_probabilities(np.array([[0.25, 0.5, 0.25], [0.0, 0.5, 0.5]], np.float16)).first.tolist() == [1, 1]
    assert of_logits(np.array([[-0.0, 0.0, -1.0], [-3.0, -2.0, -2.0]], np.float16)).first.tolist() == [0, 1]


def test_more_experts_than_the_sums_hold_and_no_rows_at_all():
    p = np.full((2, 2_048), 2.0**-11, np.float16)
    assert of_probabilities(p).entropy_nats == pytest.approx([np.log(2_048)] * 2, abs=1e-9)
    assert of_logits(np.zeros((2, 2_048), np.float16)).entropy_nats == pytest.approx([np.log(2_048)] * 2, abs=1e-9)
    for dtype in (np.float16, np.float64):
        none = of_probabilities(np.zeros((0, 4), dtype))
        assert none.entropy_nats.shape == (0,) and none.largest_deviation == 0
        assert of_logits(np.zeros((0, 4), dtype)).entropy_nats.shape == (0,)
        assert of_logits(np.zeros((2, 3, 4), dtype)).entropy_nats.shape == (2, 3)


@pytest.mark.parametrize("function", [of_probabilities, of_logits, entropy_of_probabilities])
@pytest.mark.parametrize("rows", [np.zeros((3, 0), np.float16), np.zeros((3, 2), np.int32), np.float64(1.0)])
def test_other_arrays_are_refused(function, rows):
    with pytest.raises(ValueError, match=r"logits|probabilities"):
        function(rows)
