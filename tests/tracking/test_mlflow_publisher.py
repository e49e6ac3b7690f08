"""Publishing is a projection: repeatable, complete, and never a reason for a run to fail. Against a real sqlite store."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mlflow_children import STARTED_MS, example, free_port, migrated_root, rows
from tracking.mlflow_publisher import _Session, pending, publish
from tracking.mlflow_store import links, recent_runs, resolve_uri
from tracking.projection import Projection, accept, mlflow_name, shortened


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    directory = migrated_root(tmp_path / "runs") / "var-quick-00000000"
    directory.mkdir()
    return directory


def stored(run: Path, run_id: str):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=resolve_uri(run.parent, None)).get_run(run_id)


def test_replay_adds_no_row(run: Path) -> None:
    first = publish(run, example())
    assert (first.state, first.written, first.notice) == ("published", 6, None)
    before = rows(run.parent / "mlflow.db"), rows(run.parent / "mlflow.db", "runs"), rows(run.parent / "mlflow.db", "params")
    for _ in range(3):
        again = publish(run, example())
        assert (again.mlflow_run_id, again.written) == (first.mlflow_run_id, 0)
    assert before == (rows(run.parent / "mlflow.db"), rows(run.parent / "mlflow.db", "runs"), rows(run.parent / "mlflow.db", "params"))
    assert {row[3] for row in before[0]} == {STARTED_MS}
    assert pending(run) is None


def test_a_growing_projection_is_one_run_that_ends_with_its_status(run: Path) -> None:
    whole = example()
    for n in (0, 2, 6):
        report = publish(run, replace(whole, status="RUNNING", ended_ms=None, run_name="tiny", metrics=whole.metrics[:n]))
        assert stored(run, report.mlflow_run_id).info.status == "RUNNING"
    report = publish(run, whole)
    info = stored(run, report.mlflow_run_id).info
    assert (info.status, info.end_time, info.start_time, info.run_name) == ("FINISHED", STARTED_MS + 1000, STARTED_MS, "tiny REFUTED")
    assert len(rows(run.parent / "mlflow.db")) == 6
    assert len(rows(run.parent / "mlflow.db", "runs")) == 1


def test_the_status_of_a_killed_run_is_set_by_us(run: Path) -> None:
    report = publish(run, example(status="RUNNING", ended_ms=None))
    publish(run, example(status="KILLED"))
    assert stored(run, report.mlflow_run_id).info.status == "KILLED"
    publish(run, example(status="RUNNING", ended_ms=None))  # resumed
    assert stored(run, report.mlflow_run_id).info.status == "RUNNING"


def test_a_changed_value_is_the_one_that_counts(run: Path) -> None:
    publish(run, example())
    layers = [("layer/rho", -0.1 * layer - (layer == 1), layer) for layer in range(4)]
    metrics = [("criteria/met", 2.0, 0), ("criteria/rho", -0.5, 0), *layers]
    report = publish(run, example(metrics=metrics))
    assert report.written == 3
    assert stored(run, report.mlflow_run_id).data.metrics["criteria/rho"] == -0.5
    assert publish(run, example(metrics=metrics)).written == 0


def test_what_mlflow_refuses_is_skipped_and_named(run: Path) -> None:
    metrics = [("rho (x) [y]=%", 1.0, 0), ("inf", math.inf, 0), ("none", None, 0), ("nan", math.nan, 3), ("far", 1.0, 2 ** 70),
               ("../up//there", 2.0, 0)]
    report = publish(run, example(metrics=metrics, params={"long": "x" * 6001, "kept": 1}, tags={"long tag": "x" * 9000}))
    assert report.state == "published"
    assert len(report.unpublished) == 6
    data = stored(run, report.mlflow_run_id).data
    assert data.metrics == {"rho _x_ _y_": 1.0, "_/up/there": 2.0}
    assert data.params == {"kept": "1"}
    for word in ("6 not published", "metric inf step 0 (inf)", "metric none step 0 (undefined)", "nan step 3", "param long (6001",
                 "tag long tag"):
        assert word in data.tags["unpublished"]
    assert all(math.isfinite(float(row[2])) and abs(float(row[2])) < 1e300 for row in rows(run.parent / "mlflow.db"))


def test_a_changed_parameter_is_named_and_the_rest_is_published(run: Path) -> None:
    publish(run, example())
    report = publish(run, example(params={"model": "tiny", "seed": 1, "new": "a"}))
    assert report.unpublished == ("param seed (MLflow keeps the first value, '0'; now '1')",)
    data = stored(run, report.mlflow_run_id).data
    assert (data.params["seed"], data.params["new"]) == ("0", "a")
    assert "param seed" in data.tags["unpublished"]


def test_an_entry_that_mlflow_refuses_for_a_reason_of_its_own_does_not_take_the_others_along(run: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Param

    report = publish(run, example())
    session = _Session(run.parent, report.tracking_uri, example(), {})
    session._run_id = report.mlflow_run_id
    entries = [Param("seed", "9") if n == 4 else Param(f"p{n}", "x") for n in range(7)]  # seed is there, with the value 0
    session._log(MlflowClient(tracking_uri=report.tracking_uri), "params", entries, 100)
    assert set(stored(run, report.mlflow_run_id).data.params) == {"model", "seed", *(f"p{n}" for n in range(7) if n != 4)}
    assert [line.split(" (")[0] for line in session.report().unpublished] == ["param seed"]


def test_artifacts_are_sent_once_and_again_when_they_change(run: Path) -> None:
    (run / "report" / "tables").mkdir(parents=True)
    (run / "report" / "report.html").write_text("one")
    (run / "report" / "tables" / "a.csv").write_text("a")
    projection = example(artifacts=[(run / "report", "report"), (run / "gone.png", "figures")])
    report = publish(run, projection)
    assert set(report.artifacts) == {"report/report.html", "report/tables/a.csv"}
    assert report.unpublished == ("artifact gone.png (no such file)",)
    target = run.parent / "mlflow-artifacts" / "var" / report.mlflow_run_id / "artifacts" / "report" / "report.html"
    assert target.read_text() == "one"
    target.unlink()
    publish(run, projection)
    assert not target.exists()
    (run / "report" / "report.html").write_text("two")
    publish(run, projection)
    assert target.read_text() == "two"


def test_datasets_are_listed_once(run: Path) -> None:
    publish(run, example())
    report = publish(run, example())
    (entry,) = stored(run, report.mlflow_run_id).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("trace", "0123456789abcdef0123456789abcdef0123")
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "test")]


def test_the_environment_names_the_store(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = migrated_root(tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other / 'mlflow.db'}")
    assert publish(run, example()).state == "published"
    assert len(rows(other / "mlflow.db")) == 6
    assert rows(run.parent / "mlflow.db") == []


def test_a_deleted_experiment_is_restored_and_a_deleted_run_made_anew(run: Path) -> None:
    from mlflow import MlflowClient

    report = publish(run, example())
    client = MlflowClient(tracking_uri=resolve_uri(run.parent, None))
    client.delete_run(report.mlflow_run_id)
    client.delete_experiment(report.experiment_id)
    again = publish(run, example())
    assert again.state == "published"
    assert client.get_run(again.mlflow_run_id).info.lifecycle_stage == "active"


def test_a_server_that_is_not_there_gives_one_notice_and_a_pending_state(run: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    reports = [publish(run, example(), uri) for _ in range(4)]
    assert [report.state for report in reports] == ["pending"] * 4
    assert [report.notice is not None for report in reports] == [True, False, False, False]
    assert uri in reports[0].notice
    assert "assay publish var-quick-00000000" in reports[0].notice
    assert "refused" in pending(run)
    assert publish(run, example()).state == "published"
    assert pending(run) is None


def test_a_database_that_is_none_is_reported_and_left_alone(run: Path) -> None:
    (run.parent / "mlflow.db").write_bytes(b"not a database, but somebody's file" * 40)
    report = publish(run, example())
    assert report.state == "pending"
    assert str(run.parent / "mlflow.db") in report.reason
    assert (run.parent / "mlflow.db").read_bytes().startswith(b"not a database")


def test_a_damaged_publish_state_is_written_again(run: Path) -> None:
    (run / "publish.json").write_text("{")
    assert publish(run, example()).state == "published"
    assert json.loads((run / "publish.json").read_text())["var-quick-00000000"]["state"] == "published"


def test_two_hypotheses_of_one_run_keep_their_own_state(run: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    publish(run, example("r:var"))
    publish(run, example("r:ecology", experiment="ecology"), away)
    publish(run, example("r:var"))
    assert "refused" in pending(run)
    publish(run, example("r:ecology", experiment="ecology"))
    assert pending(run) is None
    assert len(rows(run.parent / "mlflow.db", "runs")) == 2


def test_the_first_batch_keeps_the_order_of_the_projection(run: Path) -> None:
    # the comparison page preselects the metric that was logged first (ecosystem facts §1)
    names = ["criteria/met", "criteria/z", "criteria/a", "entropy/b"]
    publish(run, example(metrics=[(name, 1.0, 0) for name in names]))
    import sqlite3

    connection = sqlite3.connect(run.parent / "mlflow.db")
    order = [key for (key,) in connection.execute("SELECT key FROM latest_metrics ORDER BY rowid")]
    connection.close()
    assert order == names


def test_recent_runs_and_links(run: Path) -> None:
    ids = [publish(run.parent / f"r{n}", example(f"r{n}", started_ms=STARTED_MS + n), None).mlflow_run_id
           for n in range(6) if (run.parent / f"r{n}").mkdir() is None]
    uri = resolve_uri(run.parent, None)
    experiment, recent = recent_runs(uri, "var")
    assert list(recent) == ids[:1:-1]
    table, comparison = links(uri, experiment, recent, 5001)
    assert table == f"http://127.0.0.1:5001/#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert comparison.endswith("&workflowType=machine_learning")
    assert all(identity in comparison for identity in recent)
    assert recent_runs(uri, "no such") is None


@pytest.mark.parametrize(("name", "expected"), [
    ("criteria/rho", "criteria/rho"), ("a(b)", "a_b_"), ("", "_"), ("..", "_"), ("a/../b", "b"), ("/a", "a"), ("é_ü", "é_ü"),
    ("a\tb", "a_b"), ("x" * 300, "x" * 250)])
def test_names(name: str, expected: str) -> None:
    assert mlflow_name(name) == expected


def test_mlflow_accepts_every_name_that_we_make() -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    for name in ("", "..", "a/../b", "//", "a//b/", "./a", " x ", "a%b", "日本語", "x" * 400, "a\nb", "...", "a/./b"):
        for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
            validate(mlflow_name(name))


def test_names_that_fall_together_are_kept_apart() -> None:
    accepted = accept(example(metrics=[("a(", 1.0, 0), ("a)", 2.0, 0), ("a(", 3.0, 1)]))
    assert accepted.points == (("a_", 1.0, 0), ("a__2", 2.0, 0), ("a_", 3.0, 1))


def test_shortened_says_how_much_is_left_out() -> None:
    lines = ["x" * 99] * 100
    text = shortened(lines, 1000)
    assert len(text) <= 1000
    assert text.endswith("... and 91 more lines")
    assert shortened(["a", "b"]) == "a\nb"


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="INTERRUPTED.*use one of"):
        Projection("var", "x", "y", "INTERRUPTED", 0)
