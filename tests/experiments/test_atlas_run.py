"""`assay run atlas --trace`: from files to findings, page, folder and MLflow, on rows and on counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.trace import CountsTrace
from experiments import cli
from experiments.report import figure_files
from tests.experiments.tiny_runs import NOWHERE, run_directory, stages
from tests.hypotheses.atlas_worlds import counts_of
from tests.references.memory_trace import MemoryTrace
from tests.synthetic_trace import make_documents, make_trace
from tracking import count_tables

DOMAINS = ("code", "news", "wiki")


@pytest.fixture
def assay(tmp_path, monkeypatch):
    """Run `assay` on a root of its own, figures drawn coarsely, and return the run directory."""
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(figure_files, "PRINT_DPI", 15)

    def run(*argv: str) -> Path:
        assert cli.main(["run", "atlas", "--profile", "tiny", *argv]) == 0
        return run_directory(tmp_path / "runs")

    return run


def verdicts(directory: Path) -> dict[str, str]:
    return {one["hypothesis"]: one["verdict"] for one in json.loads((directory / "findings.json").read_text(encoding="utf-8"))["findings"]}


@pytest.mark.slow
def test_a_trace_becomes_findings_pages_folder_and_mlflow_runs(tmp_path, assay, capsys):
    documents = make_documents(60, DOMAINS)
    make_trace(tmp_path / "given", np.random.default_rng(0), layers=((8, 2), (8, 2)), documents=documents)
    directory = assay("--trace", str(tmp_path / "given"))
    assert verdicts(directory) == {"repetition": "inconclusive", "domain_specialisation": "inconclusive"}
    assert "below its floor" in capsys.readouterr().out
    assert {"describe", "controls", "report"} <= set(stages(directory))
    for name in ("report/report.html", "report/report.md", "hypotheses/repetition/report/report.html",
                 "hypotheses/domain_specialisation/report/report.html", "atlas/comprehensive_expert_statistics.json",
                 "atlas/layer_1_expert_frequency.png", "figures/domain_separation.pdf", "description/evaluation.json"):
        assert (directory / name).is_file(), name
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    for name in ("repetition", "domain_specialisation"):
        (found,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        assert "atlas/usage_cv" in found.data.metrics and "layer/usage_cv" in found.data.metrics
        assert "comprehensive_expert_statistics.json" in {Path(one.path).name for one in client.list_artifacts(found.info.run_id, "atlas")}


def test_counts_run_from_the_command_line(tmp_path, assay, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    trace = make_trace(tmp_path / "given", np.random.default_rng(1), layers=((8, 2),), documents=make_documents(30, DOMAINS))
    counts = counts_of(MemoryTrace(trace.meta, trace.documents, list(trace.batches())))
    assert isinstance(counts, CountsTrace)
    count_tables.save(counts, tmp_path / "counts")
    directory = assay("--trace", str(tmp_path / "counts"))
    assert verdicts(directory) == {"repetition": "inconclusive", "domain_specialisation": "inconclusive"}
    said = capsys.readouterr().out
    assert "untestable: only counts were kept" in said
    loads = json.loads((directory / "atlas" / "proper_3d_statistics.json").read_text(encoding="utf-8"))
    assert list(loads["0"].values()) == counts.counts[0].sum(axis=0).tolist()
