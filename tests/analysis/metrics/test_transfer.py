import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.arithmetic import mutual_information_bits
from analysis.metrics.transfer import (
    choose_smoothing,
    cross_domain_naive_pairing,
    ill_posed_cross_domain_mi,
    jsd_load,
    jsd_transition,
    log2_transition,
    naive_pairing_bits,
    smoothing_candidates,
    transfer_info,
    transfer_ratio,
)
from analysis.registry import every, find
from tests.references.cases import case

Rng = np.random.default_rng
seeds = st.integers(0, 2**32 - 1)


def slow_transfer(a, b, smoothing):
    """By loops over single cells."""
    n_B, E = b.sum(), a.shape[1]
    value = 0.0
    for y in range(E):
        share = b[:, y].sum() / n_B
        value -= share * np.log2(share) if share else 0.0
    for x in range(len(a)):
        for y in range(E):
            marginal = (a[:, y].sum() + 0.5) / (a.sum() + E / 2)
            q = (a[x, y] + smoothing * marginal) / (a[x].sum() + smoothing)
            value += b[x, y] / n_B * np.log2(q)
    return value


def test_unsmoothed_transfer_is_minus_infinity_c02():
    given_, expected = case("C02")
    made = transfer_info(given_["joint_A"], given_["joint_B"], given_["smoothing"])
    assert expected["transfer_A_to_B"] == "-inf" and made == -np.inf


def test_an_unseen_source_expert_falls_back_to_the_marginal_of_a_c04():
    given_, expected = case("C04")
    assert 2 ** log2_transition(given_["counts_A"], given_["beta"])[1] == pytest.approx(expected["q_A_row1"], abs=1e-9)
    assert transfer_info(given_["counts_A"], given_["counts_B"], given_["beta"]) == pytest.approx(expected["transfer_A_to_B"], abs=1e-9)


def test_divergences_are_not_square_roots_c06():
    given_, expected = case("C06")
    a, b = np.array(given_["counts_A"]), np.array(given_["counts_B"])
    assert jsd_transition(a, b) == pytest.approx(expected["jsd_joint"], abs=1e-9)
    assert jsd_load(a.sum(axis=0), b.sum(axis=0)) == pytest.approx(expected["jsd_target_marginal"], abs=1e-9)


def test_naive_pairing_measures_file_order_and_is_refused_c08():
    given_, expected = case("C08")
    assert naive_pairing_bits(given_["x_A"], given_["x_B"]) == pytest.approx(expected["naive_mi_1"], abs=1e-9)
    assert naive_pairing_bits(given_["x_A"], given_["x_B_reordered"]) == pytest.approx(expected["naive_mi_2"], abs=1e-9)
    refused = ill_posed_cross_domain_mi()
    assert refused.value is None and refused.reason.startswith("ill_posed: ")
    named = [one for one in every().values() if one.seed == "MI(routing_A, routing_B)"]
    assert [one.id for one in named] == ["cross_domain_naive_pairing"] and named[0].undefined == refused.reason
    assert np.isnan(cross_domain_naive_pairing(np.eye(2), np.eye(2)))


def test_naive_pairing_takes_odd_columns():
    assert np.isnan(naive_pairing_bits([], [])) and np.isnan(naive_pairing_bits([-1, -1], [0, 1]))
    assert naive_pairing_bits([0, 1, 0, 1, 7], [1, 0, 1, 0]) == pytest.approx(1.0)


