"""Real MLflow stores and servers for tests: a migrated database is copied, because making one takes three seconds."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracking.mlflow_store import ENVIRONMENT, prepare
from tracking.projection import Projection

STARTED_MS = 1_790_000_000_000


@functools.cache
def _migrated() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    folder = tempfile.TemporaryDirectory(prefix="assay-mlflow-")
    path = Path(folder.name) / "mlflow.db"
    prepare(Path(folder.name), f"sqlite:///{path}")
    return folder, path


def migrated_root(root: Path) -> Path:
    """`root` with an empty MLflow database in it."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(_migrated()[1], root / "mlflow.db")
    return root


def rows(database: Path, table: str = "metrics") -> list[tuple[object, ...]]:
    """Rows of one table of an MLflow database, sorted."""
    columns = {"metrics": "run_uuid, key, value, timestamp, step", "runs": "run_uuid, name, status, lifecycle_stage",
               "params": "run_uuid, key, value"}
    connection = sqlite3.connect(database)
    try:
        return sorted(connection.execute(f"SELECT {columns[table]} FROM {table}").fetchall())
    finally:
        connection.close()


def example(run_id: str = "var-quick-00000000", layers: int = 4, **changed: object) -> Projection:
    """A finished run of two criteria with a series over layers."""
    fields: dict[str, object] = {
        "experiment": "var", "run_name": "tiny REFUTED", "run_id": run_id, "status": "FINISHED", "started_ms": STARTED_MS,
        "ended_ms": STARTED_MS + 1000, "params": {"model": "tiny", "seed": 0}, "tags": {"verdict": "REFUTED"}, "note": "**REFUTED**",
        "metrics": [("criteria/met", 0.0, 0), ("criteria/rho", -0.25, 0), *(("layer/rho", -0.1 * layer, layer) for layer in range(layers))],
        "datasets": [("trace", "0123456789abcdef" * 4, "trace", "test")]}
    return Projection(**{**fields, **changed})  # type: ignore[arg-type]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(root: Path, port: int) -> subprocess.Popen[bytes]:
    """A real `mlflow server` over root/mlflow.db, answering."""
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", "--workers", "1",
         "--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", (root / "served").as_uri()],
        env={**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(900):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return server
        assert server.poll() is None, "mlflow server ended by itself"
        time.sleep(0.2)
    stop_server(server)
    raise AssertionError("mlflow server did not come up in three minutes")


def stop_server(server: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Signal the server and its worker; after SIGKILL they are waited for."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)
    if number == signal.SIGKILL:
        server.wait()


@contextmanager
def serving(root: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`start_server` for the length of a block."""
    server = start_server(root, port)
    try:
        yield server
    finally:
        stop_server(server)
