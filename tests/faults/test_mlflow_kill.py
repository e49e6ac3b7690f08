"""Cases 5 and 14: kill -9 while logging, and several processes at once on a fresh store, against a real sqlite database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mlflow_children import example, migrated_root, rows
from tracking.mlflow_publisher import publish

ROOT = Path(__file__).parents[2]

# Publishes run directories in forked lives; life n kills itself before or after its n-th call of MLflow.
CHILD = """
import json, os, signal, sys
from pathlib import Path
from tests.mlflow_children import example
from tracking.mlflow_publisher import publish
import mlflow.store.tracking.sqlalchemy_store
from mlflow import MlflowClient
from sqlalchemy.orm import configure_mappers

configure_mappers()

CALLS = ("get_experiment_by_name", "create_experiment", "search_runs", "create_run", "log_batch", "log_inputs", "log_artifact",
         "get_metric_history", "set_terminated")

def child(directory, at, after):
    passed = [0]
    def dying(call):
        def wrapped(*args, **kwargs):
            passed[0] += 1
            if passed[0] == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            out = call(*args, **kwargs)
            if passed[0] == at and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return out
        return wrapped
    for name in CALLS:
        setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
    run = Path(directory)
    assert publish(run, example(run.name, layers=40, artifacts=[(run / "report.html", "report")])).state == "published"

for line in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        try:
            child(*line)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def start(plan: list[tuple[str, int, bool]]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(plan)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_killed_at_every_call_and_published_again_doubles_nothing(tmp_path: Path) -> None:
    run = migrated_root(tmp_path / "runs") / "var-quick-1"
    run.mkdir()
    (run / "report.html").write_text("<p>REFUTED</p>")
    plan = [(str(run), at, after) for at in range(1, 9) for after in (False, True)]
    child = start(plan)
    out, err = child.communicate(timeout=500)
    statuses = [int(line) for line in out.split()]
    assert child.returncode == 0, err
    assert statuses.count(-signal.SIGKILL) >= 10
    assert set(statuses) <= {-signal.SIGKILL, 0}, err
    report = publish(run, example(run.name, layers=40, artifacts=[(run / "report.html", "report")]))
    assert report.state == "published"
    database = run.parent / "mlflow.db"
    (stored,) = rows(database, "runs")
    assert stored == (report.mlflow_run_id, "tiny REFUTED", "FINISHED", "active")
    metrics = rows(database)
    assert len(metrics) == 42
    assert len({(key, step) for _, key, _, _, step in metrics}) == 42
    assert len(rows(database, "params")) == 2


def test_four_processes_publish_to_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    runs = [tmp_path / f"run-{n}" for n in range(4)]
    for run in runs:
        run.mkdir()
        (run / "report.html").write_text("x")
    children = [start([(str(run), 0, False)]) for run in runs]
    outputs = [child.communicate(timeout=500) for child in children]
    assert [out.strip() for out, _ in outputs] == ["0"] * 4, [err for _, err in outputs]
    assert [name for _, name, status, _ in rows(tmp_path / "mlflow.db", "runs") if status == "FINISHED"] == ["tiny REFUTED"] * 4
    assert len(rows(tmp_path / "mlflow.db")) == 4 * 42
    assert not list(tmp_path.glob("*.new-*"))


def test_a_migration_killed_midway_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.new-12345").write_bytes(b"half a schema")
    run = tmp_path / "run"
    run.mkdir()
    assert publish(run, example()).state == "published"
    assert not list(tmp_path.glob("*.new-*"))
