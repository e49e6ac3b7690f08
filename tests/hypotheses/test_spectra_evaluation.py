"""SPECTRA's claims on arms whose answer is known: planted specialists, one law in both arms, orthogonal but not specialised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel

from analysis.paired_draws import Draws
from experiments.testbed.arms import ARMS
from hypotheses.h05_spectra import SPECTRA, evaluate
from hypotheses.judge import judge, judge_criterion
from hypotheses.spectra_comparison import OUR_ROWS, SEED_ROWS, is_among
from hypotheses.spectra_controls import KINDS, planted
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_experts import readable
from hypotheses.spectra_method import Pair, method_changes, p_of_t
from tests.hypotheses import spectra_worlds as worlds

JUDGED = SpectraSettings(judged_only=True)


def outcomes(evaluation):
    return {one.name: judge_criterion(SPECTRA, one, evaluation).outcome for one in SPECTRA.criteria}


def criterion(name):
    return next(one for one in SPECTRA.criteria if one.name == name)


@pytest.fixture(scope="module")
def specialists():
    return evaluate(worlds.planted(worlds.World(layers=1)))


@pytest.fixture(scope="module")
def same_law():
    return evaluate(worlds.null(settings=JUDGED))


def test_planted_specialists_are_supported(specialists):
    assert set(outcomes(specialists).values()) == {"supported"}


def test_one_law_in_both_arms_supports_no_change(same_law):
    found = outcomes(same_law)
    assert not {name for name, outcome in found.items() if outcome == "supported"} - {"collapse.least_load", "loss.not_worse"}
    assert abs(same_law.estimates["mi_E_D_change"].value) < 0.02  # bits; both arms have about 0.15


def test_orthogonal_experts_that_do_not_specialise_are_told_apart():
    found = outcomes(evaluate(worlds.orthogonal_only(settings=JUDGED)))
    assert found["orthogonality.gram"] == found["orthogonality.distance"] == "supported"
    assert found["specialisation.information"] != "supported"


def test_every_control_gives_what_it_must_and_the_pair_is_judged(same_law):
    evidence = worlds.null()
    controls = {kind: evaluate(planted(evidence, kind)) for kind in KINDS}
    finding = judge(SPECTRA, same_law, controls=controls)
    assert {name: one["status"] for name, one in finding.controls.items()} == dict.fromkeys(KINDS, "passed")
    assert finding.verdict == "inconclusive"


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_answer_does_not_depend_on_the_run(kind):
    """Planted specialists stay specialists on arms that have none, and a hash learns nothing on arms that specialise."""
    evidence = worlds.planted(worlds.World(layers=1)) if kind in ("permuted", "hash", "worse") else worlds.null(worlds.World(layers=1))
    expected = SPECTRA.expects[kind]
    found = outcomes(evaluate(planted(evidence, kind)))
    assert {name: found[name] for name in expected if found[name] not in expected[name]} == {}


@pytest.mark.parametrize(("seeds", "reason"), [(2, "undefined: too_few_seeds"), (4, "below its floor: too_few_seeds")])
def test_fewer_than_five_seeds_never_decide(seeds, reason):  # metrics specification 4.5
    evaluation = evaluate(worlds.planted(worlds.World(seeds=seeds, layers=1), settings=JUDGED))
    assert set(outcomes(evaluation).values()) == {"inconclusive"}
    change = evaluation.estimates["mi_E_D_change"]
    assert judge_criterion(SPECTRA, criterion("specialisation.information"), evaluation).reason.startswith(reason)
    assert (change.value is None) == (seeds < 3)
    assert evaluation.estimates["mi_E_D_change_checkpoint"].low > 0  # these two checkpoints do differ


@pytest.mark.parametrize("changed", [{"parameters": 200_000}, {"evaluation_documents": "others"}])
def test_unmatched_conditions_are_confounded(changed):
    evaluation = evaluate(worlds.with_conditions(worlds.planted(worlds.World(layers=1), settings=JUDGED), **changed))
    judged = judge_criterion(SPECTRA, criterion("specialisation.information"), evaluation)
    assert (judged.outcome, evaluation.estimates["mi_E_D_change"].gate.partition(":")[0]) == ("inconclusive", "confounded")
    assert set(outcomes(evaluation).values()) == {"inconclusive"}
    assert evaluation.facts["confounded"]


def test_another_order_of_the_data_is_confounded():
    evidence = worlds.planted(worlds.World(layers=1), settings=JUDGED)
    arms = dict(evidence.arms)
    arms["spectra"] = [replace(run, data_order="another") for run in arms["spectra"]]
    assert "order" in evaluate(replace(evidence, arms=arms)).facts["confounded"]


def test_an_arm_that_is_not_causal_in_evaluation_is_confounded():
    evidence = worlds.planted(worlds.World(layers=1), settings=JUDGED)
    arms = {**evidence.arms, "spectra": [replace(run, causal=False) for run in evidence.arms["spectra"]]}
    evaluation = evaluate(replace(evidence, arms=arms))
    assert "spectra is not causal" in evaluation.facts["confounded"]
    assert set(outcomes(evaluation).values()) == {"inconclusive"}


def test_what_the_baseline_never_does_cannot_vanish(same_law):
    judged = judge_criterion(SPECTRA, criterion("collapse.fewer"), same_law)
    assert (judged.outcome, judged.reason.partition(":")[0]) == ("inconclusive", "untestable")
    assert outcomes(same_law)["collapse.least_load"] == "supported"  # the part that speaks of the treatment alone


def test_a_treatment_that_collapses_alone_refutes():
    evidence = worlds.planted(worlds.World(layers=1), settings=JUDGED)
    exchanged = {"switch_top2": "spectra", "spectra": "switch_top2"}
    arms = {name: [replace(run, arm=name) for run in evidence.arms[other]] for name, other in exchanged.items()}
    found = outcomes(evaluate(replace(evidence, arms=arms)))
    assert found["collapse.fewer"] == "refuted"
    assert found["collapse.least_load"] != "supported"


def test_one_collapsed_training_is_not_hidden_by_four_good_ones():
    evidence = worlds.planted(worlds.World(layers=1), settings=JUDGED)
    bad = worlds.run("spectra", 4, replace(worlds.SPECIALISED, dead=2), worlds.World(layers=1))
    arms = {**evidence.arms, "spectra": [*evidence.arms["spectra"][:4], bad]}
    evaluation = evaluate(replace(evidence, arms=arms))
    assert outcomes(evaluation)["collapse.least_load"] != "supported"
    assert evaluation.estimates["least_load_of_a_training"].value > 0.5  # the mean would have passed


@pytest.mark.parametrize("seeds", [5, 21])
def test_p_of_t_is_there_for_any_number_of_trainings(seeds):
    """Sign flips are counted one by one up to 20 seeds; t needs no such thing."""
    rng = np.random.default_rng(seeds)
    values = rng.normal(0.3, 0.02, (2, seeds))

    def draws(value):
        return {"mi_E_D": Draws("bits", np.array([value]), np.zeros((0, 1)), "none", 30, "documents")}

    pairs = [Pair(seed, draws(a), draws(b)) for seed, (a, b) in enumerate(values.T)]
    assert p_of_t(pairs, "mi_E_D") == pytest.approx(ttest_rel(values[1], values[0]).pvalue)
    change = method_changes(pairs, "mi_E_D", gate=None, level=0.95)[-1]
    assert change.n_units == seeds
    assert (change.p is None) == (seeds > 20)


def test_both_levels_stand_in_the_table(specialists):
    table = specialists.tables["comparison"]
    row = list(table["metric"]).index("mi_E_D")
    assert table["low"][row] > 0
    assert table["checkpoint_low"][row] > 0
    seed_rows = [i for i, p in enumerate(table["p_holm"]) if not np.isnan(p)]
    assert len(seed_rows) == 8 - sum(np.isnan(table["p_t"][i]) for i in range(8))
    assert all(table["p_holm"][i] >= table["p_t"][i] for i in seed_rows)
    assert table["optimised_by_treatment"][list(table["metric"]).index("gram_rms")] == 1


def test_what_is_picked_in_sample_has_no_p_and_a_gate_at_both_levels(specialists):
    table, pairs = specialists.tables["comparison"], specialists.tables["pairs"]
    for name in ("purity_seed", "purity_token_weighted", "lambda"):
        row = list(table["metric"]).index(name)
        assert (table["status"][row], table["reason"][row].partition(":")[0]) == ("gated", "selection_biased")
        assert np.isnan([table[p][row] for p in ("p_t", "p_signflip", "p_holm")]).all()
        assert table["checkpoint_reason"][row].startswith("selection_biased")
        assert {status for status, metric in zip(pairs["status"], pairs["metric"], strict=True) if metric == name} == {"gated"}
    cross_fitted = list(table["metric"]).index("purity_cross_fitted")
    assert table["status"][cross_fitted] == "estimated"
    assert table["p_t"][cross_fitted] < 0.05


def test_routing_directions_have_a_row_that_decides_nothing(specialists):
    table, runs = specialists.tables["comparison"], specialists.tables["runs"]
    row = list(table["metric"]).index("routing_gram_rms")
    assert table["reason"][row].partition(":")[0] in {"confounded", "no spread between training seeds"}
    nulls = {round(null, 6) for null, metric in zip(runs["null"], runs["metric"], strict=True) if metric == "routing_gram_rms"}
    assert nulls == {round(worlds.WIDTH**-0.5, 6)}


def test_only_an_arm_with_a_balance_loss_has_its_loads_optimised():
    for arm in ARMS.values():
        assert ("least_load" in arm.optimised) == (arm.router == "switch")
        assert ("least_load" in arm.constrained) == (arm.router in ("spectra", "expert_choice"))


def test_every_mark_of_what_training_does_to_a_metric_names_a_row():
    rows = {row.metric for row in (*SEED_ROWS, *OUR_ROWS)}
    for arm in ARMS.values():
        unnamed = {one for one in arm.optimised | arm.constrained if not any(is_among(row, frozenset({one})) for row in rows)}
        assert unnamed <= {"cv", "h_full"}  # of loads and of the softmax, beside the rows of both


def test_every_metric_of_every_run_is_in_the_table(specialists):
    table = specialists.tables["runs"]
    expected = {"mi_E_D", "purity_seed", "purity_token_weighted", "purity_cross_fitted", "expert_affinity_avg", "silhouette", "diversity_jsd_excess",
                "mi_E_V_excess", "confidence", "repr_output", "repr_output_centred", "gram_rms", "routing_gram_rms", "collapse_rate", "least_load",
                "usage_entropy_bits", "held_out_loss", "mi_E_D_weighted", "lambda"}
    assert set(table["metric"]) == expected
    assert {(a, s) for a, s in zip(table["arm"], table["seed"], strict=True)} == {(a, s) for a in ("switch_top2", "spectra") for s in range(5)}


def test_experts_have_domain_keywords_and_samples(specialists):
    experts = specialists.tables["experts"]
    loyal = [d for a, d in zip(experts["arm"], experts["top_domain"], strict=True) if a == "spectra"]
    assert [worlds.DOMAINS[e % 3] for e in range(8)] == loyal
    assert set(experts["chosen_on"]) == {"calibration"}
    assert (np.array(experts["purity"]) > np.array(experts["purity_null"]))[np.array(experts["arm"]) == "spectra"].all()
    assert len(specialists.tables["samples"]["token"]) > 0
    assert any(words for words in experts["keywords"])


def test_a_trace_without_token_types_is_evaluated_as_far_as_it_goes():
    world = worlds.World(seeds=1, layers=1, types=False)
    evaluation = evaluate(worlds.planted(world))
    assert "diversity_jsd_excess" not in set(evaluation.tables["runs"]["metric"])
    assert len(evaluation.tables["samples"]["token"]) == 0


def test_an_arm_without_a_partner_is_shown_and_not_judged():
    evidence = worlds.planted(worlds.World(seeds=1, layers=1), others=(("hash", worlds.Law()),))
    evaluation = evaluate(evidence)
    assert "hash" in set(evaluation.tables["runs"]["arm"])
    assert any("hash" in one for one in evaluation.facts["caveats"])


def test_byte_level_text_is_readable():
    assert readable("\u0120the\u010a") == " the\n"
    assert readable("\u00c3\u00a9") == "\u00e9"  # two bytes of UTF-8
    assert readable("\u2581the") == " the"
