from itertools import combinations

import numpy as np
import pytest

from analysis.metrics.consistency import (
    collision,
    collision_v,
    global_collision,
    kappa,
    kappa_v,
    modal_share,
    modal_share_rarefied,
    modal_share_seed,
    rarefied_modal_share,
    top_expert,
)
from tests.references.cases import case


def test_consistency_e05():
    given, expected = case("E05")
    n_VE = np.array(given["type_by_expert"])
    n_V = n_VE.sum(axis=1)
    overlap, chance = collision(n_VE, n_V, 1), global_collision(n_VE.sum(axis=0), n_V.sum(), 1)
    assert np.isnan(overlap[0]) and overlap[1:] == pytest.approx(expected["collision_unbiased"][1:], abs=1e-9)
    assert chance == pytest.approx(expected["global_collision"], abs=1e-9)
    assert kappa(overlap, chance)[1:] == pytest.approx(expected["kappa"][1:], abs=1e-9)
    assert modal_share(n_VE, n_V) == pytest.approx(expected["modal_share_seed"], abs=1e-9)
    assert top_expert(n_VE).tolist() == expected["top_expert"]


def test_consistency_of_sets_e15():
    given, expected = case("E15")
    sets = given["occurrence_sets"]
    n_E = np.bincount(np.concatenate(sets), minlength=given["n_experts"])
    assert collision(n_E, np.array(len(sets)), given["k"]) == pytest.approx(expected["mean_pairwise_overlap"], abs=1e-9)
    first = np.bincount([s[0] for s in sets], minlength=given["n_experts"])
    assert collision(first, np.array(len(sets)), 1) == pytest.approx(expected["first_choice_collision"], abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_rarefaction_is_the_mean_over_all_subsets(size):
    counts = np.array([[4, 2, 1, 0], [7, 0, 0, 0], [2, 2, 2, 1]])
    made = rarefied_modal_share(counts, size, np.random.default_rng(0))
    for row, share in zip(counts, made):
        occurrences = np.repeat(np.arange(4), row)
        brute = np.mean([np.bincount(occurrences[list(s)]).max() / size for s in combinations(range(7), size)])
        assert share == pytest.approx(brute, abs=1e-10)


def test_drawn_rarefaction_agrees_with_the_exact_one(monkeypatch):
    counts = np.random.default_rng(0).multinomial(200, np.array([5, 3, 1, 1]) / 10, size=50)
    exact = rarefied_modal_share(counts, 50, np.random.default_rng(0))
    monkeypatch.setattr("analysis.metrics.consistency.EXACT_WORK", 0)
    drawn = rarefied_modal_share(counts, 50, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(exact.mean(), abs=0.01)


def test_a_type_below_the_size_is_not_rarefied():
    assert np.isnan(rarefied_modal_share(np.array([[3, 2]]), 6, np.random.default_rng(0)))[0]


def test_relabelling_experts_changes_nothing():
    rng = np.random.default_rng(3)
    counts, order = rng.integers(0, 40, (20, 6)), rng.permutation(6)
    n = counts.sum(axis=1)
    for function in (lambda c: collision(c, n, 2), lambda c: modal_share(c, n), lambda c: rarefied_modal_share(c, 20, rng)):
        assert function(counts[:, order]) == pytest.approx(function(counts), abs=1e-12)


def test_identical_laws_show_the_artefact_in_the_modal_share_but_not_in_collision():
    """All types follow one law; the modal share falls with n while collision does not (metrics specification 2.4)."""
    rng = np.random.default_rng(4)
    n = np.geomspace(2, 500, 400).astype(int)
    counts = np.array([rng.multinomial(size, np.full(8, 1 / 8)) for size in n])
    assert np.corrcoef(np.log(n), modal_share(counts, n))[0, 1] < -0.8
    rare, frequent = (collision(counts[s], n[s], 1).mean() for s in (n < 30, n >= 30))
    assert abs(rare - frequent) < 0.04


def test_registered_forms_give_e05_and_e15():
    given, expected = case("E05")
    n_VE = np.array(given["type_by_expert"])
    for function, name in ((collision_v, "collision_unbiased"), (kappa_v, "kappa"), (modal_share_seed, "modal_share_seed")):
        wanted = [np.nan if x is None else x for x in expected[name]]
        assert function(n_VE) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
        assert function(np.stack([n_VE, 2 * n_VE]))[0] == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    given, expected = case("E15")
    n_E = np.bincount(np.concatenate(given["occurrence_sets"]), minlength=given["n_experts"])
    assert collision_v(n_E[None], k=2) == pytest.approx([expected["mean_pairwise_overlap"]], abs=1e-9)


def test_k_equal_to_e_and_one_expert_are_constant():
    every = np.full((3, 4), 7)
    assert collision_v(every, k=4) == pytest.approx([1, 1, 1]) and np.isnan(kappa_v(every, k=4)).all()
    alone = np.array([[5], [9]])
    assert collision_v(alone) == pytest.approx([1, 1]) and np.isnan(kappa_v(alone)).all() and modal_share_seed(alone) == pytest.approx([1, 1])
    for k in (0, 5):
        with pytest.raises(ValueError, match="1 to 4 experts"):
            collision_v(every, k=k)


def test_collision_past_31_bits():
    large = np.array([[2**32, 2**32], [2**33, 0]])
    assert collision_v(large) == pytest.approx([0.5, 1], abs=1e-9)


def test_rarefied_shares_of_types_with_one_law_do_not_fall_with_frequency():
    rng = np.random.default_rng(0)
    rare, frequent = (rng.multinomial(n, np.full(8, 1 / 8), size=200) for n in (60, 2000))
    assert modal_share_seed(rare).mean() - modal_share_seed(frequent).mean() > 0.02
    made = modal_share_rarefied(np.concatenate([rare, frequent]))
    assert made[:200].mean() == pytest.approx(made[200:].mean(), abs=0.012)
    assert np.isnan(modal_share_rarefied(rare[:1] // 2)).all()


@pytest.mark.parametrize("wrong", [np.ones((2, 3)), np.ones(3, int), -np.ones((2, 3), int)])
def test_what_is_no_first_choice_count_is_refused(wrong):
    with pytest.raises(ValueError, match="integer first choices"):
        modal_share_rarefied(wrong)
