import math

import numpy as np
import pytest

from analysis.metrics.entropy import (
    SEED_THRESHOLD,
    EntropyThreshold,
    confidence,
    even_rest_nats,
    gini_simpson,
    normalised,
    plug_in_nats,
    softmax_entropy_nats,
    top_k_entropy_nats,
)
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
    given, expected = case("E03")
    full, top = softmax_entropy_nats(given["logits"]), top_k_entropy_nats(given["logits"], given["k"])
    assert full == pytest.approx(expected["full_nats"], abs=1e-9)
    assert full / math.log(2) == pytest.approx(expected["full_bits"], abs=1e-9)
    assert [normalised(h, 8) for h in full] == pytest.approx(expected["full_normalised"], abs=1e-9)
    assert top == pytest.approx(expected["top2_renorm_nats"], abs=1e-9)
    assert [(full < 0.5).sum(), (full < EntropyThreshold(0.5, "bits").nats(8)).sum(), (top < 0.5).sum()] == [
        expected["n_below_half_full_nats"], expected["n_below_half_full_bits"], expected["n_below_half_top2_nats"]]


def test_confidence_e01():
    given, expected = case("E01")
    weights = given["weights_renormalised"]
    assert gini_simpson(weights) == pytest.approx(expected["gini_simpson"], abs=1e-9)
    assert 1 - gini_simpson(weights) == pytest.approx(expected["confidence_seed"], abs=1e-9)
    assert confidence(weights) == pytest.approx(expected["confidence_normalised"], abs=1e-9)
    with pytest.raises(ValueError, match="0/0"):
        confidence([[1.0]])


def test_entropy_of_counts_a05_and_a09():
    given, expected = case("A09")
    assert plug_in_nats(given["probabilities"]) / math.log(2) == pytest.approx(expected["entropy"], abs=1e-9)
    assert plug_in_nats([17]) == 0.0 and normalised(0.0, 1) is None  # A05
    with pytest.raises(ValueError, match="no_data"):
        plug_in_nats([0, 0])


def test_masked_logits_carry_no_probability():
    assert softmax_entropy_nats([0.0, 0.0, -np.inf]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("experts", [1, 2, 8, 128])
def test_even_rest_is_the_entropy_of_the_written_out_distribution(experts):
    for top in (1 / experts, 0.5 if experts > 1 else 1.0, 0.9 if experts > 1 else 1.0, 1.0):
        p = np.array([top] + [(1 - top) / max(experts - 1, 1)] * (experts - 1))
        assert even_rest_nats(top, experts) == pytest.approx(plug_in_nats(p), abs=1e-12)
