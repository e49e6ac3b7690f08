from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from analysis.arithmetic import entropy_bits, mutual_information_bits
from analysis.metrics import information as mi
from analysis.metrics import joint_tables as jt
from tests.analysis.examples import indicators
from tests.references.cases import case

SEEDS = st.integers(0, 2**32 - 1)


def labels_of(table):
    cells = [(i, j) for i, j in np.ndindex(table.shape) for _ in range(int(table[i, j]))]
    return tuple(np.array(side) for side in zip(*cells))


def draw_table(seed, shape=(4, 5)):
    return np.random.default_rng(seed).poisson(1.5, shape) + np.eye(*shape, dtype=int)


def test_reference_channel_b02():
    given_, expected = case("B02")
    assert mi.mi_first_choice(given_["joint"]) == pytest.approx(expected["mi"], abs=1e-9)
    assert mi.nmi_sqrt(given_["joint"]) == pytest.approx(expected["nmi_sqrt"], abs=1e-9)
    assert mi.nmi_max(given_["joint"]) == pytest.approx(expected["nmi_max"], abs=1e-9)


def test_reference_variants_b06():
    given_, expected = case("B06")
    x, y, n = given_["idx_l"], given_["idx_l1"], given_["n_experts"]
    assert mi.mi_first_choice(jt.first_choice_counts(x, y, n)) == pytest.approx(expected["first_choice"], abs=1e-9)
    assert mi.mi_slot_average(jt.slot_average_counts(x, y, n)) == pytest.approx(expected["slot_average"], abs=1e-9)
    assert mi.mi_set(jt.set_counts(x, y, n)) == pytest.approx(expected["set_valued"], abs=1e-9)


def stratified(x, y, stratum):
    numbered = np.unique(stratum, return_inverse=True)[1]
    n = int(max(*x, *y)) + 1
    return jt.first_choice_counts(x, y, n, numbered)


def test_reference_documents_b08():
    given_, expected = case("B08")
    table = stratified(given_["x"], given_["y"], given_["doc"])
    parts = mi.document_decomposition(table)
    assert parts.total == pytest.approx(expected["mi_total_bits"], abs=1e-9)
    assert parts.within_document == pytest.approx(expected["mi_within_doc_bits"], abs=1e-9)
    assert parts.composition == pytest.approx(expected["mi_total_bits"], abs=1e-9)
    assert parts.h_document == pytest.approx(expected["h_doc_bits"], abs=1e-9)
    assert mi.mi_within_document(table) == pytest.approx(0, abs=1e-12)
    assert mi.document_decomposition(np.zeros((2, 3, 3))).reason == mi.NO_PAIR


def test_reference_types_b10():
    given_, expected = case("B10")
    table = stratified(given_["x"], given_["y"], given_["token_type"])
    assert mi.mi_first_choice(table.sum(axis=0)) == pytest.approx(expected["mi"], abs=1e-9)
    assert mi.mi_given_type_raw(table) == pytest.approx(expected["mi_given_type"], abs=1e-9)
    assert np.isnan(mi.mi_given_type(table))  # two tokens a type: none is estimable


def test_sets_that_predict_each_other_perfectly():
    # metrics specification 2.1 A2: E = 4, k = 2, every set once: 0.21 bits by slots where the sets tell log2 6
    ids = np.array(list(combinations(range(4), 2)))
    slots = jt.slot_average_counts(ids, ids, 4)
    closed = 4 * (1 / 8) * np.log2((1 / 8) / (1 / 16)) + 12 * (1 / 24) * np.log2((1 / 24) / (1 / 16))
    assert mi.mi_slot_average(slots) == pytest.approx(closed, abs=1e-12) == pytest.approx(0.2075, abs=1e-4)
    assert mi.mi_set(jt.set_counts(ids, ids, 4)) == pytest.approx(np.log2(6), abs=1e-12)
    assert mi.mi_slot_average_ratio(slots, slots) == pytest.approx(1.0)
    swapped = jt.slot_average_counts(ids, ids[:, ::-1] ^ 1, 4)
    assert mi.mi_slot_average_ratio(swapped, jt.slot_average_counts(ids[:, ::-1] ^ 1, ids[:, ::-1] ^ 1, 4)) == pytest.approx(1.0)


