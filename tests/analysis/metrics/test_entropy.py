import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics.entropy import (
    SEED_THRESHOLD,
    EntropyThreshold,
    confidence,
    confidence_seed,
    entropy_readings,
    entropy_share_below,
    even_rest_nats,
    feasible_moments,
    gini_simpson,
    gini_simpson_seed,
    h_full,
    h_topk,
    probabilities,
    share_below,
    softmax_entropy_nats,
    top_k_entropy_nats,
)
from analysis.metrics.entropy_estimators import plug_in
from tests.references.cases import case


@pytest.mark.parametrize(("text", "nats"), [("0.5 nats", 0.5), ("0.7213475 bits", 0.5), ("0.2404492 normalised", 0.5), (" 1nats ", 1.0)])
def test_a_threshold_is_read_with_its_unit(text, nats):
    assert EntropyThreshold.parse(text).nats(8) == pytest.approx(nats, abs=1e-6)


@pytest.mark.parametrize("text", ["0.5", "", "nats", "0.5 hartleys", "-1 nats", "nan nats", "inf bits", "1e nats"])
def test_a_threshold_without_a_usable_unit_or_number_is_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match="write"):
        EntropyThreshold.parse(text)


def test_the_seeds_half_nat_scales_with_the_number_of_experts():
    assert SEED_THRESHOLD.nats(8) == pytest.approx(0.5, abs=1e-15)
    assert SEED_THRESHOLD.nats(16) == pytest.approx(0.667, abs=5e-4)  # metrics specification 2.4


def test_routing_entropies_e03():
    inputs, expected = case("E03")
    full, top = softmax_entropy_nats(inputs["logits"]), top_k_entropy_nats(inputs["logits"], inputs["k"])
    assert full == pytest.approx(expected["full_nats"], abs=1e-9)
    assert full / math.log(2) == pytest.approx(expected["full_bits"], abs=1e-9)
    assert full / math.log(8) == pytest.approx(expected["full_normalised"], abs=1e-9)
    assert top == pytest.approx(expected["top2_renorm_nats"], abs=1e-9)
    assert [(full < 0.5).sum(), (full < EntropyThreshold(0.5, "bits").nats(8)).sum(), (top < 0.5).sum()] == [
        expected["n_below_half_full_nats"], expected["n_below_half_full_bits"], expected["n_below_half_top2_nats"]]


def test_confidence_e01():
    inputs, expected = case("E01")
    weights = inputs["weights_renormalised"]
    assert gini_simpson(weights) == pytest.approx(expected["gini_simpson"], abs=1e-9)
    assert 1 - gini_simpson(weights) == pytest.approx(expected["confidence_seed"], abs=1e-9)
    assert confidence(weights) == pytest.approx(expected["confidence_normalised"], abs=1e-9)
    assert confidence_seed(weights) == pytest.approx(expected["confidence_seed"], abs=1e-9)
    assert gini_simpson_seed(weights).max() <= expected["gini_max"]
    assert np.isnan(confidence([[1.0]])).all()  # 0/0


def test_masked_logits_carry_no_probability():
    assert softmax_entropy_nats([0.0, 0.0, -np.inf]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("experts", [1, 2, 8, 128])
def test_even_rest_is_the_entropy_of_the_written_out_distribution(experts):
    for top in (1 / experts, 0.5 if experts > 1 else 1.0, 0.9 if experts > 1 else 1.0, 1.0):
        p = np.array([top] + [(1 - top) / max(experts - 1, 1)] * (experts - 1))
        assert even_rest_nats(top, experts) == pytest.approx(plug_in(p, base=math.e), abs=1e-12)


def test_h_full_and_h_topk_are_those_of_e03():
    inputs, expected = case("E03")
    assert h_full(inputs["logits"]) == pytest.approx(expected["full_nats"], abs=1e-9)
    kept = np.sort(np.exp(np.array(inputs["logits"])), axis=1)[:, -2:]
    assert h_topk(kept) == pytest.approx(expected["top2_renorm_nats"], abs=1e-9)


def test_one_weight_and_no_weight_have_no_entropy_of_weights():
    assert np.isnan(h_topk([[1.0], [0.3]])).all()
    assert np.isnan(h_topk([[0.0, 0.0], [1.0, 0.0]])).tolist() == [True, False]
    with pytest.raises(ValueError, match="negative"):
        h_topk([[-0.1, 1.1]])


def test_masked_and_impossible_logits():
    assert h_full([[0.0, 0.0, -np.inf]]) == pytest.approx(math.log(2))
    with np.errstate(all="raise"):
        assert np.isnan(h_full([-np.inf, -np.inf])) and h_full([3.0]) == 0
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="no router logit"):
            h_full([0.0, wrong])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), experts=st.integers(2, 256), shift=st.floats(-50, 50))
