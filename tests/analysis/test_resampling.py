import numpy as np
import pytest
from scipy import stats

from analysis.arithmetic import mutual_information_bits
from analysis.resampling import (
    TypeCells,
    basic_interval,
    bca_interval,
    delete_group_jackknife,
    document_weights,
    generator,
    jackknife_groups,
    percentile_interval,
    refuse_tokens,
    stratified_groups,
    two_way_correlation,
    two_way_error,
)
from tests.references.cases import case


def test_document_bootstrap_k02():
    given, expected = case("K02")
    counts, weights = np.array(given["doc_counts"], float), np.array(given["weights"], float)
    replicates = mutual_information_bits(np.tensordot(weights, counts, axes=1))
    assert replicates == pytest.approx(expected["replicates"], abs=1e-9)
    assert replicates.std(ddof=1) == pytest.approx(expected["se"], abs=1e-9)
    estimate = mutual_information_bits([counts.sum(axis=0)])[0]
    assert percentile_interval(replicates) == pytest.approx(tuple(expected["percentile"]), abs=1e-9)
    assert basic_interval(estimate, replicates) == pytest.approx(tuple(expected["basic"]), abs=1e-9)
    bca = bca_interval(estimate, replicates, mutual_information_bits(counts.sum(axis=0) - counts))
    assert (bca.z0, bca.acceleration) == pytest.approx((expected["bca_z0"], expected["bca_acceleration"]), abs=1e-9)
    assert bca.alphas == pytest.approx(tuple(expected["bca_alphas"]), abs=1e-9)
    assert (bca.low, bca.high) == pytest.approx(tuple(expected["bca"]), abs=1e-8)


def test_stratified_jackknife_k10():
    given, expected = case("K10")
    counts = np.array(given["counts_domain_doc_expert"], float)  # D, n, E
    n_domains, n_documents, n_experts = counts.shape
    sums = np.zeros((n_domains * n_documents, n_domains * n_experts))
    for d in range(n_domains):
        sums[d * n_documents : (d + 1) * n_documents, d * n_experts : (d + 1) * n_experts] = counts[d]
    groups, strata = stratified_groups([str(d) for d in range(n_domains) for _ in range(n_documents)])
    assert groups.tolist() == list(range(6))
    made = delete_group_jackknife(sums, lambda s: mutual_information_bits(s.reshape(len(s), n_domains, n_experts))[:, None], strata=strata)
    assert made.plug_in[0] == pytest.approx(expected["plugin"], abs=1e-9)
    assert made.value[0] == pytest.approx(expected["bias_corrected"], abs=1e-9)
    assert made.se[0] == pytest.approx(expected["se"], abs=1e-9)
    assert [made.low[0], made.high[0]] == pytest.approx(expected["ci"], abs=1e-8)


def test_two_way_spearman_interval_e09():
    given, expected = case("E09")
    made = two_way_correlation(given["rho"], np.array(given["boot_z"]), given["n_types"], level=given["level"])
    assert (made.z, made.se) == pytest.approx((expected["z_bias_corrected"], expected["se_z"]), abs=1e-9)
    assert [made.low, made.high] == pytest.approx(expected["ci"], abs=1e-9)


def test_jackknife_of_a_mean_is_the_t_interval():
    x = np.random.default_rng(0).normal(size=30)
    sums = np.stack([x, np.ones(30)], axis=1)
    made = delete_group_jackknife(sums, lambda s: s[:, :1] / s[:, 1:])
    half = stats.t.ppf(0.975, 29) * x.std(ddof=1) / 30**0.5
    assert made.value[0] == pytest.approx(x.mean(), abs=1e-12)
    assert [made.low[0], made.high[0]] == pytest.approx([x.mean() - half, x.mean() + half], abs=1e-12)


def test_groups_differ_in_size_by_at_most_one():
    for n in (1, 3, 100, 101, 537):
        sizes = np.bincount(jackknife_groups(n))
        assert len(sizes) == min(n, 100) and sizes.max() - sizes.min() <= 1


def test_one_document_has_no_spread():
    with pytest.raises(ValueError, match="one document: no spread between documents"):
        delete_group_jackknife(np.ones((1, 2)), lambda s: s[:, :1])


