from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.estimation import Groups, estimates
from analysis.metrics import information as mi
from analysis.metrics import joint_tables as jt
from analysis.metrics.conditional import PairedTokens, conditional_left_out, given_type, set_information

SEEDS = st.integers(0, 2**32 - 1)


def draw(seed, n_tokens=300, n_groups=6, n_types=5):
    rng = np.random.default_rng(seed)
    types = rng.integers(0, n_types, n_tokens)
    x, y = (types + rng.integers(0, 2, n_tokens)) % 4, (types + rng.integers(0, 2, n_tokens)) % 3
    x[rng.random(n_tokens) < 0.05] = -1
    return PairedTokens(x, y, rng.integers(0, n_groups, n_tokens), n_groups, n_groups), types


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_cells_that_occur_give_what_dense_tables_give(seed):
    tokens, types = draw(seed)
    dense = np.stack([jt.first_choice_counts(tokens.x_T[types == v], tokens.y_T[types == v], (4, 3), tokens.group_T[types == v], 6)
                      for v in range(5)], axis=1)
    sparse = conditional_left_out(tokens, types)
    assert sparse.plug_in == pytest.approx(float(mi.conditional_bits(dense.sum(axis=0))), abs=1e-10)
    for group in range(6):
        assert sparse.left_out[group] == pytest.approx(float(mi.conditional_bits(dense.sum(axis=0) - dense[group])), abs=1e-10)
    pooled = conditional_left_out(tokens)
    assert pooled.plug_in == pytest.approx(float(mi.mi_first_choice(dense.sum(axis=(0, 1)))), abs=1e-10)
    one = pooled.estimates("mi_first_choice")[()]
    other = estimates("mi_first_choice", Groups((dense.sum(axis=1),), 6))[()]
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_order_of_tokens_and_names_of_strata_do_not_matter(seed):
    tokens, types = draw(seed)
    order = np.random.default_rng(seed).permutation(len(types))
    shuffled = PairedTokens(tokens.x_T[order], tokens.y_T[order], tokens.group_T[order], 6, 6)
    a, b = conditional_left_out(tokens, types), conditional_left_out(shuffled, 10**9 - 7 * types[order])
    np.testing.assert_allclose(a.left_out, b.left_out, atol=1e-12)


def test_given_type_takes_types_with_enough_tokens_and_keeps_them_in_every_replicate():
    rng = np.random.default_rng(0)
    common, rare = np.zeros(4000, int), 1 + np.arange(400)
    types = np.concatenate([common, rare])
    x = rng.integers(0, 3, 4400)
    y = np.where(types == 0, x, rng.integers(0, 3, 4400))
    tokens = PairedTokens(x, y, np.arange(4400) % 40, 40, 40)
    found = given_type(tokens, types)
    assert found.share == pytest.approx(4000 / 4400) and found.estimate.n == 1 and found.estimate.n_of == "types"
    assert found.estimate.low < np.log2(3) < found.estimate.high + 0.01 and found.estimate.gate is None
    assert found.raw == pytest.approx(found.estimate.plug_in * 4000 / 4400, abs=1e-9)  # a type of one token tells nothing


def test_rare_types_only_are_undersampled_not_zero():
    tokens, _ = draw(1)
    found = given_type(tokens, np.arange(300))
    assert found.estimate.value is None and found.estimate.reason.startswith("undersampled")
    assert found.share == 0 and found.raw == pytest.approx(0, abs=1e-12)


def test_no_token_at_all():
    empty = np.zeros(0, np.int64)
    tokens = PairedTokens(empty, empty, empty, 3, 3)
    assert np.isnan(conditional_left_out(tokens).plug_in)
    found = given_type(tokens, empty)
    assert found.estimate.value is None and found.share is None and found.raw is None
    assert set_information(tokens).estimate.reason.startswith("no_data") and set_information(tokens).grassberger is None


def test_set_information_and_its_gate():
    rng = np.random.default_rng(2)
    ids = rng.random((4000, 4)).argsort(axis=1)[:, :2]
    symbols = jt.set_symbols(ids, 4)
    tokens = PairedTokens(symbols, symbols, np.arange(4000) % 50, 50, 50)
    full = set_information(tokens)
    assert full.sets == (6, 6) and full.estimate.gate is None
    assert full.estimate.value == pytest.approx(np.log2(6), abs=0.01)
    assert full.grassberger == pytest.approx(full.estimate.value, abs=0.01)
    first = np.arange(4000) < 179  # 5 x 6 x 6 = 180 are needed
    few = set_information(tokens.where(first))
    assert few.estimate.gate.startswith("undersampled") and few.estimate.value is not None
    assert set_information(tokens.where(np.arange(4000) < 180)).estimate.gate is None
    assert set_information(replace(tokens, n_documents=29)).estimate.gate.startswith("too_few_documents")


def test_one_document_has_a_number_and_no_interval():
    tokens, types = draw(3)
    one = PairedTokens(tokens.x_T, tokens.y_T, np.zeros(300, int), 1, 1)
    found = given_type(one, types)
    assert found.estimate.value is not None and found.estimate.low is None and found.estimate.gate.startswith("too_few_documents")


def test_other_tokens_and_groups_out_of_range_are_refused():
    with pytest.raises(ValueError, match="same tokens"):
        PairedTokens(np.zeros(2, int), np.zeros(3, int), np.zeros(2, int), 1, 1)
    with pytest.raises(ValueError, match="0 to 1"):
        PairedTokens(np.zeros(2, int), np.zeros(2, int), np.array([0, 2]), 2, 2)
    with pytest.raises(ValueError, match="strata"):
        conditional_left_out(PairedTokens(np.zeros(2, int), np.zeros(2, int), np.zeros(2, int), 1, 1), [0])
