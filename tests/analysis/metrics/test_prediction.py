import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.arithmetic import entropy_bits
from analysis.estimation import Groups, jackknife
from analysis.metrics import prediction as pr
from analysis.metrics.baselines import TokensToPredict, baseline_guesses
from analysis.metrics.information import uncertainty_removed
from tests.references.cases import case

SEEDS = st.integers(0, 2**32 - 1)


def test_reference_permuted_predictor_b04():
    given_, expected = case("B04")
    joint = pr.prediction_counts(given_["predicted"], given_["actual"], given_["n_experts"])
    assert pr.predictor_mi(joint) == pytest.approx(expected["mi_bits"], abs=1e-9)
    assert entropy_bits(joint.sum(axis=0)) == pytest.approx(expected["h_actual_bits"], abs=1e-9)
    assert uncertainty_removed(joint) == pytest.approx(expected["fraction_of_entropy"], abs=1e-9)
    assert pr.top1_accuracy(joint) == expected["accuracy"]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_relabelled_predictions_keep_their_information_and_lose_their_accuracy(seed):
    rng = np.random.default_rng(seed)
    actual = rng.integers(0, 5, 80)
    predicted = np.where(rng.random(80) < 0.7, actual, rng.integers(0, 5, 80))
    joint, shifted = (pr.prediction_counts(p, actual, 5) for p in (predicted, (predicted + 1) % 5))
    assert pr.predictor_mi(shifted) == pytest.approx(float(pr.predictor_mi(joint)), abs=1e-12)
    assert uncertainty_removed(shifted) == pytest.approx(float(uncertainty_removed(joint)), abs=1e-12)
    assert pr.top1_accuracy(joint) == np.mean(predicted == actual) > pr.top1_accuracy(shifted)
    both = rng.permutation(5)
    assert pr.top1_accuracy(pr.prediction_counts(both[predicted], both[actual], 5)) == pytest.approx(float(pr.top1_accuracy(joint)))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 4))
def test_recall_against_sets(seed, n_guesses):
    rng = np.random.default_rng(seed)
    guesses = rng.random((30, 5)).argsort(axis=1)[:, :n_guesses]
    actual = rng.random((30, 5)).argsort(axis=1)[:, :2]
    actual[rng.random(actual.shape) < 0.2] = -1
    group = rng.integers(0, 3, 30)
    found = sum(len(set(g) & {e for e in a if e >= 0}) for g, a in zip(guesses.tolist(), actual.tolist()))
    counts = pr.recall_counts(guesses, actual, 5)
    assert counts.tolist() == [found, int((actual >= 0).sum())]
    grouped = pr.recall_counts(guesses, actual, 5, group, 4)
    assert grouped.shape == (4, 2) and grouped.sum(axis=0).tolist() == counts.tolist()
    assert (pr.recall_counts(guesses[:, ::-1], actual[:, ::-1], 5) == counts).all()


def test_one_guess_of_a_first_choice_recalls_what_it_gets_right():
    rng = np.random.default_rng(0)
    predicted, actual = rng.integers(0, 4, 60), rng.integers(-1, 4, 60)
    joint = pr.prediction_counts(predicted, actual, 4)
    assert pr.recall_at_k(pr.recall_counts(predicted, actual, 4)) == pytest.approx(float(pr.top1_accuracy(joint)))
    assert joint.sum() == np.count_nonzero(actual >= 0)
    assert pr.recall_at_k(pr.recall_counts(np.tile(np.arange(4), (60, 1)), actual, 4)) == 1.0  # k = E


def test_the_first_guess_is_the_one_that_is_counted():
    joint = pr.prediction_counts([[2, 0], [1, 0]], [[0, 1], [-1, 1]], 3)
    assert joint[2, 0] == joint[1, 1] == 1 and joint.sum() == 2


def tables(rng, quality, n_groups=40, n_tokens=100, n_experts=4, actual=None):
    group = np.repeat(np.arange(n_groups), n_tokens)
    actual = rng.integers(0, n_experts, len(group)) if actual is None else actual
    predicted = np.where(rng.random(len(group)) < quality, actual, rng.integers(0, n_experts, len(group)))
    joint, found = (count(predicted, actual, n_experts, group) for count in (pr.prediction_counts, pr.recall_counts))
    return pr.PredictionTables(joint, found), actual


def comparison(qualities, seed=0, **options):
    rng = np.random.default_rng(seed)
    predictor, actual = tables(rng, qualities.pop("predictor"), **options)
    others = {name: tables(rng, quality, actual=actual, **options)[0] for name, quality in qualities.items()}
    return predictor, others


def test_a_gain_is_paired_over_the_same_documents():
    predictor, others = comparison({"predictor": 0.8, "uniform": 0.0, "modal": 0.1, "token_type": 0.5, "previous_layer": 0.3})
    found = pr.compare_predictor(predictor, others, pr.ScoredDocuments(40))
    assert found.best_baseline == found.best_accuracy_baseline == "token_type"
    twin = jackknife(Groups((predictor.joint_GPY, others["token_type"].joint_GPY), 40), lambda a, b: pr.predictor_mi(a) - pr.predictor_mi(b))
    assert (found.gain.value, found.gain.low, found.gain.high) == pytest.approx((float(twin.value), float(twin.low), float(twin.high)), abs=1e-12)
    assert found.gain.value == pytest.approx(found.predictor.mi.value - found.baselines["token_type"].mi.value, abs=1e-12)
    assert found.gain.low > pr.GAIN_BITS and found.gain.gate is None and found.accuracy_gain.low > 0
    assert found.predictor.recall.value == pytest.approx(found.predictor.accuracy.value, abs=1e-12)


