"""A run that was moved, redeclared, or whose clock jumped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.faults import working
from tests.faults.children import end, start
from tracking.run import Run, RunError
from tracking.traces import StoredTrace


def test_a_moved_and_renamed_run_goes_on(tmp_path: Path) -> None:
    before, after = tmp_path / "runs" / "run", tmp_path / "elsewhere" / "renamed"
    end(start("run", before, "state.write:6"))
    end(start("collect", before / "trace", "shard.sync:5"))
    after.parent.mkdir()
    before.rename(after)
    run_id = json.loads((after / "state.json").read_text())["run_id"]
    outcome = working.run(after)
    assert set(outcome) == set(working.STAGES)
    with Run.resume(tmp_path / "elsewhere", "renamed") as current:
        assert current.run_id == run_id and not current.needs("report", "inputs of report")
    assert working.collect(after / "trace") == working.collect(tmp_path / "undisturbed")
    for path in after.rglob("*.json"):
        fields = json.loads(path.read_text())
        fields.pop("attempts", None)  # the command line as it was typed
        assert str(tmp_path) not in json.dumps(fields), f"{path} names an absolute path"


@pytest.mark.parametrize(("change", "row"), [
    ({"seed": 1}, r"seed +0 +1"),
    ({"source": {"k": 3}}, r"source\.k +2 +3"),
    ({"hypotheses": ["var", "h02"]}, r'hypotheses +\["var"\] +\["var", "h02"\]'),
    ({"threshold": -0.5}, r"threshold +absent +-0\.5")])
def test_a_changed_declaration_is_refused_with_a_table(change: dict[str, object], row: str, tmp_path: Path) -> None:
    working.run(tmp_path / "run")
    before = (tmp_path / "run" / "state.json").read_bytes()
    with pytest.raises(RunError, match=r"(?s)restore what it was, or begin another run with --new\n +field +was +is\n +" + row):
        Run.open(tmp_path, "run", working.DECLARATION | change)
    assert (tmp_path / "run" / "state.json").read_bytes() == before
    with Run.open(tmp_path, "run", working.DECLARATION | change, new=True) as other:
        assert other.name == "run-2"


def test_an_edited_declaration_file_is_refused_on_resume(tmp_path: Path) -> None:
    working.run(tmp_path / "run")
    path = tmp_path / "run" / "declaration.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(RunError, match=r"seed +0 +7"):
        Run.resume(tmp_path, "run")


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    working.run(tmp_path / "run")
    path = tmp_path / "run" / "state.json"
    path.write_text(path.read_text().replace('"FINISHED"', '"RUNNING"', 1))
    with pytest.raises(ValueError, match=r"state.json: seal: expected .* found .*; take it from a copy"):
        Run.resume(tmp_path, "run")


def test_a_clock_set_back_and_file_times_ahead_change_nothing(tmp_path: Path) -> None:
    """Order comes from sequence numbers, durations from the monotonic clock."""
    directory = tmp_path / "trace"
    end(start("collect", directory, "shard.rename:4"))
    for path in directory.iterdir():
        os.utime(path, (4_000_000_000, 4_000_000_000))
    prefix = ("faketime", "-f", "-2d") if shutil.which("faketime") else ()
    status, output, errors = end(start("collect", directory, prefix=prefix))
    assert status == 0, errors
    assert output.splitlines()[-1] == working.collect(tmp_path / "undisturbed")
    trace = StoredTrace.open(directory)
    sequences = [trace.manifest.shards[number].sequence for number in sorted(trace.manifest.shards)]
    assert sequences == sorted(sequences)
