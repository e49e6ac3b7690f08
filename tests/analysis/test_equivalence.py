import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.equivalence import equivalence, equivalence_outcome, from_interval, noise_ceiling_margin, tost
from analysis.estimate import Estimate

finite = st.floats(-5, 5)


def difference(low, high, level=0.90, gate=None):
    return Estimate((low + high) / 2, low, high, "bits", "document", 100, "paired group jackknife", level, gate=gate)


@pytest.mark.parametrize("low, high, outcome", [
    (-0.04, 0.03, "supported"), (-0.05, 0.03, "inconclusive"), (-0.04, 0.06, "inconclusive"), (-0.2, 0.3, "inconclusive"),
    (0.05, 0.2, "refuted"), (0.06, 0.2, "refuted"), (-0.2, -0.05, "refuted"), (0.01, 0.04, "supported")])
def test_only_an_interval_inside_the_margin_shows_no_difference(low, high, outcome):
    assert equivalence_outcome(low, high, 0.05) == outcome
    assert equivalence(difference(low, high), 0.05).outcome == outcome


@given(finite, st.floats(1e-3, 3), st.floats(1e-3, 5), st.integers(1, 200))
def test_the_two_tests_and_the_interval_agree(value, se, margin, df):
    made = tost(value, se, margin, df=df)
    if abs(made.p - 0.05) > 1e-9:
        assert (made.outcome == "supported") == (made.p < 0.05)


def test_two_one_sided_tests_are_the_librarys():
    from scipy.stats import ttest_1samp

    d = np.random.default_rng(0).normal(0.1, 1, 30)
    made = tost(d.mean(), d.std(ddof=1) / 30**0.5, 0.5, df=29)
    sides = [ttest_1samp(d, -0.5, alternative="greater").pvalue, ttest_1samp(d, 0.5, alternative="less").pvalue]
    assert made.p == pytest.approx(max(sides))
    assert [made.low, made.high] == pytest.approx(list(ttest_1samp(d, 0).confidence_interval(0.90)))
    assert tost(0.1, 0.2, 0.5).low == pytest.approx(0.1 - 1.6448536 * 0.2)


def test_no_significance_is_not_sameness():
    assert equivalence(difference(-0.3, 0.4), 0.05).outcome == "inconclusive"


def test_undefined_and_gated_differences_decide_nothing():
    assert equivalence(Estimate.undefined("no_data: nothing"), 0.1).reason == "no_data: nothing"
    gated = equivalence(difference(-0.01, 0.01, gate="undersampled: few"), 0.1)
    assert gated.outcome == "inconclusive" and gated.reason == "undersampled: few" and gated.low == -0.01
    point = Estimate(0.0, None, None, "bits", "document", 1, "plug-in", 0.90)
    assert equivalence(point, 0.1).outcome == "inconclusive"


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_is_declared_above_zero(margin):
    for call in (lambda: equivalence_outcome(0, 1, margin), lambda: tost(0, 1, margin), lambda: equivalence(difference(0, 1), margin)):
        with pytest.raises(ValueError, match="declare one above 0"):
            call()


def test_wrong_intervals_are_refused():
    with pytest.raises(ValueError, match="level 0.95"):
        equivalence(difference(0, 0.01, level=0.95), 0.1)
    for low, high in ((1, 0), (float("nan"), 1)):
        with pytest.raises(ValueError, match="not an interval"):
            equivalence_outcome(low, high, 0.1)
    for wrong in ((float("nan"), 1, 1), (0, -1, 1)):
        with pytest.raises(ValueError, match="standard error"):
            tost(*wrong)


def test_no_error_leaves_only_the_value():
    assert tost(0.04, 0.0, 0.05).outcome == "supported" and tost(0.04, 0.0, 0.05).p == 0
    assert tost(0.05, 0.0, 0.05).outcome == "refuted" and tost(0.05, 0.0, 0.05).p == 1


def test_another_level_rescales_about_the_centre():
    wide = (0.1 - 2.045230 * 0.2, 0.1 + 2.045230 * 0.2)
    assert from_interval(*wide, level=0.95, df=29) == pytest.approx((0.1 - 1.699127 * 0.2, 0.1 + 1.699127 * 0.2), abs=1e-6)


def test_the_noise_ceiling_sets_a_margin_only_where_it_is_above_noise():
    assert noise_ceiling_margin(difference(0.8, 1.2), 0.1) == pytest.approx(0.1)
    for within in (difference(-0.1, 0.3), Estimate.undefined("no_data")):
        with pytest.raises(ValueError, match="no noise ceiling"):
            noise_ceiling_margin(within, 0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        noise_ceiling_margin(difference(0.8, 1.2), 1.5)
