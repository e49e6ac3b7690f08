"""Two processes at one run, or one ledger, at once."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.faults import working
from tests.faults.children import end, start, wait_until_ready
from tracking import ledger
from tracking.run import HeldError, Run

ROUNDS = 6


def test_exactly_one_of_two_wins(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        directory = tmp_path / f"run-{number}"
        rivals = [start("hold", directory), start("hold", directory)]
        lines = [rival.stdout.readline() for rival in rivals]  # type: ignore[union-attr]
        assert sorted(lines) == ["", "ready\n"], lines
        winner, loser = (rivals[lines.index(line)] for line in ("ready\n", ""))
        status, _, errors = end(loser)
        assert status == 1
        assert f"held by pid {winner.pid} on {platform.node()} since 20" in errors or "held by another process" in errors
        assert "--new" in errors
        winner.kill()
        end(winner)


def test_the_second_writes_no_byte_and_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    holder = start("hold", directory)
    wait_until_ready(holder)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}
    with pytest.raises(HeldError, match=f"held by pid {holder.pid} on .* since .*; wait for it, or begin another run with --new"):
        Run.open(tmp_path, "run", working.DECLARATION)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}
    with Run.open(tmp_path, "run", working.DECLARATION, new=True) as other:
        assert other.name == "run-2"
    holder.kill()
    end(holder)
    with Run.open(tmp_path, "run", working.DECLARATION) as current:
        assert any("ended without a word" in notice for notice in current.notices)


def test_four_processes_at_one_ledger_lose_no_line(tmp_path: Path) -> None:
    writers = [start("record", tmp_path / f"run{number}") for number in range(4)]
    assert [end(writer)[0] for writer in writers] == [0] * 4
    assert ledger.counts(tmp_path) == {"var": 80}
    assert len((tmp_path / "ledger.jsonl").read_bytes().splitlines()) == 80
    assert os.listdir(tmp_path) == ["ledger.jsonl"]
