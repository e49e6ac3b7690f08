"""Controls that expect an outcome per criterion, and what that leaves as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import hypotheses
from analysis.estimate import Estimate
from hypotheses.claim import Criterion, Evaluation, Gate, Hypothesis
from hypotheses.judge import expected_of, expected_words, judge
from hypotheses.seed_rules import seed_000

NONE = Gate(0, 0)
CLAIM = Hypothesis(
    "claim", "a title", "a claim", "a source",
    (Criterion("one", "a", "bits", "all", "source", above=0.0, gate=NONE), Criterion("two", "b", "bits", "all", "source", above=0.0, gate=NONE)),
    "null", ("positive", "odd"), expects={"positive": {"one": ("supported",)}, "odd": {"one": ("refuted", "inconclusive"), "two": ("supported",)}})


def made(a, b):
    def one(ends):
        if isinstance(ends, str):
            return Estimate.undefined(ends, unit="bits")
        return Estimate(sum(ends) / 2, *ends, "bits", "document", 100, "given")

    return Evaluation({"a": one(a), "b": one(b)}, facts={"n_documents": 100})


UP, DOWN, ACROSS = (1.0, 2.0), (-2.0, -1.0), (-1.0, 1.0)


def test_a_declared_criterion_is_held_to_its_own_outcomes():
    finding = judge(CLAIM, made(UP, UP), controls={"positive": made(UP, DOWN), "odd": made(ACROSS, UP)})
    assert {name: one["status"] for name, one in finding.controls.items()} == {"positive": "passed", "odd": "passed"}
    assert finding.verdict == "supported"
    assert set(finding.controls["positive"]["criteria"]) == {"one"}


def test_an_outcome_that_is_not_declared_fails_and_takes_the_verdict():
    finding = judge(CLAIM, made(UP, UP), controls={"positive": made(UP, UP), "odd": made(UP, UP)})
    assert finding.verdict is None and finding.controls["odd"]["status"] == "failed"
    assert "refuted or inconclusive: one" in finding.reason


def test_a_control_that_was_not_run_fails():
    assert judge(CLAIM, made(UP, UP), controls={"positive": made(UP, UP)}).verdict is None


def test_what_is_undefined_in_the_run_is_not_asked():
    finding = judge(CLAIM, made("k=1", UP), controls={"positive": made("k=1", UP), "odd": made("k=1", UP)})
    assert finding.verdict == "inconclusive"
    assert (finding.controls["positive"]["status"], finding.controls["odd"]["status"]) == ("not judged", "passed")


def test_a_criterion_defined_in_the_run_but_not_in_a_control_fails_it():
    assert judge(CLAIM, made(UP, UP), controls={"positive": made("k=1", UP), "odd": made(ACROSS, UP)}).verdict is None


def test_words_say_what_is_expected():
    assert expected_words(CLAIM, "odd") == "refuted or inconclusive: one; supported: two"
    assert expected_words(hypotheses.find("var"), "positive") == "supported"


def test_an_unknown_criterion_or_control_is_refused():
    with pytest.raises(ValueError, match="no criterion"):
        expected_of(replace(CLAIM, expects={"positive": {"three": ("supported",)}}), "positive")
    with pytest.raises(ValueError, match="no expected outcome"):
        expected_of(CLAIM, "sideways")


def test_declarations_without_such_controls_keep_their_fingerprint():
    register = json.loads((Path(hypotheses.__file__).parent / "registered.json").read_text(encoding="utf-8"))
    var = hypotheses.find("var")
    assert "expects" not in var.declaration()
    assert var.fingerprint == register["var"]["fingerprint"]
    assert replace(var, expects={"positive": {"rank_correlation": ("supported",)}}).fingerprint != var.fingerprint


def test_the_seeds_own_rule():
    full = {"cross_layer_mi": 1.6, "cross_domain_mi": 0.6, "cross_domain_min": 0.1, "predictor_mi": 1.0, "random_mi": 0.01, "mi_accuracy_r": 0.9}
    assert seed_000(full)["supported"] is True
    assert seed_000({**full, "cross_domain_mi": 0.5})["supported"] is False
    missing = seed_000({**full, "predictor_mi": None})
    assert missing["supported"] is None and len(missing["lines"]) == 4 and "MI(Prophet, actual)" in missing["reason"]
