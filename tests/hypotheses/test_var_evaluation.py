from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_matrix

from analysis.controls import ControlAim, plan_controls, plant
from analysis.kernels import to_fixed
from analysis.metrics import frequency
from analysis.metrics.entropy import SEED_THRESHOLD, EntropyThreshold
from analysis.trace import TraceError
from hypotheses.h01_var import VAR
from hypotheses.judge import judge
from hypotheses.var_evaluation import VarEvidence, VarSettings, evaluate
from hypotheses.var_tables import spread
from hypotheses.verdict import interval_outcome
from tests.analysis.test_counts import renumbered
from tests.references.memory_trace import MemoryTrace, Shape, sample_trace
from tests.references.slow_counts import slow_counts

SHAPE = Shape(n_test=60, n_calibration=40, n_train=60, length=150, vocabulary=200, n_layers=2)
QUICK = VarSettings(n_bootstrap=199, n_bootstrap_exploratory=49, n_null=19)
STRINGS = [f" t{v}" for v in range(200)]
SEED_COLUMNS = ["token_id", "token_str", "frequency", "mean_entropy", "std_entropy", "mean_confidence", "std_confidence",
                "routing_consistency", "top_expert", "min_entropy", "max_entropy"]
METRICS = [
    "freq_entropy_rho", "freq_entropy_rho_partial", "freq_entropy_rho_band_0", "freq_entropy_rho_band_1",
    "freq_entropy_rho_band_4", "freq_entropy_rho_band_16", "freq_entropy_rho_band_64", "freq_entropy_rho_seed",
    "entropy_share_below", "entropy_share_below_half_nat", "entropy_share_below_half_bit", "entropy_type_share_below",
    "entropy_type_share_below_half_nat", "entropy_mean_nats", "entropy_mean_normalised", "confidence_mean", "fastpath_coverage",
    "fastpath_coverage_calibration", "fastpath_optimism", "fastpath_agreement", "fastpath_agreement_set",
    "fastpath_missed_weight", "fastpath_type_share", "fastpath_coverage_seed", "collision", "collision_kappa",
    "consistency_modal", "consistency_rarefied", "consistency_modal_top1000", "consistency_rarefied_top1000", "zipf_r2",
    "zipf_exponent", "zipf_ks", "top_1000_coverage",
]


@cache
def sampled():
    return sample_trace(21, SHAPE)


@cache
def evaluated(settings=QUICK):
    trace, counts = sampled()
    return evaluate(VarEvidence(trace, counts, STRINGS, settings))


def test_every_metric_is_there_in_all_layers():
    made = evaluated()
    assert set(METRICS) == set(made.estimates)
    assert all(len(family) == 2 for family in made.by_layer.values())
    assert set(METRICS) - set(made.by_layer) == {"zipf_r2", "zipf_exponent", "zipf_ks", "top_1000_coverage"}


def test_every_estimate_has_an_interval_that_holds_its_value_or_a_reason():
    for family in (evaluated().estimates, *({k: e} for k, f in evaluated().by_layer.items() for e in f)):
        for name, e in family.items():
            assert e.reason if e.value is None else e.low <= e.value <= e.high, name


def test_point_values_are_those_of_plain_loops():
    trace, counts = sampled()
    slow, frequencies = slow_counts(trace, "test"), np.asarray(counts.sum(axis=0)).ravel()
    judged = [v for v, one in slow.items() if len(one["positions"]) >= 50]
    made = evaluated()
    for layer in range(2):
        means = [np.mean(slow[v]["h"][layer]) for v in judged]
        assert made.by_layer["freq_entropy_rho"][layer].plug_in == pytest.approx(stats.spearmanr(frequencies[judged], means).statistic, abs=1e-12)
        every = np.concatenate([one["h"][layer] for one in slow.values()])
        assert made.by_layer["entropy_share_below"][layer].plug_in == pytest.approx((every < 0.5).mean(), abs=1e-12)
        assert made.by_layer["entropy_mean_nats"][layer].plug_in == pytest.approx(every.mean(), abs=1e-9)
        assert made.by_layer["entropy_type_share_below"][layer].value == pytest.approx(np.mean(np.array(means) < 0.5), abs=1e-12)
        modal = [max(slow[v]["n_e"][layer].values()) / len(slow[v]["positions"]) for v in judged]
        assert made.by_layer["consistency_modal"][layer].plug_in == pytest.approx(np.mean(modal), abs=1e-12)
        calibration = slow_counts(trace, "calibration")
        covered = {v for v, one in calibration.items() if len(one["positions"]) >= 50 and np.mean(one["h"][layer]) < 0.5}
        share = sum(len(slow[v]["positions"]) for v in covered if v in slow) / len(every)
        assert made.by_layer["fastpath_coverage"][layer].plug_in == pytest.approx(share, abs=1e-12)
    for name in ("freq_entropy_rho", "entropy_share_below", "fastpath_coverage"):
        assert made.estimates[name].plug_in == pytest.approx(np.mean([e.plug_in for e in made.by_layer[name]]), abs=1e-12)


