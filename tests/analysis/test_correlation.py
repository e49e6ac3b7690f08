from itertools import permutations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from analysis.correlation import critical_pearson, mi_vs_retention, pearson_for_lower_bound, pearson_interval, small_correlation
from tests.references.cases import case


def test_correlation_of_few_pairs_k08():
    given, expected = case("K08")
    made = small_correlation(given["mi"], given["retention"])
    assert (made.pearson, made.spearman, made.p_one_sided) == pytest.approx(
        (expected["pearson"], expected["spearman"], expected["p_exact_one_sided"]), abs=1e-9)


@pytest.mark.parametrize("x, y, said", [([1, 2], [1, 2], "3 to 9"), ([1, 1, 1], [1, 2, 3], "constant"), ([1, 2, np.nan], [1, 2, 3], "NaN")])
def test_what_has_no_correlation_is_refused(x, y, said):
    with pytest.raises(ValueError, match=said):
        small_correlation(x, y)


def test_seven_pairs_show_little():
    """The seed's r > 0.8 over 7 pairs, metrics specification 2.1."""
    assert [round(end, 2) for end in pearson_interval(0.8, 7)] == [0.12, 0.97]
    assert 0.969 < pearson_for_lower_bound(0.8, 7) < 0.970 and round(critical_pearson(7), 3) == 0.754
    assert pearson_interval(pearson_for_lower_bound(0.8, 7), 7)[0] == pytest.approx(0.8)


def test_fishers_interval_is_the_librarys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    library = pearsonr(x, y)
    assert pearson_interval(library.statistic, 12) == pytest.approx(tuple(library.confidence_interval(0.95)))
    assert pearsonr([0, 1, 2], [0, 1, 0.5]).pvalue > 0.05  # and the critical value is where p is alpha
    r = critical_pearson(12)
    line = np.arange(12.0)
    noise = rng.normal(size=12)
    noise -= np.polyval(np.polyfit(line, noise, 1), line)
    unit = (line - line.mean()) / line.std()
    assert pearsonr(line, r * unit + (1 - r * r) ** 0.5 * noise / noise.std()).pvalue == pytest.approx(0.05)


@pytest.mark.parametrize("call", [lambda: pearson_interval(1.0, 9), lambda: pearson_interval(0.5, 3), lambda: critical_pearson(2),
                                  lambda: pearson_for_lower_bound(1.0, 9)])
def test_intervals_without_a_law_are_refused(call):
    with pytest.raises(ValueError, match="pairs"):
        call()


def test_labels_are_permuted_together_as_by_loops():
    rng = np.random.default_rng(1)
    information, kept = rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    made = mi_vs_retention(information, kept)
    null = [spearmanr([information[order[a], order[b]] for a, b in pairs], [kept[a, b] for a, b in pairs]).statistic
            for order in permutations(range(4))]
    assert made.n_orders == 24 and made.n_pairs == 12 and made.spearman == pytest.approx(null[0])
    assert made.p_one_sided == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-9))
    assert made.p_two_sided == pytest.approx(np.mean(np.abs(null) >= abs(null[0]) - 1e-9))


def test_renaming_the_domains_changes_nothing():
    rng = np.random.default_rng(2)
    information, kept, order = rng.normal(size=(5, 5)), rng.normal(size=(5, 5)), rng.permutation(5)
    first, second = mi_vs_retention(information, kept), mi_vs_retention(information[np.ix_(order, order)], kept[np.ix_(order, order)])
    assert (first.spearman, first.p_one_sided, first.pearson) == pytest.approx((second.spearman, second.p_one_sided, second.pearson))


def test_seven_of_thirty_pairs_are_read_where_they_are_and_never_judged():
    rng = np.random.default_rng(3)
    information = rng.normal(size=(6, 6))
    kept = np.full((6, 6), np.nan)
    for a, b in [(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (0, 3), (5, 1)]:
        kept[a, b] = information[a, b] + 0.1 * rng.normal()
    made = mi_vs_retention(information, kept)
    assert made.n_pairs == 7 and made.n_orders == 720 and 1 / 720 <= made.p_one_sided < 0.1
    assert made.gate.startswith("untestable: 7 pairs of 6 domains") and round(made.needed, 2) == 0.97
    assert made.low < made.pearson < made.high
    assert mi_vs_retention(information, information).gate.startswith("untestable: 30 pairs of 6 domains")


def test_what_cannot_be_correlated_says_why():
    rng = np.random.default_rng(4)
    information = rng.normal(size=(4, 4))
    assert mi_vs_retention(information, np.ones((4, 4))).reason.startswith("a constant side")
    few = np.full((4, 4), np.nan)
    few[0, 1] = 1.0
    assert mi_vs_retention(information, few).reason.startswith("1 pairs")
    perfect = mi_vs_retention(information, 2 * information)
    assert perfect.pearson == pytest.approx(1) and perfect.low is None and perfect.spearman == pytest.approx(1)
    hole = information.copy()
    hole[0, 1] = np.nan
    for wrong, said in ((hole, "hole"), (np.zeros((9, 9)), "square"), (np.zeros((2, 3)), "square")):
        with pytest.raises(ValueError, match=said):
            mi_vs_retention(wrong, wrong)
