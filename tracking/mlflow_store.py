"""Where MLflow keeps its rows: the store's address, its database, whether it answers, and links to its pages."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from tracking.locks import locked

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # a long value raises instead of being cut without a word
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # `assay` prints its own links
}


class StoreError(RuntimeError):
    """The store cannot be used now; the message names it, why, and the remedy."""


def environment() -> None:
    """Set what MLflow reads from the environment, where the user has not: no telemetry, no silent cutting, no minutes of retries."""
    for name, setting in ENVIRONMENT.items():
        os.environ.setdefault(name, setting)
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):  # their tracebacks would stand where one notice belongs
        logging.getLogger(name).setLevel(logging.CRITICAL)


def resolve_uri(root: Path, tracking_uri: str | None) -> str:
    """`tracking_uri`, else MLFLOW_TRACKING_URI, else the sqlite database in `root`."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').absolute()}"


def is_server(uri: str) -> bool:
    """Whether `uri` is spoken to over HTTP."""
    return uri.startswith(("http://", "https://"))


def database_path(uri: str) -> Path | None:
    """The file of a sqlite URI; None for any other."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").split("?")[0])).absolute()


def artifact_location(root: Path, uri: str, experiment: str) -> str | None:
    """Where an experiment's files go: a folder of ours beside a database, None (the server decides) over HTTP."""
    return None if is_server(uri) else (root / "mlflow-artifacts" / experiment).absolute().as_uri()


def prepare(root: Path, uri: str) -> None:
    """Make the sqlite database of `uri` with all its tables, once, whoever comes first; nothing to do for other stores.

    It is migrated under another name and renamed when whole: four processes on a fresh file would otherwise break each other's migration,
    and a killed one would leave half a schema. Raises StoreError for a file that is no usable database.
    """
    path = database_path(uri)
    if path is None:
        return
    if not path.exists():
        with locked(path.with_name(path.name + ".lock")):
            if not path.exists():
                _migrate_aside(root, path)
    try:
        with closing(sqlite3.connect(path, timeout=20)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; free the disk or the lock, or move the file away to start a new one") from error


def _migrate_aside(root: Path, path: Path) -> None:
    environment()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = path.with_name(f"{path.name}.new-{os.getpid()}")
    for stale in path.parent.glob(f"{path.name}.new-*"):
        stale.unlink(missing_ok=True)  # left by a process killed in its migration; we hold the lock
    store: Any = cast(Any, SqlAlchemyStore)(f"sqlite:///{aside}", (root / "mlflow-artifacts").absolute().as_uri())
    store.engine.dispose()
    aside.replace(path)


def unreachable(uri: str, patience_s: float) -> str | None:
    """Why the server at `uri` cannot be used, or None when it answered /health in `patience_s`; other stores are not asked."""
    if not is_server(uri):
        return None
    reason: list[str | None] = [f"no answer in {patience_s:.2g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=patience_s):
                reason[0] = None
        except urllib.error.HTTPError as error:
            reason[0] = f"HTTP {error.code}" if error.code >= 500 else None  # 401, 404: it is there
        except OSError as error:
            cause = getattr(error, "reason", error)
            if not isinstance(cause, TimeoutError):
                reason[0] = str(cause)

    asking = threading.Thread(target=ask, daemon=True)  # a name server may hang longer than any socket timeout
    asking.start()
    asking.join(patience_s)
    return reason[0]


def watched(work: Callable[[threading.Event], None], uri: str, patience_s: float) -> None:
    """Run `work(abandoned)` and return when it ends; a server that falls silent meanwhile is given up within about 2 * `patience_s`.

    Raises StoreError when given up (`abandoned` is then set, and work must do nothing more), else what `work` raised.
    """
    if not is_server(uri):
        work(threading.Event())
        return
    abandoned, failure = threading.Event(), list[BaseException]()

    def guarded() -> None:
        try:
            work(abandoned)
        except BaseException as error:
            failure.append(error)

    working = threading.Thread(target=guarded, daemon=True)
    working.start()
    while working.is_alive():
        working.join(patience_s)
        if working.is_alive() and (reason := unreachable(uri, patience_s)):
            abandoned.set()
            raise StoreError(f"stopped answering: {reason}")
    if failure:
        raise failure[0]


def links(tracking_uri: str, experiment_id: str, run_ids: Sequence[str], port: int) -> tuple[str, str]:
    """Two addresses: the experiment's table of runs, and the comparison of its last four `run_ids` (newest first)."""
    base = tracking_uri.rstrip("/") if is_server(tracking_uri) else f"http://127.0.0.1:{port}"
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids[:4]), [experiment_id]))
    mode = "workflowType=machine_learning"  # placed first on the comparison page, MLflow 3.17 answers "not valid JSON"
    return (f"{base}/#/experiments/{experiment_id}/runs?{mode}", f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{mode}")


def recent_runs(tracking_uri: str, experiment: str | None = None, n: int = 4) -> tuple[str, tuple[str, ...]] | None:
    """(experiment id, ids of its last `n` finished runs, newest first) of `experiment`, or of the one that was used last; None without runs.

    A run that has not finished has nothing to compare, and one without metrics leaves the comparison page without its plot.
    """
    environment()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    experiments = [e for e in client.search_experiments() if experiment in (None, e.name)]
    runs = client.search_runs([e.experiment_id for e in experiments], order_by=["attributes.start_time DESC"], max_results=max(n, 100))
    if not runs:
        return None
    newest = runs[0].info.experiment_id
    finished = [run for run in runs if run.info.experiment_id == newest and run.info.status == "FINISHED"]
    return newest, tuple(run.info.run_id for run in finished)[:n]
