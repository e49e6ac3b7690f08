"""Predictions and retention made elsewhere, through the stages and through a whole run; a saved predictor on another trace."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.planes import planes
from experiments import cli
from experiments.claims import topology
from experiments.declaration import DeclarationError, load
from experiments.predictor.choosing import compared
from experiments.predictor.foreign import ImportedError
from experiments.predictor.imported import read_predictions
from experiments.predictor.predictions import Predictions, save, save_as_text
from experiments.predictor.recipe import PredictorError
from experiments.predictor.spec import PredictorSpec
from experiments.predictor.training import train
from experiments.progress import Silent
from experiments.report import figure_files
from experiments.stages.context import Context
from hypotheses.h02_topology import evaluate
from hypotheses.topology_evidence import PROPHET, TopologyCounts, TopologyEvidence
from hypotheses.topology_predictor import predictor_part
from tests.experiments.test_run_on_trace import SMALL, esft
from tests.hypotheses.topology_worlds import planted
from tests.references.memory_trace import MemoryTrace
from tracking.traces import StoredTrace

SHAPE = {"test": 24, "calibration": 8, "length": 30, "layers": 2}
QUICK = ("topology.predictor=false",)


@pytest.fixture(scope="module")
def trace():
    return planted("positive", **SHAPE)


@pytest.fixture(scope="module")
def perfect(trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of predictions that are the routing itself."""
    asked = planes(trace, "test")
    path = tmp_path_factory.mktemp("elsewhere") / "perfect.csv"
    save_as_text(path, Predictions(asked.layers, asked.ids, {}), asked, trace.documents)
    return path


def context_of(directory: Path, trace: object, *more: str) -> Context:
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(load("topology", "tiny", [*QUICK, *more]), directory, directory, Silent())
    context.__dict__["trace"] = trace
    return context


def predicted(context: Context):
    topology.train_predictors(context)
    return topology._predicted(context)


def test_predictions_by_source_take_prophets_place(trace, perfect: Path, tmp_path: Path) -> None:
    found = predicted(context_of(tmp_path / "run", trace, f"topology.predictions={{domain0='{perfect}', domain1='{perfect}'}}"))
    assert found is not None and str(perfect) in found.origin
    for source in ("domain0", "domain1"):
        for target in ("domain0", "domain1"):
            joint = np.asarray(found.scores[PROPHET, source, target].joint_LGPY[0]).sum(axis=0)
            assert joint.sum() == np.trace(joint) > 0
    assert "prophet_without_attention" in found.missing and "previous_layer" in found.baselines


def test_one_file_of_a_predictor_that_learnt_from_all_says_nothing_of_other_domains(trace, perfect: Path, tmp_path: Path) -> None:
    found = predicted(context_of(tmp_path / "run", trace, f"topology.predictions='{perfect}'"))
    assert {key for key in found.scores if key[0] == PROPHET} == {(PROPHET, d, d) for d in ("domain0", "domain1")}
    assert ("previous_layer", "domain0", "domain1") in found.scores


@pytest.mark.parametrize("asked", ["{domain0='FILE', domain1='FILE'}", "'FILE'"])
def test_predictions_are_scored_where_no_document_could_be_learnt_from(asked: str, tmp_path: Path) -> None:
    alone = planted("positive", **{**SHAPE, "calibration": 0})
    tested = planes(alone, "test")
    save_as_text(tmp_path / "perfect.csv", Predictions(tested.layers, tested.ids, {}), tested, alone.documents)
    context = context_of(tmp_path / "run", alone, f"topology.predictions={asked.replace('FILE', str(tmp_path / 'perfect.csv'))}")
    found = predicted(context)
    assert found is not None and {key for key in found.scores if key[1] == key[2]} == {(PROPHET, d, d) for d in ("domain0", "domain1")}
    assert {name for name, _, _ in found.scores} == {PROPHET}
    part = predictor_part(TopologyCounts(TopologyEvidence(alone, predictor=found)), {})
    assert part.estimates["top1_accuracy"].value == pytest.approx(1.0)
    reason = part.estimates["predictor_gain"].reason
    assert reason is not None and "previous_layer (no_data: no documents to fit it on)" in reason
    assert found.missing["tables from domain0"] == "no_data: no calibration document of domain0 to learn from"


