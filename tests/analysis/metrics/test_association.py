"""Association of expert and domain: references, scipy, plain loops, size on planted nulls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association

from analysis.domain_labels import DomainDocuments
from analysis.gates import CONFOUNDED, NO_DATA, ONE_DOCUMENT, UNTESTABLE
from analysis.metrics.association import (
    association_null,
    association_strength,
    association_tests,
    bergsma_v,
    bergsma_v_squared,
    chi2_naive,
    cluster_variance,
    cramers_v,
    cramers_v_squared,
    degrees_of_freedom,
    g_naive,
    p_naive,
    rao_scott,
    standardised,
)
from analysis.metrics.specialization import mi_E_D, mi_E_D_pooled, within_domain_variance
from analysis.multiplicity import max_t
from analysis.resampling import generator
from tests.references.cases import case

TABLES = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).poisson(3.0, (4, 6)) + 1)
RNG = generator(0, "association")


def clustered(per_domain: int, *, n_domains: int = 5, n_experts: int = 32, tokens: int = 100, effect: float = 0.0, seed: int = 0) -> DomainDocuments:
    """Documents with laws of their own around one base, which tilts to an expert of the domain by `effect`."""
    rng = np.random.default_rng(seed)
    base = rng.dirichlet(np.full(n_experts, 2.0))
    domain = np.repeat(np.arange(n_domains), per_domain)
    laws = [rng.dirichlet(50 * ((1 - effect) * base + effect * np.eye(n_experts)[d])) for d in domain]
    return DomainDocuments((np.stack([rng.multinomial(tokens, law) for law in laws]),), domain, n_domains)


def test_reference_table() -> None:
    inputs, expected = case("D01")
    table = inputs["counts_domain_by_expert"]
    got = {"chi2": chi2_naive(table), "dof": degrees_of_freedom(table), "p_naive_iid": p_naive(table), "cramers_v": cramers_v(table),
           "cramers_v_bergsma": bergsma_v(table), "g_stat": g_naive(table), "mi_bits": mi_E_D_pooled(table)}
    assert {name: float(x) for name, x in got.items()} == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert mi_E_D(table) == pytest.approx(expected["mi_bits"])  # the domains have the same budget


def test_reference_clustered_tests() -> None:
    inputs, expected = case("D03")
    (got,) = association_tests(DomainDocuments.of(inputs["counts_domain_doc_expert"]), RNG)
    found = {"chi2_naive": got.chi2, "rao_scott_delta": got.rao_scott.delta, "rao_scott_F": got.rao_scott.F, "df1": got.rao_scott.df1,
             "df2": got.rao_scott.df2, "p_rao_scott": got.rao_scott.p, "n_arrangements": got.n_arrangements,
             "p_doc_permutation_exact": got.p_permutation, "p_naive": got.naive_p}
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert got.exact and got.status == "tested" and "smallest p" in str(got.gate)  # 0.1: swapping the domains changes nothing


@given(TABLES, st.integers(0, 5))
def test_tables_are_scipys_once_unused_experts_are_dropped(table: np.ndarray, unused: int) -> None:
    padded = np.insert(table, unused, 0, axis=1)
    found = chi2_contingency(table, correction=False)
    for one in (table, padded):
        assert float(chi2_naive(one)) == pytest.approx(found.statistic)
        assert float(p_naive(one)) == pytest.approx(found.pvalue)
        assert float(degrees_of_freedom(one)) == found.dof
        assert float(cramers_v(one)) == pytest.approx(association(table, method="cramer"))
        assert float(g_naive(one)) == pytest.approx(chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic)


@given(TABLES, st.integers(0, 10**6))
def test_relabelling_changes_nothing(table: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    other = table[rng.permutation(4)][:, rng.permutation(6)]
    for metric in (chi2_naive, p_naive, cramers_v, bergsma_v, g_naive):
        assert float(metric(other)) == pytest.approx(float(metric(table)), rel=1e-9, abs=1e-12)


def test_closed_forms_and_edges() -> None:
    assert float(cramers_v(np.eye(4) * 7)) == pytest.approx(1.0)
    assert float(cramers_v([[10, 20, 30], [1, 2, 3]])) == 0.0 and float(p_naive([[10, 20, 30], [1, 2, 3]])) == 1.0
    assert float(bergsma_v([[10, 20, 30], [1, 2, 3]])) == 0.0 > float(bergsma_v_squared([[10, 20, 30], [1, 2, 3]]))
    one_expert, one_domain, empty_domain = [[5], [7]], [[5, 6]], [[5, 6], [0, 0]]
    for table in (one_expert, one_domain, empty_domain, [[3, 0], [4, 0]]):
        assert np.isnan(cramers_v(table)) and np.isnan(p_naive(table)) and np.isnan(bergsma_v(table))
    huge = np.array([[30, 10], [12, 28]]) * 2**40
    assert float(cramers_v(huge)) == pytest.approx(float(cramers_v(huge // 2**40)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_rao_scott_is_its_formula_in_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    domain = np.array([0, 1, 0, 1, 0, 2, 2, 1])
    counts = rng.poisson(2.0, (8, 4))
    counts[:, 0] += 1
    counts[:, 3] = 0
    got = rao_scott(DomainDocuments((counts,), domain, 3))
    n = counts.sum()
    delta, chi2 = 0.0, 0.0
    for d in range(3):
        rows = counts[domain == d]
        n_d, size = rows.sum(), len(rows)
        inner = 0.0
        for e in range(3):
            p_de, p_e = rows[:, e].sum() / n_d, counts[:, e].sum() / n
            v = size / (size - 1) * sum((row[e] - row.sum() * p_de) ** 2 for row in rows) / n_d**2
            inner += v / p_e
            chi2 += (rows[:, e].sum() - n_d * p_e) ** 2 / (n_d * p_e)
        delta += (1 - n_d / n) * n_d * inner
    assert got.delta == pytest.approx(delta / 4) and got.chi2 == pytest.approx(chi2)
    assert pytest.approx(chi2 / delta) == got.F and (got.df1, got.df2) == (4, 4 * 5)


def test_both_forms_of_the_cluster_variance_agree() -> None:
    docs = clustered(7, n_domains=3, n_experts=6)
    counts = docs.layers[0]
    parts = [counts, counts**2, counts * counts.sum(axis=1, keepdims=True), np.ones_like(counts)]
    moments = np.stack([[part[docs.domain == d].sum(axis=0) for d in range(3)] for part in parts])
    np.testing.assert_allclose(within_domain_variance(moments), cluster_variance(docs), rtol=1e-9, atol=1e-15)


def test_documents_that_never_differ_cannot_be_tested_by_rao_scott() -> None:
    docs = DomainDocuments.of([[[1, 2], [2, 4], [3, 6]], [[2, 1], [4, 2], [6, 3]]])
    got = rao_scott(docs)
    assert got.delta == 0 and got.p is None and "do not differ" in str(got.reason)


def test_one_document_per_domain_is_untestable() -> None:
    (got,) = association_tests(DomainDocuments.of([[[90, 10]], [[10, 90]], [[50, 50]]]), RNG)
    assert got.status == UNTESTABLE and str(got.reason).startswith(ONE_DOCUMENT)
    assert got.p_permutation is None and got.rao_scott.p is None and got.rao_scott.reason and got.naive_p is not None


def test_too_few_arrangements_are_untestable_not_insignificant() -> None:
    (got,) = association_tests(DomainDocuments.of([[[9, 1], [8, 2]], [[1, 9], [2, 8]]]), RNG)
    assert got.status == UNTESTABLE and got.p_permutation is None and got.n_arrangements == 6 and str(got.reason).startswith(UNTESTABLE)
    docs = clustered(8, n_domains=2)
    split = DomainDocuments(docs.layers, docs.domain, 2, docs.domain.copy())
    assert str(association_tests(split, RNG)[0].reason).startswith(CONFOUNDED)


def test_a_source_that_makes_the_difference_is_not_taken_for_the_domain() -> None:
    """Documents of two corpora differ, domains only by their share of the corpora: permuted freely they differ, inside sources they do not."""
    rng = np.random.default_rng(2)
    source = np.repeat([0, 1], 30)
    domain = np.r_[np.repeat([0, 1], [24, 6]), np.repeat([0, 1], [6, 24])]
    laws = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    counts = np.stack([rng.multinomial(50, rng.dirichlet(30 * laws[s])) for s in source])
    free, inside = (association_tests(DomainDocuments((counts,), domain, 2, one), RNG, n_draws=499)[0] for one in (None, source))
    assert free.p_permutation is not None and free.p_permutation < 0.01
    assert inside.p_permutation is not None and inside.p_permutation > 0.05
    assert any(text.startswith("single_source") for text in free.caveats) and not inside.caveats


def test_unequal_spread_is_a_caveat_and_prefers_rao_scott() -> None:
    rng = np.random.default_rng(1)
    tight = [rng.multinomial(200, [0.5, 0.3, 0.2]).tolist() for _ in range(20)]
    loose = [rng.multinomial(200, rng.dirichlet([1.0, 0.6, 0.4])).tolist() for _ in range(20)]
    (got,) = association_tests(DomainDocuments.of([tight, loose]), RNG, n_draws=199)
    assert got.rao_scott.spread_ratio is not None and got.rao_scott.spread_ratio > 2 and got.preferred == "rao_scott"
    assert any(text.startswith("unequal_spread") for text in got.caveats)
    assert association_tests(clustered(20), RNG, n_draws=99)[0].preferred == "permutation"


def test_layers_share_their_draws_whatever_their_experts() -> None:
    first, second = clustered(6, n_domains=3, n_experts=5, effect=0.3), clustered(6, n_domains=3, n_experts=8, seed=1)
    docs = DomainDocuments((first.layers[0], second.layers[0], np.zeros((18, 4), np.int64), first.layers[0][:, [4, 0, 1, 2, 3]]), first.domain, 3)
    docs.layers[2][0, 0] = 5  # a layer that two domains miss
    tests = association_tests(docs, RNG, n_draws=199)
    assert tests[0].p_permutation == tests[3].p_permutation and tests[0].chi2 == pytest.approx(tests[3].chi2)
    assert str(tests[2].reason).startswith(NO_DATA) and tests[2].p_permutation is None
    null = association_null(docs, generator(1, "layers"), n_draws=199, keep=True)
    observed, drawn = standardised(null)
    adjusted = max_t([observed[0], observed[1]], drawn[:, :2])
    assert adjusted[0] is not None and adjusted[0] <= 0.01 and all(a >= p - 1e-12 for a, p in zip(adjusted, null.p[:2]) if a is not None)
    with pytest.raises(ValueError, match="keep"):
        standardised(association_null(docs, generator(1, "layers"), n_draws=9))


def test_strength_maps_the_square_and_never_leaves_its_range() -> None:
    docs = clustered(20, effect=0.2)
    got = association_strength(docs)
    assert got.value is not None and got.low is not None and got.high is not None and 0 < got.low < got.value < got.high
    assert got.plug_in == pytest.approx(float(cramers_v(docs.table()))) and got.gate is None
    null = association_strength(clustered(20))
    assert null.low is not None and null.value is not None and null.high is not None and 0 <= null.low <= null.value <= null.high < 0.2
    assert association_strength(docs, bergsma=True).value == pytest.approx(got.value, abs=0.02)
    assert association_strength(DomainDocuments.of([[[5, 0]], [[7, 0]]])).reason


def test_the_naive_square_smooths_at_zero() -> None:
    assert float(cramers_v_squared([[10, 20], [10, 20]])) == 0.0


def test_size_under_documents_without_domains() -> None:
    """The naive test rejects nearly always; both tests of documents at their level, within Monte-Carlo bounds."""
    inputs, expected = case("S02")
    assert "E=32" in inputs["dgp"]
    low, runs = np.zeros(3), inputs["runs"]
    for seed in range(runs):
        (got,) = association_tests(clustered(20, seed=seed), generator(seed, "size"), n_draws=199)
        low += [p is not None and p <= 0.05 for p in (got.naive_p, got.rao_scott.p, got.p_permutation)]
    margin = 3 * np.sqrt(0.05 * 0.95 / runs)
    assert low[0] / runs >= expected["naive_chi2_size_at_least"]
    for share, window in zip(low[1:] / runs, (expected["rao_scott_size"], expected["doc_permutation_size"])):
        assert window[0] - margin <= share <= window[1] + margin
