"""`assay ui`: the MLflow page over a root of runs, with the two links that a person wants."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

HOST = "127.0.0.1"
READY_S = 180.0  # 8-12 s on an idle machine, 30-90 s on a busy one
STOP_S = 10.0


class InterfaceError(RuntimeError):
    """The page cannot be opened; the message says why and what to do."""


def serve(root: Path, port: int = 5000, tracking_uri: str | None = None) -> int:
    """Start `mlflow server` over the store of `root`, print its links, and stay until Ctrl-C; returns the exit status.

    With a tracking server of one's own (MLFLOW_TRACKING_URI=http...) nothing is started: the links are printed.
    Raises InterfaceError for a port in use, a store that cannot be opened, or a server that does not come up.
    """
    from tracking.mlflow_store import StoreError, is_server, prepare, resolve_uri

    uri = resolve_uri(root, tracking_uri)
    if is_server(uri):
        print("\n".join(page_links(uri, port)))
        return 0
    _require_free(port)
    try:
        prepare(root, uri)
    except StoreError as error:
        raise InterfaceError(str(error)) from error
    links = page_links(uri, port)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, _interrupt)
    server = _start(root, uri, port)
    try:
        _wait_ready(server, port)
        print("\n".join(links))
        print("Ctrl-C stops it.", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(server)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def page_links(uri: str, port: int) -> list[str]:
    """Lines that name the table of runs and the comparison of the last four, or only the page while there are no runs."""
    from tracking.mlflow_store import links, recent_runs

    recent = recent_runs(uri)
    if recent is None:
        return [f"no runs yet; the page: http://{HOST}:{port}/#/experiments?workflowType=machine_learning"]
    table, comparison = links(uri, recent[0], recent[1], port)
    lines = [f"runs        {table}"]
    return [*lines, f"comparison  {comparison}"] if len(recent[1]) > 1 else lines


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that just ended is not in the way
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InterfaceError(f"port {port} on {HOST}: {error.strerror}; choose another: make ui PORT={port + 1}") from error


def _start(root: Path, uri: str, port: int) -> subprocess.Popen[bytes]:
    from tracking.mlflow_store import ENVIRONMENT

    environment = {**ENVIRONMENT, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1", "--host", HOST, "--port", str(port),
         "--uvicorn-opts", "--log-level warning", "--artifacts-destination", (root / "mlflow-artifacts").absolute().as_uri()],
        env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _wait_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise InterfaceError(f"mlflow server ended with status {server.returncode} before it answered; its own words are above")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise InterfaceError(f"mlflow server did not answer http://{HOST}:{port}/health in {READY_S:.0f} s; try again when the machine is idle")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server with its worker; it runs in a session of its own, so that Ctrl-C reaches us first."""
    for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        try:
            os.killpg(server.pid, number)
            server.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