def test_tables_of_one_source_alone_leave_the_gain_over_them_without_a_verdict(trace, perfect: Path, tmp_path: Path) -> None:
    documents = [replace(row, split="train") if row.split == "calibration" and row.domain == "domain1" else row for row in trace.documents]
    half = MemoryTrace(trace.meta, documents, trace.shards)
    found = predicted(context_of(tmp_path / "run", half, f"topology.predictions={{domain0='{perfect}', domain1='{perfect}'}}"))
    assert found is not None and ("previous_layer", "domain0", "domain1") in found.scores
    assert (PROPHET, "domain1", "domain1") in found.scores and ("previous_layer", "domain1", "domain1") not in found.scores
    gain = predictor_part(TopologyCounts(TopologyEvidence(half, predictor=found)), {}).estimates["predictor_gain"]
    assert gain.gate is not None and "was not scored at home in domain1" in gain.gate and "prophet" not in gain.gate


def test_a_trace_without_test_documents_is_no_error(trace, perfect: Path, tmp_path: Path) -> None:
    documents = [replace(row, split="train") if row.split == "test" else row for row in trace.documents]
    for number, more in enumerate((f"topology.predictions='{perfect}'", "topology.predictor=true")):
        context = context_of(tmp_path / f"run{number}", MemoryTrace(trace.meta, documents, trace.shards), more)
        assert topology.train_predictors(context) == {"predictor": "no test document to predict"}
        assert topology._predicted(context) is None


def test_what_was_imported_stays_in_the_run(trace, perfect: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(perfect.read_bytes())
    context = context_of(tmp_path / "run", trace, f"topology.predictions='{copy}'")
    topology.train_predictors(context)
    copy.unlink()
    assert topology._predicted(context) is not None
    assert len(json.loads((tmp_path / "run" / "predictor" / "imported.json").read_text())["sha256"]) == 1


def test_imported_retention_is_held_against_information(trace, tmp_path: Path) -> None:
    table = tmp_path / "retention.csv"
    table.write_text("source,target,value\ndomain0,domain1,0.5\ndomain1,domain0,\n")
    context = context_of(tmp_path / "run", trace, f"topology.retention='{table}'")
    topology.train_predictors(context)
    context.__dict__["corpus"] = type("NoCorpus", (), {"documents": ()})()
    made = evaluate(topology.evidence(context, trace))
    rows = made.tables["mi_vs_retention"]
    assert dict(zip(zip(rows["source"], rows["target"]), rows["retention"].tolist()))["domain0", "domain1"] == 0.5
    assert made.estimates["retention"].value == 0.5 and made.estimates["retention"].low is None
    assert made.estimates["mi_vs_retention"].gate or made.estimates["mi_vs_retention"].value is None
    assert set(made.tables["retention"]["predictor"]) == {"imported"}
    assert "left empty" in made.tables["retention"]["reason"][1]


@pytest.mark.parametrize(("more", "words"), [
    ("topology.predictions={desert='FILE'}", "topology.predictions.desert: no such domain in the trace; the domains are 'domain0', 'domain1'"),
    ("topology.retention='TABLE'", "TABLE:2: target: unknown domain 'sea'; the domains are domain0, domain1")])
def test_a_domain_that_the_trace_has_not_is_refused(more: str, words: str, trace, perfect: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("source,target,value\ndomain0,sea,0.5\n")
    context = context_of(tmp_path / "run", trace, more.replace("FILE", str(perfect)).replace("TABLE", str(table)))
    with pytest.raises(ImportedError) as refused:
        topology.train_predictors(context)
    assert words.replace("TABLE", str(table)) in str(refused.value)


def test_a_file_that_is_not_there_is_refused_before_a_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "runs"))
    law = str(esft(tmp_path / "law", 0))
    assert cli.main(["run", "topology", *SMALL, "--trace", law, "--set", f"topology.predictions='{tmp_path}/absent.csv'"]) == 1
    assert "absent.csv: file: is not there" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/state.json"))


