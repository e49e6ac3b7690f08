import numpy as np
import pytest

from analysis.comparison import paired_jackknife, seed_comparison, small_correlation
from tests.references.cases import case


def test_seed_level_comparison_k06():
    given, expected = case("K06")
    made = seed_comparison(given["paired_differences"])
    assert (made.mean, made.t, made.p_t, made.p_signflip) == pytest.approx(
        (expected["mean"], expected["t"], expected["p_t"], expected["p_signflip_exact"]), abs=1e-8)
    assert [made.low, made.high] == pytest.approx(expected["ci"], abs=1e-8)
    for n, smallest in expected["min_p_signflip"].items():
        assert seed_comparison(np.arange(1, int(n) + 1)).min_p_signflip == smallest


def test_correlation_of_few_pairs_k08():
    given, expected = case("K08")
    made = small_correlation(given["mi"], given["retention"])
    assert (made.pearson, made.spearman, made.p_one_sided) == pytest.approx(
        (expected["pearson"], expected["spearman"], expected["p_exact_one_sided"]), abs=1e-9)


def test_nothing_is_said_of_a_method_below_three_seeds():
    with pytest.raises(ValueError, match="2 training seeds"):
        seed_comparison([0.1, 0.2])


def test_two_checkpoints_are_compared_on_the_same_documents():
    rng = np.random.default_rng(0)
    shared, extra = rng.normal(size=40), 0.01 * rng.normal(size=40)
    a, b = (np.stack([x, np.ones(40)], axis=1) for x in (shared + 0.1 + extra, shared))
    made = paired_jackknife(a, b, lambda s: s[:, :1] / s[:, 1:])
    assert made.value[0] == pytest.approx((0.1 + extra).mean()) and made.se[0] == pytest.approx(extra.std(ddof=1) / 40**0.5)
    with pytest.raises(ValueError, match="token"):
        paired_jackknife(a, b, lambda s: s, unit="token")
