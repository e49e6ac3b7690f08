"""The algebra of verdicts; its rules are those of the metrics specification, section 6."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.power import documents_needed
from hypotheses.claim import Criterion, canonical_json, fingerprint
from hypotheses.verdict import (
    WeightedScoreError,
    all_of,
    any_of,
    documents_to_settle,
    interval_outcome,
    is_upper,
)

NUMBERS = st.floats(-5, 5)
OUTCOMES = st.sampled_from(["supported", "refuted", "inconclusive"])
BOUNDS = st.sampled_from(["below", "above", "at_least", "at_most"])
RANK = {"refuted": -1, "inconclusive": 0, "supported": 1}


def criterion(kind: str, bound: float) -> Criterion:
    return Criterion("c", "m", "u", "p", "s", **{kind: bound})


@pytest.mark.parametrize(("kind", "low", "high", "expected"), [
    ("above", 0.41, 0.5, "supported"), ("above", 0.40, 0.5, "inconclusive"),  # strict: touching is not support
    ("above", 0.3, 0.40, "refuted"), ("above", 0.40, 0.40, "refuted"), ("above", 0.3, 0.41, "inconclusive"),
    ("below", 0.3, 0.39, "supported"), ("below", 0.3, 0.40, "inconclusive"), ("below", 0.40, 0.5, "refuted"),
    ("at_least", 0.40, 0.5, "supported"), ("at_least", 0.3, 0.40, "inconclusive"), ("at_least", 0.3, 0.39, "refuted"),
    ("at_most", 0.3, 0.40, "supported"), ("at_most", 0.40, 0.5, "inconclusive"), ("at_most", 0.41, 0.5, "refuted"),
])
def test_an_interval_against_a_bound(kind, low, high, expected):
    assert interval_outcome(criterion(kind, 0.40), low, high) == expected


@given(kind=BOUNDS, bound=NUMBERS, a=NUMBERS, b=NUMBERS, points=st.lists(st.floats(0, 1), max_size=20))
def test_outcome_agrees_with_asking_every_point(kind, bound, a, b, points):
    low, high = min(a, b), max(a, b)
    holds = {"below": lambda x: x < bound, "above": lambda x: x > bound,
             "at_least": lambda x: x >= bound, "at_most": lambda x: x <= bound}[kind]
    inside = [low, high] + [min(high, low + share * (high - low)) for share in points]
    outcome = interval_outcome(criterion(kind, bound), low, high)
    assert (outcome == "supported") == all(holds(x) for x in (low, high))
    assert (outcome == "refuted") == (not any(holds(x) for x in (low, high)))
    if outcome != "inconclusive":
        assert {holds(x) for x in inside} == {outcome == "supported"}


@given(kind=BOUNDS, bound=NUMBERS, a=NUMBERS, b=NUMBERS, shift=st.floats(0, 5))
def test_shifting_an_interval_towards_the_claim_never_worsens_the_outcome(kind, bound, a, b, shift):
    one = criterion(kind, bound)
    low, high = min(a, b), max(a, b)
    shift = -shift if is_upper(one) else shift
    assert RANK[interval_outcome(one, low + shift, high + shift)] >= RANK[interval_outcome(one, low, high)]


@given(kind=BOUNDS, bound=NUMBERS, a=NUMBERS, b=NUMBERS, wider=st.floats(0, 3))
def test_a_wider_interval_never_settles_more(kind, bound, a, b, wider):
    one, low, high = criterion(kind, bound), min(a, b), max(a, b)
    assert interval_outcome(one, low - wider, high + wider) in (interval_outcome(one, low, high), "inconclusive")


@given(bound=NUMBERS, a=NUMBERS, b=NUMBERS)
def test_opposite_bounds_give_opposite_outcomes(bound, a, b):
    low, high = min(a, b), max(a, b)
    opposite = {"supported": "refuted", "refuted": "supported", "inconclusive": "inconclusive"}
    assert interval_outcome(criterion("below", bound), low, high) == opposite[interval_outcome(criterion("at_least", bound), low, high)]
    assert interval_outcome(criterion("above", bound), low, high) == opposite[interval_outcome(criterion("at_most", bound), low, high)]


@pytest.mark.parametrize(("low", "high"), [(math.nan, 1.0), (0.0, math.nan), (1.0, 0.0)])
def test_what_is_no_interval_is_refused(low, high):
    with pytest.raises(ValueError, match="not an interval"):
        interval_outcome(criterion("below", 0.0), low, high)


def test_kleene_and_or_of_the_reference(reference):
    case = reference("M02")
    assert [all_of(outcomes) for outcomes in case["inputs"]["cases"]] == case["expected"]["all_of"]
    assert [any_of(outcomes) for outcomes in case["inputs"]["cases"]] == case["expected"]["any_of"]


@given(outcomes=st.lists(OUTCOMES, min_size=1))
def test_and_is_the_minimum_or_the_maximum(outcomes):
    assert RANK[all_of(outcomes)] == min(RANK[one] for one in outcomes)
    assert RANK[any_of(outcomes)] == max(RANK[one] for one in outcomes)


@given(outcomes=st.lists(OUTCOMES), index=st.integers(0, 9), better=OUTCOMES)
def test_a_better_criterion_never_worsens_the_whole(outcomes, index, better):
    assume(index < len(outcomes) and RANK[better] >= RANK[outcomes[index]])
    improved = [*outcomes[:index], better, *outcomes[index + 1:]]
    for join in (all_of, any_of):
        assert RANK[join(improved)] >= RANK[join(outcomes)]


@pytest.mark.parametrize("join", [all_of, any_of])
def test_weighted_scores_are_refused(join):
    with pytest.raises(WeightedScoreError, match="refused"):
        join(["supported", "refuted"], weights={"rho": 0.9, "share": 0.1})


def test_documents_needed_is_the_reference(reference):
    case = reference("M06")
    asked = case["inputs"]
    needed = documents_needed(asked["sd_between_documents"], asked["detectable_difference"], alpha=asked["alpha"], power=asked["power"])
    assert needed == case["expected"]["n_documents"]


@given(n=st.integers(1, 10_000), half=st.floats(1e-3, 1), distance=st.floats(1e-3, 1))
def test_documents_to_settle_shrink_the_detectable_effect_to_the_distance(n, half, distance):
    needed = documents_to_settle(n, half, distance)
    assert half * math.sqrt(n / needed) <= distance * (1 + 1e-9)
    assert half * math.sqrt(n / max(needed - 1, 1)) >= distance * (1 - 1e-9) or needed == 1
    assert documents_to_settle(n, half, 0.0) is None


def test_canonical_json_is_the_reference(reference):
    case = reference("M08")
    given_ = case["inputs"]["object"]
    assert canonical_json(given_).decode() == case["expected"]["bytes_utf8"]
    assert fingerprint(given_) == case["expected"]["sha256"] == fingerprint(dict(reversed(given_.items())))
