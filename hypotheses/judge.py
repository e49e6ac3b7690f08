"""From estimates to a verdict: each criterion's interval against its bound, the gates, the controls, and one word for the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from analysis.estimate import Estimate
from analysis.gates import UNTESTABLE
from hypotheses.claim import Criterion, CriterionFinding, Evaluation, Finding, Hypothesis, Outcome
from hypotheses.findings import findings_from_json, findings_to_json
from hypotheses.seed_rules import RULES, grade, lowest
from hypotheses.verdict import all_of, documents_to_settle, interval_outcome, is_upper
from hypotheses.wording import sentence

__all__ = ["CONTROL_EXPECTS", "expected_of", "expected_words", "findings_from_json", "findings_to_json", "held_against_bound", "judge",
           "judge_criterion", "sentence"]

CONTROL_EXPECTS: Mapping[str, Outcome] = {"positive": "supported", "negative": "refuted"}
DOMAINS_NAMED = 2  # below their floor; more are counted
GATED = "below its floor: "  # how the reason of a gated criterion begins
UNDEFINED, NOT_MADE = "undefined: ", "no estimate of "
FLAWED = "the trace is flawed: "  # how the reason of a criterion begins whose metric an unaccepted flaw of the trace invalidates


def judge(hypothesis: Hypothesis, evaluation: Evaluation, *, controls: Mapping[str, Evaluation] | None = None,
          registration: Mapping[str, Any] | None = None, flawed: Mapping[str, tuple[str, str]] | None = None) -> Finding:
    """Judge every criterion on its interval and join them by AND; `verdict` is None when a control failed.

    controls: "positive" and "negative" evaluations made through the same estimators; None where the run had none.
    registration: what the register says of this declaration, carried into the finding unchanged.
    flawed: metric -> (why, remedy) where a flaw of the trace invalidates it.
    Nothing that is missing, undefined, below its floor or of a flawed trace ever passes: it is inconclusive with its reason.
    """
    judged = tuple(_unless_flawed(judge_criterion(hypothesis, criterion, evaluation), flawed or {}) for criterion in hypothesis.criteria)
    limiting = limiting_of(judged)
    shown, failures = _controls(hypothesis, judged, controls)
    verdict: Outcome | None = all_of(one.outcome for one in judged)
    if failures and not (controls is None and verdict == "inconclusive"):
        verdict = None
    reason = f"controls failed: {'; '.join(failures)}" if failures and verdict is None else limiting.reason if limiting else "no criteria"
    rule = RULES[hypothesis.seed_rule] if hypothesis.seed_rule else None
    return Finding(
        hypothesis=hypothesis.name, title=hypothesis.title, claim=hypothesis.claim, fingerprint=hypothesis.fingerprint,
        verdict=verdict, reason=reason, limiting=limiting.criterion.name if limiting else None, criteria=judged, controls=shown,
        seed_verdict=rule(evaluation.facts.get("seed_rule", {})) if rule else {}, registration=dict(registration or {}),
        point_grade=lowest(one.point_grade for one in judged), guaranteed_grade=lowest(one.guaranteed_grade for one in judged),
    )


def judge_criterion(hypothesis: Hypothesis | None, criterion: Criterion, evaluation: Evaluation) -> CriterionFinding:
    """One criterion: floors first, then whether there is an interval at the declared level, then the interval against the bound.

    hypothesis: whose bands grade the value; without one there are no grades.
    """
    estimate = evaluation.estimates.get(criterion.metric)
    if estimate is None:
        reason = f"{NOT_MADE}{criterion.metric} was made"
        return CriterionFinding(criterion, Estimate.undefined(reason, unit=criterion.unit), "inconclusive", reason)
    point, guaranteed = _grades(hypothesis, criterion, estimate)
    never = next((why for why in (estimate.reason, estimate.gate) if why and why.startswith(UNTESTABLE)), None)
    if never:
        return CriterionFinding(criterion, estimate, "inconclusive", never, point_grade=point)
    floors = _below_floors(criterion, evaluation.facts)
    if floors:
        others = [why for why in (estimate.gate or estimate.reason,) if why]
        reason = GATED + "; ".join([*(why for why, _ in floors), *others])
        return CriterionFinding(criterion, estimate, "inconclusive", reason, "; ".join(remedy for _, remedy in floors), point)
    unusable = _unusable(criterion, estimate)
    if unusable:
        return CriterionFinding(criterion, estimate, "inconclusive", unusable, point_grade=point)
    assert estimate.low is not None and estimate.high is not None
    outcome = interval_outcome(criterion, estimate.low, estimate.high)
    settle = _settle(criterion, estimate, evaluation.facts) if outcome == "inconclusive" else None
    return CriterionFinding(criterion, estimate, outcome, _why(criterion, estimate, outcome), settle, point, guaranteed)


def held_against_bound(judged: CriterionFinding) -> bool:
    """Whether an interval was compared with the bound, so that another bound could have given another outcome; else the reason says why not."""
    one = judged.estimate
    return one.low is not None and one.high is not None and judged.reason == _why(judged.criterion, one, judged.outcome)


def _unless_flawed(judged: CriterionFinding, flawed: Mapping[str, tuple[str, str]]) -> CriterionFinding:
    """The criterion as judged; neither supported nor refuted where its metric is of a flawed trace."""
    if judged.criterion.metric not in flawed:
        return judged
    why, remedy = flawed[judged.criterion.metric]
    return replace(judged, outcome="inconclusive", reason=FLAWED + why, settle=remedy, guaranteed_grade=None)


def limiting_of(judged: Sequence[CriterionFinding]) -> CriterionFinding | None:
    """The criterion that decides an AND: refuted before inconclusive before supported; then the smallest margin in half-widths."""
    order: dict[Outcome, int] = {"refuted": 0, "inconclusive": 1, "supported": 2}
    return min(judged, key=lambda one: (order[one.outcome], _margin(one)), default=None)


def _margin(one: CriterionFinding) -> float:
    """How far the value is on the claim's side of its bound, in half-widths; without an interval nothing limits more."""
    if one.estimate.value is None or one.estimate.half_width is None:
        return float("-inf")
    signed = one.estimate.value - one.criterion.bound
    signed = -signed if is_upper(one.criterion) else signed
    half = one.estimate.half_width
    return signed / half if half > 0 else float("inf") * (1 if signed >= 0 else -1)


