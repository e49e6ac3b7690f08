"""From estimates to a finding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.estimate import Estimate
from hypotheses.claim import Evaluation, Gate
from hypotheses.h01_var import VAR
from hypotheses.judge import findings_from_json, findings_to_json, judge, sentence

REFUTED_RHO = {"freq_entropy_rho": (-0.1, -0.2, 0.0)}
UNSETTLED_SHARE = {"entropy_share_below": (0.31, 0.28, 0.34)}
NEGATIVE = {"freq_entropy_rho": (0.01, -0.05, 0.06), "entropy_share_below": (0.2, 0.15, 0.25), "fastpath_coverage": (0.1, 0.08, 0.12)}

CLAIM = replace(VAR, controls=())  # judged by its criteria alone


def outcomes(finding):
    return {one.criterion.name: one.outcome for one in finding.criteria}


def test_supported_when_every_interval_lies_within(evaluation):
    finding = judge(CLAIM, evaluation())
    assert (finding.verdict, set(outcomes(finding).values())) == ("supported", {"supported"})


def test_one_refuted_criterion_refutes_and_limits(evaluation):
    finding = judge(CLAIM, evaluation({**REFUTED_RHO, **UNSETTLED_SHARE}))
    assert (finding.verdict, finding.limiting) == ("refuted", "rank_correlation")
    assert outcomes(finding) == {"rank_correlation": "refuted", "low_entropy_share": "inconclusive", "fastpath_coverage": "supported"}


def test_an_inconclusive_criterion_limits_supported_ones(evaluation):
    finding = judge(CLAIM, evaluation(UNSETTLED_SHARE))
    assert (finding.verdict, finding.limiting) == ("inconclusive", "low_entropy_share")


def test_among_supported_criteria_the_one_nearest_its_bound_limits(evaluation):
    # margins in half-widths: rho .22/.065, share .25/.035, coverage .1/.05
    assert judge(CLAIM, evaluation()).limiting == "fastpath_coverage"


def test_point_estimates_beyond_the_bound_do_not_support(evaluation):
    # the seed's rule would pass all three on points
    finding = judge(CLAIM, evaluation({"freq_entropy_rho": (-0.45, -0.55, -0.35), "entropy_share_below": (0.31, 0.28, 0.34),
                                     "fastpath_coverage": (0.42, 0.38, 0.46)},
                                    facts={"seed_rule": {"rho": -0.45, "p": 1e-9, "n_types": 400, "share": 0.31, "coverage": 0.42}}))
    assert finding.verdict == "inconclusive"
    assert finding.seed_verdict["supported"] is True


def test_grades_of_the_reference(reference, evaluation):
    case = reference("M04")
    low, high = case["inputs"]["ci"]
    rho = judge(CLAIM, evaluation({"freq_entropy_rho": (case["inputs"]["point"], low, high)})).criteria[0]
    assert (rho.point_grade, rho.guaranteed_grade, rho.outcome) == tuple(case["expected"].values())


def test_the_overall_grade_is_the_lowest(evaluation):
    finding = judge(CLAIM, evaluation())
    assert [one.point_grade for one in finding.criteria] == ["excellent", "excellent", "acceptable"]
    assert [one.guaranteed_grade for one in finding.criteria] == ["good", "excellent", "acceptable"]
    assert (finding.point_grade, finding.guaranteed_grade) == ("acceptable", "acceptable")


def test_a_flawed_trace_neither_supports_nor_refutes(evaluation):
    flaw = {"entropy_share_below": ("counted_twice (3 of 9 documents): copies", "keep one")}
    assert judge(CLAIM, evaluation(), flawed={}) == judge(CLAIM, evaluation())
    finding = judge(CLAIM, evaluation(), flawed=flaw)
    assert (finding.verdict, finding.limiting) == ("inconclusive", "low_entropy_share")
    spoiled = finding.criteria[1]
    assert spoiled.reason == "the trace is flawed: counted_twice (3 of 9 documents): copies" and spoiled.settle == "keep one"
    assert spoiled.guaranteed_grade is None and [one.outcome for one in finding.criteria] == ["supported", "inconclusive", "supported"]
    whole = {criterion.metric: ("f", "r") for criterion in VAR.criteria}
    assert judge(CLAIM, evaluation(NEGATIVE), flawed=whole).verdict == "inconclusive"
    controlled = judge(VAR, evaluation(), controls={"positive": evaluation(), "negative": evaluation()}, flawed=whole)
    assert controlled.verdict == "inconclusive" and {one["status"] for one in controlled.controls.values()} == {"not judged"}


@pytest.mark.parametrize(("facts", "words"), [
    ({"n_documents": 99}, ["99 test documents", "floor is 100"]),
    ({"n_documents_per_domain": {"code": 610, "news": 49}}, ["49 test documents in domain news", "floor is 50"]),
    ({"n_documents_per_domain": {"code": 660, "wiki": 0}}, ["0 test documents in domain wiki"]),
    ({"n_types_judged": 199}, ["199 judged token types", "floor is 200"]),
    ({"n_documents": None}, ["number of test documents not stated"]),
    ({"n_documents_per_domain": {}}, ["per domain not stated"])])
def test_below_a_floor_the_number_stands_and_the_verdict_does_not(evaluation, facts, words):
    finding = judge(CLAIM, evaluation(facts=facts))
    rho = finding.criteria[0]
    assert (rho.outcome, rho.estimate.value, rho.guaranteed_grade) == ("inconclusive", -0.62, None)
    assert all(word in rho.reason for word in words)
    assert finding.verdict == "inconclusive"


def test_what_would_settle_a_floor_is_how_many_are_missing(evaluation):
    settle = judge(CLAIM, evaluation(facts={"n_documents": 62, "n_documents_per_domain": {"code": 50, "news": 12}})).criteria[0].settle
    assert settle == "38 more test documents; 38 more test documents in domain news"


def test_a_refuted_criterion_refutes_beside_one_below_its_floor(evaluation):
    finding = judge(CLAIM, evaluation({"fastpath_coverage": (0.1, 0.08, 0.12)}, facts={"n_types_judged": 10}))
    assert (finding.verdict, outcomes(finding)["rank_correlation"]) == ("refuted", "inconclusive")


def test_an_undefined_estimate_is_inconclusive_with_its_reason(evaluation):
    made = evaluation()
    undefined = Estimate.undefined("constant routing: entropy 0 everywhere", unit="rho")
    finding = judge(CLAIM, replace(made, estimates={**made.estimates, "freq_entropy_rho": undefined}))
    assert finding.verdict == "inconclusive"
    assert "constant routing" in finding.reason
    assert finding.criteria[0].point_grade is None
    assert finding.point_grade is None


def test_a_missing_estimate_never_passes(evaluation):
    finding = judge(CLAIM, evaluation({"fastpath_coverage": None}))
    assert (finding.verdict, finding.limiting) == ("inconclusive", "fastpath_coverage")
    assert "no estimate" in finding.reason


def test_no_estimates_and_no_facts_at_all_never_pass():
    assert judge(CLAIM, Evaluation({})).verdict == "inconclusive"


def test_one_document_is_inconclusive(evaluation):
    one = Estimate.undefined("one document: no spread between documents", n_units=1)
    made = evaluation(facts={"n_documents": 1, "n_documents_per_domain": {"code": 1}, "n_types_judged": 0})
    finding = judge(CLAIM, replace(made, estimates={c.metric: one for c in VAR.criteria}))
    assert finding.verdict == "inconclusive"
    assert "1 test documents, the floor is 100" in finding.reason


@pytest.mark.parametrize(("change", "words"), [
    ({"unit": "bits"}, "is in 'bits'"), ({"level": 0.9}, "level 0.9"), ({"low": None, "high": None}, "no interval")])
def test_an_interval_of_another_kind_is_not_held_against_the_bound(evaluation, change, words):
    made = evaluation()
    rho = replace(made.estimates["freq_entropy_rho"], **change)
    judged = judge(CLAIM, replace(made, estimates={**made.estimates, "freq_entropy_rho": rho})).criteria[0]
    assert judged.outcome == "inconclusive"
    assert words in judged.reason


def test_settle_counts_documents_by_the_square_root_law(evaluation):
    # half-width .03, detectable .0429, distance .01: 660 x 4.29^2 = 12,147
    settle = judge(CLAIM, evaluation(UNSETTLED_SHARE)).criteria[1].settle
    assert "about 12,147 test documents (660 now)" in settle
    assert "detectable here is a distance of 0.043" in settle


def test_settle_on_the_bound_names_no_number(evaluation):
    assert "no number of documents" in judge(CLAIM, evaluation({"entropy_share_below": (0.30, 0.28, 0.32)})).criteria[1].settle


def test_settled_criteria_need_nothing(evaluation):
    assert all(one.settle is None for one in judge(CLAIM, evaluation()).criteria)


class TestControls:
    def test_both_as_expected_leave_the_verdict(self, evaluation):
        finding = judge(VAR, evaluation(), controls={"positive": evaluation(), "negative": evaluation(NEGATIVE)})
        assert finding.verdict == "supported"
        assert {name: one["status"] for name, one in finding.controls.items()} == {"positive": "passed", "negative": "passed"}

    def test_a_positive_control_that_is_missed_leaves_no_verdict(self, evaluation):
        flipped = evaluation({"freq_entropy_rho": (0.62, 0.55, 0.68)})  # an estimator with its sign flipped
        finding = judge(VAR, evaluation(), controls={"positive": flipped, "negative": evaluation(NEGATIVE)})
        assert finding.verdict is None
        assert finding.reason.startswith("controls failed: the positive control must be supported by every criterion (rank_correlation: refuted")
        assert "NO VERDICT" in sentence(finding)

    def test_a_negative_control_that_passes_leaves_no_verdict(self, evaluation):
        finding = judge(VAR, evaluation(REFUTED_RHO), controls={"positive": evaluation(), "negative": evaluation()})
        assert finding.verdict is None
        assert "the negative control must be refuted by every criterion" in finding.reason

    def test_an_inconclusive_control_has_failed(self, evaluation):
        finding = judge(VAR, evaluation(), controls={"positive": evaluation(UNSETTLED_SHARE), "negative": evaluation(NEGATIVE)})
        assert finding.verdict is None

    def test_a_declared_control_that_is_absent_has_failed(self, evaluation):
        finding = judge(VAR, evaluation(), controls={"positive": evaluation()})
        assert finding.verdict is None
        assert "negative control must be refuted by every criterion (it was not run)" in finding.reason

    def test_below_the_floors_controls_are_not_judged_and_the_floor_is_the_reason(self, evaluation):
        few = {"n_documents": 20, "n_documents_per_domain": {"code": 20}}
        controls = {"positive": evaluation(facts=few), "negative": evaluation(NEGATIVE, facts=few)}
        finding = judge(VAR, evaluation(facts=few), controls=controls)
        assert finding.verdict == "inconclusive"
        assert "20 test documents, the floor is 100" in finding.reason
        assert {one["status"] for one in finding.controls.values()} == {"not judged"}

    def test_a_criterion_below_its_own_floor_is_not_asked_of_the_controls(self, evaluation):
        few = {"n_types_judged": 10}
        controls = {"positive": evaluation(facts=few), "negative": evaluation(NEGATIVE, facts=few)}
        finding = judge(VAR, evaluation(facts=few), controls=controls)
        assert {one["status"] for one in finding.controls.values()} == {"passed"}
        assert (finding.verdict, finding.limiting) == ("inconclusive", "rank_correlation")

    def test_without_controls_the_finding_says_so(self, evaluation):
        finding = judge(VAR, evaluation())
        assert {one["status"] for one in finding.controls.values()} == {"not run"}
        assert finding.verdict is None
        assert "not run" in finding.reason

    @pytest.mark.parametrize("stuck", ["freq_entropy_rho", "entropy_share_below", "fastpath_coverage"])
    def test_an_estimator_that_always_supports_its_criterion_is_seen(self, evaluation, stuck):
        always = {"freq_entropy_rho": (-0.7, -0.75, -0.65), "entropy_share_below": (0.99, 0.98, 1.0), "fastpath_coverage": (0.9, 0.88, 0.92)}
        one = {stuck: always[stuck]}
        finding = judge(VAR, evaluation(one), controls={"positive": evaluation(one), "negative": evaluation({**NEGATIVE, **one})})
        assert finding.verdict is None
        assert finding.controls["negative"]["status"] == "failed"


def test_the_register_is_carried_into_the_finding(evaluation):
    note = {"status": "changed", "note": "changed on 2026-11-22 after 3 runs"}
    assert judge(CLAIM, evaluation(), registration=note).registration == note


def test_the_sentence_has_verdict_bound_value_and_interval(evaluation):
    words = sentence(judge(CLAIM, evaluation(REFUTED_RHO)))
    assert words == ("REFUTED: 'Frequent tokens route with low entropy': rank_correlation asks for rho < -0.4; it is -0.1, "
                     "95% interval [-0.2, 0] over 660 documents.")


def test_the_sentence_of_an_inconclusive_finding_says_what_would_settle_it(evaluation):
    words = sentence(judge(CLAIM, evaluation(UNSETTLED_SHARE)))
    assert "low_entropy_share asks for share of occurrences >= 0.3" in words
    assert "what would settle it: about 12,147 test documents" in words


def test_findings_as_json_are_whole_and_byte_identical(evaluation):
    def make():
        return [judge(VAR, evaluation(UNSETTLED_SHARE), controls={"positive": evaluation(), "negative": evaluation(NEGATIVE)},
                      registration={"note": "registered on 2026-11-22"})]
    text = findings_to_json(make())
    assert text == findings_to_json(make())
    assert list(findings_from_json(text)) == make()
    assert findings_to_json(findings_from_json(text)) == text


def test_findings_of_another_schema_are_refused():
    with pytest.raises(ValueError, match="schema"):
        findings_from_json('{"schema": "other", "findings": []}')


def test_gates_are_part_of_the_fingerprint():
    looser = replace(VAR, criteria=(replace(VAR.criteria[0], gate=Gate(min_documents=10)), *VAR.criteria[1:]))
    assert looser.fingerprint != VAR.fingerprint
