import numpy as np
import pytest

from analysis.estimation import Groups, estimates
from analysis.metrics.retention import (
    markov_prediction,
    retention,
    retention_over_source_seed,
    retention_over_target_seed,
    right_by_document,
    right_by_mode,
)
from analysis.two_sample import two_sample_estimates


@pytest.mark.parametrize(("right_BB", "known"), [(0.52, False), (0.521, True), (0.5, False), (0.4, False)])
def test_a_denominator_of_at_most_0_02_is_none_in_accuracies_and_in_counts(right_BB, known):
    assert np.isnan(retention(0.6, right_BB, 0.5)) != known
    assert np.isnan(retention(600, round(1000 * right_BB), 500, 1000)) != known


def test_chance_is_taken_off_both_sides():
    assert retention(0.5, 0.6, 0.2) == pytest.approx(0.75)
    assert retention(50, 60, 20, 100) == pytest.approx(0.75)
    assert retention(0.1, 0.6, 0.2) == pytest.approx(-0.25)  # worse than the modal expert
    assert retention([0.6, 0.2], [0.6, 0.6], [0.2, 0.2]).tolist() == [1.0, 0.0]


def test_a_denominator_of_two_points_or_less_is_none():
    assert np.isnan(retention(0.25, 0.22, 0.25)) and np.isnan(retention(25, 27, 25, 100)) and np.isnan(retention(0.3, 0.2, 0.25))
    assert retention(28, 28, 25, 100) == 1.0
    assert np.isnan(retention(0, 0, 0, 0))


def test_the_seeds_two_readings_differ_from_it_and_from_each_other():
    assert retention_over_target_seed(50, 60) == pytest.approx(50 / 60)
    assert retention_over_source_seed(50, 100, 160, 200) == pytest.approx(0.5 / 0.8)
    assert np.isnan(retention_over_target_seed(5, 0)) and np.isnan(retention_over_source_seed(5, 10, 0, 10))


def test_its_interval_is_the_paired_jackknife_over_documents():
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 150, 40)
    hard = rng.beta(8, 4, 40)  # of a document, for both predictors
    right_BB, right_AB, right_mode = (rng.binomial(tokens, share * hard) for share in (1.0, 0.85, 0.3))
    made = estimates("retention", Groups((right_AB, right_BB, right_mode, tokens), 40)).item()
    slow = []
    for left in range(40):
        kept = np.arange(40) != left
        ab, bb, mode = (x[kept].sum() / tokens[kept].sum() for x in (right_AB, right_BB, right_mode))
        slow.append((ab - mode) / (bb - mode))
    slow = np.array(slow)
    assert made.value == pytest.approx(40 * made.plug_in - 39 * slow.mean(), abs=1e-12)
    assert made.se == pytest.approx((39 / 40 * ((slow - slow.mean()) ** 2).sum()) ** 0.5, abs=1e-12)
    unpaired = estimates("retention", Groups((right_AB, rng.permutation(right_BB), right_mode, tokens), 40)).item()
    assert made.se < unpaired.se


def test_undefined_retention_keeps_its_reason():
    rows = np.full(30, 10)
    made = estimates("retention", Groups((rows, rows, rows, 2 * rows), 30)).item()
    assert made.value is None and "modal expert" in made.reason


def test_the_reading_over_the_source_takes_two_samples():
    right, tokens = np.array([5, 6, 7]), np.array([10, 10, 10])
    made = two_sample_estimates("retention_over_source_seed", Groups((right, tokens), 3), Groups((tokens - 1, tokens), 3)).item()
    assert made.plug_in == pytest.approx(0.6 / 0.9) and made.low < made.plug_in < made.high


def test_markov_predictions_are_the_likeliest_next_expert():
    joint = np.array([[5, 9, 0], [0, 0, 0], [4, 4, 1]])
    assert markov_prediction(joint).tolist() == [1, 1, 1]  # unseen and tied rows lean on the marginal, where expert 1 leads
    assert markov_prediction(np.array([[2, 2], [2, 2]])).tolist() == [0, 0]
    assert markov_prediction(np.zeros((2, 2))).tolist() == [-1, -1]


def test_right_tokens_are_counted_by_document():
    joint = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    assert right_by_document([1, 0], joint).tolist() == [5, 13]
    assert right_by_document([-1, 1], joint).tolist() == [4, 8]
    assert right_by_mode(joint.sum(axis=1)).tolist() == [6, 14]
    assert right_by_mode([[1, 1], [2, 2]]).tolist() == [1, 2]  # ties: lowest id
    for wrong in ([0], [0, 2]):
        with pytest.raises(ValueError, match="does not fit"):
            right_by_document(wrong, joint)


def test_a_domain_retains_all_of_itself():
    rng = np.random.default_rng(1)
    law = (np.eye(4) * 3 + 1).reshape(-1) / 28
    train, docs = rng.multinomial(5000, law).reshape(4, 4), rng.multinomial(100, law, size=20).reshape(20, 4, 4)
    right = right_by_document(markov_prediction(train), docs).sum()
    mode, tokens = right_by_mode(docs.sum(axis=1)).sum(), docs.sum()
    assert retention(right, right, mode, tokens) == 1.0
