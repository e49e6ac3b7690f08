"""Specialisation: closed forms of planted routing, identities, budgets, and the seeds' forms beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from analysis.arithmetic import jensen_shannon_bits
from analysis.domain_labels import DomainDocuments, domain_table
from analysis.metrics.specialization import (
    affinity,
    affinity_seed,
    avg_variance,
    avg_variance_seed,
    cv_domains,
    cv_domains_seed,
    domain_entropy,
    domain_entropy_difference,
    expert_affinity_avg,
    expert_affinity_seed,
    freq_matrix,
    goodman_kruskal_lambda,
    log2_affinity,
    mi_E_D,
    mi_E_D_pooled,
    mi_E_D_share,
    purity_cross_fitted,
    purity_e,
    purity_of_labels,
    purity_seed,
    purity_token_weighted,
    shrunk_log2_affinity,
    specialisation_e,
    specialisation_seed,
    top5_share,
    top5_share_seed,
)
from tests.references.cases import case

TABLES = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).poisson(4.0, (4, 6)) + 1)
BALANCED = (mi_E_D, mi_E_D_share, affinity, log2_affinity, specialisation_e, freq_matrix, cv_domains, domain_entropy, domain_entropy_difference,
            avg_variance_seed, expert_affinity_seed, top5_share_seed)


@given(TABLES, st.integers(0, 3), st.integers(2, 10**6))
def test_balanced_metrics_do_not_know_a_domains_budget(table: np.ndarray, domain: int, factor: int) -> None:
    larger = table.copy()
    larger[domain] *= factor
    for metric in BALANCED:
        np.testing.assert_allclose(metric(larger), metric(table), rtol=1e-9, atol=1e-12, err_msg=metric.__name__)


@given(TABLES, st.integers(0, 10**6))
def test_relabelling_moves_values_with_their_labels(table: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, e = rng.permutation(4), rng.permutation(6)
    other = table[d][:, e]
    for scalar in (mi_E_D, mi_E_D_pooled, mi_E_D_share, purity_seed, purity_token_weighted, goodman_kruskal_lambda, avg_variance_seed,
                   expert_affinity_seed):
        np.testing.assert_allclose(scalar(other), scalar(table), rtol=1e-9, atol=1e-12)
    for by_expert in (specialisation_e, specialisation_seed, purity_e, cv_domains, cv_domains_seed):
        np.testing.assert_allclose(by_expert(other), by_expert(table)[e], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(affinity(other), affinity(table)[e][:, d])
    np.testing.assert_allclose(domain_entropy(other), domain_entropy(table)[d])


@given(TABLES)
def test_information_is_the_mean_log_affinity_and_a_divergence(table: np.ndarray) -> None:
    p = freq_matrix(table)
    joint = p / 4
    assert float(mi_E_D(table)) == pytest.approx(float((joint * log2_affinity(table).T).sum()))
    middle = entropy(p.mean(axis=0), base=2) - np.mean([entropy(row, base=2) for row in p])
    assert float(mi_E_D(table)) == pytest.approx(middle)
    assert float(mi_E_D(table[:2])) == pytest.approx(float(jensen_shannon_bits(table[0], table[1])))
    assert float(mi_E_D(table)) == pytest.approx(float((joint.sum(axis=0) * (2 - (1 - specialisation_e(table)) * 2)).sum()))


@given(TABLES, st.integers(0, 10**6))
def test_affinities_average_to_one_under_their_own_weights(table: np.ndarray, seed: int) -> None:
    p_D = np.random.default_rng(seed).dirichlet(np.ones(4))
    np.testing.assert_allclose(affinity(table).mean(axis=1), 1.0)
    np.testing.assert_allclose(affinity(table, p_D) @ p_D, 1.0)
    assert (affinity(table, p_D) <= 1 / p_D + 1e-9).all()
    pooled = table.sum(axis=1) / table.sum()
    np.testing.assert_allclose(affinity_seed(table), affinity(table, pooled))


def test_identical_usage_is_no_specialisation_whatever_the_budgets() -> None:
    inputs, expected = case("D07")
    table = inputs["counts_domain_by_expert"]
    np.testing.assert_allclose(cv_domains_seed(table), expected["cv_seed_raw_counts"], rtol=1e-9)
    np.testing.assert_allclose(cv_domains(table), expected["cv_corrected_on_P_e_given_d"], atol=1e-9)
    for metric in (mi_E_D, mi_E_D_share, specialisation_e, avg_variance_seed, domain_entropy_difference, goodman_kruskal_lambda):
        np.testing.assert_allclose(metric(table), 0.0, atol=1e-12)
    np.testing.assert_allclose(affinity(table), 1.0)
    np.testing.assert_allclose(purity_e(table), 1000 / 1100)  # the budget's share, not 1/D


@pytest.mark.parametrize("own", [0.0, 0.25, 0.5, 1.0])
def test_planted_specialisation_has_its_closed_form(own: float) -> None:
    """Each of D domains sends a share `own` to an expert of its own and the rest evenly to two common ones."""
    n_domains = 4
    table = np.hstack([np.eye(n_domains) * own, np.full((n_domains, 2), (1 - own) / 2)]) * 1000
    assert float(mi_E_D(table)) == pytest.approx(own * np.log2(n_domains), abs=1e-12)
    assert float(mi_E_D_share(table)) == pytest.approx(own, abs=1e-12)
    wanted = np.r_[np.full(4, 1.0 if own else np.nan), np.full(2, 0.0 if own < 1 else np.nan)]
    np.testing.assert_allclose(specialisation_e(table), wanted, atol=1e-12)
    assert float(purity_token_weighted(table)) == pytest.approx(own + (1 - own) / 4)
    assert float(goodman_kruskal_lambda(table)) == pytest.approx(own, abs=1e-12)


@given(TABLES)
def test_lambda_is_the_share_of_removed_errors(table: np.ndarray) -> None:
    base = table.sum(axis=1).max() / table.sum()
    purity = sum(column.max() for column in table.T) / table.sum()
    assert float(goodman_kruskal_lambda(table)) == pytest.approx((purity - base) / (1 - base), abs=1e-12)
    assert float(purity_token_weighted(table)) >= base - 1e-12


def test_reference_cross_fitted_purity() -> None:
    inputs, expected = case("N02")
    folds = np.array([inputs["fold1_domain_by_expert"], inputs["fold2_domain_by_expert"]])
    assert float(purity_cross_fitted(folds)) == pytest.approx(expected["cross_fitted"], abs=1e-9)
    assert float(purity_cross_fitted(folds[::-1])) == pytest.approx(expected["cross_fitted"], abs=1e-9)
    assert float(purity_of_labels(*folds)) == pytest.approx(expected["cross_fitted"], abs=1e-9)


def test_one_direction_of_cross_fitted_purity_by_hand() -> None:
    label, value = np.array([[9, 1, 0], [1, 3, 0]]), np.array([[4, 2, 3], [1, 5, 1]])
    assert float(purity_of_labels(label, value)) == pytest.approx((4 + 5 + 3) / 16)  # the unseen expert goes to domain 0, the larger there
    assert float(purity_of_labels(value, label)) == pytest.approx((9 + 3 + 0) / 14)
    assert float(purity_cross_fitted(np.stack([label, value]))) == pytest.approx((12 / 16 + 12 / 14) / 2)
    assert np.isnan(purity_of_labels(0 * label, value)) and np.isnan(purity_of_labels(label, 0 * value))


def cross_fitted_by_loops(folds: np.ndarray) -> float:
    shares = []
    for label, value in ((folds[1], folds[0]), (folds[0], folds[1])):
        hits = sum(value[int(label[:, e].argmax()) if label[:, e].any() else int(label.sum(axis=1).argmax()), e] for e in range(label.shape[1]))
        shares.append(hits / value.sum())
    return float(np.mean(shares))


@given(st.integers(0, 10**6))
def test_cross_fitting_is_its_definition_in_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    folds = rng.poisson(1.0, (2, 3, 5)) + np.eye(3, 5, dtype=int)
    assert float(purity_cross_fitted(folds)) == pytest.approx(cross_fitted_by_loops(folds))
    values = []
    for e in range(5):
        found = [affinity(value)[e, int(affinity(label)[e].argmax())] for label, value in ((folds[1], folds[0]), (folds[0], folds[1]))
                 if label[:, e].any() and value[:, e].any()]
        values += [np.mean(found)] if found else []
    assert float(expert_affinity_avg(folds)) == pytest.approx(np.mean(values))
    shares = [[value[d, np.argsort(-label[d], kind="stable")[:5]].sum() / value[d].sum() for d in range(3)]
              for label, value in ((folds[1], folds[0]), (folds[0], folds[1]))]
    np.testing.assert_allclose(top5_share(folds), np.mean(shares, axis=0))


def test_cross_fitting_removes_what_picking_adds() -> None:
    """Even routing of few tokens over many experts: in-sample forms report specialisation, cross-fitted ones chance."""
    rng = np.random.default_rng(0)
    folds = rng.multinomial(100, np.full(64, 1 / 64), size=(300, 2, 4))
    whole = folds.sum(axis=1)
    assert purity_seed(whole).mean() > 0.4 and expert_affinity_seed(whole).mean() > 1.6
    assert purity_cross_fitted(folds).mean() == pytest.approx(0.25, abs=0.01)
    assert expert_affinity_avg(folds).mean() == pytest.approx(1.0, abs=0.03)
    assert top5_share(folds).mean() == pytest.approx(5 / 64, abs=0.005)
    assert top5_share_seed(whole).mean() > 5 / 64 + 0.03


def test_variance_between_domains_is_free_of_documents() -> None:
    """Domains of one law: the seed's form is above 0, the corrected one is 0 on average and sometimes below."""
    rng = np.random.default_rng(1)
    corrected, seed = [], []
    for _ in range(300):
        rows = np.stack([rng.multinomial(50, rng.dirichlet(np.full(6, 5.0))) for _ in range(24)])
        docs = DomainDocuments((rows,), np.arange(24) % 4, 4)
        corrected.append(float(avg_variance(domain_table(docs, "moments_SDE"))))
        seed.append(float(avg_variance_seed(docs.table())))
    error = np.std(corrected) / np.sqrt(300)
    assert abs(np.mean(corrected)) < 4 * error and min(corrected) < 0
    assert np.mean(seed) > 20 * error


