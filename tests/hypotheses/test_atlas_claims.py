"""Repetition and domain specialisation: controls get their verdicts, published numbers come back, what cannot be judged says why."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from analysis.atlas_controls import REPETITION as REPETITION_PLANS
from analysis.atlas_controls import SPECIALISATION, AtlasPlan, planted_counts
from analysis.gates import UNTESTABLE
from analysis.metrics.specialization import mi_E_D_share
from analysis.trace import DocumentRow
from hypotheses import h03_repetition, h04_domain_specialisation
from hypotheses.atlas_association import drawn_interval, log10_p
from hypotheses.atlas_evidence import AtlasEvidence, AtlasSettings
from hypotheses.h03_repetition import ANY_BOUND, FIRST_BOUND, REPETITION
from hypotheses.h04_domain_specialisation import DOMAIN_SPECIALISATION
from hypotheses.judge import judge, judge_criterion
from hypotheses.repetition_published import published_kappa
from tests.hypotheses.atlas_worlds import counts_of, world
from tests.hypotheses.topology_worlds import corpus
from tests.references.memory_trace import MemoryTrace

FAST = AtlasSettings(n_permutations=499, threads=1)
CLAIMS = {"repetition": (REPETITION, h03_repetition.evaluate, REPETITION_PLANS),
          "domain_specialisation": (DOMAIN_SPECIALISATION, h04_domain_specialisation.evaluate, SPECIALISATION)}


@pytest.fixture(scope="module")
def sticky():
    """The positive control of repetition with its evaluation."""
    trace = world(REPETITION_PLANS["positive"])
    return trace, h03_repetition.evaluate(AtlasEvidence(trace, FAST))


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (_, _, plans) in CLAIMS.items() for kind in plans])
def test_each_control_gets_its_declared_outcomes(name, kind):
    claim, evaluate, plans = CLAIMS[name]
    found = evaluate(AtlasEvidence(world(plans[kind], seed=3), FAST))
    asked = claim.expects[kind]
    outcomes = {c.name: judge_criterion(claim, c, found).outcome for c in claim.criteria if c.name in asked}
    assert {one: outcome for one, outcome in outcomes.items() if outcome not in asked[one]} == {}


@pytest.mark.parametrize("name", CLAIMS)
def test_controls_and_claim_together_give_a_verdict(name):
    claim, evaluate, plans = CLAIMS[name]
    made = {kind: evaluate(AtlasEvidence(world(plan, seed=1), FAST)) for kind, plan in plans.items()}
    assert judge(claim, made["positive"], controls=made).verdict == "supported"
    assert judge(claim, made["negative"], controls=made).verdict != "supported"


@pytest.mark.parametrize(("depths", "details", "limits"), [
    ((0, 1, 2), {}, None), ((1, 2, 3), {}, "begins at block 1"), ((0, 2, 4), {}, "no block between 0 and 2"),
    ((1, 2, 3), {"moe_layers_of_model": 3}, None), ((1, 2, 3), {"moe_layers_of_model": 4}, "1 MoE layers of the model were not captured"),
])
def test_which_layers_of_the_model_a_trace_has_is_known_or_no_criterion_passes(sticky, depths, details, limits):
    trace = sticky[0]
    layers = tuple(replace(layer, depth=depth) for layer, depth in zip(trace.meta.layers, depths, strict=True))
    moved = replace(trace, meta=replace(trace.meta, layers=layers, details=details))
    found = h03_repetition.evaluate(AtlasEvidence(moved, FAST))
    judged = {c.name: judge_criterion(REPETITION, c, found) for c in REPETITION.criteria}
    if limits is None:
        assert {one.outcome for one in judged.values()} == {"supported"}
        return
    told = [one for one in judged.values() if limits in one.reason]
    assert told and all(one.outcome == "inconclusive" and one.estimate.value is not None for one in told)
    assert ("first_layer.close_to_chance" in {one.criterion.name for one in told}) == (depths[0] > 0)
    assert all(one.outcome == "inconclusive" for name, one in judged.items() if name != "first_layer.close_to_chance")


def test_many_experts_and_choices_are_planted_as_well():
    """Slots beyond the first follow the law, too: else the information of a large top-k would sink below any bound."""
    trace = world(SPECIALISATION["positive"], experts=64, k=8, layers=1, test=55)
    found = h04_domain_specialisation.evaluate(AtlasEvidence(trace, FAST))
    assert judge_criterion(DOMAIN_SPECIALISATION, DOMAIN_SPECIALISATION.criteria[0], found).outcome == "supported"
    for batch in trace.batches():
        assert (np.diff(np.sort(batch.ids[0].astype(int), axis=1), axis=1) > 0).all()


def test_the_bounds_are_what_mixtrals_paper_calls_close_to_random():
    assert max(published_kappa(1, 0)) == pytest.approx(0.027, abs=5e-4) and max(published_kappa(1, 0)) < FIRST_BOUND
    assert max(published_kappa(2, 0)) == pytest.approx(0.065, abs=5e-4) and max(published_kappa(2, 0)) < ANY_BOUND
    assert min(published_kappa(1, 1) + published_kappa(1, 2)) > FIRST_BOUND  # and what it calls significantly higher lies beyond


def test_planted_stickiness_is_found(sticky):
    _, found = sticky
    # a token repeats with probability .3, else draws anew, so that kappa = .3 whatever the loads
    assert found.estimates["repetition_first_higher"].value == pytest.approx(0.3, abs=0.02)
    assert found.estimates["repetition_first_lowest"].value == pytest.approx(0, abs=0.02)
    assert len(found.by_layer["repetition_first"]) == 3


def test_the_table_is_that_of_a_loop_over_tokens(sticky):
    trace, found = sticky
    domain = {row.document: row.domain for row in trace.documents if row.split == "test"}
    same = met = n = 0
    for batch in trace.batches(split="test"):
        for a, b in pairwise(range(len(batch))):
            if batch.document[a] == batch.document[b] and domain[int(batch.document[a])] == "domain1":
                n += 1
                same += batch.ids[1][a, 0] == batch.ids[1][b, 0]
                met += bool(set(batch.ids[1][a]) & set(batch.ids[1][b]))
    table = found.tables["repetition"]
    rows = [i for i in range(len(table["layer"])) if table["layer"][i] == 1 and table["domain"][i] == "domain1"]
    assert [table["form"][i] for i in rows] == ["first choice", "first or second"]
    assert [table["share"][i] for i in rows] == pytest.approx([same / n, met / n])
    assert [table["even_chance"][i] for i in rows] == pytest.approx([1 / 8, 1 - 6 / 8 * 5 / 7])
    assert {int(table["n_pairs"][i]) for i in rows} == {n}


def test_renamed_experts_and_domains_change_nothing(sticky):
    trace, found = sticky
    to = np.random.default_rng(0).permutation(8).astype(np.uint8)
    renamed = [replace(batch, ids=tuple(to[ids] for ids in batch.ids)) for batch in trace.batches()]
    documents = [replace(row, domain=f"other {row.domain}") for row in trace.documents]
    again = h03_repetition.evaluate(AtlasEvidence(MemoryTrace(trace.meta, documents, renamed), FAST))
    for name, estimate in found.estimates.items():
        assert (again.estimates[name].value, again.estimates[name].low) == pytest.approx((estimate.value, estimate.low))


def test_one_choice_and_one_layer_say_so():
    single = h03_repetition.evaluate(AtlasEvidence(world(REPETITION_PLANS["positive"], k=1), FAST))
    assert single.estimates["repetition_any_higher"].reason.startswith("k=1") and single.estimates["repetition_first_higher"].value is not None
    alone = h03_repetition.evaluate(AtlasEvidence(world(REPETITION_PLANS["negative"], layers=1), FAST))
    assert "one MoE layer" in alone.estimates["repetition_first_higher"].reason and alone.estimates["repetition_first_lowest"].value is not None


def test_a_document_of_one_token_adds_nothing(sticky):
    trace, found = sticky
    batch = next(iter(trace.batches(split="test")))
    lone = replace(batch, document=np.array([9999], np.int32), position=np.zeros(1, np.int32), token_id=batch.token_id[:1],
                   ids=tuple(ids[:1] for ids in batch.ids))
    more = MemoryTrace(trace.meta, [*trace.documents, DocumentRow(9999, "lone", "domain1", "test")], [*trace.shards, lone])
    again = h03_repetition.evaluate(AtlasEvidence(more, FAST))
    assert again.estimates["repetition_first_higher"].plug_in == pytest.approx(found.estimates["repetition_first_higher"].plug_in)


def test_counts_without_documents_are_points_and_untestable():
    trace = world(SPECIALISATION["positive"])
    counts = counts_of(trace)
    found = h04_domain_specialisation.evaluate(AtlasEvidence(counts, FAST))
    one = found.estimates["mi_E_D_share"]
    assert one.value == pytest.approx(np.mean([float(mi_E_D_share(table)) for table in counts.counts]))
    assert (one.low, one.high) == (None, None) and one.gate.startswith(UNTESTABLE)
    finding = judge(DOMAIN_SPECIALISATION, found, controls={kind: h04_domain_specialisation.evaluate(AtlasEvidence(planted_counts(counts, plan, 0)))
                                                            for kind, plan in SPECIALISATION.items()})
    assert finding.verdict == "inconclusive" and all(UNTESTABLE in one.reason and "counts" in one.reason for one in finding.criteria)
    repetition = h03_repetition.evaluate(AtlasEvidence(counts, FAST))
    assert all(one.value is None and "no tokens" in one.reason for one in repetition.estimates.values())
    assert judge(REPETITION, repetition, controls=dict.fromkeys(REPETITION.controls, repetition)).verdict == "inconclusive"


def test_one_document_per_domain_is_untestable_and_sequences_are_read_together():
    trace = world(AtlasPlan(1.0, 0.2, 0.3), domains=20, test=1, calibration=0, length=200)
    found = h04_domain_specialisation.evaluate(AtlasEvidence(trace, FAST))
    assert found.estimates["association_p"].reason.startswith(f"{UNTESTABLE}: one document per domain")
    assert found.estimates["mi_E_D_share"].gate.startswith(UNTESTABLE) and found.estimates["mi_E_D_share"].low is None
    assert any("untestable" in caveat for caveat in found.facts["caveats"])
    repetition = h03_repetition.evaluate(AtlasEvidence(trace, FAST))
    assert repetition.estimates["repetition_first_higher"].low is not None
    assert set(repetition.tables["repetition"]["domain"]) == {"all documents"}


def test_one_domain_has_nothing_to_specialise_in():
    found = h04_domain_specialisation.evaluate(AtlasEvidence(world(SPECIALISATION["positive"], domains=1), FAST))
    assert "one domain" in found.estimates["mi_E_D_share"].reason and "one domain" in found.estimates["association_p"].reason


def test_documents_that_differ_are_no_domains():
    """Documents stray, domains do not: the naive test is sure of itself, the clustered one and the jackknife are not."""
    from hypotheses.atlas_association import association_table
    from hypotheses.atlas_evidence import AtlasCounts

    counts = AtlasCounts(AtlasEvidence(world(SPECIALISATION["negative"], seed=5), FAST))
    table = association_table(counts)
    assert np.median(table["p_seed"]) < 1e-6 and (table["p"] > 0.01).all()
    assert (table["mi_low"] < 0.001).all() and (table["design_effect"] > 1.5).all()


def test_too_few_documents_are_below_the_floor():
    found = h03_repetition.evaluate(AtlasEvidence(world(REPETITION_PLANS["positive"], test=10), FAST))
    assert all(judge_criterion(REPETITION, one, found).reason.startswith("below its floor") for one in REPETITION.criteria)


def test_a_domain_without_documents_is_counted_as_none():
    found = h03_repetition.evaluate(AtlasEvidence(world(REPETITION_PLANS["positive"], base=corpus(test=60, calibration=0)), FAST, ("empty",)))
    assert found.facts["n_documents_per_domain"] == {"domain0": 60, "domain1": 60, "empty": 0}


def test_the_interval_of_a_drawn_p_is_clopper_pearsons():
    from scipy.stats import binomtest

    for reached, n in ((0, 99), (3, 99), (99, 99), (50, 999)):
        want = binomtest(reached, n).proportion_ci(0.95, method="exact")
        assert drawn_interval(reached, n, 0.95) == pytest.approx((want.low, want.high))


def test_log10_of_a_p_too_small_for_floats():
    assert log10_p(10.0, 3) == pytest.approx(np.log10(0.018566135463043))  # upper tail of chi-square, 3 df, at 10
    # Gamma(3/2, 2500) / Gamma(3/2) by mpmath
    assert log10_p(5000.0, 3) == pytest.approx(-1083.98469286162)
    assert log10_p(None, 3) is None and log10_p(1.0, 0) is None
