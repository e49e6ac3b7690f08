"""Publishes a run to MLflow: a projection of the run directory, repeatable at any time, never in the run's way.

A run is found again by its tag `run.id`; what is there already is not written again; a server that is away leaves `publish.json` in the
run directory with the state "pending", and the next publish clears it.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from tracking.atomic import write_json
from tracking.mlflow_store import (
    StoreError,
    artifact_location,
    environment,
    links,
    prepare,
    recent_runs,
    resolve_uri,
    unreachable,
    watched,
)
from tracking.projection import MAX_DATASET_DIGEST, Accepted, Point, Projection, accept, mlflow_name, shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

__all__ = ["Projection", "PublishReport", "links", "pending", "publish", "recent_runs"]

STATE_FILE = "publish.json"
PATIENCE_S = 0.4  # halved at each failure in one process, so that all waiting for a dead server stays below one second
_failures: dict[str, int] = {}


@dataclass(frozen=True)
class PublishReport:
    """What a publish did. state: "published" or "pending"; reason: why it is pending; notice: the reason in words, once per process.

    written: metric points written now (0 on a replay). unpublished: each thing that MLflow refuses, named.
    """

    state: Literal["published", "pending"]
    tracking_uri: str
    mlflow_run_id: str | None = None
    experiment_id: str | None = None
    written: int = 0
    unpublished: tuple[str, ...] = ()
    reason: str | None = None
    notice: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)  # path in MLflow -> SHA-256 of what was uploaded


def pending(run_directory: Path) -> str | None:
    """Why the last publish of this run did not go through, or None when it did or none was tried."""
    reasons = [str(state["reason"]) for state in _states(run_directory).values() if state.get("state") == "pending"]
    return reasons[0] if reasons else None


def publish(run_directory: Path, projection: Projection, tracking_uri: str | None = None, *,
            patience_s: float = PATIENCE_S) -> PublishReport:
    """Bring MLflow up to `projection`; never raises for a store that is away, slow, full or refusing.

    tracking_uri: None means MLFLOW_TRACKING_URI, else sqlite beside the run directory. patience_s: how long a silent server is waited for.
    """
    environment()
    root = run_directory.parent
    uri = resolve_uri(root, tracking_uri)
    patience = patience_s / 2 ** _failures.get(uri, 0)
    states = _states(run_directory)
    before = states.get(projection.run_id, {})
    session = _Session(root, uri, projection, before)
    try:
        if reason := unreachable(uri, patience):
            raise StoreError(reason)
        prepare(root, uri)
        watched(session.run, uri, patience)
        report = session.report()
        _failures.pop(uri, None)
    except Exception as error:  # MLflow is a projection: whatever it raises, the run goes on
        report = _put_off(run_directory.name, uri, error, before)
    try:
        write_json(run_directory / STATE_FILE, states | {projection.run_id: asdict(report)})
    except OSError as error:  # a full disk: the run's own next write says so with its remedy
        return replace(report, notice=report.notice or str(error))
    return report


def _put_off(run: str, uri: str, error: Exception, before: dict[str, Any]) -> PublishReport:
    lines = str(error).strip().splitlines()
    reason = lines[0][:500] if lines else type(error).__name__
    notice = None
    if uri not in _failures:
        notice = f"MLflow at {uri}: {reason}. The run goes on; `assay publish {run}` repeats this when MLflow is back."
    _failures[uri] = _failures.get(uri, 0) + 1
    if before.get("tracking_uri") != uri:
        before = {}
    return PublishReport("pending", uri, before.get("mlflow_run_id"), before.get("experiment_id"), reason=reason, notice=notice,
                         artifacts=before.get("artifacts", {}))


def _states(run_directory: Path) -> dict[str, dict[str, Any]]:
    """The last report of each projection of the run, by its run_id; nothing where the file is damaged, for it is only a memory aid."""
    try:
        states = json.loads((run_directory / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: state for name, state in states.items() if isinstance(state, dict)} if isinstance(states, dict) else {}


class _Session:
    """One publish: what MLflow has, what the projection wants, and the difference written."""

    def __init__(self, root: Path, uri: str, projection: Projection, state: dict[str, Any]) -> None:
        self._root, self._uri, self._projection = root, uri, projection
        self._accepted: Accepted = accept(projection)
        self._unpublished = list(self._accepted.unpublished)
        self._state = state
        self._uploaded: dict[str, str] = {}
        self._experiment_id = self._run_id = ""
        self._written = 0
        self._abandoned = Event()

    def run(self, abandoned: Event) -> None:
        """Write every difference in order; once `abandoned` is set nothing more is sent."""
        from mlflow import MlflowClient

        self._abandoned = abandoned
        client = MlflowClient(tracking_uri=self._uri)
        self._experiment_id = self._experiment(client)
        run = self._find_or_create(client)
        self._run_id = run.info.run_id
        self._write_params(client, run)
        self._write_metrics(client, run)
        self._write_datasets(client, run)
        self._write_artifacts(client)
        self._write_tags(client, run)
        self._write_status(client, run)

    def report(self) -> PublishReport:
        """What was done."""
        return PublishReport("published", self._uri, self._run_id, self._experiment_id, self._written, tuple(self._unpublished),
                             artifacts=self._uploaded)

    def _send(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._abandoned.is_set():
            raise StoreError("given up")
        return call(*args, **kwargs)

    def _experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        name = self._projection.experiment
        found = self._send(client.get_experiment_by_name, name)
        if found is None:
            try:
                return str(self._send(client.create_experiment, name, artifact_location(self._root, self._uri, mlflow_name(name))))
            except MlflowException:
                found = self._send(client.get_experiment_by_name, name)  # another process was first
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._send(client.restore_experiment, found.experiment_id)
        return str(found.experiment_id)

    def _find_or_create(self, client: MlflowClient) -> Run:
        projection = self._projection
        name = mlflow_name(projection.run_id)
        found: list[Run] = self._send(client.search_runs, [self._experiment_id], f"tags.`run.id` = '{name}'",
                                      order_by=["attributes.start_time ASC"])
        for double in found[1:]:  # a request given up while a server hung, and carried out when it woke
            self._send(client.delete_run, double.info.run_id)
        if found:
            return found[0]
        tags = {"run.id": name, "mlflow.source.name": "assay", "mlflow.source.type": "LOCAL", "host": socket.gethostname()}
        created: Run = self._send(client.create_run, self._experiment_id, projection.started_ms, tags, projection.run_name)
        return created

    def _log(self, client: MlflowClient, kind: str, entries: Sequence[Any], size: int) -> None:
        """log_batch in pieces of `size`; a piece that MLflow refuses is halved until the refused entry is alone, and that one is named."""
        from mlflow.exceptions import MlflowException

        for start in range(0, len(entries), size):
            piece = entries[start:start + size]
            try:
                self._send(client.log_batch, self._run_id, **{kind: piece}, synchronous=True)
                self._written += len(piece) if kind == "metrics" else 0
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                if len(piece) == 1:
                    self._unpublished.append(f"{kind[:-1]} {piece[0].key} ({str(error).splitlines()[0][:200]})")
                else:
                    self._log(client, kind, piece, (len(piece) + 1) // 2)

    def _write_params(self, client: MlflowClient, run: Run) -> None:
        from mlflow.entities import Param

        there = run.data.params
        changed = {key: text for key, text in self._accepted.params.items() if there.get(key, text) != text}
        self._unpublished += [f"param {key} (MLflow keeps the first value, {there[key]!r}; now {text!r})" for key, text in changed.items()]
        self._log(client, "params", [Param(key, text) for key, text in self._accepted.params.items() if key not in there], 100)

    def _write_metrics(self, client: MlflowClient, run: Run) -> None:
        points: dict[str, list[Point]] = {}
        for point in self._accepted.points:
            points.setdefault(point[0], []).append(point)
        missing = {key: self._missing(client, run, key, series) for key, series in points.items()}
        order = dict.fromkeys(key for key, _, _ in self._accepted.points)
        self._log(client, "metrics", [metric for key in order for metric in missing[key]], 1000)

    def _missing(self, client: MlflowClient, run: Run, key: str, series: Sequence[Point]) -> list[Metric]:
        """Points of `key` that MLflow has not; a changed value gets a later time, so that it is the one that counts."""
        from mlflow.entities import Metric

        there = run.data.metrics
        if key in there and len(series) == 1 and there[key] == series[0][1]:
            return []
        history = self._send(client.get_metric_history, self._run_id, key) if key in there else []
        latest = {m.step: m for m in sorted(history, key=lambda m: m.timestamp)}
        metrics = []
        for _, value, step in series:
            old = latest.get(step)
            if old is None or old.value != value:
                metrics.append(Metric(key, value, self._projection.started_ms if old is None else old.timestamp + 1, step))
        return metrics

    def _write_datasets(self, client: MlflowClient, run: Run) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entries = run.inputs.dataset_inputs if run.inputs else ()
        there = {(entry.dataset.name, entry.dataset.digest) for entry in entries}
        new = [(name, digest[:MAX_DATASET_DIGEST], source, context) for name, digest, source, context in self._projection.datasets]
        inputs = [DatasetInput(Dataset(name, digest, "local", json.dumps({"uri": source})), [InputTag("mlflow.data.context", context)])
                  for name, digest, source, context in new if (name, digest) not in there]
        if inputs:
            self._send(client.log_inputs, self._run_id, inputs)

    def _write_artifacts(self, client: MlflowClient) -> None:
        same_run = self._state.get("mlflow_run_id") == self._run_id and self._state.get("tracking_uri") == self._uri
        before = self._state.get("artifacts", {}) if same_run else {}
        for path, folder in self._files():
            name = f"{folder}/{path.name}".lstrip("/")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if before.get(name) != digest:
                self._send(client.log_artifact, self._run_id, str(path), folder or None)
            self._uploaded[name] = digest

    def _files(self) -> list[tuple[Path, str]]:
        files = []
        for path, folder in self._projection.artifacts:
            if path.is_dir():
                files += [(file, "/".join(filter(None, (folder, file.parent.relative_to(path).as_posix().strip(".")))))
                          for file in sorted(path.rglob("*")) if file.is_file()]
            elif path.is_file():
                files.append((path, folder))
            else:
                self._unpublished.append(f"artifact {path.name} (no such file)")
        return files

    def _write_tags(self, client: MlflowClient, run: Run) -> None:
        from mlflow.entities import RunTag

        tags = dict(self._accepted.tags)
        tags["mlflow.runName"] = self._projection.run_name
        if self._projection.note:
            tags["mlflow.note.content"] = shortened(self._projection.note.splitlines())
        if self._unpublished or "unpublished" in run.data.tags:
            tags["unpublished"] = shortened([f"{len(self._unpublished)} not published", *self._unpublished])
        self._log(client, "tags", [RunTag(key, text) for key, text in tags.items() if run.data.tags.get(key) != text], 100)

    def _write_status(self, client: MlflowClient, run: Run) -> None:
        status, ended = self._projection.status, self._projection.ended_ms
        if status == "RUNNING":
            if run.info.status != "RUNNING":
                self._send(client.update_run, self._run_id, "RUNNING")
        elif (run.info.status, run.info.end_time) != (status, ended):
            self._send(client.set_terminated, self._run_id, status, ended)
