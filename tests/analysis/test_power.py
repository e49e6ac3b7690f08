import numpy as np
import pytest

from analysis.power import (
    design_effect,
    documents_needed,
    effective_tokens,
    minimum_detectable_effect,
    pairs_needed,
    seed_power,
    seeds_needed,
    tokens_needed,
)
from tests.references.cases import case


def test_documents_needed_m06():
    given, expected = case("M06")
    assert documents_needed(given["sd_between_documents"], given["detectable_difference"]) == expected["n_documents"]


def test_design_effect_k04():
    given, expected = case("K04")
    assert design_effect(given["icc"], given["mean_doc_len"], given["cv_doc_len"]) == pytest.approx(expected["deff"], abs=1e-9)
    assert effective_tokens(given["n_docs"], given["mean_doc_len"], given["icc"]) == pytest.approx(expected["n_eff"], abs=1e-9)


def test_detectable_effect_is_143_hundredths_of_the_half_width():
    assert minimum_detectable_effect(1.0) == pytest.approx(1.43, abs=0.001)  # metrics specification 7


def test_no_difference_needs_no_number():
    with pytest.raises(ValueError, match="no number of documents"):
        documents_needed(0.25, 0.0)


def test_seeds_needed_for_one_and_two_standard_deviations():
    """Metrics specification 4.5: 17 seeds per arm, 5 to 6 seeds per arm."""
    assert seeds_needed(1.0) == 17 and seeds_needed(2.0) == 6 and seeds_needed(-2.0) == 6
    assert 0.75 < seed_power(5, 2.0) < 0.8 and seeds_needed(2.0, paired=True) == 5
    with pytest.raises(ValueError, match="no number of seeds"):
        seeds_needed(0.0)


def test_seed_power_at_no_effect_is_the_size():
    assert seed_power(5, 0.0) == pytest.approx(0.05) and seed_power(5, 0.0, paired=True) == pytest.approx(0.05)


def test_seed_power_is_what_is_found():
    rng = np.random.default_rng(0)
    arms = rng.normal(size=(4000, 2, 6)) + np.array([2.0, 0.0])[:, None]
    difference = arms.mean(axis=2) @ [1, -1]
    found = np.abs(difference) / (arms.var(axis=2, ddof=1).sum(axis=1) / 6) ** 0.5 > 2.2281
    assert found.mean() == pytest.approx(seed_power(6, 2.0), abs=0.02)


def test_pairs_needed_for_a_correlation():
    assert pairs_needed(0.5) == 30  # ((1.96 + .84) / atanh .5)^2 + 3 = 29.01
    assert pairs_needed(0.9, 0.8) == 60 and pairs_needed(-0.5) == 30
    for wrong in ((0.8, 0.8), (1.0, 0.5)):
        with pytest.raises(ValueError, match="two different numbers"):
            pairs_needed(*wrong)


def test_tokens_that_a_table_needs():
    """Metrics specification 7."""
    assert tokens_needed(128, 128) == 81_920 and tokens_needed(256, 256) == 327_680 and tokens_needed(8, 8, per_cell=10) == 640
