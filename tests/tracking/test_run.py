from __future__ import annotations

import json
from pathlib import Path

import pytest

from tracking.run import Run, RunError
from tracking.untrusted import UntrustedError

DECLARATION = {"experiment": "var", "seed": 0}


def open_run(root: Path) -> Run:
    return Run.open(root, "var-quick-12345678", DECLARATION)


def finish_stage(run: Run, name: str = "analyse", inputs: str = "a") -> None:
    with run.stage(name, inputs) as stage:
        (run.directory / f"{name}.json").write_text("{}")
        stage.output(f"{name}.json")
        stage.remarks["n"] = 3


def test_a_finished_stage_is_skipped_in_the_next_life(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        assert run.needs("analyse", "a")
        finish_stage(run)
        assert not run.needs("analyse", "a")
        run.finish()
    with open_run(tmp_path) as run:
        assert not run.needs("analyse", "a")
        assert run.state.stages["analyse"].remarks == {"n": 3}
        assert run.state.stages["analyse"].duration_s is not None and run.state.stages["analyse"].duration_s >= 0
    assert json.loads((run.directory / "state.json").read_text())["status"] == "FINISHED"
    assert json.loads((run.directory / "declaration.json").read_text()) == DECLARATION


def test_changed_inputs_changed_outputs_and_faults_elsewhere_are_reasons_to_do_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run(tmp_path) as run:
        finish_stage(run)
        assert run.needs("analyse", "b")
        assert run.needs("analyse", "a", faults=["shard-00001.parquet: expected"])
        (run.directory / "analyse.json").write_text("{ }")
        assert run.needs("analyse", "a")
        (run.directory / "analyse.json").unlink()
        assert run.needs("analyse", "a")
    told = capsys.readouterr().err
    assert "stage analyse: again, its inputs have changed" in told and "shard-00001.parquet" in told and "analyse.json is gone or changed" in told


def test_a_failed_stage_is_recorded_and_done_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path) as run, run.stage("analyse", "a"):
        _ = 1 / 0
    state = json.loads((run.directory / "state.json").read_text())
    assert state["status"] == state["stages"]["analyse"]["status"] == "FAILED"
    assert state["stages"]["analyse"]["error"].startswith("ZeroDivisionError")
    with open_run(tmp_path) as run:
        assert run.needs("analyse", "a")


def test_sequence_numbers_grow_and_attempts_keep_where_they_ran(tmp_path: Path) -> None:
    for _ in range(3):
        with open_run(tmp_path) as run:
            finish_stage(run)
    sequences = [attempt["sequence"] for attempt in run.state.attempts]
    assert sequences == sorted(set(sequences)) and len(sequences) == 3
    assert "numpy" in run.state.attempts[0]["versions"]
    assert run.started_ms > 1_600_000_000_000


def test_new_takes_the_next_free_name(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with Run.open(tmp_path, "x", DECLARATION, new=True) as run:
            names.append(run.name)
    assert names == ["x", "x-2", "x-3"]


def test_resume_finds_a_run_by_name_or_directory_and_says_where_it_looked(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        pass
    for given in ("var-quick-12345678", str(run.directory)):
        with Run.resume(tmp_path, given) as again:
            assert again.run_id == run.run_id and again.declaration == DECLARATION
    with pytest.raises(RunError, match="nothing: no run there and none of that name under .*assay list"):
        Run.resume(tmp_path, "nothing")


def test_a_directory_of_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(RunError, match="holds files but no state.json"):
        Run.open(tmp_path, "photos", DECLARATION)


@pytest.mark.parametrize("name", ["../x", "a/b", "CON", ""])
def test_names_that_are_paths_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError):
        Run.open(tmp_path, name, DECLARATION)


def test_an_output_outside_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with open_run(tmp_path) as run, pytest.raises(UntrustedError), run.stage("report", "a") as stage:
        stage.output("../secret")


def test_a_held_run_is_free_again_after_it_was_left(tmp_path: Path) -> None:
    with open_run(tmp_path), pytest.raises(RuntimeError, match="held by pid"):
        open_run(tmp_path)
    with open_run(tmp_path):
        pass
