"""What counts as a look at test documents."""

from __future__ import annotations

import datetime

import pytest

from experiments import ledger, registration
from experiments.declaration import load
from experiments.ledger import LedgerError, Opening

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)


def opening(run: str = "r1", **changes: str) -> Opening:
    fields = {"run": run, "hypothesis": "var", "claim": "c", "protocol": "p", "documents": "d", "at": "2026-11-22T12:00:00+00:00"}
    return Opening(**{**fields, **changes})


def test_a_resumed_run_is_counted_once_and_others_each(tmp_path):
    assert ledger.record(tmp_path, opening()) is True
    assert ledger.record(tmp_path, opening(at="later")) is False
    assert ledger.record(tmp_path, opening("r2")) is True
    assert ledger.counts(tmp_path) == {"var": 2}
    assert ledger.counts(tmp_path, excluding="r1") == {"var": 1}


def test_the_same_run_under_another_protocol_is_another_look(tmp_path):
    assert ledger.record(tmp_path, opening())
    assert ledger.record(tmp_path, opening(protocol="other"))


def test_no_ledger_is_no_looks(tmp_path):
    assert ledger.counts(tmp_path / "none") == {}


def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(tmp_path):
    ledger.record(tmp_path, opening())
    whole = (tmp_path / ledger.FILE).read_bytes()
    for cut in range(len(whole), len(whole) * 2):
        (tmp_path / ledger.FILE).write_bytes((whole + whole.replace(b"r1", b"r2"))[:cut])
        assert ledger.counts(tmp_path, excluding="r2") == {"var": 1}
        ledger.record(tmp_path, opening("r3"))
        assert ledger.counts(tmp_path, excluding="r2") == {"var": 2}


def test_other_damage_is_named_by_line(tmp_path):
    ledger.record(tmp_path, opening())
    with (tmp_path / ledger.FILE).open("a") as file:
        file.write("garbage\n")
    with pytest.raises(LedgerError, match="line 2"):
        ledger.counts(tmp_path)


def test_a_run_opens_the_test_split_once_and_its_own_look_is_not_counted_in_its_note(tmp_path):
    experiment = load("var")
    assert registration.open_test_split(experiment, "r1", tmp_path, "d", NOW) == ["var"]
    assert registration.open_test_split(experiment, "r1", tmp_path, "d", NOW) == []
    assert registration.open_test_split(experiment, "r2", tmp_path, "d", NOW) == ["var"]
    assert registration.note_of(experiment, "var", tmp_path, run="r2")["runs"] == 1
    assert registration.note_of(experiment, "var", tmp_path)["note"].startswith("registered on ")
