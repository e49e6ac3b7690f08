from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics import joint_tables as jt
from analysis.trace import TraceError
from tests.references.cases import case

SEEDS = st.integers(0, 2**32 - 1)


def random_ids(rng, n_tokens, n_experts, k, dropped=0.2):
    ids = rng.random((n_tokens, n_experts)).argsort(axis=1)[:, :k]
    return np.where(rng.random(ids.shape) < dropped, -1, ids)


def test_reference_tables_b06():
    given_, expected = case("B06")
    x, y, n = given_["idx_l"], given_["idx_l1"], given_["n_experts"]
    assert jt.pair_tokens(x, y).n_kept == expected["n_tokens_used"]
    assert jt.first_choice_counts(x, y, n).tolist() == expected["first_choice_counts"]
    np.testing.assert_allclose(jt.slot_average_counts(x, y, n), expected["slot_average_joint_counts"], rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_tables_against_loops_over_tokens(seed):
    rng = np.random.default_rng(seed)
    x, y = random_ids(rng, 25, 4, 2), random_ids(rng, 25, 5, 3)
    first, slots, hot = np.zeros((4, 5)), np.zeros((4, 5)), np.zeros((5, 6))
    sets = {}
    for a, b in zip(x.tolist(), y.tolist()):
        a, b = [e for e in a if e >= 0], [e for e in b if e >= 0]
        if not a or not b:
            continue
        first[a[0], b[0]] += 1
        key = (tuple(sorted(a)), tuple(sorted(b)))
        sets[key] = sets.get(key, 0) + 1
        for i in [*a, 4]:
            for j in [*b, 5]:
                hot[i, j] += 1
                if i < 4 and j < 5:
                    slots[i, j] += 1 / (len(a) * len(b))
    assert (jt.first_choice_counts(x, y, (4, 5)) == first).all()
    np.testing.assert_allclose(jt.slot_average_counts(x, y, (4, 5)), slots, atol=1e-12)
    assert (jt.indicator_counts(x, y, (4, 5)) == hot).all()
    table = jt.set_counts(x, y, (4, 5))
    assert sorted(table[table > 0].tolist()) == sorted(sets.values())
    assert table.shape == (len({s for s, _ in sets}), len({s for _, s in sets}))


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_neither_the_order_of_tokens_nor_of_slots_matters_and_groups_sum_to_the_whole(seed):
    rng = np.random.default_rng(seed)
    x, y, group = random_ids(rng, 30, 5, 3), random_ids(rng, 30, 5, 2), rng.integers(0, 4, 30)
    order, slots = rng.permutation(30), rng.permutation(3)
    for count in (jt.first_choice_counts, jt.slot_average_counts, jt.indicator_counts, jt.set_counts):
        whole = count(x, y, 5)
        assert (count(x[order], y[order], 5) == whole).all()
        grouped = count(x, y, 5, group, 6)
        assert grouped.shape == (6, *whole.shape)
        np.testing.assert_allclose(grouped.sum(axis=0), whole, atol=1e-12)
        if count is not jt.first_choice_counts:  # whose slots descend by score
            assert (count(x[:, slots], y, 5) == whole).all()


def test_one_slot_makes_all_tables_the_first_choice_table():
    rng = np.random.default_rng(3)
    x, y = random_ids(rng, 200, 4, 1), random_ids(rng, 200, 6, 1)
    first = jt.first_choice_counts(x, y, (4, 6))
    assert (jt.first_choice_counts(x[:, 0], y[:, 0], (4, 6)) == first).all()
    assert (jt.slot_average_counts(x, y, (4, 6)) == first).all()
    assert (jt.set_counts(x, y, (4, 6)) == first[first.sum(1) > 0][:, first.sum(0) > 0]).all()
    assert (jt.indicator_counts(x, y, (4, 6))[:-1, :-1] == first).all()


def test_first_choice_is_the_largest_score_ties_to_the_lowest_id():
    ids = [[3, 1], [2, 0], [5, 4], [-1, -1], [-1, 6]]
    scores = [[0.4, 0.6], [0.5, 0.5], [0.7, 0.3], [0.5, 0.5], [9.0, 0.1]]
    chosen = jt.first_choice(ids, scores)
    assert chosen.expert_T.tolist() == [1, 0, 5, -1, 6]
    assert chosen.n_tied == 1 and chosen.tie_rate == 0.25
    assert jt.first_choice(ids).expert_T.tolist() == [3, 2, 5, -1, 6] and jt.first_choice(ids).tie_rate is None
    assert jt.first_choice([[-1, -1]], [[1.0, 1.0]]).tie_rate is None


def test_bfloat16_scores_tie_and_negative_scores_are_scores():
    assert jt.first_choice([[1, 0]], np.array([[-2.0, -3.0]])).expert_T.tolist() == [1]
    assert jt.first_choice([[7, 2, 4]], np.float16([[0.3333, 0.33331, 0.3333]])).expert_T.tolist() == [2]


@pytest.mark.parametrize(("dropped", "warns", "biased"), [(0, False, False), (1, False, False), (2, True, False), (5, True, False), (6, True, True)])
def test_the_drop_rate_warns_above_one_and_gates_above_five_percent(dropped, warns, biased):
    x, y = np.zeros((100, 2), int) + [0, 1], np.zeros(100, int)
    x[:dropped] = -1
    rate = jt.pair_tokens(x, y).drop_rate
    assert rate == pytest.approx(dropped / 100)
    assert bool(jt.drop_warning(dropped / 100)) is warns
    assert (jt.selection_biased(dropped / 100) or "").startswith("selection_biased") is biased


def test_no_token_has_no_drop_rate():
    assert jt.pair_tokens(np.zeros((0, 2), int), np.zeros(0, int)).drop_rate is None
    assert jt.drop_warning(None) is jt.selection_biased(None) is None
    empty = np.zeros((0, 2), np.int64)
    for count in (jt.first_choice_counts, jt.slot_average_counts, jt.indicator_counts):
        assert count(empty, empty, 3).sum() == 0
    assert jt.set_counts(empty, empty, 3).shape == (0, 0)


def test_set_symbols_are_the_lexicographic_order_of_sorted_sets():
    every = [list(pair) for pair in combinations(range(4), 2)]
    assert jt.set_symbols([pair[::-1] for pair in every] + [[-1, -1], [3, -1]], 4).tolist() == [1, 2, 3, 4, 5, 6, -1, 0]
    many = np.random.default_rng(0).random((500, 256)).argsort(axis=1)[:, :12]  # 257**12 numbers do not fit 64 bits
    assert len(set(jt.set_symbols(many, 256).tolist())) == 500


@pytest.mark.parametrize(("ids", "message"), [
    ([[0, 4]], "expert 4 at token 0, slot 1"), ([[0, -2]], "expert -2"), ([[1, 1]], "twice"), ([[0.5, 1.0]], "integers"), ([[[0]]], "3 axes"),
])
def test_impossible_ids_are_named(ids, message):
    for count in (jt.first_choice_counts, jt.slot_average_counts, jt.set_counts, jt.indicator_counts):
        with pytest.raises(TraceError, match=message):
            count(ids, [[0, 1]], 4)


def test_two_dropped_slots_are_no_duplicate_and_unsigned_ids_are_ids():
    assert jt.first_choice_counts(np.uint8([[1, 0]]), np.int8([[-1, -1]]), 2).sum() == 0


def test_layers_of_other_tokens_and_odd_groups_are_refused():
    with pytest.raises(TraceError, match="same tokens"):
        jt.first_choice_counts([0, 1], [0], 2)
    with pytest.raises(ValueError, match="numbers for"):
        jt.first_choice_counts([0, 1], [0, 1], 2, [0])
    for group, n_groups in (([0, -1], None), ([0.5, 1], None), ([0, 3], 2)):
        with pytest.raises(ValueError, match="group"):
            jt.first_choice_counts([0, 1], [0, 1], 2, group, n_groups)
    with pytest.raises(ValueError, match="scores"):
        jt.first_choice([[0, 1]], [[0.5]])
    with pytest.raises(ValueError, match="NaN"):
        jt.first_choice([[0, 1]], [[0.5, np.nan]])
    assert jt.first_choice([[0, -1]], [[0.5, np.nan]]).expert_T.tolist() == [0]


def test_soft_counts_are_outer_products_of_rows():
    rng = np.random.default_rng(0)
    p, q, group = rng.dirichlet(np.ones(3), 10), rng.dirichlet(np.ones(4), 10), np.arange(10) % 3
    soft = jt.soft_counts(p, q)
    np.testing.assert_allclose(soft.joint_XY, sum(np.outer(a, b) for a, b in zip(p, q)), atol=1e-12)
    np.testing.assert_allclose(jt.soft_counts(p, q, group).joint_XY.sum(axis=0), soft.joint_XY, atol=1e-12)
    assert jt.soft_counts(p, q, group, 5).joint_XY.shape == (5, 3, 4)


def test_float16_probabilities_are_renormalised_and_others_refused():
    p = np.random.default_rng(1).dirichlet(np.ones(8), 50)
    soft = jt.soft_counts(p.astype(np.float16), p)
    assert 0 < soft.largest_deviation < 2e-3
    assert soft.joint_XY.sum() == pytest.approx(50, abs=1e-9)
    for wrong in (p * 0.99, -p, np.full_like(p, np.nan)):
        with pytest.raises(ValueError, match="p: "):
            jt.soft_counts(wrong, p)
    with pytest.raises(ValueError, match="same tokens"):
        jt.soft_counts(p, p[:-1])


def test_too_many_sets_for_a_dense_table_name_the_other_way(monkeypatch):
    monkeypatch.setattr(jt, "DENSE_SETS", 5)
    with pytest.raises(ValueError, match="set_symbols"):
        jt.set_counts([[0, 1], [1, 2], [0, 2]], [[0, 1], [1, 2], [0, 2]], 3)
