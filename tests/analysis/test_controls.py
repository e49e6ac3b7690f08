import numpy as np
import pytest
from scipy import stats

from analysis.controls import DOCUMENT_SD, OCCURRENCE_SD, ControlAim, normal_scores, plan_controls, plant, top_probability
from analysis.metrics.entropy import SEED_THRESHOLD
from analysis.metrics.entropy_estimators import plug_in
from tests.references.memory_trace import MemoryTrace, Shape, sample_trace

SHAPE = Shape(n_test=60, n_calibration=40, n_train=60, length=150, vocabulary=200, n_layers=2, n_experts=8, top_k=2)
TRACE, FREQUENCY = sample_trace(11, SHAPE)
AIM = ControlAim(np.array([SEED_THRESHOLD.nats(8)] * 2))
PLAN = plan_controls(TRACE, np.asarray(FREQUENCY.sum(axis=0)).ravel(), AIM)


def planted(kind, plan=PLAN, trace=TRACE):
    return MemoryTrace(trace.meta, trace.documents, list(plant(trace.batches(), plan, kind)))


def test_the_columns_of_a_row_agree_with_each_other():
    for batch in planted("positive").shards:
        for layer in range(2):
            top = batch.top1_prob[layer].astype(float)
            p = np.column_stack([top, *[(1 - top) / 7] * 7])
            assert batch.entropy_nats[layer] == pytest.approx(plug_in(p, base=np.e), abs=1e-6)
            assert batch.simpson[layer] == pytest.approx((p**2).sum(axis=1), abs=1e-6)
            assert batch.weights[layer].astype(float).sum(axis=1) == pytest.approx(1, abs=2e-3)
            assert (np.diff(batch.weights[layer].astype(float), axis=1) <= 0).all()
            assert (batch.ids[layer][:, 0] != batch.ids[layer][:, 1]).all() and batch.ids[layer].max() < 8
            assert (top > 1 / 8).all() and (top <= 1).all()


def test_rows_and_documents_are_the_runs_own():
    own = list(TRACE.batches())
    made = planted("negative").shards
    for name in ("document", "position", "token_id"):
        assert np.array_equal(np.concatenate([getattr(b, name) for b in own]), np.concatenate([getattr(b, name) for b in made]))


def test_a_document_is_planted_alike_whatever_is_planted_beside_it():
    whole = planted("positive")
    alone = MemoryTrace(TRACE.meta, TRACE.documents, list(plant(TRACE.batches(split="test"), PLAN, "positive")))
    a, b = (next(iter(t.batches(split="test"))) for t in (whole, alone))
    rows = slice(0, min(len(a), len(b)))
    assert np.array_equal(a.entropy_nats[:, rows], b.entropy_nats[:, rows]) and np.array_equal(a.ids[1][rows], b.ids[1][rows])


def test_the_planted_correlation_is_the_one_stated():
    """Spearman of a bivariate normal with correlation r is (6/pi) asin(r/2); slope was chosen for the stated rho."""
    assert 6 / np.pi * np.arcsin(PLAN.slope / 2) == pytest.approx(-PLAN.facts["planted_rho"], abs=1e-12)
    rng = np.random.default_rng(0)
    score = rng.normal(size=200_000)
    own = PLAN.slope * score + np.sqrt(1 - PLAN.slope**2) * rng.normal(size=score.size)
    assert stats.spearmanr(score, -own).statistic == pytest.approx(PLAN.facts["planted_rho"], abs=0.01)


def test_the_planted_rho_stands_five_errors_beyond_the_bound():
    m = PLAN.facts["n_types_judged"]
    error = 1.25 * np.sqrt((1 + 0.4**2 / 2) / (m - 3))
    assert np.arctanh(-0.4) - np.arctanh(PLAN.facts["planted_rho"]) == pytest.approx(5 * error)


def test_expected_shares_are_reached():
    rows = list(planted("positive").batches(split="test"))
    entropy = np.concatenate([b.entropy_nats for b in rows], axis=1)
    assert (entropy < AIM.thresholds_nats[0]).mean() == pytest.approx(PLAN.facts["expected_low_entropy_share"], abs=0.05)


def test_the_negative_control_has_the_same_law_of_entropies_without_the_slope():
    effects = {kind: np.concatenate([PLAN.type_effect(kind, layer) for layer in range(2)]) for kind in ("positive", "negative")}
    score = np.tile(PLAN.score, 2)
    assert abs(np.corrcoef(effects["negative"], score)[0, 1]) < 0.2 < np.corrcoef(effects["positive"], score)[0, 1]
    assert effects["negative"].std() == pytest.approx(1, abs=0.15)


def test_documents_share_a_shift():
    shares = []
    for batch in planted("negative").shards:
        logit = np.log(batch.top1_prob[0].astype(float) - 1 / 8) - np.log1p(-batch.top1_prob[0].astype(float))
        latent = (logit - PLAN.centre) / 1.5 - PLAN.type_effect("negative", 0)[batch.token_id]
        shares += [latent[batch.document == d].mean() for d in np.unique(batch.document)]
    assert np.std(shares) == pytest.approx(np.hypot(DOCUMENT_SD, OCCURRENCE_SD / np.sqrt(150)), rel=0.25)


def test_a_run_too_small_for_a_positive_control_says_so():
    assert PLAN.unreachable is None
    few = plan_controls(TRACE, np.asarray(FREQUENCY.sum(axis=0)).ravel(), ControlAim(AIM.thresholds_nats, frequency_threshold=10**6))
    assert "collect more calibration documents" in few.unreachable
    none = plan_controls(TRACE, np.asarray(FREQUENCY.sum(axis=0)).ravel(), ControlAim(AIM.thresholds_nats, min_type_count=10**6))
    assert none.unreachable is not None and "0 judged types" in none.unreachable


def test_scores_of_types_beyond_the_judged_are_those_of_the_nearest_end():
    scores = normal_scores(np.array([1, 50, 60, 70, 900]), np.array([1, 2, 3]))
    assert scores[0] == scores[1] < scores[2] < scores[3] == scores[4] and scores[1:4].mean() == pytest.approx(0, abs=1e-12)


def test_one_expert_is_chosen_with_certainty():
    assert top_probability(np.array([-9.0, 9.0]), 0.0, 1) == pytest.approx(1.0)