def test_optimism_is_calibration_minus_test():
    made = evaluated().estimates
    assert made["fastpath_optimism"].value == pytest.approx(made["fastpath_coverage_calibration"].value - made["fastpath_coverage"].value)


def test_collision_without_dependence_on_type_is_at_its_null():
    trace, counts = sampled()
    rng = np.random.default_rng(0)
    shards = [replace(s, ids=tuple(np.argsort(rng.random((len(s), 8)), axis=1)[:, :2].astype(np.uint8) for _ in s.ids)) for s in trace.shards]
    made = evaluate(VarEvidence(MemoryTrace(trace.meta, trace.documents, shards), counts, STRINGS, QUICK)).estimates
    assert made["collision_kappa"].low < 0 < made["collision_kappa"].high
    assert made["collision"].value == pytest.approx(made["collision"].null, abs=0.02) and made["collision"].null == pytest.approx(0.25, abs=0.01)
    assert made["consistency_modal"].value == pytest.approx(made["consistency_modal"].null, abs=0.03)


def test_the_types_table_has_the_seeds_eleven_columns_first_and_typed():
    stats_table = evaluated().tables["routing_stats"]
    assert list(stats_table)[:11] == SEED_COLUMNS
    whole, text = {"token_id", "frequency", "top_expert"}, {"token_str"}
    for name in SEED_COLUMNS:
        kind = int if name in whole else str if name in text else float
        assert {type(v) for v in stats_table[name]} <= {kind, *([type(None)] if name.startswith("std") else [])}, name
    trace, _ = sampled()
    slow = slow_counts(trace, "test")
    for row in range(0, len(stats_table["token_id"]), 17):
        v, layer = stats_table["token_id"][row], stats_table["layer"][row]
        h = slow[v]["h"][layer]
        assert stats_table["frequency"][row] == len(h) and stats_table["token_str"][row] == STRINGS[v]
        assert stats_table["mean_entropy"][row] == pytest.approx(np.mean(h), abs=1e-8)
        assert stats_table["std_entropy"][row] == (pytest.approx(np.std(h, ddof=1), abs=1e-6) if len(h) > 1 else None)
        n_e = slow[v]["n_e"][layer]
        assert stats_table["top_expert"][row] == min(n_e, key=lambda e: (-n_e[e], e))
        assert stats_table["routing_consistency"][row] == pytest.approx(max(n_e.values()) / len(h))


def test_all_columns_of_a_table_are_equally_long():
    for name, table in evaluated().tables.items():
        assert len({len(column) for column in table.values()}) == 1, name
    assert set(evaluated().tables) == {"routing_stats", "rho_sensitivity", "layers", "frequency_bins", "entropy_histogram", "threshold_grid",
                                       "cumulative_coverage", "fastpath_table"}


def test_tables_agree_with_the_estimates():
    made, tables = evaluated(), evaluated().tables
    assert sum(tables["entropy_histogram"]["count"]) == 2 * made.facts["n_tokens"]
    row = next(i for i, c in enumerate(tables["rho_sensitivity"]["min_count"]) if c == 50 and tables["rho_sensitivity"]["layer"][i] == -1)
    assert tables["rho_sensitivity"]["plug_in"][row] == pytest.approx(made.estimates["freq_entropy_rho"].plug_in)
    grid = tables["threshold_grid"]
    seed = [i for i, (f, h) in enumerate(zip(grid["min_count"], grid["max_entropy_share_of_lnE"])) if f == 50 and h == SEED_THRESHOLD.value]
    assert grid["coverage"][seed[0]] == pytest.approx(made.estimates["fastpath_coverage_calibration"].plug_in)
    assert tables["cumulative_coverage"]["coverage"][-1] <= 1


