import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.metrics.frequency import (
    freq_entropy_rho,
    freq_entropy_rho_seed,
    frequency_entropy,
    midranks,
    partial_spearman,
    spearman,
    spearman_layers,
    spearman_p,
)
from tests.references.cases import case


def test_frequency_entropy_spearman_e07():
    inputs, expected = case("E07")
    rho = float(spearman(np.array(inputs["frequency"], float), np.array(inputs["mean_entropy"])))
    assert rho == pytest.approx(expected["rho"], abs=1e-9)
    assert spearman_p(rho, expected["n_types"]) == pytest.approx(expected["p_t_approx"], rel=1e-8)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
@settings(max_examples=80, deadline=None)
def test_midranks_are_those_of_scipy(values):
    assert midranks(np.array(values, float)) == pytest.approx(stats.rankdata(values))


def test_batches_agree_with_scipy_and_absent_types_drop_out():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (20, 40)).astype(float), rng.normal(size=(20, 40))
    y[rng.random(y.shape) < 0.2] = np.nan
    for i, rho in enumerate(spearman(x, y)):
        kept = np.isfinite(y[i])
        assert rho == pytest.approx(stats.spearmanr(x[i, kept], y[i, kept]).statistic, abs=1e-12)


@pytest.mark.parametrize("kind", ["draws", "one frequency", "absent alike", "absent apart", "one frequency, absent apart by draw"])
def test_layers_together_are_the_bits_of_layers_alone(kind):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (20, 40)).astype(float), rng.normal(size=(3, 20, 40)).round(1)
    if kind.startswith("one frequency"):
        x = np.broadcast_to(x[:1], x.shape)
    absent = {"absent alike": rng.random((20, 40)) < 0.2, "absent apart": rng.random(y.shape) < 0.2,
              "one frequency, absent apart by draw": rng.random((20, 40)) < 0.2}.get(kind, np.zeros(y.shape, bool))
    y[np.broadcast_to(absent, y.shape)] = np.nan
    alone = np.stack([spearman(x, layer) for layer in y], axis=-1)
    assert np.array_equal(spearman_layers(x, y), alone)


def test_rho_is_undefined_for_constants_and_two_types():
    assert np.isnan(spearman(np.ones(5), np.arange(5.0))) and np.isnan(spearman(np.array([1.0, 2.0]), np.array([2.0, 1.0])))
    assert spearman_p(float("nan"), 10) is None and spearman_p(-0.5, 2) is None and spearman_p(1.0, 9) == 0.0


def test_partial_of_one_covariate_is_the_textbook_formula():
    rng = np.random.default_rng(1)
    z = rng.normal(size=200)
    x, y = z + rng.normal(size=200), z + rng.normal(size=200)
    a, b, c = (stats.spearmanr(u, v).statistic for u, v in ((x, y), (x, z), (y, z)))
    made = partial_spearman(x, y[None], midranks(z)[None], np.ones(200, bool))
    assert made[0] == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)), abs=1e-12)  # Kendall & Stuart 27.5


def test_nothing_is_left_of_a_correlation_with_itself_given_itself():
    x = np.random.default_rng(2).normal(size=50)
    assert np.isnan(partial_spearman(x, x[None] * 2, midranks(x)[None], np.ones(50, bool)))[0]


def test_registered_form_gives_e07():
    given, expected = case("E07")
    found = frequency_entropy(given["frequency"], given["mean_entropy"], given["min_count"])
    assert (found.rho, found.p, found.n_types) == pytest.approx((expected["rho"], expected["p_t_approx"], expected["n_types"]), abs=1e-8)
    assert freq_entropy_rho_seed(given["frequency"], given["mean_entropy"]) == found.rho


def test_the_floor_counts_occurrences_and_too_few_types_are_undefined():
    counts, entropy = np.array([100, 60, 50, 49, 1]), np.array([0.1, 0.2, 0.3, 9.0, 0.0])
    assert frequency_entropy(counts, entropy).n_types == 3 and freq_entropy_rho(counts, entropy) == -1
    few = frequency_entropy(counts[1:], entropy[1:])
    assert few.rho is None and few.p is None and few.n_types == 2 and few.reason.startswith("no_data")
    assert "constant" in frequency_entropy(counts, np.ones(5)).reason
    absent = frequency_entropy(np.array([100, 60, 50, 0]), np.array([0.1, 0.2, 0.3, np.nan]), 0)
    assert absent.n_types == 3


def test_frequency_may_come_from_other_documents():
    counts, entropy, corpus = np.array([60, 70, 80]), np.array([0.3, 0.2, 0.1]), np.array([9, 5, 1])
    assert frequency_entropy(counts, entropy, frequency_V=corpus).rho == 1 and frequency_entropy(counts, entropy).rho == -1
    with pytest.raises(ValueError, match="per type"):
        frequency_entropy(counts, entropy[:2])
