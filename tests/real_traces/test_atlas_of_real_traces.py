"""`assay run atlas --trace` on published traces of real models; skipped where the traces are not beside the clone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import cli
from experiments.report import figure_files
from tests.experiments.tiny_runs import NOWHERE, run_directory

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there: real traces live beside the clone, not in it")
FILES = ("report/report.html", "report/report.md", "hypotheses/repetition/report/report.html", "atlas/comprehensive_expert_statistics.json",
         "atlas/proper_3d_statistics.json", "atlas/comparative_layer_statistics.png")


@pytest.fixture
def atlas(tmp_path, monkeypatch):
    """Run the atlas on files of the data, figures drawn coarsely; the run's directory, its findings by hypothesis and its page."""
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setattr(figure_files, "PRINT_DPI", 15)

    def run(*names: str, more: tuple[str, ...] = ()) -> tuple[Path, dict[str, Any], str]:
        assert cli.main(["run", "atlas", "--profile", "tiny", "--trace", *(str(DATA / name) for name in names), *more]) == 0
        directory = run_directory(tmp_path / "runs")
        for name in FILES:
            assert (directory / name).is_file(), name
        findings = {one["hypothesis"]: one for one in json.loads((directory / "findings.json").read_text(encoding="utf-8"))["findings"]}
        return directory, findings, (directory / "report" / "report.html").read_text(encoding="utf-8")

    return run


def test_counts_of_olmoe_are_points_and_untestable(atlas) -> None:
    directory, findings, page = atlas("allenai__OLMoE/olmoe_counts.npz")
    assert {one["verdict"] for one in findings.values()} == {"inconclusive"}
    assert all("untestable: only counts were kept" in one["reason"] for one in findings.values())
    share = next(one for one in findings["domain_specialisation"]["criteria"] if one["criterion"]["name"] == "more_than_mixtral.information")
    assert share["estimate"]["value"] == pytest.approx(0.153, abs=5e-4) and share["estimate"]["low"] is None  # mean I(E;D) / log2 5 of three layers
    assert "13 of the model's 16 MoE layers are not in the trace" in page.replace("&#39;", "'") and "blocks 0, 7, 15" in page
    assert "Only counts were kept: copies" in page and "{&#39;file&#39;" not in page
    loads = json.loads((directory / "atlas" / "proper_3d_statistics.json").read_text(encoding="utf-8"))
    assert sum(loads["0"].values()) == 5 * 208_896 * 8  # five domains of as many tokens, eight choices each


@pytest.mark.slow
def test_gpt_oss_repeats_its_experts_on_too_few_documents(atlas) -> None:
    _, findings, page = atlas("gpt-oss-20b/gptoss20b_traces_0.npz")
    assert {one["verdict"] for one in findings.values()} == {"inconclusive"}
    assert "20 of 20 domains have fewer than 50 test documents" in findings["repetition"]["reason"]
    higher = next(one for one in findings["repetition"]["criteria"] if one["criterion"]["name"] == "higher_layers.first_choice")
    assert higher["estimate"]["low"] > 0.1  # above the claim's 0.03, and yet no verdict
    assert "ends_missing" in page


@pytest.mark.slow
def test_a_template_of_esft_withholds_the_verdict_until_it_is_accepted(atlas) -> None:
    names = ("deepseek-ai__ESFT/law.npz", "deepseek-ai__ESFT/intent.npz")
    _, findings, page = atlas(*names)
    assert {one["verdict"] for one in findings.values()} == {"inconclusive"}
    assert all(one["reason"].startswith("the trace is flawed: shared_prefix (2,032 of 8,222 rows of intent)") for one in findings.values())
    assert "No verdict: the trace is flawed" in page


@pytest.mark.slow
def test_an_accepted_template_leaves_esft_below_its_floor(atlas) -> None:
    names = ("deepseek-ai__ESFT/law.npz", "deepseek-ai__ESFT/intent.npz")
    _, findings, page = atlas(*names, more=("--accept", "shared_prefix"))
    assert "33 test documents in domain law, the floor is 50" in findings["repetition"]["reason"]
    assert "It was accepted" in page
