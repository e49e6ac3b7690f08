"""Co-activation against reference cases, loops over tokens, and closed forms."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.conditional_bernoulli import draw_pair_counts, fit, from_weights, pair_inclusion
from analysis.estimation import estimates, group_tables
from analysis.metrics.coactivation import (
    choices,
    coact_lift,
    coactivation,
    coactivation_conditional,
    coactivation_consecutive,
    coactivation_jaccard,
    consecutive_rank_counts,
    naive_lift,
    tokens,
    undefined_reason,
)
from tests.references.cases import case

Int = NDArray[np.int64]


def slow_table(ids: NDArray[np.integer], n_experts: int) -> Int:
    """Tokens by pair of experts, token by token; -1 is a dropped slot."""
    out = np.zeros((n_experts, n_experts), np.int64)
    for row in np.asarray(ids).tolist():
        chosen = {e for e in row if e >= 0}
        for i in chosen:
            for j in chosen:
                out[i, j] += 1
    return out


def random_ids(seed: int, n_tokens: int, n_experts: int, k: int, spread: float = 1.0) -> Int:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, spread, n_experts) + rng.gumbel(size=(n_tokens, n_experts))
    return np.argsort(-scores, axis=1)[:, :k]


def reference(name: str) -> tuple[Int, dict[str, object]]:
    inputs, expected = case(name)
    return slow_table(np.array(inputs["idx"]), inputs["n_experts"]), expected


def as_nan(rows: object) -> NDArray[np.float64]:
    return np.array(rows, object).astype(np.float64)


def test_three_matrices_of_the_reference() -> None:
    counts, expected = reference("G04")
    np.testing.assert_allclose(coactivation(counts), as_nan(expected["p_joint"]), atol=1e-12)
    np.testing.assert_allclose(coactivation_conditional(counts), as_nan(expected["conditional_row_given_i"]), atol=1e-12)
    np.testing.assert_allclose(coactivation_jaccard(counts), as_nan(expected["jaccard"]), atol=1e-12)


@given(st.integers(0, 2**32), st.integers(2, 7), st.data())
@settings(max_examples=40, deadline=None)
def test_identities(seed: int, n_experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(2, n_experts))
    ids = random_ids(seed, data.draw(st.integers(1, 60)), n_experts, k)
    counts = slow_table(ids, n_experts)
    joint = coactivation(counts)
    assert choices(counts) == k and tokens(counts) == len(ids)
    np.testing.assert_allclose(joint.sum(axis=1), k * np.diag(joint), atol=1e-12)
    np.testing.assert_allclose(joint, joint.T)
    np.testing.assert_allclose(np.nan_to_num(coactivation_conditional(counts)) * np.diag(joint)[:, None], joint, atol=1e-12)
    lift = coact_lift(counts)
    loads = np.diag(joint)
    chance = pair_inclusion(fit(loads, k), k)
    known = np.isfinite(lift)
    np.testing.assert_allclose((2.0 ** lift * chance)[known], joint[known], rtol=1e-9)
    free = (loads > 0) & (loads < 1)
    np.testing.assert_array_equal(known, free[:, None] & free & (joint > 0) & ~np.eye(n_experts, dtype=bool))


@given(st.integers(0, 2**32), st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_experts_are_names_and_tokens_and_slots_have_no_order(seed: int, names: list[int]) -> None:
    ids = random_ids(seed, 50, 6, 3)
    rng = np.random.default_rng(seed)
    renamed = rng.permuted(np.array(names)[ids], axis=1)[rng.permutation(50)]
    place = np.ix_(np.array(names), np.array(names))
    for function in (coactivation, coactivation_conditional, coactivation_jaccard, coact_lift, naive_lift):
        np.testing.assert_allclose(function(slow_table(renamed, 6))[place], function(slow_table(ids, 6)), rtol=1e-8, atol=1e-9)


def test_one_choice_a_token_is_undefined_not_zero() -> None:
    counts = slow_table(np.array([[0], [1], [1]]), 3)
    assert undefined_reason(counts) == "k=1"
    for function in (coactivation, coactivation_conditional, coactivation_jaccard, coact_lift, naive_lift):
        assert np.isnan(function(counts)).all()
    per_document = np.stack([counts] * 3)
    estimate = estimates("coactivation", group_tables([per_document], np.arange(3)))[0, 1]
    assert estimate.value is None and estimate.reason == "k=1"


def test_no_token_is_undefined_with_its_reason() -> None:
    empty = np.zeros((4, 4))
    assert str(undefined_reason(empty)).startswith("no_data")
    for function in (coactivation, coact_lift, naive_lift):
        assert np.isnan(function(empty)).all()


def test_naive_lift_of_no_structure_is_not_one() -> None:
    even = slow_table(np.array(list(combinations(range(8), 2))), 8)
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(naive_lift(even)[off], 8 * 1 / (2 * 7), rtol=1e-12)
    np.testing.assert_allclose(coact_lift(even)[off], 0.0, atol=1e-9)


def test_lift_of_uneven_independent_choices_is_near_zero_where_the_naive_one_is_not() -> None:
    ids = random_ids(3, 60_000, 8, 4, spread=0.0)
    rng = np.random.default_rng(0)
    drawn = draw_pair_counts(from_weights([8, 4, 2, 1, 1, 0.5, 0.5, 0.2], 4), 4, 200_000, rng)
    off = ~np.eye(8, dtype=bool)
    assert np.abs(coact_lift(drawn)[off]).max() < 0.05
    assert np.abs(np.log2(naive_lift(drawn)[off])).max() > 0.2
    assert np.abs(coact_lift(slow_table(ids[:5000], 8))[off]).max() < 0.2


def test_pairs_that_loads_fix_have_no_lift() -> None:
    always = slow_table(np.array([[0, 1], [0, 2], [0, 1], [0, 3]]), 5)
    assert np.isnan(coact_lift(always)).all()  # expert 0 always, 4 never; 1, 2 and 3 never meet
    everyone = slow_table(np.array([[0, 1, 2]] * 4), 3)
    assert np.isnan(coact_lift(everyone)).all() and (coactivation(everyone) == 1).all()
    assert np.isnan(coactivation(slow_table(np.array([[0]] * 4), 1))).all()  # one expert


def test_tokens_of_different_numbers_of_experts_are_refused() -> None:
    dropped = slow_table(np.array([[0, 1], [0, -1], [1, 2]]), 3)
    with pytest.raises(ValueError, match="before slots are dropped"):
        coact_lift(dropped)
    with pytest.raises(ValueError, match="square"):
        coactivation(np.zeros((3, 4)))


def test_counts_past_32_bits_stay_exact() -> None:
    counts = slow_table(random_ids(1, 50, 6, 2), 6)
    np.testing.assert_allclose(coact_lift(counts * 2**40), coact_lift(counts), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(coactivation(counts * 2**40), coactivation(counts), rtol=1e-12)


def test_lift_has_an_estimate_per_pair() -> None:
    ids = random_ids(4, 4000, 5, 2)
    per_document = np.stack([slow_table(part, 5) for part in np.array_split(ids, 40)])
    found = estimates("coact_lift", group_tables([per_document], np.arange(40) % 20))
    assert found[0, 0].value is None
    np.testing.assert_allclose(found[0, 1].plug_in, coact_lift(slow_table(ids, 5))[0, 1], rtol=1e-9)
    assert found[0, 1].low < found[0, 1].value < found[0, 1].high


def test_consecutive_ranks_miss_most_pairs() -> None:
    ids = random_ids(5, 300, 10, 8)
    both, consecutive = slow_table(ids, 10), consecutive_rank_counts(ids, 10)
    off = ~np.eye(10, dtype=bool)
    assert consecutive[off].sum() * 4 == both[off].sum()  # 7 of 28 pairs at k = 8
    np.testing.assert_array_equal(np.diag(consecutive), np.diag(both))
    slow = np.zeros((10, 10))
    for row in ids.tolist():
        for one, other in zip(row, row[1:]):
            slow[one, other] += 1
            slow[other, one] += 1
    loads = np.bincount(ids.ravel(), minlength=10)
    np.testing.assert_allclose(coactivation_consecutive(consecutive), slow / loads[:, None])
    pairs_of_two = random_ids(6, 100, 5, 2)
    np.testing.assert_array_equal(consecutive_rank_counts(pairs_of_two, 5), slow_table(pairs_of_two, 5))


def test_consecutive_ranks_skip_dropped_slots_and_refuse_foreign_ids() -> None:
    np.testing.assert_array_equal(consecutive_rank_counts(np.array([[0, -1], [1, 0]]), 2), [[2, 1], [1, 1]])
    with pytest.raises(ValueError, match="twice in one top-k"):
        consecutive_rank_counts(np.array([[0, 1, 0]]), 2)
    with pytest.raises(ValueError, match="ids go from 0 to 3"):
        consecutive_rank_counts(np.array([[0, 4]]), 4)
