"""A run from declaration to report in this process: what is done again, what is refused, what MLflow and the finding say."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import hypotheses
from experiments import cli, registration
from experiments.declaration import declared_path, load
from experiments.pipeline import execute, stages_of
from experiments.progress import Silent
from hypotheses import h01_var
from hypotheses.findings import findings_from_json
from tests.experiments import tiny_corpus
from tests.experiments.tiny_runs import NOWHERE, arguments, run_directory, sequences, start
from tracking import ledger
from tracking.run import RunError
from tracking.traces import StoredTrace

CLAIM = hypotheses.find("var")


def overrides(corpus: Path) -> list[str]:
    return ['corpus.name="jsonl"', f'corpus.path="{corpus}"']


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a finished run, logged to the SQLite store that is the default."""
    root = tmp_path_factory.mktemp("judged") / "root"
    tiny_corpus.write(root.parent / "corpus.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        execute(load("var", "tiny", overrides(root.parent / "corpus.jsonl")), root, Silent())
    return root


@pytest.fixture
def here(judged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same root, as the command sees it; MLflow is away."""
    monkeypatch.setenv("ASSAY_ROOT", str(judged))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    return judged


def copied(judged: Path, to: Path) -> Path:
    """A root with the finished run in it, whose corpus lies where it lay."""
    shutil.copytree(judged, to / "root")
    return to / "root"


def test_the_same_declaration_under_another_root_gives_the_same_bytes(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "cache" / "models", tmp_path / "cache" / "models")
    directory, _ = execute(load("var", "tiny", overrides(here.parent / "corpus.jsonl")), tmp_path, Silent())
    first = run_directory(here)
    assert directory.name == first.name
    names = {path.relative_to(first) for pattern in ("findings.json", "routing_stats.*", "figures/*", "report/tables/*", "analysis/**/*.*",
                                                     "sweep/*.json", "fastpath/*.npz") for path in first.glob(pattern)}
    names = {name for name in names if name.stem not in ("provenance", "events")}  # which name the time and the attempt
    assert len(names) > 40
    assert [name for name in sorted(names) if (directory / name).read_bytes() != (first / name).read_bytes()] == []


def test_outputs_that_are_gone_or_edited_are_made_again_and_nothing_else_is(here: Path, tmp_path: Path, capsys) -> None:
    root = copied(here, tmp_path)
    directory, before = run_directory(root), sequences(run_directory(root))
    whole = {name: (directory / name).read_bytes() for name in (
        "trace/shard-00001.parquet", "routing_stats.csv", "sweep/grid.npz", "fastpath/lookup_table.npz", "corpus/manifest.json")}
    shard = bytearray(whole["trace/shard-00001.parquet"])
    shard[len(shard) // 2] ^= 4
    (directory / "trace/shard-00001.parquet").write_bytes(shard)
    (directory / "routing_stats.csv").unlink()
    (directory / "sweep/grid.npz").write_bytes(b"")
    (directory / "fastpath/lookup_table.npz").write_bytes(whole["fastpath/lookup_table.npz"] + b"\0")
    (directory / "corpus/manifest.json").unlink()
    experiment = load("var", "tiny", overrides(here.parent / "corpus.jsonl"))
    execute(experiment, root, Silent())
    after = sequences(directory)
    assert {name for name in after if after[name] != before[name]} == {"corpus", "collect", "sweep", "analyse", "lookup"}
    assert {name: (directory / name).read_bytes() for name in whole} == whole
    said = capsys.readouterr().err
    for name in ("shard-00001.parquet", "routing_stats.csv", "sweep/grid.npz", "fastpath/lookup_table.npz"):
        assert name in said
    assert StoredTrace.open(directory / "trace").verify()


def test_an_edited_corpus_is_refused_where_the_run_has_ended_too(here: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    root = tmp_path / "root"
    shutil.copytree(here / "cache", root / "cache")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes((here.parent / "corpus.jsonl").read_bytes())
    assert start(root, arguments(corpus), kill_at="state.rename:3").end() == -9
    lines = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join([*lines[:-1], lines[-1].replace("the", "thee")]))
    monkeypatch.setenv("ASSAY_ROOT", str(root))
    assert cli.main(["resume", run_directory(root).name]) == 1
    said = capsys.readouterr().err
    assert "manifest.json: sha256: the run began with documents" in said and "--new" in said
    finished = copied(here, tmp_path / "finished")
    experiment = load("var", "tiny", overrides(here.parent / "corpus.jsonl"))
    original = (here.parent / "corpus.jsonl").read_bytes()
    try:
        (here.parent / "corpus.jsonl").write_bytes(corpus.read_bytes())
        with pytest.raises(ValueError, match="the run began with documents"):
            execute(experiment, finished, Silent())
    finally:
        (here.parent / "corpus.jsonl").write_bytes(original)


def test_resume_refuses_an_edited_declaration_with_a_table(here: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    root, file = tmp_path / "root", tmp_path / "mine.toml"
    shutil.copytree(here / "cache", root / "cache")
    file.write_text(declared_path("var").read_text())
    child = start(root, arguments(here.parent / "corpus.jsonl", experiment=str(file)), kill_at="state.rename:3")
    assert child.end() == -9, child.said
    monkeypatch.setenv("ASSAY_ROOT", str(root))
    before = (run_directory(root) / "state.json").read_bytes()
    file.write_text(file.read_text().replace("n_null = 19", "n_null = 29").replace("min_agreement = 0.9 ", "min_agreement = 0.8 "))
    assert cli.main(["resume", run_directory(root).name]) == 1
    said = capsys.readouterr().err
    rows = [line.split() for line in said.splitlines()]
    assert ["field", "was", "is"] in rows
    assert ["experiment.uncertainty.n_null", "19", "29"] in rows
    assert ["experiment.sweep.min_agreement", "0.9", "0.8"] in rows
    assert "restore what it was" in said and "--new" in said
    assert (run_directory(root) / "state.json").read_bytes() == before


def test_resume_refuses_a_changed_threshold_of_the_hypothesis(here: Path, monkeypatch, capsys) -> None:
    _threshold(monkeypatch, -0.3)
    before = (run_directory(here) / "state.json").read_bytes()
    assert cli.main(["resume", run_directory(here).name]) == 1
    said = capsys.readouterr().err
    (row,) = [line for line in said.splitlines() if "-0.4" in line]
    assert "protocol.hypotheses.var" in row and "-0.3" in row
    assert (run_directory(here) / "state.json").read_bytes() == before


def _threshold(monkeypatch: pytest.MonkeyPatch, below: float) -> None:
    first, *rest = CLAIM.criteria
    monkeypatch.setattr(h01_var, "VAR", replace(CLAIM, criteria=(replace(first, below=below), *rest)))


@pytest.mark.slow
def test_a_threshold_that_was_changed_and_registered_again_stands_in_the_finding(here: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    root, register = copied(here, tmp_path), tmp_path / "registered.json"
    for name in hypotheses.names():
        registration.register(name, datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC), 0, register)
    _threshold(monkeypatch, -0.3)
    for reader in (registration.read, registration.check):
        monkeypatch.setattr(reader, "__defaults__", (register, *(reader.__defaults__ or ())[1:]))
    assert cli.main(["check"]) == 1
    assert "var: changed since its registration on 2026-03-01" in capsys.readouterr().err
    looks = ledger.counts(root)["var"]
    assert looks == 1
    registration.register("var", datetime.datetime(2026, 4, 2, tzinfo=datetime.UTC), looks, register)
    assert cli.main(["check"]) == 0
    execute(load("var", "tiny", overrides(here.parent / "corpus.jsonl")), root, Silent())
    (changed,) = [path.parent for path in root.glob("*/findings.json") if path.parent.name != run_directory(here).name]
    one = findings_from_json((changed / "findings.json").read_text())[0]
    assert one.registration["note"] == "changed on 2026-04-02 after 1 run"
    assert "changed on 2026-04-02 after 1 run" in (changed / "report" / "report.html").read_text()
    assert ledger.counts(root)["var"] == 2
    monkeypatch.setenv("ASSAY_ROOT", str(root))
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert changed.name in listed and listed.count("var INCONCLUSIVE") == 2


def test_a_run_that_only_died_before_it_was_judged_is_one_look(here: Path) -> None:
    looks = list(ledger.openings(here))
    protocol = json.loads((run_directory(here) / "protocol.json").read_text())
    assert [(look.hypothesis, look.protocol, look.claim) for look in looks] == [("var", protocol["fingerprint"], CLAIM.fingerprint)]


def test_publishing_again_writes_nothing_twice(here: Path, monkeypatch, capsys) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{here / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(uri)

    def rows() -> dict[str, object]:
        experiments = [one.experiment_id for one in client.search_experiments()]
        (run,) = client.search_runs(experiments)
        points = {name: len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics}
        return {"points": points, "params": run.data.params, "tags": run.data.tags, "status": run.info.status,
                "artifacts": sorted(one.path for one in client.list_artifacts(run.info.run_id))}

    first = rows()
    assert first["status"] == "FINISHED" and len(first["points"]) > 30
    found = [one["code"] for one in json.loads((run_directory(here) / "audit.json").read_text())["findings"]]
    assert "audit.json" in first["artifacts"] and first["tags"]["audit.findings"] == (", ".join(found) or "none")
    assert {"audit/findings", "audit/withholding", *(f"audit/{code}" for code in found)} <= set(first["points"])
    for _ in range(2):
        assert cli.main(["publish", run_directory(here).name]) == 0
        assert ", 0 new metric points" in capsys.readouterr().out
    assert rows() == first


def test_the_splits_are_written_as_they_are_used(here: Path, tmp_path: Path, capsys) -> None:
    options = [part for text in overrides(here.parent / "corpus.jsonl") for part in ("--set", text)]
    assert cli.main(["corpus", "var", "--profile", "tiny", *options, "--create-splits", str(tmp_path / "splits")]) == 0
    shown = capsys.readouterr().out
    manifest = json.loads((run_directory(here) / "corpus" / "manifest.json").read_text())
    for split in ("train", "calibration", "test"):
        rows = [json.loads(line) for line in (tmp_path / "splits" / f"{split}.jsonl").read_text().splitlines()]
        assert {domain: sum(row["domain"] == domain for row in rows) for domain in tiny_corpus.DOMAINS} == {
            domain: counts[split] for domain, counts in manifest["documents"].items()}
    assert all(domain in shown for domain in tiny_corpus.DOMAINS)


def test_stages_are_in_the_order_in_which_they_need_each_other() -> None:
    done: set[str] = set()
    for stage in stages_of(load("var", "tiny")):
        assert set(stage.after) <= done, stage.name
        done.add(stage.name)


def test_another_run_of_the_same_declaration_is_only_begun_when_asked(here: Path) -> None:
    experiment = load("var", "tiny", overrides(here.parent / "corpus.jsonl"))
    before = sequences(run_directory(here))
    execute(experiment, here, Silent())
    assert sequences(run_directory(here)) == before
    with pytest.raises(RunError, match="the declaration has changed"):
        execute(load("var", "tiny", [*overrides(here.parent / "corpus.jsonl"), "seed=1"]), here, Silent(), name=run_directory(here).name)