@pytest.mark.parametrize("n_experts", [2, 3, 5, 7])
def test_all_experts_chosen_leaves_nothing_to_tell(n_experts):
    ids = np.array([np.random.default_rng(t).permutation(n_experts) for t in range(11)])
    slots = jt.slot_average_counts(ids, ids, n_experts)
    assert mi.mi_slot_average(slots) == pytest.approx(0, abs=1e-12)
    assert np.isnan(mi.mi_slot_average_ratio(slots, slots))
    assert mi.mi_set(jt.set_counts(ids, ids, n_experts)) == 0
    assert mi.mi_per_expert(jt.indicator_counts(ids, ids, n_experts)) == 0


def test_one_expert_tells_nothing():
    table = jt.first_choice_counts(np.zeros(9, int), np.arange(9) % 3, (1, 3))
    assert mi.mi_first_choice(table) == 0 == mi.uncertainty_removed(table) == mi.nmi_max(table) == mi.nmi_mean(table)
    assert np.isnan(mi.uncertainty_removed(table.T)) and np.isnan(mi.nmi_sqrt(table)) and np.isnan(mi.nmi_min(table))
    assert np.isnan(mi.nmi_max(table.sum(axis=1, keepdims=True)))


def test_soft_routing_understates_coupling():
    # two experts, the second layer certain of the same expert that the first gives 3/4 to: symmetric channels in a row
    p, q = np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    closed = 1 - entropy_bits([0.75, 0.25])
    assert mi.mi_soft(jt.soft_counts(p, q).joint_XY) == pytest.approx(closed, abs=1e-12)
    assert mi.mi_soft(jt.soft_counts(p, q).joint_XY / 2) == pytest.approx(closed, abs=1e-12)
    assert mi.mi_soft(jt.soft_counts(q, q).joint_XY) == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_information_against_sklearn(seed):
    x, y = labels_of(draw_table(seed))
    table = draw_table(seed)
    assert mi.mi_first_choice(table) == pytest.approx(mutual_info_score(x, y) / np.log(2), abs=1e-10)
    for one, average in ((mi.nmi_sqrt, "geometric"), (mi.nmi_max, "max"), (mi.nmi_mean, "arithmetic"), (mi.nmi_min, "min")):
        assert one(table) == pytest.approx(normalized_mutual_info_score(x, y, average_method=average), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_symmetry_relabelling_repetition_and_order_of_denominators(seed):
    rng, table = np.random.default_rng(seed), draw_table(seed)
    relabelled = table[rng.permutation(4)][:, rng.permutation(5)]
    for one in (mi.mi_first_choice, mi.nmi_sqrt, mi.nmi_max, mi.nmi_mean, mi.nmi_min, mi.uncertainty_removed):
        assert one(relabelled) == pytest.approx(float(one(table)), abs=1e-12)
        assert one(table * 9) == pytest.approx(float(one(table)), abs=1e-12)
        if one is not mi.uncertainty_removed:
            assert one(table.T) == pytest.approx(float(one(table)), abs=1e-12)
    assert mi.nmi_max(table) <= mi.nmi_mean(table) + 1e-12 <= mi.nmi_sqrt(table) + 2e-12 <= mi.nmi_min(table) + 3e-12
    assert mi.mi_first_choice(table) <= min(entropy_bits(table.sum(0)), entropy_bits(table.sum(1))) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(lambda n: np.count_nonzero(n) > 1))
def test_a_layer_tells_itself_its_entropy(n):
    assert mi.mi_first_choice(np.diag(n)) == pytest.approx(float(entropy_bits(n)), abs=1e-12)
    assert mi.uncertainty_removed(np.diag(n)) == pytest.approx(1.0)


