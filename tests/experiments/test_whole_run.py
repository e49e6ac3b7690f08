"""The command, from declaration to report, on a small corpus of one's own and under a relative root."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.experiments import tiny_corpus

SEED_COLUMNS = ["token_id", "token_str", "frequency", "mean_entropy", "std_entropy", "mean_confidence", "std_confidence",
                "routing_consistency", "top_expert", "min_entropy", "max_entropy"]  # seed 003, "Results DataFrame Schema"
ROOT = Path(__file__).resolve().parents[2]


def assay(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", **variables}
    environment.pop("ASSAY_ROOT", None)
    return subprocess.run([sys.executable, "-m", "experiments.cli", *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=600)


def run_tiny(cwd: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return assay("run", "var", "--profile", "tiny", "--dataset", "jsonl", "--corpus-path", "corpus.jsonl",
                 "--set", f"corpus.domains={json.dumps(list(tiny_corpus.DOMAINS))}", *more, cwd=cwd, **variables)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    cwd = tmp_path_factory.mktemp("user")
    tiny_corpus.write(cwd / "corpus.jsonl", per_domain=30)
    yield cwd, run_tiny(cwd)


def run_directory(cwd: Path) -> Path:
    return next(path.parent for path in (cwd / "runs").glob("*/state.json"))


def test_a_small_run_ends_inconclusive_with_its_floor_and_without_a_server(whole) -> None:
    cwd, done = whole
    assert done.returncode == 0, done.stderr
    assert "VERDICT   INCONCLUSIVE" in done.stdout
    assert re.search(r"test documents, the floor is 100", done.stdout)
    assert done.stderr.count("MLflow at http://127.0.0.1:9") == 1


def test_everything_that_is_promised_lies_in_the_run(whole) -> None:
    directory = run_directory(whole[0])
    for name in ("findings.json", "protocol.json", "routing_stats.parquet", "report/report.html", "report/report.md",
                 "report/validation_report.txt", "report/analysis_summary.txt", "sweep/study.db", "fastpath/lookup_table.npz"):
        assert (directory / name).is_file(), name
    for figure in ("frequency_vs_entropy", "entropy_distribution", "routing_consistency", "fastpath_coverage"):
        assert {(directory / "figures" / f"{figure}.{ending}").is_file() for ending in ("png", "pdf")} == {True}
    assert {path.suffix for path in (directory / "report" / "tables").iterdir()} == {".csv", ".tex"}
    with (directory / "routing_stats.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file))[:11] == SEED_COLUMNS


def test_the_protocol_is_logged_before_the_corpus_stage_and_the_look_is_in_the_ledger(whole) -> None:
    directory = run_directory(whole[0])
    protocol = json.loads((directory / "protocol.json").read_text())
    state = json.loads((directory / "state.json").read_text())
    assert protocol["logged"] <= state["stages"]["corpus"]["started"]
    looks = [json.loads(line) for line in (whole[0] / "runs" / "ledger.jsonl").read_text().splitlines()]
    assert [(look["hypothesis"], look["protocol"], look["run"]) for look in looks] == [("var", protocol["fingerprint"], directory.name)]


def test_a_second_run_does_nothing_again_and_a_damaged_output_is_made_again(whole) -> None:
    cwd = whole[0]
    directory = run_directory(cwd)
    before = json.loads((directory / "state.json").read_text())["stages"]
    findings = (directory / "findings.json").read_bytes()
    assert run_tiny(cwd).returncode == 0
    after = json.loads((directory / "state.json").read_text())["stages"]
    assert {name: stage["sequence"] for name, stage in after.items()} == {name: stage["sequence"] for name, stage in before.items()}
    (directory / "findings.json").write_text("{}")
    done = run_tiny(cwd)
    assert "stage judge: again, findings.json is gone or changed" in done.stderr
    assert (directory / "findings.json").read_bytes() == findings


def test_report_resume_and_list_find_the_run(whole) -> None:
    cwd = whole[0]
    name = run_directory(cwd).name
    assert assay("report", name, cwd=cwd).stdout.strip().endswith("report.html")
    assert "VERDICT   INCONCLUSIVE" in assay("resume", name, cwd=cwd).stdout
    assert re.search(rf"{name}\s+FINISHED\s+var INCONCLUSIVE", assay("list", cwd=cwd).stdout)


def test_publishing_later_makes_up_for_the_server_that_was_away(whole) -> None:
    cwd = whole[0]
    name = run_directory(cwd).name
    uri = f"sqlite:///{cwd / 'mlflow.db'}"
    first = assay("publish", name, cwd=cwd, MLFLOW_TRACKING_URI=uri)
    assert first.returncode == 0, first.stderr
    assert re.search(r"published: sqlite.*, [1-9]\d* new metric points", first.stdout)
    assert ", 0 new metric points" in assay("publish", name, cwd=cwd, MLFLOW_TRACKING_URI=uri).stdout


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_same_findings(whole, tmp_path: Path) -> None:
    findings = (run_directory(whole[0]) / "findings.json").read_bytes()
    (tmp_path / "corpus.jsonl").write_bytes((whole[0] / "corpus.jsonl").read_bytes())
    for point in ("shard.rename:2", "manifest.write:3", "state.sync:12", "file.rename:4"):
        assert run_tiny(tmp_path, MOE_KILL_AT=point).returncode == -9, point
    assert run_tiny(tmp_path).returncode == 0
    assert (run_directory(tmp_path) / "findings.json").read_bytes() == findings


@pytest.mark.parametrize(("more", "says"), [
    (["--model", "no/such-model-here"], "no/such-model-here"),
    (["--model", "./missing"], "no such checkpoint directory"),
    (["--entropy-threshold", "0.5"], "unit"),
    (["--set", "uncertainty.unit=\"token\""], "document"),
    (["--set", "corpus.test_shar=0.2"], "test_share"),
    (["--set", "corpus.text_field=\"body\""], "body"),
    (["--set", "corpus.domains=[\"herbs\"]", "--set", "corpus.path=\"one.jsonl\""], "one"),
    (["--corpus-path", "empty.jsonl"], "empty.jsonl"),
    (["--corpus-path", "broken.jsonl"], "line 2"),
    (["--layers", ""], "layers"),
])
def test_bad_input_is_refused_by_name_and_leaves_no_run(whole, tmp_path: Path, more: list[str], says: str) -> None:
    corpus = (whole[0] / "corpus.jsonl").read_text()
    (tmp_path / "corpus.jsonl").write_text(corpus)
    (tmp_path / "one.jsonl").write_text(corpus)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text(corpus.splitlines()[0] + "\n{\"id\": \n")
    done = run_tiny(tmp_path, *more)
    assert done.returncode == 1, done.stdout
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "runs").glob("*/state.json")) == []
