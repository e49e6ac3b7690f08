"""Topology from a trace to findings: controls get their verdicts, undefined things their reasons, and tables can be stored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.estimate import Estimate
from analysis.metrics.information import mi_first_choice
from analysis.topology_controls import KINDS
from analysis.trace import DocumentRow
from experiments import evaluation_files
from hypotheses import h02_topology
from hypotheses.claim import Gate
from hypotheses.h02_topology import TOPOLOGY, evaluate
from hypotheses.judge import judge, judge_criterion
from hypotheses.topology_domains import decisive_pair
from hypotheses.topology_evaluation import threshold_curve
from hypotheses.topology_evidence import PredictorEvidence, TopologyCounts, TopologyEvidence, TopologySettings
from hypotheses.topology_parts import columns, mean_of
from hypotheses.topology_specialisation import specialisation_part
from hypotheses.topology_topics import groups_of, topics_part
from tests.hypotheses.topology_worlds import corpus, planted, predictions
from tests.references.memory_trace import MemoryTrace

FAST = TopologySettings(n_shifts=39, n_map_shifts=5, n_decomposition=4, n_null_clusters=39, n_edge_shifts=99, n_permutations=99, n_type_replicates=19,
                        n_type_permutations=9, threads=1)


@pytest.fixture(scope="module")
def shared():
    """The positive control, evaluated in full with a predictor."""
    return evaluate(TopologyEvidence(planted("positive"), FAST, predictor=predictions()))


@pytest.mark.parametrize("kind", KINDS)
def test_each_control_gets_its_declared_outcomes(kind):
    found = evaluate(TopologyEvidence(planted(kind), replace(FAST, judged_only=True)))
    asked = TOPOLOGY.expects[kind]
    outcomes = {c.name: judge_criterion(TOPOLOGY, c, found).outcome for c in TOPOLOGY.criteria if c.name in asked}
    assert {name: outcome for name, outcome in outcomes.items() if outcome not in asked[name]} == {}


def test_what_is_judged_is_the_same_with_and_without_the_rest(shared):
    alone = evaluate(TopologyEvidence(planted("positive"), replace(FAST, judged_only=True), predictor=predictions()))
    for criterion in TOPOLOGY.criteria:
        assert alone.estimates[criterion.metric] == shared.estimates[criterion.metric], criterion.metric


def test_planted_information_and_its_transfer_are_found(shared):
    planted_bits = 1.5 + 0.6 * (3 - 1.5)
    assert shared.estimates["mi_first_choice"].value == pytest.approx(planted_bits, abs=0.1)
    assert shared.estimates["transfer_info"].value == pytest.approx(planted_bits, abs=0.12)
    assert shared.estimates["coact_consistency"].value == pytest.approx(1, abs=0.05)
    assert shared.estimates["transfer_ratio"].value == pytest.approx(1, abs=0.05)


def test_the_plug_in_is_the_metric_of_the_whole_table(shared):
    trace = planted("positive")
    table = np.zeros((8, 8))
    for batch in trace.batches(split="test"):
        np.add.at(table, (batch.ids[0][:, 0], batch.ids[1][:, 0]), 1)
    table_LL = shared.tables["cross_layer_mi"]
    row = next(i for i, pair in enumerate(zip(table_LL["layer_i"], table_LL["layer_j"])) if pair == (0, 1))
    assert shared.tables["cross_layer_mi"]["plug_in"][row] == pytest.approx(float(mi_first_choice(table)), abs=1e-9)


def test_the_sources_of_information_add_up_in_both_orders(shared):
    table = shared.tables["decomposition"]
    for pair in {(a, b) for a, b in zip(table["layer_i"], table["layer_j"])}:
        sums = [sum(v for a, b, o, v in zip(table["layer_i"], table["layer_j"], table["order"], table["plug_in"]) if (a, b) == pair and o == order)
                for order in ("token first", "document first")]
        assert sums[0] == pytest.approx(sums[1], abs=1e-9)


def test_the_seeds_cross_domain_formula_is_ill_posed(shared):
    assert shared.estimates["cross_domain_naive_pairing"].value is None
    table = shared.tables["cross_domain_metrics"]
    assert [status for metric, status in zip(table["metric"], table["status"]) if metric == "cross_domain_naive_pairing"] == ["ill_posed"]


def test_declared_pairs_whose_domains_are_absent_say_so(shared):
    table = shared.tables["domain_pairs"]
    assert len(table["source"]) == 14 and all("no test document of" in reason for reason in table["reason"])
    own = evaluate(TopologyEvidence(planted("positive"), replace(FAST, lags=(1,)), pairs_of_interest=(("domain0", "domain1"),)))
    assert own.tables["domain_pairs"]["source"] == ["domain0", "domain1"] and set(own.tables["domain_pairs"]["status"]) == {"estimated"}


def test_a_good_predictor_is_supported_with_its_retention(shared):
    outcomes = {c.name: judge_criterion(TOPOLOGY, c, shared) for c in TOPOLOGY.criteria}
    assert outcomes["captured.predictor_gain"].outcome == outcomes["captured.accuracy_gain"].outcome == "supported"
    assert shared.facts["best_baseline"] == "previous_layer"
    # accuracy .8 + .2/8 at home and .6 + .4/8 abroad, chance about 1/8: (.65 - .125) / (.825 - .125)
    assert shared.estimates["retention"].value == pytest.approx(0.75, abs=0.03)
    assert shared.estimates["markov_gain"].value == pytest.approx(shared.estimates["predictor_gain"].value)
    assert shared.estimates["markov_accuracy_gain"].value == pytest.approx(0.4 * 7 / 8, abs=0.02)  # .8 against .4, the rest by chance
    kept = dict(zip(shared.tables["retention"]["predictor"], shared.tables["retention"]["value"]))
    assert list(kept) == ["prophet", "prophet_without_attention", "previous_layer"] and kept["previous_layer"] == pytest.approx(0.75, abs=0.05)
    assert outcomes["generalises.mi_vs_retention"].outcome == "inconclusive"
    assert shared.estimates["mi_vs_accuracy"].gate.startswith("descriptive")
    assert shared.tables["learning_curve"]["epoch"].tolist() == [0, 1]
    assert set(shared.tables["predictor_mi"]["predictor"]) == {
        "prophet", "prophet_without_attention", "uniform", "modal", "token_type", "previous_layer"}


def test_the_gain_is_the_mean_of_the_domains_own_gains(shared):
    found = predictions()
    gains = []
    for domain in ("domain0", "domain1"):
        for layer in range(2):
            one, other = (np.sum(found.scores[name, domain, domain].joint_LGPY[layer], axis=0) for name in ("prophet", "previous_layer"))
            gains.append(float(mi_first_choice(one) - mi_first_choice(other)))
    assert shared.estimates["predictor_gain"].plug_in == pytest.approx(np.mean(gains), abs=1e-9)


def test_a_missing_baseline_bars_the_verdict():
    found = predictions()
    scores = {key: value for key, value in found.scores.items() if key[0] != "token_type"}
    without = PredictorEvidence(found.layers, scores, found.n_documents, missing={"token_type": "no token ids"})
    made = evaluate(TopologyEvidence(planted("positive"), replace(FAST, judged_only=True), predictor=without))
    assert "token_type (no token ids)" in made.estimates["predictor_gain"].gate
    assert judge_criterion(TOPOLOGY, TOPOLOGY.criteria[5], made).outcome == "inconclusive"


def test_every_predictor_is_shown_with_the_interval_of_the_same_method(shared):
    table = shared.tables["predictor_home"]
    ends = {(name, metric): (low, high) for name, metric, low, high in zip(*(table[column] for column in ("predictor", "metric", "low", "high")))}
    prophet = shared.estimates["predictor_mi"]
    assert ends["prophet", "predictor_mi"] == (prophet.low, prophet.high)
    assert all(low < high for (name, metric), (low, high) in ends.items() if metric == "top1_accuracy" and name != "uniform")
    assert {name for name, _ in ends} == set(shared.tables["predictor_mi"]["predictor"])


def test_a_predictor_of_one_domain_decides_nothing_about_the_others():
    found = predictions()
    scores = {key: value for key, value in found.scores.items() if key != ("prophet", "domain1", "domain1")}
    made = evaluate(TopologyEvidence(planted("positive"), replace(FAST, judged_only=True), predictor=replace(found, scores=scores)))
    for place in (5, 6):
        one = judge_criterion(TOPOLOGY, TOPOLOGY.criteria[place], made)
        assert one.outcome == "inconclusive" and "prophet was not scored at home in domain1" in one.reason


def test_predictions_of_untold_learning_decide_nothing():
    caveat = "learnt from: nothing shows"
    made = evaluate(TopologyEvidence(planted("positive"), replace(FAST, judged_only=True), predictor=replace(predictions(), caveat=caveat)))
    for place in (5, 6):
        one = judge_criterion(TOPOLOGY, TOPOLOGY.criteria[place], made)
        assert one.outcome == "inconclusive" and caveat in one.reason


def test_without_a_predictor_its_criteria_are_inconclusive_with_the_reason():
    made = evaluate(TopologyEvidence(planted("positive"), replace(FAST, judged_only=True)))
    for name in ("captured.predictor_gain", "captured.accuracy_gain", "generalises.mi_vs_retention"):
        one = judge_criterion(TOPOLOGY, next(c for c in TOPOLOGY.criteria if c.name == name), made)
        assert one.outcome == "inconclusive" and "no predictor was run" in one.reason


def test_an_evaluation_is_stored_and_read_again(shared, tmp_path):
    evaluation_files.save(shared, tmp_path)
    again = evaluation_files.load(tmp_path)
    assert again.estimates == dict(shared.estimates) and set(again.tables) == set(shared.tables)
    json.dumps(evaluation_files.plain(dict(shared.facts)), allow_nan=False)
    for name, table in shared.tables.items():
        assert len({len(values) for values in table.values()}) == 1, name


def test_order_of_shards_and_threads_change_nothing(shared):
    trace = planted("positive")
    turned = MemoryTrace(trace.meta, trace.documents, trace.shards[::-1])
    made = evaluate(TopologyEvidence(turned, replace(FAST, threads=2), predictor=predictions()))
    for name, one in shared.estimates.items():
        other = made.estimates[name]
        assert (one.value is None) == (other.value is None), name
        if one.value is not None:
            assert other.value == pytest.approx(one.value, abs=1e-9), name


def test_topics_of_one_format_are_a_control_of_their_own():
    trace = planted("positive")
    topics = {row.id: f"topic{int(row.id.split('/')[1]) % 2}" for row in trace.documents if row.domain == "domain0"}
    made = evaluate(TopologyEvidence(trace, FAST, topics=topics))
    assert made.tables["wiki_topics"]["source"] == ["topic0", "topic0", "topic1", "topic1"]
    assert made.estimates["transfer_info_topics"].value == pytest.approx(2.4, abs=0.2)
    assert made.facts["topics"]["groups"] == {"topic0": ["topic0"], "topic1": ["topic1"]}
    assert made.estimates["wiki_transfer_info"] == made.estimates["transfer_info_topics"]
    assert made.estimates["wiki_transfer_ratio"].value == pytest.approx(1, abs=0.1) and made.estimates["wiki_jsd_load"].value < 0.02
    assert made.estimates["wiki_type_aligned_mi"].value is not None
    assert {"0", "1", "mean"} <= set(made.tables["wiki_cross_domain_mi"]["layer"])


def test_small_topics_are_joined_by_name_and_none_alone_is_named_a_group():
    assert groups_of({"a": 25, "b": 8, "c": 16, "d": 5}) == {"a": ("a",), "b + c + d": ("b", "c", "d")}
    assert groups_of({"a": 25, "b": 8}) == {"a": ("a",)}
    assert groups_of({"a": 3, "b": 8}) == {} == groups_of({})


def test_too_few_documents_of_topics_say_how_many_are_needed():
    trace = planted("positive", test=30)
    topics = {row.id: f"topic{int(row.id.split('/')[1]) % 3}" for row in trace.documents if row.domain == "domain0"}
    part = topics_part(TopologyEvidence(trace, FAST, topics=topics))
    assert part.estimates["wiki_transfer_info"].reason == (
        "too_few_documents: 30 documents over 3 topics; two groups of topics need 40, every topic alone 60")
    assert topics_part(TopologyEvidence(trace, FAST)).estimates["wiki_transfer_info"].reason == "no_data: no topics of one format are declared"


def test_the_curve_of_thresholds_passes_through_the_declared_verdict(shared):
    table = shared.tables["threshold_curve"]
    own = [(t, o) for c, t, o in zip(table["criterion"], table["threshold"], table["outcome"]) if c == "structured.cross_layer_mi"]
    assert own[0][1] == "supported" and own[-1][1] == "refuted"
    assert min(t for t, _ in own) <= 1.5 <= max(t for t, _ in own)
    declared = {c.name: judge_criterion(None, c, shared).outcome for c in TOPOLOGY.criteria}
    for criterion in TOPOLOGY.criteria:
        at = [o for c, t, o in zip(table["criterion"], table["threshold"], table["outcome"]) if c == criterion.name and t == criterion.bound]
        assert set(at) <= {declared[criterion.name]}


@pytest.mark.parametrize("facts", [{"n_documents_per_domain": {"law": 27, "intent": 300}}, {"n_documents": 60}, {"n_layers_left_out": 2}])
def test_a_criterion_below_its_floor_has_no_curve_for_no_threshold_would_settle_it(shared, facts):
    known = set(shared.tables["threshold_curve"]["criterion"])
    assert {"structured.cross_layer_mi", "topology_not_data.cluster_invariance"} <= known
    assert list(threshold_curve(TOPOLOGY.criteria, replace(shared, facts={**shared.facts, **facts}))) == []


ALONE = replace(FAST, lags=(1, 2))


def outcomes(trace, **settings):
    made = evaluate(TopologyEvidence(trace, replace(ALONE, **settings)))
    return made, {c.name: judge_criterion(TOPOLOGY, replace(c, gate=Gate(0, 0)), made) for c in TOPOLOGY.criteria}


def test_one_layer():
    made, found = outcomes(planted("positive", layers=1))
    assert "one MoE layer" in found["structured.cross_layer_mi"].reason and "one MoE layer" in found["topology_not_data.cross_domain_mi"].reason
    assert found["structured.coactivation_clusters"].outcome == "supported"
    assert any("one MoE layer" in caveat for caveat in made.facts["caveats"])


def test_one_domain():
    made, found = outcomes(planted("positive", domains=1))
    assert "one domain" in found["topology_not_data.cross_domain_mi"].reason and "one domain" in found["topology_not_data.cluster_invariance"].reason
    assert found["structured.cross_layer_mi"].outcome == "supported"
    assert any("one domain" in caveat for caveat in made.facts["caveats"])


def test_one_document():
    made, found = outcomes(planted("positive", domains=1, test=1, calibration=0, length=400))
    assert {one.outcome for one in found.values()} == {"inconclusive"}
    assert made.estimates["mi_first_choice"].value is not None and made.estimates["mi_first_choice"].low is None
    assert any("one document" in caveat for caveat in made.facts["caveats"])


def test_one_choice_a_token():
    made, found = outcomes(planted("positive", k=1))
    assert "k=1" in found["structured.coactivation_clusters"].reason and "k=1" in found["topology_not_data.cluster_invariance"].reason
    assert found["structured.cross_layer_mi"].outcome == "supported"
    assert len(made.tables["coactivation"]["i"]) == 0


def test_a_criterion_undefined_in_the_run_is_not_asked_of_a_control():
    run = evaluate(TopologyEvidence(planted("positive", k=1), replace(FAST, judged_only=True)))
    controls = {kind: evaluate(TopologyEvidence(planted(kind, k=1), replace(FAST, judged_only=True))) for kind in KINDS}
    finding = judge(TOPOLOGY, run, controls=controls)
    assert {name: one["status"] for name, one in finding.controls.items()} == dict.fromkeys(KINDS, "passed")
    assert "structured.coactivation_clusters" not in finding.controls["positive"]["criteria"]
    assert finding.verdict == "inconclusive"


def test_unused_experts_are_listed_and_left_out():
    trace = planted("positive", experts=8)
    layers = tuple(replace(layer, n_experts=10) for layer in trace.meta.layers)
    made, found = outcomes(MemoryTrace(replace(trace.meta, layers=layers), trace.documents, trace.shards))
    assert made.facts["unused_experts"] == {layer.key: [8, 9] for layer in layers}
    assert found["structured.cross_layer_mi"].outcome == found["structured.coactivation_clusters"].outcome == "supported"


def test_without_token_ids_nothing_is_said_of_token_types():
    made, found = outcomes(planted("positive", types=False))
    for name in ("mi_given_type", "mi_of_token_identity", "type_aligned_mi"):
        assert "no token ids" in made.estimates[name].reason
    assert found["structured.cross_layer_mi"].outcome == "supported"


def test_no_document_of_the_split_leaves_every_criterion_undefined():
    made = evaluate(TopologyEvidence(corpus(test=0), FAST, domains=("domain0", "domain1")))
    finding = judge(TOPOLOGY, made, controls=dict.fromkeys(KINDS, made))
    assert finding.verdict == "inconclusive" and {one.outcome for one in finding.criteria} == {"inconclusive"}
    assert {one.estimate.reason for one in finding.criteria} == {"no_data: no test documents"}
    assert made.facts["n_documents"] == 0 and made.facts["n_documents_per_domain"] == {"domain0": 0, "domain1": 0}
    assert "no test documents" in made.facts["caveats"][0]


def test_too_few_tokens_bar_the_verdict():
    made, found = outcomes(planted("positive", test=40, length=10, experts=16))
    assert found["topology_not_data.cross_domain_mi"].outcome == "inconclusive"
    assert "undersampled" in found["topology_not_data.cross_domain_mi"].reason


def test_calibration_documents_alone_choose_the_clusters():
    base = planted("positive")
    other = [DocumentRow(row.document, row.id, row.domain, "train" if row.split == "test" and int(row.id.split("/")[1]) % 2 else row.split)
             for row in base.documents]
    whole, half = (evaluate(TopologyEvidence(MemoryTrace(base.meta, documents, base.shards), replace(FAST, judged_only=True)))
                   for documents in (base.documents, other))
    assert whole.tables["clusters"]["cluster"].tolist() == half.tables["clusters"]["cluster"].tolist()
    assert whole.facts["clusters_chosen_on"] == "calibration documents"


def estimate(low, high, gate=None):
    return Estimate((low + high) / 2, low, high, "bits", "document", 100, "given", gate=gate)


def test_the_pair_that_decides():
    good, wide, bad, gated_one = estimate(1, 2), estimate(-1, 3), estimate(-2, -0.5), estimate(1, 2, "undersampled: few")
    assert decisive_pair([("a", good), ("b", wide)]).low == -1
    assert decisive_pair([("a", good), ("b", wide), ("c", bad)]).high == -0.5
    assert decisive_pair([("a", good), ("d", gated_one)]).gate == "undersampled: few"
    assert decisive_pair([("c", bad), ("d", gated_one)]).high == -0.5
    assert "(x)" in decisive_pair([("a", good), ("x", Estimate.undefined("no_data: nothing", unit="bits"))]).reason


def test_means_of_estimates():
    one, other = replace(estimate(0, 2), se=0.5), replace(estimate(1, 3), se=0.5)
    dependent, independent = mean_of([one, other]), mean_of([one, other], independent=True, df=1000)
    assert (dependent.value, dependent.low, dependent.high) == (1.5, 0.5, 2.5)
    assert independent.se == pytest.approx(0.5 / 2**0.5) and independent.low == pytest.approx(1.5 - 1.962 * 0.5 / 2**0.5, abs=1e-3)
    assert mean_of([one, Estimate.undefined("gone", unit="bits")]).reason == "gone"
    assert mean_of([one, replace(other, gate="undersampled: x")]).gate == "undersampled: x"


def test_columns_of_rows():
    table = columns([{"a": 1, "b": None, "c": "x"}, {"a": 2, "b": 0.5, "c": None}])
    assert table["a"].dtype == np.int64 and np.isnan(table["b"][0]) and table["c"] == ["x", ""]
    assert columns([], ("a",))["a"].shape == (0,)


def test_predictor_evidence_of_the_wrong_shape_is_refused():
    found = predictions()
    with pytest.raises(ValueError, match="layers"):
        PredictorEvidence((1,), found.scores, found.n_documents)
    with pytest.raises(ValueError, match="n_documents"):
        PredictorEvidence(found.layers, found.scores, {"domain0": 3})


def test_the_claim_names_controls_that_it_expects_something_of():
    assert set(TOPOLOGY.controls) == set(TOPOLOGY.expects) == set(KINDS)
    assert {c.source for c in TOPOLOGY.criteria if c.name.startswith("structured.cross_layer_mi")} == {f"{h02_topology.CLAIMS} 2"}


def test_permuted_labels_give_the_specialisation_that_documents_alone_make() -> None:
    shape = {"test": 30, "calibration": 4, "length": 30, "layers": 2}
    apart, alike = (planted(kind, **shape) for kind in ("misleading", "positive"))
    for trace in (apart, alike):
        counts = TopologyCounts(TopologyEvidence(trace, TopologySettings(threads=1)))
        part = specialisation_part(counts)
        null = part.tables["specialization_null"]
        assert set(null["layer"].tolist()) == {0, 1} and len(null["value"]) == 50 * 16
        assert null["value"].min() >= 0 and null["value"].max() < 0.6
        again = specialisation_part(counts).tables["specialization_null"]["value"]
        assert np.array_equal(null["value"], again)


def test_one_domain_has_no_null_of_specialisation() -> None:
    trace = planted("positive", domains=1, test=8, calibration=4, length=20, layers=2)
    assert not len(specialisation_part(TopologyCounts(TopologyEvidence(trace))).tables["specialization_null"]["value"])
