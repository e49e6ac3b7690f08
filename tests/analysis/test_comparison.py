from dataclasses import replace

import numpy as np
import pytest

from analysis.comparison import (
    Conditions,
    checkpoint_estimates,
    comparison,
    confounded,
    improvement_percent_seed,
    method_estimate,
    paired_jackknife,
    seed_comparison,
    unpaired_seeds,
)
from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from tests.references.cases import case

SAME = Conditions(parameters=10**9, top_k=2, n_experts=8, tokens_seen=10**10, evaluation_documents="abc")


def test_seed_level_comparison_k06():
    given, expected = case("K06")
    made = seed_comparison(given["paired_differences"])
    assert (made.mean, made.t, made.p_t, made.p_signflip) == pytest.approx(
        (expected["mean"], expected["t"], expected["p_t"], expected["p_signflip_exact"]), abs=1e-8)
    assert [made.low, made.high] == pytest.approx(expected["ci"], abs=1e-8)
    for n, smallest in expected["min_p_signflip"].items():
        assert seed_comparison(np.arange(1, int(n) + 1)).min_p_signflip == smallest


def test_the_estimate_of_a_method_is_that_comparison_k06():
    given, expected = case("K06")
    made = method_estimate(given["paired_differences"], unit="bits")
    assert [made.value, made.low, made.high, made.p] == pytest.approx([expected["mean"], *expected["ci"], expected["p_signflip_exact"]], abs=1e-8)
    assert made.gate is None and made.resampled == "seed" and made.n_units == 5


def test_nothing_is_said_of_a_method_below_three_seeds():
    with pytest.raises(ValueError, match="2 training seeds"):
        seed_comparison([0.1, 0.2])
    for few in ([], [0.1], [0.1, 0.2]):
        made = method_estimate(few, unit="bits")
        assert made.value is None and made.low is None and made.reason.startswith(f"too_few_seeds: {len(few)} training seeds")


@pytest.mark.parametrize("n", [3, 4])
def test_three_or_four_seeds_have_an_interval_but_no_verdict(n):
    made = method_estimate(1 + 0.001 * np.arange(n), unit="bits")
    assert made.low > 0 and made.gate.startswith(f"too_few_seeds: {n} training seeds, 5 needed")


def test_seeds_without_spread_or_numbers_are_refused():
    assert method_estimate([0.1] * 5, unit="bits").reason.startswith("no spread")
    with pytest.raises(ValueError, match="no spread"):
        seed_comparison([0.1] * 5)
    with pytest.raises(ValueError, match="one finite number per training seed"):
        method_estimate([0.1, np.nan, 0.2], unit="bits")
    assert method_estimate(np.arange(30.0), unit="bits").p is None  # too many sign flips; the interval decides anyway
    with pytest.raises(ValueError, match="enumerated up to 20"):
        seed_comparison(np.arange(30.0))


def test_five_against_five_reach_eight_thousandths():
    made = unpaired_seeds([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])
    assert made.p_permutation == made.min_p_permutation == pytest.approx(2 / 252)
    assert unpaired_seeds([3, 4, 5], [0, 1, 2]).min_p_permutation == pytest.approx(0.1)
    uneven = unpaired_seeds([7, 8, 9, 10], [0, 1, 2])
    assert uneven.p_permutation == uneven.min_p_permutation == pytest.approx(1 / 35)


def test_unpaired_seeds_have_welchs_interval():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 6), rng.normal(0, 1, 4)
    made, library = unpaired_seeds(a, b), ttest_ind(a, b, equal_var=False)
    interval = library.confidence_interval(0.95)
    assert [made.low, made.high, made.df] == pytest.approx([interval.low, interval.high, library.df])


