"""`assay inspect` as typed: a table for the eye, JSON for others, exit status 0 with findings and 1 only where nothing can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from tests.experiments.readers import foreign_engines, foreign_files
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


def test_what_a_file_does_not_say_is_said_wherever_it_is_taken(tmp_path: Path, capsys) -> None:
    """The remedy that a refusal names is an option of the command that refused."""
    log = str(foreign_engines.expert_log(tmp_path))
    commands = {"inspect": [], "measure": ["--only", "usage"], "sample": [str(tmp_path / "part"), "--documents", "1"],
                "export": [str(tmp_path / "load.npy"), "--form", "eplb"], "import": ["--out", str(tmp_path / "trace")]}
    for command, more in commands.items():
        assert cli.main([command, log, *more]) == 1
        assert "give --n-experts" in capsys.readouterr().err
        assert cli.main([command, log, *more, "--n-experts", "8"]) == 0, command
        said = capsys.readouterr().out
        if command == "inspect":
            assert "slot_order_unknown" in said and "invalidating" in said
    assert cli.main(["inspect", log, "--n-experts", "8", "--accept", "slot_order_unknown", "--domain", "own"]) == 0
    assert "slot_order_unknown     accepted" in capsys.readouterr().out
    assert cli.main(["inspect", log, "--n-experts", "8", "--domain", "a", "--domain", "b"]) == 1
    assert "--domain was given 2 times for 1 traces" in capsys.readouterr().err


def test_of_our_own_traces_nothing_is_said(trace: Path, capsys) -> None:
    for command, more in (("inspect", []), ("measure", ["--only", "usage"])):
        assert cli.main([command, str(trace), *more, "--n-experts", "8"]) == 1
        assert "a trace of ours says itself" in capsys.readouterr().err


@pytest.mark.parametrize(("make", "options", "words"), [
    (foreign_files.megatron, [], "tokens of one pass on one rank"), (foreign_files.flame_moe, ["--n-experts", "8"], "recorded batches"),
    (foreign_files.olmoe_jsonl, ["--n-experts", "4", "--model", "tiny"], "blocks cut from joined texts"),
])
def test_passes_batches_and_blocks_are_no_documents(make, options: list[str], words: str, tmp_path: Path) -> None:
    path, out = str(make(tmp_path)), tmp_path / "audit.json"
    assert cli.main(["inspect", path, *options, "--json", str(out)]) == 0
    found = {one["code"]: one for one in json.loads(out.read_text())["traces"][0]["findings"]}
    assert words in found["documents_not_texts"]["words"] and found["documents_not_texts"]["invalidates"] == ["sequence", "intervals"]
    assert "slot_order_unknown" not in found
    assert cli.main(["import", path, *options, "--out", str(tmp_path / "trace")]) == 0
    assert cli.main(["inspect", str(tmp_path / "trace"), "--json", str(out)]) == 0
    assert "documents_not_texts" in {one["code"] for one in json.loads(out.read_text())["traces"][0]["findings"]}
