"""`assay inspect` as typed: a table for the eye, JSON for others, exit status 0 with findings and 1 only where nothing can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from tests.experiments.readers.test_esft import written as esft_file
from tests.experiments.test_audit_stage import doubled
from tests.synthetic_trace import make_documents, make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "some-run" / "trace"
    directory.parent.mkdir()
    make_trace(directory, np.random.default_rng(0), documents=make_documents(60))
    return directory


def test_a_clean_trace_by_directory_and_by_name(trace: Path, capsys, monkeypatch) -> None:
    assert cli.main(["inspect", str(trace)]) == 0
    assert "nothing found" in capsys.readouterr().out
    monkeypatch.setenv("ASSAY_ROOT", str(trace.parents[1]))
    assert cli.main(["inspect", "some-run", "--split", "test"]) == 0
    assert "some-run: nothing found" in capsys.readouterr().out


def test_findings_in_a_table_and_in_json(tmp_path: Path, capsys) -> None:
    file = tmp_path / "audit.json"
    assert cli.main(["inspect", str(esft_file(tmp_path)), "--json", str(file), "--accept", "few_documents"]) == 0
    said = capsys.readouterr().out
    assert "few_documents" in said and "accepted" in said and "    do     collect more documents" in said
    kept = json.loads(file.read_text())
    (one,) = kept["traces"]
    found = {entry["code"]: entry for entry in one["findings"]}
    assert found["few_documents"]["accepted"] and found["few_documents"]["count"] == 2
    assert {"code", "count", "share", "where", "consequence", "remedy", "invalidates", "severity"} <= set(found["few_documents"])


def test_traces_of_two_models_held_against_each_other(trace: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["inspect", str(trace), str(esft_file(tmp_path))]) == 0
    assert "differing_meta" in capsys.readouterr().out


@pytest.mark.parametrize(("argv", "words"), [
    (("nowhere",), "no trace"), (("{trace}", "--split", "train"), "no documents; choose among calibration, test"),
    (("{trace}", "--accept", "nonsense"), "no finding has this code"), (("{trace}", "--json", "no/such/folder/a.json"), "make it first"),
])
def test_refusals_name_the_remedy(trace: Path, capsys, argv: tuple[str, ...], words: str) -> None:
    assert cli.main(["inspect", *(word.format(trace=trace) for word in argv)]) == 1
    assert words in capsys.readouterr().err


def test_measure_marks_what_a_finding_invalidates(tmp_path: Path, capsys) -> None:
    doubled(tmp_path / "trace")
    arguments = ["measure", str(tmp_path / "trace"), "--only", "usage"]
    assert cli.main(arguments) == 0
    marked = capsys.readouterr().out
    assert cli.main([*arguments, "--accept", "counted_twice"]) == 0
    accepted = capsys.readouterr().out
    assert marked.count("flawed_trace: counted_twice") > 10 and "flawed_trace" not in accepted
    assert [line.split()[:1] for line in marked.splitlines()] == [line.split()[:1] for line in accepted.splitlines()]