@pytest.mark.parametrize("unit", ["token", "occurrence", "sequence position"])
def test_resampling_over_anything_but_documents_is_refused_with_the_reason(unit):
    with pytest.raises(ValueError, match="resample unit='document'"):
        refuse_tokens(unit)
    with pytest.raises(ValueError, match="instead of 95 %"):
        delete_group_jackknife(np.ones((9, 1)), lambda s: s, unit=unit)


@pytest.mark.parametrize(("rho", "m", "why"), [(1.0, 50, "infinite"), (-0.5, 3, "at least 4")])
def test_a_two_way_interval_that_does_not_exist_says_why(rho, m, why):
    with pytest.raises(ValueError, match=why):
        two_way_correlation(rho, np.zeros(9), m)


def test_draws_are_keyed_by_seed_metric_and_layer():
    draws = {generator(seed, metric, layer).random() for seed in (0, 1) for metric in ("a", "b") for layer in (0, 1, "all")}
    assert len(draws) == 12
    assert generator(3, "a", 1).random() == generator(3, "a", 1).random()


def test_weights_sum_to_the_units_of_each_stratum():
    strata = ["a"] * 25 + ["b"] * 40
    weights = document_weights(65, 50, np.random.default_rng(0), strata)
    assert (weights[:, :25].sum(axis=1) == 25).all() and (weights[:, 25:].sum(axis=1) == 40).all()
    pooled = document_weights(30, 200, np.random.default_rng(0), ["a"] * 10 + ["b"] * 20)
    assert (pooled.sum(axis=1) == 30).all() and pooled[:, :10].sum(axis=1).std() > 0


def test_type_sums_are_a_matrix_product():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 3, (12, 7))
    unit, column = np.nonzero(dense)
    weights = rng.integers(0, 4, (130, 12)).astype(float)
    cells = TypeCells(unit, column, (12, 7))
    for values in (dense[unit, column], rng.integers(0, 99, len(unit))):
        expected = np.zeros((12, 7))
        expected[unit, column] = values
        assert (cells.sums(weights, values) == weights @ expected).all()


def test_two_way_mean_adds_both_variances():
    assert two_way_error(np.array([1.0, 2.0, 3.0, 4.0]), 0.25) == pytest.approx((0.25 + 5 / 3 / 4) ** 0.5)  # Owen 2007: documents + types


def test_coverage_of_the_two_way_interval():
    """Types and documents both drawn anew, true rho -0.5: of 200 intervals at 95 % about 190 hold it (binomial 0.1 % .. 99.9 %: 179)."""
    rng, held, n_runs, m, n_documents = np.random.default_rng(7), 0, 200, 60, 40
    slope = 2 * np.sin(np.pi * 0.5 / 6)  # Spearman of a bivariate normal with this correlation is 0.5
    for _ in range(n_runs):
        frequency = rng.normal(size=m)
        truth = -slope * frequency + np.sqrt(1 - slope**2) * rng.normal(size=m)
        documents = truth + 0.5 * rng.normal(size=(n_documents, m)) + 0.3 * rng.normal(size=(n_documents, 1))
        weights = rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), size=99) / n_documents
        rho = stats.spearmanr(frequency, documents.mean(axis=0)).statistic
        ranks, centred = stats.rankdata(weights @ documents, axis=1), stats.rankdata(frequency) - (m + 1) / 2
        replicates = (ranks - (m + 1) / 2) @ centred / (centred @ centred)
        made = two_way_correlation(rho, np.arctanh(replicates), m)
        held += made.low <= -0.5 <= made.high
    assert held >= 179


def test_size_of_the_two_way_interval_without_any_dependence():
    """True rho 0: at most 5 % of intervals exclude it, up to binomial error over 300 runs (99.9 %: 27)."""
    rng, excluded = np.random.default_rng(8), 0
    for _ in range(300):
        frequency, documents = rng.normal(size=50), rng.normal(size=(40, 50)) + rng.normal(size=50)
        weights = rng.multinomial(40, np.full(40, 1 / 40), size=99) / 40
        centred = stats.rankdata(frequency) - 25.5
        means = np.vstack([documents.mean(axis=0), weights @ documents])
        rhos = (stats.rankdata(means, axis=1) - 25.5) @ centred / (centred @ centred)
        made = two_way_correlation(float(rhos[0]), np.arctanh(rhos[1:]), 50)
        excluded += not made.low <= 0 <= made.high
    assert excluded <= 27