def test_the_seeds_own_numbers():
    trace, _ = sampled()
    slow, seed = slow_counts(trace, "test"), evaluated().facts["seed_rule"]
    n = np.array([len(one["positions"]) for one in slow.values()])
    means = np.array([np.mean(one["h"][0]) for one in slow.values()])
    expected = stats.spearmanr(n, means)
    assert (seed["rho"], seed["p"], seed["n_types"]) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue), len(n))
    assert seed["share"] == pytest.approx((means < 0.5).mean())
    assert seed["coverage"] == pytest.approx(n[(means < 0.5) & (n >= 50)].sum() / n.sum())


def test_relabelling_experts_and_renumbering_documents_change_nothing():
    trace, counts = sampled()
    order = np.random.default_rng(0).permutation(8).astype(np.uint8)
    relabelled = MemoryTrace(trace.meta, trace.documents, [replace(s, ids=tuple(order[i] for i in s.ids)) for s in trace.shards])
    for other in (relabelled, renumbered(trace, 9)):
        made = evaluate(VarEvidence(other, counts, STRINGS, QUICK))
        for name, e in evaluated().estimates.items():
            for field in ("value", "low", "high", "null"):
                near = 2e-3 if name.startswith("fastpath_agree") else 1e-9  # ties of the table go to the lowest id
                assert getattr(made.estimates[name], field) == pytest.approx(getattr(e, field), abs=near), (name, field)


def test_one_document_has_no_spread_between_documents():
    trace, counts = sampled()
    kept = [d for d in trace.documents if d.split == "calibration"] + [d for d in trace.documents if d.split == "test"][:1]
    made = evaluate(VarEvidence(MemoryTrace(trace.meta, kept, trace.shards), counts, STRINGS, QUICK))
    for name in ("freq_entropy_rho", "entropy_share_below", "fastpath_coverage", "collision"):
        assert made.estimates[name].reason == "one document: no spread between documents", name


def test_below_thirty_documents_there_is_a_number_but_no_interval():
    trace, counts = sampled()
    kept = [d for d in trace.documents if d.split == "calibration"] + [d for d in trace.documents if d.split == "test"][:20]
    made = evaluate(VarEvidence(MemoryTrace(trace.meta, kept, trace.shards), counts, STRINGS, QUICK)).estimates
    for name in ("freq_entropy_rho", "entropy_share_below", "fastpath_coverage"):
        assert made[name].value is not None and made[name].low is None and "no interval below 30 documents" in made[name].method


def test_an_empty_test_split_is_no_data():
    trace, counts = sampled()
    kept = [d for d in trace.documents if d.split == "calibration"]
    made = evaluate(VarEvidence(MemoryTrace(trace.meta, kept, trace.shards), counts, STRINGS, QUICK)).estimates
    assert "no_data" in made["entropy_share_below"].reason and "no_data" in made["freq_entropy_rho"].reason


def test_constant_entropies_are_undefined_with_the_reason():
    trace, counts = sampled()
    flat = MemoryTrace(trace.meta, trace.documents, [replace(s, entropy_nats=np.full_like(s.entropy_nats, 0.25)) for s in trace.shards])
    made = evaluate(VarEvidence(flat, counts, STRINGS, QUICK)).estimates
    assert "constant" in made["freq_entropy_rho"].reason
    assert made["entropy_share_below"].value == 1.0 and made["fastpath_coverage"].value > 0.3


def test_absent_columns_are_undefined_and_not_zero():
    trace, counts = sampled()
    bare = MemoryTrace(trace.meta, trace.documents, [replace(s, weights=None, top1_prob=None) for s in trace.shards])
    made = evaluate(VarEvidence(bare, counts, STRINGS, QUICK))
    assert made.estimates["confidence_mean"].reason == "the trace has no top-1 probabilities"
    assert made.estimates["fastpath_missed_weight"].reason == "the trace has no combine weights"
    assert set(made.tables["routing_stats"]["mean_confidence"]) == {None}


@pytest.mark.parametrize(("experts", "k"), [(1, 1), (2, 2), (4, 1)])
def test_degenerate_routers_are_measured_or_undefined(experts, k):
    trace, counts = sample_trace(4, Shape(n_test=35, n_calibration=35, n_train=20, length=60, vocabulary=40, n_layers=1, n_experts=experts, top_k=k))
    made = evaluate(VarEvidence(trace, counts, [], QUICK)).estimates
    if experts == 1:
        assert made["freq_entropy_rho"].value is None and made["entropy_mean_normalised"].reason == "E = 1: normalised entropy is 0/0"
    if experts == k:
        assert made["collision"].value == pytest.approx(1.0) and made["collision_kappa"].value is None
    assert made["entropy_mean_nats"].value is not None