def test_smoothing_is_half_a_count_per_expert_then_b_counts_of_the_marginal():
    q = 2 ** log2_transition([[3, 1], [0, 0]], 2.0)
    marginal = np.array([3.5, 1.5]) / 5
    assert q == pytest.approx(np.array([(np.array([3, 1]) + 2 * marginal) / 6, marginal]))


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_transfer_is_its_slow_twin_and_at_most_the_targets_information(seed):
    rng = Rng(seed)
    a, b = (rng.poisson(rng.choice([0.3, 2.0, 20.0]), (4, 6)) for _ in "ab")
    a[0, 0] += 1
    b[1, 1] += 1
    smoothing = float(rng.choice(smoothing_candidates(6)))
    made = transfer_info(a, b, smoothing)
    assert made == pytest.approx(slow_transfer(a, b, smoothing), abs=1e-9)
    assert made <= mutual_information_bits(b) + 1e-9
    rows, columns = rng.permutation(4), rng.permutation(6)
    assert transfer_info(a[rows][:, columns], b[rows][:, columns], smoothing) == pytest.approx(made, abs=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_domain_tells_itself_exactly_its_information(seed):
    a = Rng(seed).poisson(1.5, (5, 5))
    a[2, 2] += 1
    assert transfer_info(a, a, None) == pytest.approx(mutual_information_bits(a), abs=1e-9)


def test_transfer_is_information_less_the_divergence_of_the_rows():
    rng = Rng(3)
    a, b = rng.random((4, 4)) + 0.1, rng.random((4, 4)) + 0.1
    p, q = b / b.sum(), a / a.sum(axis=1, keepdims=True)
    divergence = (p * np.log2((p / p.sum(axis=1, keepdims=True)) / q)).sum()
    assert transfer_info(a, b, None) == pytest.approx(mutual_information_bits(b) - divergence, abs=1e-12)


def test_equal_information_says_nothing_of_transfer():
    agree = np.array([[400, 100], [100, 400]])
    assert mutual_information_bits(agree) == pytest.approx(mutual_information_bits(agree[:, ::-1]))
    assert transfer_info(agree, agree[:, ::-1], 1.0) < -0.5  # A's table misleads on B


def test_transfer_is_asymmetric():
    sure, noisy = np.array([[99, 1], [1, 99]]), np.array([[60, 40], [40, 60]])
    assert transfer_info(sure, noisy) < 0 < transfer_info(noisy, sure)


def test_one_expert_on_either_side_transfers_nothing():
    assert transfer_info([[5], [3]], [[2], [9]]) == pytest.approx(0.0, abs=1e-12)
    assert transfer_info([[5, 3]], [[50, 30]]) == pytest.approx(0.0, abs=1e-2)


def test_counts_beyond_32_bits_are_right():
    a = np.array([[3, 1], [1, 3]], np.int64)
    assert transfer_info(a * 2**40, a * 2**40, 1.0) == pytest.approx(mutual_information_bits(a), abs=1e-9)


def test_smoothing_may_be_one_number_per_table():
    rng = Rng(0)
    a, b = rng.poisson(3, (2, 4, 4)), rng.poisson(3, (2, 4, 4))
    assert transfer_info(a, b, [1.0, 4.0]).tolist() == [transfer_info(a[0], b[0], 1.0), transfer_info(a[1], b[1], 4.0)]


def test_an_empty_domain_is_undefined_with_and_without_smoothing():
    table = np.ones((2, 2))
    for smoothing in (None, 1.0):
        assert np.isnan(transfer_info(0 * table, table, smoothing)) and np.isnan(transfer_info(table, 0 * table, smoothing))


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_smoothing_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="smoothing=None"):
        transfer_info(np.ones((2, 2)), np.ones((2, 2)), wrong)


def test_layers_with_other_numbers_of_experts_are_refused():
    for function in (transfer_info, jsd_transition):
        with pytest.raises(ValueError, match="same two layers"):
            function(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="same layer"):
        jsd_load(np.ones(3), np.ones(4))


def test_smoothing_is_chosen_by_held_out_documents():
    rng = Rng(5)
    sharp = rng.multinomial(400, np.eye(8).reshape(-1) / 8, size=20).reshape(20, 8, 8)
    flat = rng.multinomial(60, np.full(64, 1 / 64), size=20).reshape(20, 8, 8)
    assert choose_smoothing(sharp) == 1.0
    assert choose_smoothing(flat) == choose_smoothing(flat, standard_errors=0.0) == 32.0
    assert choose_smoothing(sharp[:2]) == 1.0
    assert choose_smoothing(flat[:, :, :1]) == 1.0  # one expert: every b is the same


def test_one_standard_error_takes_the_smallest_b_that_is_not_clearly_worse():
    rng = Rng(2)
    for _ in range(10):
        groups = rng.poisson(rng.gamma(0.3, 1.0, (8, 8)), (30, 8, 8))
        assert choose_smoothing(groups) <= choose_smoothing(groups, standard_errors=0.0)


def test_smoothing_needs_a_document_to_hold_out():
    with pytest.raises(ValueError, match="held-out document"):
        choose_smoothing(np.ones((1, 3, 3)))


def test_the_ratio_is_one_when_all_tables_agree_and_null_where_the_target_has_no_structure():
    rng = Rng(1)
    table = rng.poisson(60, (4, 4)) + 400 * np.eye(4, dtype=int)
    halves = np.stack([table, table])
    assert transfer_ratio(table, halves, halves) == pytest.approx(1.0, abs=1e-12)
    flat = np.full((2, 4, 4), 50) + np.array([np.eye(4), -np.eye(4)]) * 20
    assert np.isnan(transfer_ratio(table, flat, flat[::-1]))
    assert np.isnan(transfer_ratio(table, halves * [[[1]], [[0]]], halves))
    assert find("transfer_ratio").undefined


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_divergences_are_symmetric_and_within_a_bit(seed):
    rng = Rng(seed)
    a, b = rng.poisson(1.0, (3, 4)) + np.eye(3, 4), rng.poisson(1.0, (3, 4)) + np.eye(3, 4)
    made = jsd_transition(a, b)
    assert made == pytest.approx(jsd_transition(b, a)) and 0 <= made <= 1
    assert jsd_load(a.sum(axis=0), b.sum(axis=0)) <= made + 1e-12  # coarser tables differ less
    assert jsd_transition(a, 3 * a) == pytest.approx(0.0, abs=1e-12)


def test_tables_without_overlap_are_one_bit_apart():
    assert jsd_load([1, 1, 0], [0, 0, 7]) == pytest.approx(1.0)