def draw_sets(rng, n_tokens, n_experts, k):
    return rng.random((n_tokens, n_experts)).argsort(axis=1)[:, :k]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_an_expert_drawn_from_a_set_tells_at_most_what_the_set_tells(seed):
    rng = np.random.default_rng(seed)
    x = draw_sets(rng, 60, 5, 2)
    y = np.where(rng.random((60, 1)) < 0.6, (x + 1) % 5, draw_sets(rng, 60, 5, 2))
    slot, whole = mi.mi_slot_average(jt.slot_average_counts(x, y, 5)), mi.mi_set(jt.set_counts(x, y, 5))
    assert slot <= whole + 1e-12  # data processing, Cover & Thomas 2.8.1
    assert mi.mi_first_choice(jt.first_choice_counts(np.sort(x), np.sort(y), 5)) <= whole + 1e-12
    assert (mi.per_expert_matrix(jt.indicator_counts(x, y, 5)) <= whole + 1e-12).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_one_slot_makes_the_forms_equal(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-1, 4, 80), rng.integers(-1, 6, 80)
    first = mi.mi_first_choice(jt.first_choice_counts(x, y, (4, 6)))
    assert mi.mi_slot_average(jt.slot_average_counts(x, y, (4, 6))) == pytest.approx(float(first), abs=1e-12)
    assert mi.mi_set(jt.set_counts(x, y, (4, 6))) == pytest.approx(float(first), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_per_expert_information_is_the_mean_of_two_by_two_tables(seed):
    table = indicators(np.random.default_rng(seed), ())
    both, x, y, n = table[:-1, :-1], table[:-1, -1], table[-1, :-1], table[-1, -1]
    twins = [mutual_information_bits([[both[i, j], x[i] - both[i, j]], [y[j] - both[i, j], n - x[i] - y[j] + both[i, j]]])
             for i, j in product(range(5), range(5))]
    assert mi.mi_per_expert(table) == pytest.approx(np.mean(twins), abs=1e-12)
    np.testing.assert_allclose(mi.per_expert_matrix(table).ravel(), twins, atol=1e-12)


def entropy_of(*columns):
    return float(entropy_bits(np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)[1]))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_chain_rule(seed):
    # I(X;Y|V) = H(X,V) + H(Y,V) - H(X,Y,V) - H(V), and I(X;Y,V) = I(X;V) + I(X;Y|V), Cover & Thomas 2.60-2.62
    rng = np.random.default_rng(seed)
    v = rng.integers(0, 4, 70)
    x, y = (v + rng.integers(0, 2, 70)) % 5, (v + rng.integers(0, 3, 70)) % 5
    table = jt.first_choice_counts(x, y, 5, v, 4)
    within = float(mi.mi_given_type_raw(table))
    assert within == pytest.approx(entropy_of(x, v) + entropy_of(y, v) - entropy_of(x, y, v) - entropy_of(v), abs=1e-10)
    joint_y_v = jt.first_choice_counts(x, 4 * y + v, (5, 20))
    assert mi.mi_first_choice(joint_y_v) == pytest.approx(float(mi.mi_first_choice(jt.first_choice_counts(x, v, (5, 4)))) + within, abs=1e-10)
    parts = mi.document_decomposition(table)
    assert parts.total == pytest.approx(parts.within_document + parts.composition, abs=1e-12)
    assert parts.composition <= parts.h_document + 1e-10


def test_rare_types_are_left_out_and_strata_without_tokens_do_not_count():
    table = np.zeros((4, 2, 2), int)
    table[0] = [[8, 2], [2, 8]]  # 20 tokens = 5 x 2 x 2
    table[1] = [[8, 2], [2, 7]]
    table[2] = np.diag([1, 1])
    assert mi.estimable(table).tolist() == [True, False, False, False]
    assert mi.mi_given_type(table) == pytest.approx(float(mutual_information_bits(table[0])), abs=1e-12)
    weights = table.sum(axis=(1, 2)) / table.sum()
    assert mi.mi_given_type_raw(table) == pytest.approx(sum(w * mutual_information_bits(t) for w, t in zip(weights[:3], table[:3])), abs=1e-12)


def test_counts_beyond_32_bits():
    table = np.array([[2**40, 2**33], [2**33, 2**40]])
    assert mi.mi_first_choice(table) == pytest.approx(float(mi.mi_first_choice(table / table.sum())), abs=1e-10)
    assert mi.nmi_sqrt(table) == pytest.approx(float(mi.nmi_sqrt(table / table.sum())), abs=1e-10)
