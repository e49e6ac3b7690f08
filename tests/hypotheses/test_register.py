"""The register's content: what counts as registered, changed, post hoc."""

from __future__ import annotations

import datetime

import pytest

from hypotheses.register import RegisterError, checked, problems, registered, registration, registration_note, status

A, B, C = "a" * 64, "b" * 64, "c" * 64
DAY = datetime.date(2026, 11, 22)
LATER = datetime.date(2026, 12, 1)


def test_first_registration():
    register = registered({}, "var", A, DAY, 0)
    assert register == {"var": {"fingerprint": A, "registered": "2026-11-22", "history": []}}
    assert registration_note("var", A, register, {"var": 5}) == "registered on 2026-11-22; 5 runs looked at test documents before this one"


def test_a_change_is_post_hoc_until_registered_and_shows_for_ever():
    register = registered({}, "var", A, DAY, 0)
    assert registration_note("var", B, register, {"var": 7}) == (
        "changed since its registration on 2026-11-22, not registered again: post hoc, after 7 runs")
    again = registered(register, "var", B, LATER, 7)
    assert again["var"]["history"] == [{"fingerprint": A, "date": "2026-11-22", "runs": 7}]
    assert registration_note("var", B, again, {"var": 9}) == "changed on 2026-12-01 after 7 runs"
    back = registered(again, "var", A, LATER, 9)
    assert [one["fingerprint"] for one in back["var"]["history"]] == [A, B]  # going back is a change too
    assert status("var", A, back) == "changed"


def test_registering_the_same_again_keeps_the_first_date():
    register = registered({}, "var", A, DAY, 0)
    assert registered(register, "var", A, LATER, 3) == register


def test_one_run_is_singular_and_the_unregistered_is_post_hoc():
    assert registration_note("new", A, {}, {"new": 1}) == "never registered: post hoc, after 1 run"


def test_runs_before_the_first_registration_show():
    register = registered({}, "var", A, DAY, 4)
    assert registration_note("var", A, register, {}) == "first registered on 2026-11-22 after 4 runs"


def test_departures_make_a_registered_claim_post_hoc():
    register = registered({}, "var", A, DAY, 0)
    said = registration("var", A, register, {}, ["analysis.min_type_count = 20, declared 50"])
    assert (said["status"], said["post_hoc"]) == ("post_hoc", True)
    assert "min_type_count = 20, declared 50" in said["note"]
    assert registration("var", A, register, {})["post_hoc"] is False


def test_problems_name_each_disagreement():
    register = registered(registered({}, "var", A, DAY, 0), "gone", C, DAY, 0)
    found = problems(register, {"var": B, "new": C})
    assert len(found) == 3
    assert any("var: changed since its registration on 2026-11-22" in one for one in found)
    assert any("new: never registered" in one for one in found)
    assert any("gone: registered, but no such hypothesis" in one for one in found)
    assert problems(registered({}, "var", A, DAY, 0), {"var": A}) == []


@pytest.mark.parametrize("content", [
    [], {"var": {}}, {"var": {"fingerprint": "short", "registered": "2026-11-22", "history": []}},
    {"var": {"fingerprint": A, "registered": "yesterday", "history": []}}, {"var": {"fingerprint": A, "registered": None, "history": []}},
    {"var": {"fingerprint": A, "registered": "2026-11-22", "history": [{"date": "2026-11-22"}]}}])
def test_a_damaged_register_is_refused_with_its_place(content):
    with pytest.raises(RegisterError, match=r"^here: .*restore it"):
        checked(content, "here")


def test_negative_run_counts_are_refused():
    with pytest.raises(RegisterError):
        registered({}, "var", A, DAY, -1)