def _below_floors(criterion: Criterion, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(reason, remedy) for each floor that is not reached; a sample size that is not stated does not reach its floor."""
    gate, found = criterion.gate, []
    checks: list[tuple[str, Any, int]] = [("test documents", facts.get("n_documents"), gate.min_documents)]
    by_domain: Mapping[str, Any] = facts.get("n_documents_per_domain") or {}
    low = {name: int(count) for name, count in by_domain.items() if count < gate.min_documents_per_domain}
    if len(low) > DOMAINS_NAMED:
        fewest = min(low, key=lambda name: low[name])
        found.append((f"{len(low)} of {len(by_domain)} domains have fewer than {gate.min_documents_per_domain} test documents, which is the floor "
                      f"(fewest: {low[fewest]} in {fewest})", f"up to {gate.min_documents_per_domain - low[fewest]} more in each of them"))
    else:
        checks += [(f"test documents in domain {name}", count, gate.min_documents_per_domain) for name, count in low.items()]
    if gate.min_documents_per_domain and not by_domain:
        checks.append(("test documents per domain", None, gate.min_documents_per_domain))
    checks.append(("judged token types", facts.get("n_types_judged"), gate.min_types))
    left_out = facts.get("n_layers_left_out", 0)
    if left_out:
        found.append((f"{left_out} MoE layers of the model were not captured, and the claim speaks of all", "capture every layer"))
    for what, count, floor in checks:
        if floor and count is None:
            found.append((f"number of {what} not stated, the floor is {floor}", f"state the number of {what}"))
        elif floor and count < floor:
            found.append((f"{count} {what}, the floor is {floor}", f"{floor - count} more {what}"))
    return found


def _unusable(criterion: Criterion, estimate: Estimate) -> str | None:
    """Why this estimate cannot be held against the bound, if it cannot."""
    if estimate.value is None:
        return f"{UNDEFINED}{estimate.reason}"
    if estimate.gate is not None:
        return GATED + estimate.gate
    if estimate.unit != criterion.unit:
        return f"{criterion.metric} is in {estimate.unit!r}, the bound in {criterion.unit!r}"
    if estimate.low is None or estimate.high is None:
        return f"{criterion.metric} has no interval"
    if estimate.level != criterion.level:
        return f"interval at level {estimate.level:g}, the criterion asks for {criterion.level:g}"
    return None


def _why(criterion: Criterion, estimate: Estimate, outcome: Outcome) -> str:
    relation = {"supported": "lies wholly within", "refuted": "lies wholly outside", "inconclusive": "does not settle"}[outcome]
    return f"the {estimate.level:.0%} interval [{estimate.low:.3g}, {estimate.high:.3g}] {relation} {criterion.unit} {criterion.inequality}"


def _settle(criterion: Criterion, estimate: Estimate, facts: Mapping[str, Any]) -> str:
    """Documents (training seeds) at which the distance to the bound is detectable, interval widths shrinking as 1/sqrt of their number."""
    assert estimate.value is not None and estimate.minimum_detectable_effect is not None
    distance = abs(estimate.value - criterion.bound)
    if estimate.resampled == "seed":
        return _settle_seeds(estimate, distance)
    needed = documents_to_settle(int(facts["n_documents"]), estimate.minimum_detectable_effect, distance)
    detectable = f"detectable here is a distance of {estimate.minimum_detectable_effect:.2g} from the bound"
    if needed is None or needed > 10**9:
        return f"no number of documents: the value sits on its bound; {detectable}"
    grow = ", if the judged types grow with them" if "type" in estimate.resampled else ""
    return f"about {needed:,} test documents ({facts['n_documents']:,} now){grow}, were the value to stay {distance:.2g} away; {detectable}"


def _settle_seeds(estimate: Estimate, distance: float) -> str:
    assert estimate.minimum_detectable_effect is not None
    needed = documents_to_settle(estimate.n_units, estimate.minimum_detectable_effect, distance)
    detectable = f"detectable here is a distance of {estimate.minimum_detectable_effect:.2g} from the bound"
    if needed is None or needed > 10**6:
        return f"no number of training seeds: the value sits on its bound; {detectable}"
    return f"about {needed:,} training seeds ({estimate.n_units} now), were the value to stay {distance:.2g} away; {detectable}"


def _grades(hypothesis: Hypothesis | None, criterion: Criterion, estimate: Estimate) -> tuple[str | None, str | None]:
    """Grade of the value, and of the interval end that is worst for the claim (the guaranteed one)."""
    bands = hypothesis.bands.get(criterion.name) if hypothesis else None
    if not bands or estimate.value is None:
        return None, None
    worst = estimate.high if is_upper(criterion) else estimate.low
    return grade(estimate.value, bands), None if worst is None else grade(worst, bands)


def expected_of(hypothesis: Hypothesis, control: str) -> dict[str, tuple[Outcome, ...]]:
    """Outcomes that each criterion may have on a control: as declared in `expects` (a criterion that is not named is not asked), else one for all.

    Raises ValueError for a control without a declared or a usual outcome, and for a criterion that the hypothesis has not.
    """
    declared = hypothesis.expects.get(control)
    if declared is None:
        if control not in CONTROL_EXPECTS:
            raise ValueError(f"hypothesis {hypothesis.name!r}: control {control!r} has no expected outcome; declare it in expects")
        return {one.name: (CONTROL_EXPECTS[control],) for one in hypothesis.criteria}
    unknown = sorted(set(declared) - {one.name for one in hypothesis.criteria})
    if unknown:
        raise ValueError(f"hypothesis {hypothesis.name!r}: control {control!r} expects something of {', '.join(unknown)}, which is no criterion")
    return {name: tuple(outcomes) for name, outcomes in declared.items()}


def expected_words(hypothesis: Hypothesis, control: str) -> str:
    """What is expected of a control, in words: one outcome for all criteria, or which criteria must come out how."""
    by_outcome: dict[tuple[Outcome, ...], list[str]] = {}
    for name, outcomes in expected_of(hypothesis, control).items():
        by_outcome.setdefault(outcomes, []).append(name)
    if len(by_outcome) == 1 and not hypothesis.expects.get(control):
        return " or ".join(next(iter(by_outcome)))
    return "; ".join(f"{' or '.join(outcomes)}: {', '.join(names)}" for outcomes, names in by_outcome.items())


def _controls(hypothesis: Hypothesis, judged: Sequence[CriterionFinding],
              controls: Mapping[str, Evaluation] | None) -> tuple[dict[str, Any], list[str]]:
    """What each control came to by every criterion, and the failures.

    A criterion below its floor in the run, or of a flawed trace, cannot be asked of a control; nor, where `expects` says what is asked,
    one undefined in the run.
    """
    if controls is None and hypothesis.controls:
        absent = {name: {"expected": expected_words(hypothesis, name), "outcome": None, "status": "not run"} for name in hypothesis.controls}
        return absent, ["they were not run, so nothing shows that this assay can tell the claim from its absence"]
    barred = (GATED, FLAWED, UNTESTABLE, UNDEFINED, NOT_MADE) if hypothesis.expects else (GATED, FLAWED, UNTESTABLE)
    testable = [one.criterion for one in judged if not one.reason.startswith(barred)]
    shown: dict[str, Any] = {}
    failures: list[str] = []
    found = controls or {}
    for name in sorted({*hypothesis.controls, *found}):
        shown[name] = _control(hypothesis, testable, name, found.get(name))
        if shown[name]["status"] == "failed":
            asked = "by every criterion " if name not in hypothesis.expects else ""
            failures.append(f"the {name} control must be {shown[name]['expected']} {asked}({shown[name]['reason']})")
    return shown, failures


def _control(hypothesis: Hypothesis, testable: Sequence[Criterion], name: str, evaluation: Evaluation | None) -> dict[str, Any]:
    expected, words = expected_of(hypothesis, name), expected_words(hypothesis, name)
    asked = [criterion for criterion in testable if criterion.name in expected]
    if not asked:
        return {"expected": words, "outcome": None, "status": "not judged", "reason": "the run is below its floors, or its trace is flawed"}
    if evaluation is None:
        return {"expected": words, "outcome": None, "status": "failed", "reason": "it was not run"}
    judged = tuple(judge_criterion(hypothesis, criterion, evaluation) for criterion in asked)
    outcome, astray = all_of(one.outcome for one in judged), [one for one in judged if one.outcome not in expected[one.criterion.name]]
    decisive = limiting_of(astray or judged)
    assert decisive is not None
    return {"expected": words, "outcome": outcome, "status": "failed" if astray else "passed",
            "reason": f"{decisive.criterion.name}: {decisive.outcome}, {decisive.reason}",
            "criteria": {one.criterion.name: {"outcome": one.outcome, "value": one.estimate.value, "low": one.estimate.low,
                                              "high": one.estimate.high} for one in judged}}
