"""Repetition of neighbouring tokens against loops over tokens, over all orders of a document, and over all pairs of sets."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from analysis.metrics.repetition import even_chance, repeat_any_chance, repeat_any_kappa, repeat_order
from analysis.metrics.sequence import lag_overlap_chance, lag_overlap_kappa
from analysis.repetition_counts import any_repeats, first_repeats, pair_codes


def documents(rng, lengths=(5, 1, 4, 7), experts=5, k=3):
    ids = np.argsort(rng.random((sum(lengths), experts)), axis=1)[:, :k].T.astype(np.uint8)
    return np.ascontiguousarray(ids), np.r_[0, np.cumsum(lengths)]


def test_repeats_are_those_of_a_loop():
    ids, starts = documents(np.random.default_rng(0))
    group = np.array([0, 1, 1, 0])
    first, any_ = first_repeats(ids, starts, 5, group), any_repeats(ids, starts, 5, group)
    want_first, want_any, pairs = np.zeros(2), np.zeros(2), np.zeros(2)
    for d in range(4):
        for t in range(starts[d], starts[d + 1] - 1):
            pairs[group[d]] += 1
            want_first[group[d]] += ids[0, t] == ids[0, t + 1]
            want_any[group[d]] += bool(set(ids[:2, t]) & set(ids[:2, t + 1]))
    assert first.repeats.tolist() == want_first.tolist() and any_.repeats.tolist() == want_any.tolist()
    assert first.pairs.tolist() == any_.pairs.tolist() == any_.sizes.sum(axis=1).tolist() == pairs.tolist()


def test_shuffled_is_the_mean_over_all_orders():
    ids, starts = documents(np.random.default_rng(1), lengths=(5, 4), experts=4)
    group = np.array([0, 1])
    found = first_repeats(ids, starts, 4, group).shuffled, any_repeats(ids, starts, 4, group).shuffled
    for d in range(2):
        rows = range(starts[d], starts[d + 1])
        orders = list(permutations(rows))
        same = np.mean([sum(ids[0, a] == ids[0, b] for a, b in zip(order, order[1:])) for order in orders])
        meet = np.mean([sum(bool(set(ids[:2, a]) & set(ids[:2, b])) for a, b in zip(order, order[1:])) for order in orders])
        assert found[0][d] == pytest.approx(same) and found[1][d] == pytest.approx(meet)


def test_chance_is_that_of_independent_pairs_with_these_loads():
    rng = np.random.default_rng(2)
    sets = list(combinations(range(5), 2))
    p, q = rng.dirichlet(np.ones(10)), rng.dirichlet(np.ones(10))
    want = sum(p[i] * q[j] for i, a in enumerate(sets) for j, b in enumerate(sets) if set(a) & set(b))
    loads = [np.array([sum(one[i] for i, a in enumerate(sets) if e in a) for e in range(5)]) for one in (p, q)]
    assert float(repeat_any_chance(1000 * loads[0], 900 * loads[1], 1000 * p, 900 * q)) == pytest.approx(want)


def test_even_chance_is_mixtrals():
    assert even_chance(8, 1) == pytest.approx(0.125)
    assert even_chance(8, 2) == pytest.approx(1 - 6 / 8 * 5 / 7)  # Table 5: "46%"
    even = np.ones(28)
    assert float(repeat_any_chance(np.full(8, 7.0), np.full(8, 7.0), even, even)) == pytest.approx(even_chance(8, 2))


def test_kappa_of_first_choices_is_cohens():
    rng = np.random.default_rng(3)
    ids, starts = documents(rng, lengths=(300,), experts=4)
    one = first_repeats(ids, starts, 4, np.zeros(1, np.int64))
    p, q = one.sources[0] / 299, one.targets[0] / 299
    chance = float(p @ q)
    assert float(lag_overlap_chance(one.sources, one.targets, one.pairs)[0]) == pytest.approx(chance)
    assert float(lag_overlap_kappa(one.repeats, one.sources, one.targets, one.pairs)[0]) == pytest.approx(
        (one.repeats[0] / 299 - chance) / (1 - chance))


def test_independent_tokens_have_no_repetition_beyond_chance():
    ids, starts = documents(np.random.default_rng(4), lengths=(20_000,), experts=8)
    one = any_repeats(ids, starts, 8, np.zeros(1, np.int64))
    kappa = repeat_any_kappa(one.sizes[0], one.sources[0], one.targets[0], one.source_pairs[0], one.target_pairs[0])
    assert abs(float(kappa)) < 0.03
    assert abs(float(repeat_order(one.repeats, one.shuffled, one.pairs)[0])) < 0.03


def test_always_the_same_is_one_and_a_constant_router_is_undefined():
    ids = np.repeat(np.array([[0, 1], [2, 3]]), 50, axis=0).T.astype(np.uint8)
    starts, group = np.array([0, 50, 100]), np.zeros(2, np.int64)
    one, first = any_repeats(ids, starts, 4, group), first_repeats(ids, starts, 4, group)
    assert float(repeat_any_kappa(one.sizes, one.sources, one.targets, one.source_pairs, one.target_pairs)[0]) == pytest.approx(1)
    assert np.isnan(repeat_order(first.repeats, first.shuffled, first.pairs)[0])  # each document has one expert: order adds nothing
    constant = any_repeats(np.tile(np.array([[0], [1]], np.uint8), 9), np.array([0, 9]), 3, np.zeros(1, np.int64))
    assert np.isnan(repeat_any_kappa(constant.sizes, constant.sources, constant.targets, constant.source_pairs, constant.target_pairs)[0])


def test_one_choice_has_no_second():
    assert any_repeats(np.zeros((1, 5), np.uint8), np.array([0, 5]), 4, np.zeros(1, np.int64)) is None


def test_pair_codes_number_the_pairs():
    pairs = np.array(list(combinations(range(6), 2))).T
    assert pair_codes(pairs, 6).tolist() == pair_codes(pairs[::-1], 6).tolist() == list(range(15))
