"""`assay ui` with a real server: links that answer, Ctrl-C that leaves nothing behind, a taken port that is named."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from experiments.interface import InterfaceError, page_links, serve
from tests.mlflow_children import example, free_port, migrated_root
from tracking.mlflow_publisher import publish


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = migrated_root(tmp_path / "runs")
    for name in ("a", "b"):
        (root / name).mkdir()
        publish(root / name, example(name))
    return root


def test_links_answer_and_ctrl_c_ends_the_server(root: Path) -> None:
    port = free_port()
    code = f"from pathlib import Path; from experiments.interface import serve; raise SystemExit(serve(Path({str(root)!r}), {port}))"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], text=True, stdout=subprocess.PIPE,
                             env={**os.environ, "PYTHONUNBUFFERED": "1"})
    lines = []
    try:
        for line in child.stdout:
            lines.append(line.strip())
            if line.startswith("Ctrl-C"):
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert b"MLflow" in page.read()
    finally:
        child.send_signal(signal.SIGINT)
    assert child.wait(60) == 0
    links = [line for line in lines if f"http://127.0.0.1:{port}/#/" in line]
    assert [line.split()[0] for line in links] == ["runs", "comparison"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_is_named_with_the_remedy(root: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(InterfaceError, match=rf"port {port} on 127.0.0.1: .*in use; choose another: make ui PORT={port + 1}"):
            serve(root, port)


def test_a_store_without_runs_links_to_the_page(tmp_path: Path) -> None:
    root = migrated_root(tmp_path)
    (line,) = page_links(f"sqlite:///{root / 'mlflow.db'}", 5000)
    assert line.startswith("no runs yet")


def test_one_run_has_nothing_to_compare_with(root: Path, tmp_path: Path) -> None:
    other = migrated_root(tmp_path / "other")
    (other / "a").mkdir()
    publish(other / "a", example("a"))
    (line,) = page_links(f"sqlite:///{other / 'mlflow.db'}", 5000)
    assert line.startswith("runs ")


def test_a_server_of_ones_own_is_only_linked_to(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.interface.page_links", lambda uri, port: [f"runs {uri}"])
    assert serve(root, 5000, "http://lab.example:5000") == 0
    assert capsys.readouterr().out == "runs http://lab.example:5000\n"


def test_a_store_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"none" * 1000)
    with pytest.raises(InterfaceError, match=r"mlflow\.db.*move the file away"):
        serve(tmp_path, free_port())
