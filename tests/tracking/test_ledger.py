from __future__ import annotations

from pathlib import Path

import pytest

from tracking import ledger
from tracking.ledger import LedgerError, Opening


def opening(run: str = "r1", **changes: str) -> Opening:
    return Opening(**({"run": run, "hypothesis": "var", "claim": "c", "protocol": "p", "documents": "d", "at": "2026-11-22"} | changes))


def test_a_resumed_run_is_counted_once_and_others_each(tmp_path: Path) -> None:
    assert ledger.record(tmp_path, opening())
    assert not ledger.record(tmp_path, opening(at="later"))
    assert ledger.record(tmp_path, opening("r2"))
    assert ledger.record(tmp_path, opening("r2", protocol="q"))
    assert ledger.record(tmp_path, opening("r2", hypothesis="prophet"))
    assert ledger.counts(tmp_path) == {"var": 3, "prophet": 1}
    assert ledger.counts(tmp_path, excluding="r1") == {"var": 2, "prophet": 1}
    assert ledger.protocol_counts(tmp_path) == {"p": 3, "q": 1}


def test_no_ledger_is_no_looks(tmp_path: Path) -> None:
    assert ledger.counts(tmp_path / "none") == {}


def test_every_cut_of_the_last_line_keeps_the_others_and_is_set_aside(tmp_path: Path) -> None:
    ledger.record(tmp_path, opening())
    first = (tmp_path / ledger.FILE).read_bytes()
    ledger.record(tmp_path, opening("r2"))
    both = (tmp_path / ledger.FILE).read_bytes()
    for cut in range(len(first), len(both)):
        (tmp_path / ledger.FILE).write_bytes(both[:cut])
        (tmp_path / ledger.TORN).unlink(missing_ok=True)
        assert ledger.counts(tmp_path) == {"var": 1}
        assert ledger.record(tmp_path, opening("r2"))
        assert (tmp_path / ledger.FILE).read_bytes() == both
        assert (tmp_path / ledger.TORN).exists() == (cut > len(first))


def test_a_changed_line_a_line_taken_away_and_a_foreign_line_are_named(tmp_path: Path) -> None:
    for run in ("r1", "r2", "r3"):
        ledger.record(tmp_path, opening(run))
    path = tmp_path / ledger.FILE
    lines = path.read_bytes().splitlines(keepends=True)
    for content, number in ((lines[0] + lines[1].replace(b"r2", b"r9") + lines[2], 2), (lines[0] + lines[2], 2),
                            (b"".join(lines) + b"garbage\n", 4), (lines[0] + b"\n" + lines[1], 2)):
        path.write_bytes(content)
        with pytest.raises(LedgerError, match=f"ledger.jsonl: line {number}: .*restore the file from a copy"):
            ledger.counts(tmp_path)
        with pytest.raises(LedgerError):
            ledger.record(tmp_path, opening("r4"))
        assert path.read_bytes() == content


def test_no_flipped_bit_changes_a_count(tmp_path: Path) -> None:
    for run in ("r1", "r2"):
        ledger.record(tmp_path, opening(run))
    path = tmp_path / ledger.FILE
    content, expected = path.read_bytes(), list(ledger.openings(tmp_path))
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 4]) + content[index + 1:])
        try:
            found = list(ledger.openings(tmp_path))
        except LedgerError:
            continue
        assert found in (expected, expected[:1]), "only a torn last line may go unseen"