def test_frequencies_of_another_vocabulary_are_refused():
    trace, _ = sampled()
    with pytest.raises(TraceError, match="frequency: 7 columns but the trace's vocabulary has 200"):
        VarEvidence(trace, csr_matrix((3, 7), dtype=np.int64), STRINGS)


def test_a_swept_threshold_is_a_setting_and_not_the_judged_default():
    assert VarSettings().entropy_threshold == SEED_THRESHOLD and VarSettings().frequency_threshold == 50
    made = evaluated(replace(QUICK, entropy_threshold=EntropyThreshold.parse("0.5 bits")))
    assert made.estimates["entropy_share_below"].value == pytest.approx(made.estimates["entropy_share_below_half_bit"].value)


@cache
def controls():
    shape = Shape(n_test=110, n_calibration=110, n_train=60, length=260, vocabulary=330, n_layers=2, n_experts=16)
    trace, counts = sample_trace(31, shape)
    plan = plan_controls(trace, np.asarray(counts.sum(axis=0)).ravel(), ControlAim(np.array([SEED_THRESHOLD.nats(16)] * 2)))
    return {kind: VarEvidence(MemoryTrace(trace.meta, trace.documents, list(plant(trace.batches(), plan, kind))), counts, [], QUICK)
            for kind in ("positive", "negative")}


def outcomes(evidence):
    estimates = evaluate(evidence).estimates
    return {c.name: interval_outcome(c, estimates[c.metric].low, estimates[c.metric].high) for c in VAR.criteria}


def test_controls_come_out_as_planted():
    assert set(outcomes(controls()["positive"]).values()) == {"supported"}
    assert outcomes(controls()["negative"])["rank_correlation"] == "refuted"


def test_an_estimator_with_its_sign_flipped_fails_the_positive_control(monkeypatch):
    right = frequency.spearman_layers
    monkeypatch.setattr("hypotheses.var_rank.spearman_layers", lambda x, y: -right(x, y))
    assert outcomes(controls()["positive"])["rank_correlation"] == "refuted"


def test_a_judge_given_failed_controls_gives_no_verdict(monkeypatch):
    right = frequency.spearman_layers
    made = evaluate(controls()["negative"])
    monkeypatch.setattr("hypotheses.var_rank.spearman_layers", lambda x, y: -right(x, y))
    ungated = replace(VAR, criteria=tuple(replace(c, gate=replace(c.gate, min_types=0)) for c in VAR.criteria))
    broken = {kind: evaluate(evidence) for kind, evidence in controls().items()}
    assert judge(ungated, made, controls=broken).verdict is None


@pytest.mark.slow
def test_controls_come_out_as_planted_twenty_times():
    """The positive control stands 5 standard errors beyond its bound: it fails less than once in a thousand runs."""
    shape = Shape(n_test=110, n_calibration=110, n_train=60, length=260, vocabulary=330, n_layers=2, n_experts=16)
    trace, counts = sample_trace(32, shape)
    for seed in range(20):
        aim = ControlAim(np.array([SEED_THRESHOLD.nats(16)] * 2), seed=seed)
        plan = plan_controls(trace, np.asarray(counts.sum(axis=0)).ravel(), aim)
        for kind in ("positive", "negative"):
            control = MemoryTrace(trace.meta, trace.documents, list(plant(trace.batches(), plan, kind)))
            made = outcomes(VarEvidence(control, counts, [], QUICK))
            assert made["rank_correlation"] == {"positive": "supported", "negative": "refuted"}[kind], seed
            assert kind == "negative" or set(made.values()) == {"supported"}, seed


def test_resampling_over_tokens_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="tokens of one document share its topic"):
        VarSettings(resample="token")


def test_exploratory_replicates_are_at_most_the_judged_ones():
    assert VarSettings(n_bootstrap=39).n_bootstrap_exploratory == 39
    assert VarSettings().n_bootstrap_exploratory == 199


def test_spread_of_all_layers_is_that_of_each():
    n, values = np.array([0, 1, 4]), np.random.default_rng(0).uniform(0, 2, (2, 4))
    sums = to_fixed(np.stack([np.zeros(2), values[:, 0], values.sum(axis=1)], axis=1))
    squares = to_fixed(np.stack([np.zeros(2), values[:, 0] ** 2, (values**2).sum(axis=1)], axis=1))
    both = spread(sums, squares, n)
    assert np.isnan(both[:, :2]).all() and both[:, 2] == pytest.approx(values.std(axis=1, ddof=1), abs=1e-7)
    assert np.array_equal(both, np.stack([spread(s, q, n) for s, q in zip(sums, squares)]), equal_nan=True)
