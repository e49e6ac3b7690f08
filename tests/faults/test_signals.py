"""SIGINT and SIGTERM to real children: the batch in hand is finished, the state says INTERRUPTED, the run goes on later."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.faults.children import end, start, wait_until_ready


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("work", ["hold", "finish_batch"])
def test_first_signal(number: signal.Signals, status: int, work: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    child = start(work, directory)
    wait_until_ready(child)
    child.send_signal(number)
    ended, _, errors = end(child)
    assert ended == status, errors
    assert f"assay resume {directory}" in errors
    state = json.loads((directory / "state.json").read_text())
    assert state["status"] == "INTERRUPTED"
    assert [stage["status"] for stage in state["stages"].values()] == ["INTERRUPTED"]
    if work == "finish_batch":
        assert "whole" in json.loads((directory / "batches.json").read_text())


def test_second_signal_leaves_at_once_and_the_run_goes_on_later(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    child = start("hang", directory)
    wait_until_ready(child)
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert child.poll() is None, "a deferring stage waits for its pause point"
    child.send_signal(signal.SIGINT)
    status, _, errors = end(child, timeout_s=10)
    assert status == 130 and "once more to leave at once" in errors
    again = start("run", directory)
    assert end(again)[0] == 0
