"""Token order against reference cases, Cohen's kappa of the library, loops over documents and enumerated shuffles."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.arithmetic import entropy_bits
from analysis.estimation import estimates, group_tables
from analysis.metrics.sequence import (
    against_null,
    autocorrelation_of_ids,
    lag_any,
    lag_chance,
    lag_jaccard,
    lag_kappa,
    lag_mi,
    lag_overlap,
    lag_overlap_chance,
    lag_overlap_kappa,
    persistence,
    same_expert,
    same_over_uniform,
    shuffled_transitions,
    sticky_seed,
    transition_diversity,
    transition_matrix,
    transition_rate,
)
from tests.references.cases import case

Documents = list[list[int]]
DOCUMENTS = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=6)
OF_TABLES = (same_expert, lag_chance, lag_kappa, persistence, transition_rate, transition_diversity, lag_mi)


def slow_transitions(documents: Documents, n_experts: int, lag: int = 1) -> NDArray[np.int64]:
    """Pairs of tokens `lag` apart, document by document."""
    out = np.zeros((n_experts, n_experts), np.int64)
    for experts in documents:
        for one, other in zip(experts, experts[lag:]):
            out[one, other] += 1
    return out


def slow_overlaps(documents: list[list[list[int]]], n_experts: int) -> tuple[int, Any, Any, int, Any]:
    """Matches, loads of earlier and later tokens, pairs, and pairs by number of common experts."""
    sources, targets = np.zeros((2, n_experts), np.int64)
    common = []
    for sets in documents:
        for one, other in zip(sets, sets[1:]):
            sources[one] += 1
            targets[other] += 1
            common.append(len(set(one) & set(other)))
    k = max((len(one) for sets in documents for one in sets), default=1)
    return sum(common), sources, targets, len(common), np.bincount(common, minlength=k + 1)


def test_overlap_of_the_reference() -> None:
    inputs, expected = case("F02")
    matches, sources, targets, pairs, sizes = slow_overlaps([inputs["document"]], inputs["n_experts"])
    assert lag_overlap(matches, sources) == pytest.approx(expected["mean_overlap"], abs=1e-9)
    assert lag_overlap_chance(sources, targets, pairs) == pytest.approx(expected["chance"], abs=1e-9)
    assert lag_overlap_kappa(matches, sources, targets, pairs) == pytest.approx(expected["kappa"], abs=1e-9)
    assert lag_jaccard(sizes) == pytest.approx(np.mean(expected["jaccard"]), abs=1e-9)
    for number, (one, other) in enumerate(zip(inputs["document"], inputs["document"][1:])):
        single = slow_overlaps([[one, other]], inputs["n_experts"])
        assert lag_overlap(single[0], single[1]) == pytest.approx(expected["overlap"][number])
        assert lag_jaccard(single[4]) == pytest.approx(expected["jaccard"][number])


def test_correlation_of_ids_changes_with_their_names_and_the_others_do_not() -> None:
    inputs, expected = case("F04")
    renamed = [inputs["relabel"][str(e)] for e in inputs["seq"]]
    one, other = slow_transitions([inputs["seq"]], 10), slow_transitions([renamed], 10)
    assert autocorrelation_of_ids(one) == pytest.approx(expected["pearson_ids"], abs=1e-9)
    assert autocorrelation_of_ids(other) == pytest.approx(expected["pearson_relabelled"], abs=1e-9)
    assert lag_mi(one) == pytest.approx(expected["lag1_mi_bits"], abs=1e-9)
    assert lag_mi(other) == pytest.approx(expected["lag1_mi_relabelled"], abs=1e-9)
    assert lag_kappa(one) == pytest.approx(float(lag_kappa(other)), abs=1e-12)


@given(DOCUMENTS, st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_values_are_those_of_loops_over_the_pairs(documents: Documents, lag: int) -> None:
    from sklearn.metrics import cohen_kappa_score

    counts = slow_transitions(documents, 5, lag)
    pairs = [pair for experts in documents for pair in zip(experts, experts[lag:])]
    if not pairs:
        assert all(np.isnan(function(counts)) for function in OF_TABLES) and np.isnan(transition_matrix(counts)).all()
        return
    same = np.mean([a == b for a, b in pairs])
    assert same_expert(counts) == pytest.approx(same) and transition_rate(counts) == pytest.approx(1 - same)
    assert same_over_uniform(counts) == pytest.approx(5 * same) and sticky_seed(counts) == (same > 0.2)
    earlier, later = zip(*pairs)
    if len({*earlier, *later}) > 1:
        assert lag_kappa(counts) == pytest.approx(cohen_kappa_score(earlier, later), abs=1e-12)
    else:
        assert np.isnan(lag_kappa(counts))
    assert persistence(counts) == pytest.approx(float(lag_kappa(counts)), nan_ok=True)
    if len(set(earlier)) > 1 and len(set(later)) > 1:
        assert autocorrelation_of_ids(counts) == pytest.approx(np.corrcoef(earlier, later)[0, 1], abs=1e-9)
    else:
        assert np.isnan(autocorrelation_of_ids(counts))
    assert float(transition_diversity(counts) + lag_mi(counts)) == pytest.approx(float(entropy_bits(counts.sum(axis=0))), abs=1e-9)


@given(DOCUMENTS, st.permutations(range(5)), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_experts_are_names_and_documents_have_no_order(documents: Documents, names: list[int], order: Any) -> None:
    renamed = [[names[e] for e in experts] for experts in documents]
    order.shuffle(renamed)
    one, other = slow_transitions(documents, 5), slow_transitions(renamed, 5)
    for function in OF_TABLES:
        np.testing.assert_allclose(function(other), function(one), atol=1e-12)


def test_rows_of_experts_that_are_never_a_source_are_undefined() -> None:
    matrix = transition_matrix(slow_transitions([[0, 1, 0, 2], [1]], 4))
    np.testing.assert_allclose(matrix[:2], [[0, 0.5, 0.5, 0], [1, 0, 0, 0]])
    assert np.isnan(matrix[2:]).all()  # 2 only ends a document, 3 never occurs


def test_pairs_do_not_cross_documents_and_one_token_has_none() -> None:
    assert slow_transitions([[0], [0], [0]], 2).sum() == 0
    assert np.isnan(lag_kappa(slow_transitions([[0], [1]], 2)))
    assert sticky_seed(slow_transitions([[0]], 2)) is None
    found = estimates("lag_kappa", group_tables([np.zeros((3, 2, 2), np.int64)], np.arange(3)))[()]
    assert found.value is None and found.reason.startswith("no_data")


def test_kappa_separates_stickiness_from_uneven_loads() -> None:
    rng = np.random.default_rng(0)
    uneven = [rng.choice(8, 400, p=[0.65] + [0.05] * 7).tolist() for _ in range(50)]
    counts = slow_transitions(uneven, 8)
    assert sticky_seed(counts) and abs(float(lag_kappa(counts))) < 0.02  # p_same = 0.44 without any dependence
    assert lag_kappa(np.diag([5, 5, 1])) == 1.0
    assert lag_kappa([[0, 10], [10, 0]]) == -1.0
    assert np.isnan(lag_kappa([[7, 0], [0, 0]])) and lag_kappa([[0, 7], [0, 0]]) == 0.0


def test_a_split_of_the_pairs_is_an_axis() -> None:
    table = np.random.default_rng(1).poisson(3.0, (6, 2, 4, 4))  # document, next token has another or the same type, expert, expert
    np.testing.assert_allclose(lag_kappa(table)[2, 1], lag_kappa(table[2, 1]))
    found = estimates("lag_kappa", group_tables([table], np.arange(6)))
    assert found.shape == (2,) and all(one.low < one.value < one.high for one in found)


def test_sets_of_one_are_first_choices() -> None:
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, 4, 30).tolist() for _ in range(5)]
    matches, sources, targets, pairs, sizes = slow_overlaps([[[e] for e in experts] for experts in documents], 4)
    counts = slow_transitions(documents, 4)
    assert lag_overlap(matches, sources) == pytest.approx(float(same_expert(counts)))
    assert lag_overlap_kappa(matches, sources, targets, pairs) == pytest.approx(float(lag_kappa(counts)))
    assert lag_jaccard(sizes) == pytest.approx(float(same_expert(counts)))


def test_all_experts_or_one_set_at_every_token_have_no_kappa() -> None:
    for sets, n_experts in (([[0, 1, 2]] * 5, 3), ([[0, 2]] * 5, 4)):
        matches, sources, targets, pairs, _ = slow_overlaps([sets], n_experts)
        assert lag_overlap(matches, sources) == 1.0 and np.isnan(lag_overlap_kappa(matches, sources, targets, pairs))
    nothing = np.zeros(4)
    assert np.isnan([lag_overlap(0, nothing), lag_overlap_chance(nothing, nothing, 0), lag_overlap_kappa(0, nothing, nothing, 0)]).all()


def test_independent_sets_overlap_by_chance_only() -> None:
    rng = np.random.default_rng(3)
    sets = np.argsort(rng.random((4000, 6)) + np.linspace(0, 1, 6), axis=1)[:, :2].tolist()
    matches, sources, targets, pairs, _ = slow_overlaps([sets], 6)
    assert abs(float(lag_overlap_kappa(matches, sources, targets, pairs))) < 0.03
    assert lag_overlap(matches, sources) > 0.4


@pytest.mark.parametrize("lag", [1, 2])
def test_the_expected_table_of_shuffles_is_the_mean_over_all_of_them(lag: int) -> None:
    documents = [[0, 0, 1, 2], [1, 1, 0], [2], []]
    expected = sum(np.mean([slow_transitions([list(order)], 3, lag) for order in permutations(experts)], axis=0) for experts in documents if experts)
    loads = np.array([np.bincount(experts, minlength=3) for experts in documents])
    np.testing.assert_allclose(shuffled_transitions(loads, lag), expected, atol=1e-12)
    with pytest.raises(ValueError, match="at least 1"):
        shuffled_transitions(loads, 0)


def test_order_is_told_from_composition_by_the_shuffle() -> None:
    rng = np.random.default_rng(4)
    sticky, topical = [], []
    for _ in range(40):
        law = rng.dirichlet(np.full(4, 0.3))
        topical.append(rng.choice(4, 40, p=law).tolist())
        sticky.append(np.repeat(rng.integers(0, 4, 10), 4).tolist())

    def draws(documents: Documents) -> list[NDArray[np.int64]]:
        return [slow_transitions([rng.permutation(experts).tolist() for experts in documents], 4) for _ in range(99)]

    found, composed = (against_null(slow_transitions(one, 4), draws(one)) for one in (sticky, topical))
    assert found.p == pytest.approx(0.01) and found.excess is not None and found.excess > 0.4 and found.n_draws == 99
    assert composed.value is not None and composed.value > 0.3 and composed.p is not None and composed.p > 0.02
    assert composed.null_low is not None and composed.null_high is not None and composed.null_low < composed.value < composed.null_high


def test_against_null_says_why_it_is_undefined() -> None:
    table = np.array([[3, 1], [1, 3]])
    assert str(against_null(table, []).reason).startswith("no_data: no null draw")
    assert against_null(table, [np.zeros((2, 2))]).reason == "undefined in a null draw"
    undefined = against_null(np.zeros((2, 2)), [table])
    assert undefined.value is None and undefined.p is None and undefined.reason
    assert against_null(table, [table], value=lag_mi).p == 1.0


def test_counts_past_32_bits_stay_exact() -> None:
    counts = np.random.default_rng(5).poisson(4.0, (5, 5))
    for function in (*OF_TABLES, autocorrelation_of_ids):
        np.testing.assert_allclose(function(counts * 2**40), function(counts), rtol=1e-9)


def test_any_common_expert_under_even_choices_is_the_printed_chance() -> None:
    """Jiang et al. 2024 print about 46 % for two of eight: 1 - (6/8)(5/7)."""
    sets = list(combinations(range(8), 2))
    sizes = np.bincount([len(set(a) & set(b)) for a in sets for b in sets], minlength=3)
    assert lag_any(sizes) == pytest.approx(1 - 6 / 8 * 5 / 7)
    assert np.isnan(lag_any([0, 0, 0]))
