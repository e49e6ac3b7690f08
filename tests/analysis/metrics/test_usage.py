import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.estimation import Groups, estimates
from analysis.metrics import usage
from analysis.registry import every
from tests.references.cases import case

PRINTED = np.repeat(np.arange(7), [33, 30, 34, 22, 5, 3, 1])  # the only loads that print as seed 001's layer 1
USAGE = [one for one in every().values() if one.id.startswith("usage_") or one.id == "collapse_rate"]
LOADS = st.lists(st.integers(0, 50), min_size=1, max_size=40)


def test_the_printed_row_of_seed_001_layer_1():
    row = usage.statistics_row(1, PRINTED)
    assert (round(row["mean"], 2), round(row["std"], 2), round(row["coefficient_of_variation"], 3)) == (1.6, 1.33, 0.831)
    assert (round(row["entropy_bits"], 2), row["active_experts"], round(row["expert_diversity"], 3)) == (6.4, 95, 0.742)
    assert (round(row["skewness"], 3), round(row["kurtosis"], 3)) == (0.637, 0.104)
    assert (row["median"], row["min_usage"], row["max_usage"], row["q25"], row["q75"], row["iqr"]) == (2, 0, 6, 0, 2, 2)
    assert json.loads(json.dumps(row)) == row and row["layer_id"] == 1


def test_the_printed_row_is_that_of_no_other_loads():
    """Every histogram of loads up to 6 with 205 selections and 95 of 128 experts active that prints the same std, skewness and kurtosis."""
    found = []
    for sixes in range(4):
        for fives in range(12):
            for fours in range(20):
                for threes in range(50):
                    rest = 555 - 36 * sixes - 25 * fives - 16 * fours - 9 * threes  # sum of squares, forced by ddof 0 (A07)
                    selections = 205 - 6 * sixes - 5 * fives - 4 * fours - 3 * threes
                    twos = (rest - selections) // 2
                    ones = selections - 2 * twos
                    if min(twos, ones) < 0 or rest != 4 * twos + ones or ones + twos + threes + fours + fives + sixes != 95:
                        continue
                    loads = np.repeat(np.arange(7), [33, ones, twos, threes, fours, fives, sixes])
                    if np.round(usage.skewness(loads), 3) == 0.637 and np.round(usage.kurtosis(loads), 3) == 0.104:
                        found.append(np.bincount(loads, minlength=7).tolist())
    assert found == [[33, 30, 34, 22, 5, 3, 1]]


def test_identities_a11_and_one_expert_a05():
    given_, expected = case("A11")
    loads = given_["counts"]
    assert usage.cv(loads) ** 2 == pytest.approx(expected["cv_sq"], abs=1e-9)
    assert usage.renyi2_bits(loads) == pytest.approx(expected["renyi2_bits"], abs=1e-9)
    assert len(loads) * 2 ** -usage.renyi2_bits(loads) - 1 == pytest.approx(expected["cv_from_renyi"], abs=1e-9)
    assert usage.gini(loads) == pytest.approx(expected["gini"], abs=1e-9)
    one, expected = case("A05")
    assert usage.entropy_bits(one["counts"]) == expected["plugin"] and usage.perplexity(one["counts"]) == expected["perplexity"]
    assert np.isnan(usage.entropy_normalised(one["counts"]))


@settings(max_examples=60, deadline=None)
@given(loads=LOADS, shift=st.randoms())
def test_bounds_relabelling_and_identities(loads, shift):
    counts, order = np.array(loads), np.array(shift.sample(range(len(loads)), len(loads)))
    for one in USAGE:
        value, again = float(one.function(counts)), float(one.function(counts[order]))
        assert value == pytest.approx(again, rel=1e-9, abs=1e-9, nan_ok=True), one.id
        low, high = one.range_of(counts)
        if not np.isnan(value):
            assert (low is None or value >= low - 1e-9) and (high is None or value <= high + 1e-9), one.id
    if counts.sum():
        assert usage.cv(counts) ** 2 == pytest.approx(len(counts) * 2 ** -usage.renyi2_bits(counts) - 1, abs=1e-9)
        assert usage.gini(counts) == pytest.approx(np.abs(counts[:, None] - counts).sum() / (2 * len(counts) * counts.sum()), abs=1e-12)


def test_scipy_agrees():
    from scipy import stats

    loads = np.random.default_rng(0).negative_binomial(1, 0.1, (5, 30))
    assert usage.skewness(loads) == pytest.approx(stats.skew(loads, axis=1), rel=1e-12)
    assert usage.kurtosis(loads) == pytest.approx(stats.kurtosis(loads, axis=1), rel=1e-12)
    assert usage.iqr(loads) == pytest.approx(stats.iqr(loads, axis=1))
    assert usage.entropy_bits(loads) == pytest.approx(stats.entropy(loads.T, base=2))


@pytest.mark.parametrize("one", USAGE, ids=lambda one: one.id)
def test_edges(one):
    assert np.isnan(one.function(np.zeros(8, int)))
    with np.errstate(all="raise"):
        even, single, alone = (float(one.function(np.array(x))) for x in ([4] * 8, [0, 9, 0], [17]))
    undefined = {"usage_skewness", "usage_kurtosis"}
    assert np.isnan(even) == (one.id in undefined) and not np.isnan(single)
    assert np.isnan(alone) == (one.id in undefined | {"usage_entropy_normalised"})
    large = np.arange(1, 257, dtype=np.int64) * 2**31
    low, high = one.range_of(large)
    assert np.isfinite(one.function(large)) and (high is None or one.function(large) <= high)


def test_even_loads_past_31_bits_are_even():
    loads = np.full(256, 2**33 + 1)
    assert usage.cv(loads) == 0 and usage.entropy_bits(loads) == pytest.approx(8, abs=1e-12) and usage.max_violation(loads) == 0


def test_a_row_of_nothing_is_null_and_never_zero():
    row = usage.statistics_row(3, np.zeros(4, int))
    assert row.pop("layer_id") == 3 and set(row.values()) == {None}


@pytest.mark.parametrize(("counts", "why"), [([0.5, 0.5], "integer"), ([1, -1], "negative"), ([[1, 2]], "one layer"), ([], "one layer")])
def test_what_is_no_count_is_refused_with_the_remedy(counts, why):
    with pytest.raises(ValueError, match=why):
        usage.statistics_row(0, np.array(counts))


def test_collapse_is_a_claim_about_a_bound():
    loads = np.array([0, 0, 1, 400, 599])
    found = usage.collapse(loads, 500)
    assert found.rate == 0.6 and found.dead == (0, 1) and found.load_bound == pytest.approx(0.006)  # 1 of 1,000 is below 0.1 / 5, too
    none_dead = usage.collapse([10, 10], 20)
    assert none_dead.rate == 0 and none_dead.load_bound is None
    assert usage.collapse([0, 0], 1).rate is None and "no_data" in str(usage.collapse([0, 0], 1).reason)
    for wrong in (0, 1001):
        with pytest.raises(ValueError, match="design effect"):
            usage.collapse(loads, wrong)


def test_the_jackknife_takes_the_bias_of_the_entropy_back():
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(30):
        groups = Groups((rng.multinomial(8, np.full(32, 1 / 32), size=40),), 40)
        found = estimates("usage_entropy_bits", groups)[()]
        gaps.append((found.plug_in - 5, found.value - 5))
    plug_in, corrected = np.mean(gaps, axis=0)
    assert plug_in < -0.06 and abs(corrected) < 0.02
