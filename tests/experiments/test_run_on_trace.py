"""The command on a trace that was recorded elsewhere: no corpus, no model, the same verdict, report and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import cli
from experiments.report import figure_files
from tests.experiments.readers.test_esft import written
from tests.synthetic_trace import make_trace

LENGTHS = [25, 18, 30, 22, 27, 19] * 4
SMALL = ("--profile", "tiny", "--set", "topology.predictor=false")


def esft(directory: Path, seed: int) -> Path:
    """Three layers of 8 experts, top-2, in 24 sequences."""
    rng, n_tokens = np.random.default_rng(seed), sum(LENGTHS)
    ids = np.argsort(rng.random((3, n_tokens, 8)), axis=2)[:, :, :2].astype(np.uint8)
    directory.mkdir()
    return written(directory, expert_ids=ids, weight_e4=rng.integers(1, 4000, (3, n_tokens, 2)).astype(np.uint16),
                   doc_len=np.array(LENGTHS, np.int32)).rename(directory / f"{directory.name}.npz")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    cwd = tmp_path_factory.mktemp("elsewhere")
    paths = [str(esft(cwd / name, seed)) for seed, name in enumerate(("law", "intent"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_ROOT", str(cwd / "runs"))
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert cli.main(["run", "topology", *SMALL, "--trace", *paths, "--set", "trace.n_experts=8"]) == 0
    (state,) = (cwd / "runs").glob("*/state.json")
    return state.parent, paths


def test_the_run_is_judged_on_the_files_documents_and_says_what_is_missing(run: tuple[Path, list[str]]) -> None:
    directory, _ = run
    (finding,) = json.loads((directory / "findings.json").read_text())["findings"]
    assert finding["verdict"] == "inconclusive"
    manifest = json.loads((directory / "corpus" / "manifest.json").read_text())
    assert {domain: sum(splits.values()) for domain, splits in manifest["documents"].items()} == {"law": 24, "intent": 24}
    assert [one["format"] for one in manifest["origin"]] == ["esft", "esft"]
    page = (directory / "report" / "report.md").read_text()
    assert "sorted by weight" in page and "law" in page
    assert "testbed" not in json.loads((directory / "protocol.json").read_text())["protocol"]
    assert not (directory / "training.json").exists()


def test_a_run_without_a_test_document_is_inconclusive_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)  # the same files, drawn coarsely
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    law = esft(tmp_path / "law", 0)
    assert cli.main(["run", "topology", "--profile", "tiny", "--trace", str(law), "--set", "trace.n_experts=8",
                     "--set", "trace.test_share=0.0001"]) == 0
    assert "VERDICT   INCONCLUSIVE" in capsys.readouterr().out
    (state,) = (tmp_path / "runs").glob("*/state.json")
    (finding,) = json.loads((state.parent / "findings.json").read_text())["findings"]
    assert {one["estimate"]["reason"] for one in finding["criteria"]} == {"no_data: no test documents"}
    assert "no test documents" in (state.parent / "report" / "report.md").read_text()


def test_going_on_reads_nothing_again_and_finds_changed_files(run: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    directory, paths = run
    monkeypatch.setenv("ASSAY_ROOT", str(directory.parent))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = (directory / "findings.json").read_bytes()
    assert cli.main(["resume", directory.name]) == 0
    assert "collect ..." not in capsys.readouterr().err and (directory / "findings.json").read_bytes() == before
    shard = next((directory / "trace").glob("shard-*.parquet"))
    shard.unlink()
    Path(paths[0]).write_bytes(Path(esft(directory.parent / "other", 9)).read_bytes())
    assert cli.main(["resume", directory.name]) == 1
    assert "the run began with other files" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "words"), [
    (("--trace", "{tmp}/absent.npz"), "absent.npz: no such file or folder"),
    (("--trace", "{law}", "--model", "some/model"), "source.model: 'some/model' would not be run"),
    (("--trace", "{law}", "--set", "trace.domains=['a','b']"), "trace.domains: 2 labels for 1 paths"),
    (("--set", "trace.n_experts=8"), "trace.n_experts: says something of files that are not named"),
    (("--trace", "{law}", "{law}", "--set", "trace.n_experts=8"), "is in the trace more than once"),
    (("--trace", "{law}", "--set", "trace.n_experts=4"), "outside 0..3; correct n_experts"),
])
def test_bad_input_is_refused_before_a_run_directory_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                            more: tuple[str, ...], words: str) -> None:
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    law = esft(tmp_path / "law", 0)
    assert cli.main(["run", "topology", *SMALL, *(one.format(tmp=tmp_path, law=law) for one in more)]) == 1
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/state.json"))


def test_import_writes_a_trace_that_measure_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law, out = esft(tmp_path / "law", 0), tmp_path / "trace"
    assert cli.main(["import", str(law), "--out", str(out), "--n-experts", "8", "--domain", "courts"]) == 0
    said = capsys.readouterr().out
    assert f"{sum(LENGTHS):,} tokens of 24 documents in 1 domains, 3 layers" in said and "sorted_by_weight" in said
    assert cli.main(["measure", str(out), "--only", "usage"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert cli.main(["import", str(law), "--out", str(out), "--n-experts", "9"]) == 1
    assert "begun with another meta" in capsys.readouterr().err
    assert cli.main(["import", str(law), "--out", str(out), "--domain", "a", "--domain", "b"]) == 1
    assert "--domain was given 2 times for 1 paths" in capsys.readouterr().err


def test_a_hypothesis_whose_columns_were_not_recorded_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    law = esft(tmp_path / "law", 0)
    assert cli.main(["run", "var", "--profile", "tiny", "--trace", str(law), "--set", "trace.n_experts=8"]) == 1
    assert "columns token_id, entropy_nats, top1_prob: absent, and hypothesis 'var' is about them" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/state.json"))


@pytest.mark.slow
def test_var_on_a_trace_with_its_columns_is_judged_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    make_trace(tmp_path / "trace", np.random.default_rng(0), 60, ((8, 2), (8, 2)))
    assert cli.main(["run", "var", "--profile", "tiny", "--trace", str(tmp_path / "trace")]) == 0
    (state,) = (tmp_path / "runs").glob("*/state.json")
    effect = json.loads((state.parent / "fastpath" / "effect.json").read_text())
    assert effect["measured"] is False and "recorded elsewhere, so there is no model" in effect["reason"]
    assert (state.parent / "routing_stats.parquet").exists()