def test_seed_specialisation_has_its_sign_reversed() -> None:
    table = np.array([[90, 10], [10, 10]])
    assert specialisation_seed(table)[0] < specialisation_seed(table)[1] and specialisation_e(table)[1] > specialisation_e(table)[0] > 0


def test_what_is_undefined_and_what_is_not() -> None:
    one_domain = np.array([[3, 4, 0]])
    assert float(mi_E_D(one_domain)) == 0 and np.isnan(mi_E_D_share(one_domain)) and np.isnan(specialisation_e(one_domain)).all()
    assert np.isnan(avg_variance_seed(one_domain)) and np.isnan(cv_domains(one_domain)).all() and np.isnan(goodman_kruskal_lambda(one_domain))
    empty = np.array([[3, 4, 1], [0, 0, 0]])
    for metric in (mi_E_D, avg_variance_seed, expert_affinity_seed):
        assert np.isnan(metric(empty))
    for metric in (affinity, specialisation_e, cv_domains):
        assert np.isnan(metric(empty)).all()
    assert float(mi_E_D_pooled(empty)) == 0 and np.isnan(domain_entropy(empty)).tolist() == [False, True]
    unused = np.array([[3, 4, 0], [5, 1, 0]])
    assert np.isnan(affinity(unused)).tolist() == [[False] * 2, [False] * 2, [True] * 2]
    assert np.isnan(shrunk_log2_affinity(unused)).tolist() == [[False] * 2, [False] * 2, [True] * 2]
    assert np.isnan(specialisation_e(unused)).tolist() == [False, False, True]
    np.testing.assert_allclose(purity_seed(unused), np.mean([5 / 8, 4 / 5]))
    assert np.isnan(purity_cross_fitted(np.stack([unused, 0 * unused])))
    one_expert = np.array([[9], [4]])
    assert float(mi_E_D(one_expert)) == 0 and float(specialisation_e(one_expert)[0]) == 0 and float(domain_entropy(one_expert)[0]) == 0
    assert np.isnan(avg_variance(np.ones((4, 2, 3))))  # one document in each domain
    np.testing.assert_allclose(mi_E_D(np.array([[30, 10], [12, 28]]) * 2**40), mi_E_D([[30, 10], [12, 28]]))


