"""Seed 003's bands, closed as the metrics specification (section 6) closes them, and its binary rule."""

from __future__ import annotations

import pytest

from hypotheses.seed_rules import SEED_003_COVERAGE, SEED_003_RHO, SEED_003_SHARE, grade, lowest, seed_003

PASSING = {"rho": -0.6789, "p": 1.23e-145, "n_types": 1071, "share": 0.423, "coverage": 0.567}


@pytest.mark.parametrize(("bands", "grades"), [
    (SEED_003_RHO, {-0.61: "excellent", -0.6: "good", -0.41: "good", -0.4: "acceptable", -0.35: "acceptable", -0.3: "insufficient"}),
    (SEED_003_SHARE, {0.51: "excellent", 0.5: "good", 0.41: "good", 0.4: "acceptable", 0.3: "acceptable", 0.299: "insufficient"}),
    (SEED_003_COVERAGE, {0.61: "excellent", 0.6: "good", 0.5: "acceptable", 0.41: "acceptable", 0.4: "insufficient", 0.1: "insufficient"})])
def test_bands_at_and_beside_their_edges(bands, grades):
    assert {value: grade(value, bands) for value in grades} == grades


def test_the_overall_grade_is_the_minimum():
    assert lowest(["excellent", "acceptable", "good"]) == "acceptable"
    assert lowest(["excellent", None]) is None
    assert lowest([]) is None


def test_the_seeds_rule_in_its_own_words_with_n_beside_p():
    said = seed_003(PASSING)
    assert said["supported"] is True
    assert said["words"] == "VAR Hypothesis SUPPORTED"
    assert "p = 1.23e-145, n = 1,071 types" in said["lines"][0]["text"]
    assert "42.3% of tokens have low entropy (< 0.5)" in said["lines"][1]["text"]
    assert "Fast-path routing can cover 56.7% of token occurrences" in said["lines"][2]["text"]


@pytest.mark.parametrize(("change", "supported"), [
    ({"rho": -0.4}, False), ({"rho": -0.35}, False), ({"p": 0.01}, False), ({"p": 0.009}, True), ({"share": 0.30}, True),
    ({"share": 0.2999}, False), ({"coverage": 0.40}, False), ({"coverage": 0.4001}, True), ({"p": 0.0}, True)])
def test_each_bound_of_the_seeds_rule(change, supported):
    assert seed_003(PASSING | change)["supported"] is supported


def test_a_vanishing_p_is_not_printed_as_zero():
    assert "p < 1e-300" in seed_003(PASSING | {"p": 0.0})["lines"][0]["text"]


@pytest.mark.parametrize("missing", sorted(PASSING))
def test_a_missing_input_is_no_verdict(missing):
    said = seed_003({**PASSING, missing: None})
    assert said["supported"] is None
    assert missing in said["reason"]
