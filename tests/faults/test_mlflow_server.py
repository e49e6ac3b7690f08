"""Case 41: a server that hangs, fails or dies costs a notice and nothing else; a real `mlflow server` on loopback."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mlflow_children import example, free_port, migrated_root, rows, serving, start_server, stop_server
from tracking import mlflow_publisher
from tracking.mlflow_publisher import pending, publish


class Served(NamedTuple):
    root: Path
    uri: str
    port: int
    pid: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root, port = migrated_root(tmp_path_factory.mktemp("server")), free_port()
    with serving(root, port) as server:
        yield Served(root, f"http://127.0.0.1:{port}", port, server.pid)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mlflow_publisher, "_failures", {})  # each test is a new process to the publisher
    directory = tmp_path / "runs" / f"run-{tmp_path.name}"
    directory.mkdir(parents=True)
    (directory / "report.html").write_text("<p>REFUTED</p>")
    return directory


def projection(run: Path, layers: int = 4):
    return example(run.name, layers=layers, artifacts=[(run / "report.html", "report")])


def of_run(served: Served, mlflow_run_id: str) -> list[tuple[object, ...]]:
    return [row for row in rows(served.root / "mlflow.db") if row[0] == mlflow_run_id]


def test_published_over_http_and_replayed(served: Served, run: Path) -> None:
    first = publish(run, projection(run), served.uri, patience_s=20)
    again = publish(run, projection(run), served.uri, patience_s=20)
    assert (first.state, first.written, again.mlflow_run_id, again.written) == ("published", 6, first.mlflow_run_id, 0)
    assert len(of_run(served, first.mlflow_run_id)) == 6
    assert [file.read_text() for file in (served.root / "served").rglob(f"*{first.mlflow_run_id}/artifacts/report/*")] == ["<p>REFUTED</p>"]


def test_a_stopped_server_is_given_up_and_published_to_when_it_goes_on(served: Served, run: Path) -> None:
    os.killpg(served.pid, signal.SIGSTOP)
    try:
        reports = [publish(run, projection(run), served.uri) for _ in range(5)]  # without giving up: 247 s each (faults spec §2.7)
    finally:
        os.killpg(served.pid, signal.SIGCONT)
    assert [report.state for report in reports] == ["pending"] * 5
    assert [report.notice is not None for report in reports] == [True, False, False, False, False]
    assert "no answer" in pending(run)
    report = publish(run, projection(run), served.uri, patience_s=20)
    assert report.state == "published"
    assert pending(run) is None
    assert len(of_run(served, report.mlflow_run_id)) == 6


@pytest.mark.parametrize("call", ["create_run", "log_batch", pytest.param("log_artifact", marks=pytest.mark.slow),
                                  pytest.param("set_terminated", marks=pytest.mark.slow)])
def test_a_server_that_stops_in_the_middle(served: Served, run: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    from mlflow import MlflowClient

    original = getattr(MlflowClient, call)

    def stopping(*args: object, **kwargs: object) -> object:
        os.killpg(served.pid, signal.SIGSTOP)
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, call, stopping)
        try:
            report = publish(run, projection(run, 40), served.uri, patience_s=2)
        finally:
            os.killpg(served.pid, signal.SIGCONT)
    assert report.state == "pending"
    assert "stopped answering" in report.reason
    for _ in range(2):  # what hung may have been carried out meanwhile: found again, doubles deleted
        report = publish(run, projection(run, 40), served.uri, patience_s=20)
    assert (report.state, report.written) == ("published", 0)
    assert len(of_run(served, report.mlflow_run_id)) == 42
    active = [row for row in rows(served.root / "mlflow.db", "runs") if row[3] == "active" and row[0] == report.mlflow_run_id]
    assert [row[2] for row in active] == ["FINISHED"]


def test_a_server_that_answers_500(served: Served, run: Path) -> None:
    database, aside = served.root / "mlflow.db", served.root / "aside.db"
    shutil.copy(database, aside)
    database.write_bytes(b"the disk under the server went bad" * 4000)
    try:
        report = publish(run, projection(run), served.uri, patience_s=5)
    finally:
        shutil.copy(aside, database)
    assert report.state == "pending"
    assert "assay publish" in report.notice
    assert publish(run, projection(run), served.uri, patience_s=20).state == "published"


@pytest.mark.slow
def test_a_server_killed_midway_and_started_again(served: Served, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    root, port = migrated_root(tmp_path / "own"), free_port()
    server = start_server(root, port)
    original = MlflowClient.log_batch

    def killing(*args: object, **kwargs: object) -> object:
        out = original(*args, **kwargs)
        stop_server(server)
        return out

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", killing)
        report = publish(run, projection(run, 40), f"http://127.0.0.1:{port}", patience_s=5)
    assert report.state == "pending"
    with serving(root, port):
        report = publish(run, projection(run, 40), f"http://127.0.0.1:{port}", patience_s=20)
    assert report.state == "published"
    assert len(rows(root / "mlflow.db")) == 42
    assert [row[2] for row in rows(root / "mlflow.db", "runs")] == ["FINISHED"]
