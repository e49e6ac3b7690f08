"""`assay measure` and `assay metrics` as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.registry import every
from experiments import cli
from tests.experiments.readers.test_esft import written as esft_file
from tests.synthetic_trace import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "some-run" / "trace"
    directory.parent.mkdir()
    make_trace(directory, np.random.default_rng(0), 60)
    return directory


def test_a_stored_trace_by_run_directory_and_by_name(trace: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    assert cli.main(["measure", str(trace.parent), "--only", "layers", "--shifts", "9", "--out", str(tmp_path / "rows.csv")]) == 0
    said = capsys.readouterr().out
    monkeypatch.setenv("ASSAY_ROOT", str(trace.parents[1]))
    assert cli.main(["measure", "some-run", "--only", "layers", "--shifts", "9", "--out", str(tmp_path / "rows.json")]) == 0
    assert capsys.readouterr().out.replace("rows.json", "rows.csv") == said
    table = list(csv.DictReader((tmp_path / "rows.csv").open()))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["metric"] for row in rows] == [row["metric"] for row in table]
    assert {"mi_first_choice", "mi_excess", "mi_set"} <= {row["metric"] for row in rows}
    assert float(table[0]["low"]) == rows[0]["low"] < rows[0]["value"] < rows[0]["high"]


def test_an_esft_file(tmp_path: Path, capsys) -> None:
    assert cli.main(["measure", str(esft_file(tmp_path)), "--only", "usage"]) == 0
    assert "too_few_documents: 2 documents" in capsys.readouterr().out


@pytest.mark.parametrize(("argv", "words"), [
    (("measure", "nowhere"), "no trace; give a run directory"),
    (("measure", "{trace}", "--split", "train"), "split 'train': no documents"),
    (("measure", "{trace}", "--out", "rows.xlsx"), "written as .csv or .json"),
    (("measure", "{trace}", "--out", "no/such/folder/rows.csv"), "make it first"),
    (("metrics", "mi_first_choise"), "did you mean: mi_first_choice"),
])
def test_refusals_name_the_remedy(trace: Path, capsys, argv: tuple[str, ...], words: str) -> None:
    assert cli.main([word.format(trace=trace) for word in argv]) == 1
    assert words in capsys.readouterr().err


def test_the_catalogue_names_every_metric(capsys) -> None:
    assert cli.main(["metrics"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(every())
    assert cli.main(["metrics", "mi_E_D"]) == 0
    said = capsys.readouterr().out
    assert "source" in said and "stratified group jackknife" in said and "undefined" in said
