from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from tracking import provenance


def test_versions_are_those_installed_and_nothing_else() -> None:
    found = provenance.versions(("numpy", "pyarrow", "no-such-distribution"))
    assert found == {"numpy": metadata.version("numpy"), "pyarrow": metadata.version("pyarrow"), "python": found["python"]}


def test_commit_and_dirty_flag_of_a_real_checkout(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words), check=True,
                              capture_output=True, text=True).stdout.strip()

    assert provenance.commit(tmp_path)["commit"] is None
    git("init", "-q")
    (tmp_path / "x").write_text("1")
    git("add", "x")
    git("commit", "-q", "-m", "x")
    assert provenance.commit(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "x").write_text("2")
    assert provenance.commit(tmp_path)["dirty"] is True
    (tmp_path / "inner").mkdir()
    assert "not the top" in provenance.commit(tmp_path / "inner")["reason"], "a checkout around an installed package is not ours"


def test_only_allowed_variables_are_recorded_and_no_password() -> None:
    variables = {"AWS_SECRET_ACCESS_KEY": "s3cret", "HF_TOKEN": "hf_abcdefghijkl", "OMP_NUM_THREADS": "1",
                 "MLFLOW_TRACKING_URI": "https://me:s3cret@example.org/x"}
    assert provenance.environment(variables) == {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "https://***@example.org/x"}


@pytest.mark.parametrize(("given", "shown"), [
    (["run", "var", "--seed", "1"], ["run", "var", "--seed", "1"]), (["--hf-token", "abc"], ["--hf-token", "***"]),
    (["--set", "corpus.password=abc"], ["--set", "corpus.password=***"]), (["hf_abcdefghijkl"], ["***"])])
def test_secrets_on_the_command_line_are_masked(given: list[str], shown: list[str]) -> None:
    assert provenance.command_line(given) == shown


def test_a_snapshot_is_plain_json() -> None:
    snapshot = json.loads(json.dumps(provenance.snapshot(), allow_nan=False))
    assert set(snapshot) == {"versions", "source", "machine", "command", "environment"}
    assert snapshot["machine"]["cpus"] >= 1 and snapshot["machine"]["memory_bytes"] > 2**28


def test_a_checkpoint_is_its_files_whatever_their_times_and_hidden_neighbours(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    before, files = provenance.checkpoint_sha256(tmp_path)
    assert set(files) == {"model.safetensors", "config.json"}
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.json").write_text("{}")
    (tmp_path / "training.log").write_text("now")
    assert provenance.checkpoint_sha256(tmp_path)[0] == before
    (tmp_path / "config.json").write_text("{ }")
    assert provenance.checkpoint_sha256(tmp_path)[0] != before
    with pytest.raises(FileNotFoundError, match="safetensors"):
        provenance.checkpoint_sha256(tmp_path / ".cache" / "none")