def test_unpaired_seeds_are_refused_where_they_say_nothing():
    with pytest.raises(ValueError, match="2 and 5 training seeds"):
        unpaired_seeds([1, 2], [1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="no spread"):
        unpaired_seeds([0.1] * 3, [0.2] * 3)
    with pytest.raises(ValueError, match="splits"):
        unpaired_seeds(np.arange(15), np.arange(15))


def test_two_checkpoints_are_compared_on_the_same_documents():
    rng = np.random.default_rng(0)
    shared, extra = rng.normal(size=40), 0.01 * rng.normal(size=40)
    a, b = (np.stack([x, np.ones(40)], axis=1) for x in (shared + 0.1 + extra, shared))
    made = paired_jackknife(a, b, lambda s: s[:, :1] / s[:, 1:])
    assert made.value[0] == pytest.approx((0.1 + extra).mean()) and made.se[0] == pytest.approx(extra.std(ddof=1) / 40**0.5)
    with pytest.raises(ValueError, match="token"):
        paired_jackknife(a, b, lambda s: s, unit="token")


def tables(rng, size=40, shift=0):
    law = (np.eye(4) + 0.5 + shift).reshape(-1)
    return rng.multinomial(100, law / law.sum(), size=size).reshape(size, 4, 4)


def test_checkpoints_differ_by_the_jackknife_of_their_difference():
    rng = np.random.default_rng(1)
    a, b = Groups((tables(rng),), 40), Groups((tables(rng, shift=1),), 40)
    made = checkpoint_estimates("mi_first_choice", a, b).item()
    apart = [estimates("mi_first_choice", one).item() for one in (a, b)]
    assert made.value == pytest.approx(apart[0].value - apart[1].value, abs=1e-10)
    assert made.plug_in == pytest.approx(apart[0].plug_in - apart[1].plug_in, abs=1e-12) and made.low > 0
    equal = checkpoint_estimates("mi_first_choice", a, a).item()
    assert (equal.value, equal.se) == pytest.approx((0, 0), abs=1e-12)


def test_checkpoints_need_the_same_documents():
    rng = np.random.default_rng(2)
    a = Groups((tables(rng),), 40)
    for b in (Groups((tables(rng, 39),), 39), Groups((tables(rng),), 40, np.arange(40) % 2)):
        with pytest.raises(ValueError, match="same documents"):
            checkpoint_estimates("mi_first_choice", a, b)
    with pytest.raises(ValueError, match="resample unit='document'"):
        checkpoint_estimates("mi_first_choice", a, Groups((tables(rng),), 40, unit="token"))
    one = Groups((tables(rng, 1),), 1)
    made = checkpoint_estimates("mi_first_choice", one, one).item()
    assert made.value == 0 and made.low is None and made.gate.startswith("one_document_per_domain")
    none = Groups((0 * tables(rng),), 40)
    assert checkpoint_estimates("mi_first_choice", a, none).item().reason.startswith("no_data")
    few = Groups((tables(rng, 12),), 12)
    assert checkpoint_estimates("mi_first_choice", few, few).item().gate.startswith("too_few_documents")


@pytest.mark.parametrize("other", [{"parameters": 2 * 10**9}, {"top_k": 1}, {"n_experts": 16}, {"tokens_seen": 10**9},
                                   {"evaluation_documents": "abd"}, {"capacity_factor": 1.25}, {"tokens_seen": None}])
def test_unlike_conditions_confound(other):
    (name,) = other
    assert confounded(SAME, replace(SAME, **other)).startswith("confounded: ") and name in confounded(SAME, replace(SAME, **other))


def test_like_conditions_do_not():
    assert confounded(SAME, SAME) is None
    assert confounded(SAME, replace(SAME, parameters=10**9 + 10**6)) is None  # a router's own parameters
    unknown = replace(SAME, tokens_seen=None)
    assert "tokens_seen unknown" in confounded(unknown, unknown)


def test_both_levels_are_gated_together():
    level_1 = Estimate(0.2, 0.1, 0.3, "bits", "document", 100, "paired group jackknife")
    both = comparison(level_1, [0.1, 0.2, 0.15, 0.1, 0.2], SAME, replace(SAME, top_k=1))
    assert both.checkpoints.gate == both.method.gate == "confounded: top_k 2 against 1; match them before the difference is put down to the method"
    assert both.checkpoints.value == 0.2 and both.method.value == pytest.approx(0.15)
    matched = comparison(level_1, [0.1, 0.2], SAME, SAME)
    assert matched.checkpoints.gate is None and matched.method.value is None


def test_a_percentage_of_nearly_nothing_is_refused():
    after, before = (Estimate(v, v - 0.1, v + 0.1, "bits", "document", 50, "x") for v in (0.4, 0.05))
    assert improvement_percent_seed(after, before).value is None
    made = improvement_percent_seed(after, replace(before, value=0.2, low=0.1, high=0.3))
    assert made.value == pytest.approx(100) and made.gate
    assert improvement_percent_seed(Estimate.undefined("no_data"), before).reason == "no_data"