def test_a_baseline_compared_with_itself_gains_nothing_exactly():
    predictor, _ = comparison({"predictor": 0.6})
    found = pr.compare_predictor(predictor, {"previous_layer": predictor}, pr.ScoredDocuments(40))
    assert found.gain.value == found.gain.low == found.gain.high == 0.0
    assert found.gain.gate == "missing_baseline: uniform, modal, token_type"


def test_a_random_predictor_has_information_by_the_plug_in_and_none_corrected():
    rng = np.random.default_rng(4)
    found = [pr.predictor_estimates(tables(rng, 0.0)[0], pr.ScoredDocuments(40)).mi for _ in range(40)]
    assert min(one.plug_in for one in found) > 0 > min(one.value for one in found)
    assert sum(one.low <= 0 <= one.high for one in found) >= 33


def test_a_permuted_predictor_gains_information_and_no_accuracy():
    predictor, others = comparison({"predictor": 0.9, "uniform": 0.0, "modal": 0.0, "token_type": 0.2, "previous_layer": 0.2})
    shifted = pr.PredictionTables(np.roll(predictor.joint_GPY, 1, axis=1))
    found = pr.compare_predictor(shifted, others, pr.ScoredDocuments(40))
    assert found.gain.low > pr.GAIN_BITS and found.accuracy_gain.high < 0
    assert found.predictor.u.value > 0.5 and found.predictor.accuracy.value < 0.1 and found.predictor.recall is None


def test_gates():
    predictor, others = comparison({"predictor": 0.9, "uniform": 0.0}, n_groups=29)
    assert pr.predictor_estimates(predictor, pr.ScoredDocuments(29)).accuracy.gate.startswith("too_few_documents")
    few, _ = tables(np.random.default_rng(0), 0.5, n_groups=30, n_tokens=2, n_experts=6)
    gated = pr.predictor_estimates(few, pr.ScoredDocuments(30))
    assert gated.mi.gate.startswith("undersampled") and gated.u.gate.startswith("undersampled") and gated.accuracy.gate is None
    assert gated.mi.value is not None
    assert pr.compare_predictor(predictor, others, pr.ScoredDocuments(29)).gain.gate.startswith("too_few_documents")


def test_constant_actual_choices_leave_nothing_to_predict():
    joint = pr.prediction_counts(np.zeros(200, int), np.zeros(200, int), 3, np.arange(200) % 40)
    found = pr.predictor_estimates(pr.PredictionTables(joint), pr.ScoredDocuments(40))
    assert found.mi.value == 0 and found.u.value is None and found.u.reason.startswith("H(Y) = 0") and found.accuracy.value == 1


def test_no_token_is_undefined():
    empty = pr.PredictionTables(np.zeros((5, 3, 3), int), np.zeros((5, 2), int))
    found = pr.predictor_estimates(empty, pr.ScoredDocuments(5))
    for one in (found.mi, found.u, found.accuracy, found.recall):
        assert one.value is None and one.reason
    assert found.grassberger is None
    assert pr.compare_predictor(empty, {"modal": empty}, pr.ScoredDocuments(5)).gain.value is None


def test_baselines_from_fitted_documents_through_to_the_comparison():
    rng = np.random.default_rng(5)

    def draw(n):
        token, previous = rng.integers(0, 10, n), rng.integers(0, 4, n)
        actual = np.where(rng.random(n) < 0.7, token % 4, previous)
        return TokensToPredict(actual, rng.integers(0, 2**63, n).astype(np.uint64), previous, token)

    fitted, scored = draw(4000), draw(4000)
    group = np.arange(4000) % 50
    guesses = baseline_guesses(fitted, scored, 4)
    counted = {name: pr.PredictionTables(pr.prediction_counts(guess, scored.actual, 4, group)) for name, guess in guesses.items()}
    oracle = pr.PredictionTables(pr.prediction_counts(scored.actual, scored.actual, 4, group))
    found = pr.compare_predictor(oracle, counted, pr.ScoredDocuments(50))
    assert found.best_baseline == "token_type" and found.gain.gate is None
    assert found.predictor.u.value == pytest.approx(1.0) and found.predictor.accuracy.value == 1.0
    assert found.baselines["modal"].mi.value == pytest.approx(0, abs=1e-12) and abs(found.baselines["uniform"].mi.value) < 0.02


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="-1 is no guess"):
        pr.prediction_counts([-1, 0], [0, 1], 2)
    with pytest.raises(ValueError, match="same tokens"):
        pr.recall_counts([0], [0, 1], 2)
    with pytest.raises(ValueError, match="same labels"):
        pr.top1_accuracy(np.ones((2, 3)))
    predictor, others = comparison({"predictor": 0.9, "modal": 0.0})
    with pytest.raises(ValueError, match="none; a predictor"):
        pr.compare_predictor(predictor, {}, pr.ScoredDocuments(40))
    elsewhere = pr.PredictionTables(others["modal"].joint_GPY[::-1])
    with pytest.raises(ValueError, match="other tokens"):
        pr.compare_predictor(predictor, {"modal": elsewhere}, pr.ScoredDocuments(40))