@pytest.mark.slow  # two runs, 35 CPU-s
def test_a_whole_run_on_files_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)  # the same files, drawn coarsely
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "first"))
    paths = [str(esft(tmp_path / name, seed)) for seed, name in enumerate(("law", "intent"))]
    base = ["run", "topology", *SMALL, "--trace", *paths, "--set", "trace.n_experts=8"]
    stop = tmp_path / "stop.csv"
    stop.write_text("document,token,layer,ids\nnobody,0,0,1\n")
    assert cli.main([*base, "--set", f"topology.predictions='{stop}'"]) == 1  # stopped after collecting: the trace is there
    (state,) = (tmp_path / "first").glob("*/state.json")
    stored = StoredTrace.open(state.parent / "trace")
    asked = planes(stored, "test")
    save(tmp_path / "p.parquet", Predictions(asked.layers, asked.ids, {}), asked, stored.documents)
    (tmp_path / "r.csv").write_text("source,target,value\nlaw,intent,0.4\nintent,law,0.6\n")
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "second"))
    assert cli.main([*base, "--set", f"topology.predictions='{tmp_path}/p.parquet'", "--set", f"topology.retention='{tmp_path}/r.csv'"]) == 0
    (state,) = (tmp_path / "second").glob("*/state.json")
    page = (state.parent / "report" / "report.md").read_text()
    assert "imported from" in page and "Retention was measured elsewhere" in page
    with (state.parent / "report" / "tables" / "mi_vs_retention.csv").open() as file:
        assert [float(row["retention"]) for row in csv.DictReader(file)] == [0.4, 0.6]
    found = json.loads((state.parent / "mi_clustering_results" / "summary" / "key_findings.json").read_text())["estimates"]
    assert found["top1_accuracy"]["value"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def predictor(trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = PredictorSpec(hidden=16, heads=2, blocks=1, context_tokens=4, epochs=1)
    return train(planes(trace, "calibration"), spec, tmp_path_factory.mktemp("p") / "predictor", Silent())


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_saved_predictor_is_applied_to_another_trace_by_command(ending: str, predictor: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    other = planted("positive", **SHAPE, seed=5)
    monkeypatch.setattr("experiments.measuring.open_trace", lambda _: other)
    out = tmp_path / f"p.{ending}"
    assert cli.main(["predict", "other", "--predictor", str(predictor), "--out", str(out)]) == 0
    asked = planes(other, "test")
    found = read_predictions(out, asked, other.documents)
    assert all(ids is not None and ids.shape == (2, len(asked)) for ids in found.sets)


def test_predict_refuses_what_is_no_predictor_and_a_file_that_it_cannot_write(predictor: Path, tmp_path: Path, trace,
                                                                             monkeypatch: pytest.MonkeyPatch,
                                                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("experiments.measuring.open_trace", lambda _: trace)
    assert cli.main(["predict", "t", "--predictor", str(tmp_path), "--out", str(tmp_path / "p.csv")]) == 1
    assert "holds no finished predictor" in capsys.readouterr().err
    assert cli.main(["predict", "t", "--predictor", str(predictor), "--out", str(tmp_path / "p.txt")]) == 1
    assert "ending in .parquet, .csv, .jsonl" in capsys.readouterr().err


def test_candidates_are_compared_on_calibration_documents_alone(trace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("experiments.measuring.open_trace", lambda _: trace)
    small = "hidden=16, heads=2, blocks=1, context_tokens=4, epochs=1"
    assert cli.main(["compare", "t", "--candidate", small, "--domain", "domain0", "--out", str(tmp_path / "c.csv")]) == 0
    with (tmp_path / "c.csv").open() as file:
        (row,) = csv.DictReader(file)
    calibration = sum(int((batch.document == d.document).sum()) for d in trace.documents if d.split == "calibration" and d.domain == "domain0"
                      for batch in trace.batches(split="calibration"))
    assert int(row["tokens"]) == calibration and float(row["held_out_nats"]) > 0
    assert small in capsys.readouterr().out
    assert cli.main(["compare", "t", "--candidate", "hiden=3"]) == 1
    assert "hiden" in capsys.readouterr().err
    with pytest.raises(PredictorError, match="--domain desert: no calibration document"):
        list(compared(trace, {"a": PredictorSpec()}, ["desert"]))


def test_a_declaration_of_another_kind_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"topology\.predictions"):
        load("topology", "tiny", ["topology.predictions=3"])