def test_decisions_forget_names_and_shifts(seed, experts, shift):
    rng = np.random.default_rng(seed)
    logits, order = rng.normal(0, 5, (3, experts)), rng.permutation(experts)
    assert h_full(logits[:, order] + shift) == pytest.approx(h_full(logits), abs=1e-9)
    p = rng.dirichlet(np.full(experts, 0.3), 3)
    assert confidence(p[:, order]) == pytest.approx(confidence(p), abs=1e-12)
    assert (confidence(p) >= -1e-12).all() and confidence(np.full(experts, 1 / experts)) == pytest.approx(0, abs=1e-12)
    assert confidence(np.eye(experts)) == pytest.approx(1)


def test_the_renormalisation_flag_makes_two_numbers_of_one_token():
    """0.42 and 0.855 (metrics specification 2.5, B.5)."""
    weights = [0.35, 0.15]
    assert gini_simpson_seed(weights) == pytest.approx(0.42) and gini_simpson_seed(weights, renormalise=False) == pytest.approx(0.855)
    assert confidence_seed(weights) == pytest.approx(0.58) and confidence_seed(weights, renormalise=False) == pytest.approx(0.145)
    assert confidence_seed([[0.2]]) == 1 and np.isnan(confidence_seed([0.0, 0.0]))


def test_probabilities_are_renormalised_within_float16_rounding_and_refused_beyond():
    p = np.random.default_rng(0).dirichlet(np.ones(64), 100).astype(np.float16)
    made, deviation = probabilities(p)
    assert made.sum(axis=1) == pytest.approx(1, abs=1e-15) and 0 < deviation < 2e-3
    with pytest.raises(ValueError, match="declare"):
        probabilities([[0.5, 0.4]])
    made, deviation = probabilities([[0.5, 0.3]], declared=True)
    assert made[0] == pytest.approx([0.625, 0.375]) and deviation == pytest.approx(0.2)
    for wrong in ([[0.0, 0.0]], [[np.nan, 1.0]], [[-0.5, 1.5]]):
        with pytest.raises(ValueError, match="probabilities"):
            probabilities(wrong, declared=True)


def test_confidence_refuses_rows_that_are_no_distribution():
    for wrong in ([0.5, 0.2], [1.5, -0.5], [np.nan, 0.5]):
        with pytest.raises(ValueError, match="probabilities"):
            confidence(wrong)
    assert confidence(np.array([0.3, 0.7], np.float16)) == pytest.approx(2 * (0.3**2 + 0.7**2) - 1, abs=1e-3)


def test_seed_forms_without_a_weight_are_undefined_whether_renormalised_or_not():
    for renormalise in (True, False):
        assert np.isnan(gini_simpson_seed([0.0, 0.0], renormalise=renormalise))
        assert np.isnan(confidence_seed([[0.0, 0.0]], renormalise=renormalise)).all()


def test_an_entropy_of_zero_has_no_sign():
    assert not np.signbit(h_full([[5.0, -np.inf]])).any()


def test_what_seed_003_printed_can_be_of_the_full_softmax_only():
    found = entropy_readings(0.8234, 0.5123, 8, 2)
    assert {name: one.feasible for name, one in found.items()} == {"full_nats": True, "full_bits": True, "top2_nats": False, "top2_bits": False}
    assert found["top2_bits"].largest_std == pytest.approx(0.381, abs=5e-4) and found["top2_nats"].largest_std is None
    assert found["top2_nats"].largest == pytest.approx(math.log(2)) and found["full_bits"].largest == pytest.approx(3)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_real_moments_are_always_feasible(values):
    mean = min(max(float(np.mean(values)), 0.0), 3.0)
    found = feasible_moments(mean, max(float(np.std(values)) - 1e-9, 0.0), 3.0)
    assert found.feasible


def test_the_share_below_is_strict_and_of_known_entropies():
    half = EntropyThreshold(0.5, "nats")
    assert share_below([0.5, 0.49, 0.51, np.nan], half, 8) == pytest.approx(1 / 3) and share_below([np.nan], half, 8) is None
    assert entropy_share_below(3, 4) == 0.75 and np.isnan(entropy_share_below(0, 0))