@settings(max_examples=20)
@given(TABLES)
def test_shrunk_affinity_for_display_draws_to_one_and_is_finite(table: np.ndarray) -> None:
    table = table.copy()
    table[0, 0] = 0
    shown = shrunk_log2_affinity(table)
    assert np.isfinite(shown).all() and np.isnan(log2_affinity(table)[0, 0])
    np.testing.assert_allclose(shrunk_log2_affinity(table * 10**6)[1:], log2_affinity(table)[1:], atol=1e-4)


def test_selections_of_a_top_k_are_counted_slot_by_slot() -> None:
    """k slots that repeat a law change nothing; a token's slots are selections of their own."""
    rng = np.random.default_rng(0)
    chosen = rng.random((2, 200, 8)).argsort(axis=-1)[..., :3]
    table = np.stack([np.bincount(domain.ravel(), minlength=8) for domain in chosen])
    by_slot = sum(np.stack([np.bincount(domain[:, slot], minlength=8) for domain in chosen]) for slot in range(3))
    np.testing.assert_array_equal(table, by_slot)
    np.testing.assert_allclose(mi_E_D(table * 3), mi_E_D(table))
    every = np.full((2, 8), 200)  # k = E: every expert every time
    assert float(mi_E_D(every)) == 0 and (specialisation_e(every) == 0).all()
