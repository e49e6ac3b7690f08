"""The same command on checkpoints that were saved by nothing of ours but transformers: nobody's testbed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hypotheses.findings import findings_from_json
from tests.experiments import tiny_corpus
from tests.experiments.sources.tiny_checkpoints import save
from tests.experiments.test_whole_run import run_directory, run_tiny


@pytest.mark.parametrize(("architecture", "why_not"), [
    pytest.param("olmoe", "eligible", marks=pytest.mark.slow), ("deepseek_v3", "eligible"),
    pytest.param("switch", "encoder-decoder", marks=pytest.mark.slow)])
def test_a_model_of_any_architecture_runs_to_a_report(tmp_path: Path, architecture: str, why_not: str) -> None:
    checkpoint = save(architecture, tmp_path / "model")
    tiny_corpus.write(tmp_path / "corpus.jsonl", per_domain=25)
    done = run_tiny(tmp_path, "--model", str(checkpoint))
    assert done.returncode == 0, done.stderr
    directory = run_directory(tmp_path)
    finding = findings_from_json((directory / "findings.json").read_text())[0]
    assert finding.verdict == "inconclusive"
    assert "floor" in finding.reason
    assert {one["status"] for one in finding.controls.values()} == {"not judged"}
    assert "model, revision" in (directory / "report" / "report.html").read_text().replace("Model model", "model")
    measured = json.loads((directory / "fastpath" / "effect.json").read_text())
    assert measured["measured"] or why_not in measured["reason"]
