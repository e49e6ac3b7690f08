from itertools import permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.permutation import (
    LabelPlan,
    association_test,
    label_permutation_test,
    label_tables,
    matched_permutation_test,
    n_arrangements,
    needed_draws,
    p_value,
    pearson_chi_square,
    quadratic_assignment,
    unresolved,
)
from tests.analysis.planted import keys_of
from tests.references.cases import case


def test_document_permutation_d03():
    given, expected = case("D03")
    counts = np.array(given["counts_domain_doc_expert"])
    flat = counts.reshape(-1, counts.shape[2])
    labels = np.repeat(np.arange(len(counts)), counts.shape[1])
    made = association_test(labels, flat, LabelPlan(), keys=keys_of(len(flat)))
    assert made.observed == pytest.approx(expected["chi2_naive"], abs=1e-9)
    assert made.n_arrangements == expected["n_arrangements"] and made.exact
    assert made.p == pytest.approx(expected["p_doc_permutation_exact"], abs=1e-12)


def test_matched_permutation_k08():
    given, expected = case("K08")
    x, y = (np.array(given[name]) for name in ("mi", "retention"))
    made = matched_permutation_test(len(x), lambda orders: np.array([np.corrcoef(x, y[o])[0, 1] for o in orders]), LabelPlan())
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    ranked = matched_permutation_test(len(x), lambda orders: (ranks[0] * ranks[1][orders]).sum(axis=1).astype(float), LabelPlan())
    assert expected["p_exact_one_sided"] in (pytest.approx(made.p, abs=1e-12), pytest.approx(ranked.p, abs=1e-12))


def test_chi_square_is_scipys():
    from scipy.stats import chi2_contingency

    counts = np.random.default_rng(0).poisson(4, (3, 4, 6))
    counts[:, :, 2] = 0
    used = counts[:, :, [0, 1, 3, 4, 5]]
    np.testing.assert_allclose(pearson_chi_square(counts), [chi2_contingency(c, correction=False).statistic for c in used], rtol=1e-12)
    assert np.isnan(pearson_chi_square(np.zeros((2, 3))))


def test_p_counts_the_observed_value_and_ties():
    assert p_value(2.0, [1.0, 2.0, 3.0]) == 0.75
    np.testing.assert_array_equal(p_value([9.0, 0.0, np.nan], [[1.0, 1.0, 1.0]] * 19), [0.05, 1.0, np.nan])
    assert p_value(1.0 + 1e-12, [1.0]) == 0.5 and p_value(1.0 + 1e-12, [1.0], 1e-9) == 1.0


def test_draws_a_holm_correction_can_resolve():
    assert needed_draws(1) == 399 and needed_draws(11) == 4399
    assert unresolved(399, 1) is None and "4399" in unresolved(999, 11)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=7), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_exact_p_is_that_of_every_distinct_arrangement(labels, seed):
    counts = np.random.default_rng(seed).poisson(3, (len(labels), 3))
    made = association_test(labels, counts, LabelPlan(alpha=1.0), keys=keys_of(len(labels)))
    arrangements = np.array(sorted(set(permutations(np.unique(labels, return_inverse=True)[1].tolist()))))
    assert made.n_arrangements == len(arrangements)
    if np.bincount(np.unique(labels, return_inverse=True)[1]).max() == 1 or counts.sum() == 0:
        assert made.p is None or counts.sum() == 0
        return
    values = pearson_chi_square(label_tables(arrangements, counts[:, counts.sum(axis=0) > 0], len(set(labels))))
    assert made.p == pytest.approx(float((values >= made.observed - 1e-9 * max(made.observed, 1)).mean()))


def test_labels_stay_inside_their_strata():
    labels, strata = np.array([0, 0, 1, 0, 1, 1]), np.array(["a", "a", "a", "b", "b", "b"])
    assert n_arrangements(labels, strata) == 9
    seen = []
    for plan in (LabelPlan(alpha=1.0), LabelPlan(50, most_exact=1, alpha=1.0)):
        label_permutation_test(labels, lambda codes: (seen.append(codes), np.ones(len(codes)))[1], plan, keys=keys_of(6), strata=strata)
    for codes in seen:
        assert (codes[:, :3].sum(axis=1) == 1).all() and (codes[:, 3:].sum(axis=1) == 2).all()
    assert len(np.unique(np.concatenate(seen), axis=0)) == 9


def test_drawn_p_does_not_depend_on_the_order_of_documents_and_is_near_the_exact_one():
    rng = np.random.default_rng(0)
    counts, labels, order = rng.poisson(3, (12, 4)), np.repeat([0, 1], 6), rng.permutation(12)
    counts[:6, 0] += 2
    plan = LabelPlan(4000, 5, most_exact=100)
    drawn = association_test(labels, counts, plan, keys=keys_of(12))
    again = association_test(labels[order], counts[order], plan, keys=keys_of(12)[order])
    exact = association_test(labels, counts, LabelPlan(), keys=keys_of(12))
    assert drawn.p == again.p and drawn.n_draws == 4000 and exact.n_arrangements == comb(12, 6)
    assert abs(drawn.p - exact.p) < 5 * np.sqrt(exact.p * (1 - exact.p) / 4000) + 1e-3


def test_documents_of_one_domain_each_and_too_few_arrangements_are_untestable():
    counts = np.random.default_rng(0).poisson(5, (6, 3))
    assert association_test(np.arange(6), counts, LabelPlan(), keys=keys_of(6)).reason.startswith("untestable: one_document_per_domain")
    few = association_test([0, 0, 1, 1], counts[:4], LabelPlan(), keys=keys_of(4))
    assert few.p is None and few.n_arrangements == 6 and "0.167" in few.reason


def test_size_of_the_association_test_on_clustered_documents():
    rejected = 0
    for run in range(200):
        rng = np.random.default_rng([run, 1])
        counts = np.array([rng.multinomial(60, p) for p in rng.dirichlet(np.full(6, 1.0), 20)])
        rejected += association_test(np.repeat([0, 1], 10), counts, LabelPlan(99, run, most_exact=0), keys=keys_of(20)).p <= 0.05
    assert 2 <= rejected <= 20


def test_quadratic_assignment_moves_rows_and_columns_together():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a = rng.random((5, 5))
    b = a + rng.normal(0, 0.3, (5, 5))
    off = ~np.eye(5, dtype=bool)
    rho = np.array([spearmanr(a[off], b[np.ix_(o, o)][off]).statistic for o in permutations(range(5))])
    made = quadratic_assignment(a, b, LabelPlan())
    assert made.observed == pytest.approx(rho[0], abs=1e-12) and made.exact
    assert made.p == pytest.approx(float((rho >= rho[0] - 1e-9).mean()))
    drawn = quadratic_assignment(a, b, LabelPlan(3000, most_exact=1))
    assert abs(drawn.p - made.p) < 0.02 and drawn.n_draws == 3000
    with pytest.raises(ValueError, match="square"):
        quadratic_assignment(a, a[:4], LabelPlan())
    assert quadratic_assignment(a[:3, :3], b[:3, :3], LabelPlan()).reason.startswith("untestable")


def test_strata_of_another_length_are_named():
    with pytest.raises(ValueError, match="strata"):
        n_arrangements([0, 1, 1], [0, 0])
