"""The whole command killed, interrupted, doubled and starved of disk, as real processes: the same findings in the end, nothing twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.declaration import load
from experiments.pipeline import stages_of
from tests.experiments import tiny_corpus
from tests.experiments.tiny_runs import NOWHERE, ROOT, Child, arguments, run_directory, sequences, stages, start
from tests.faults.test_disk import can_mount, small_disk
from tracking.trace_manifest import Manifest
from tracking.traces import StoredTrace

SEED = 20261122
STAGE_NAMES = [stage.name for stage in stages_of(load("var", "tiny"))]
INSIDE_COLLECTION = [f"{family}.{point}:{passing}" for family, passing in (("shard", 2), ("manifest", 2))
                     for point in ("write", "sync", "rename", "directory")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    root.mkdir()
    tiny_corpus.write(root.parent / "corpus.jsonl", per_domain=24)
    child = run(root, root.parent / "corpus.jsonl")
    assert child.end() == 0, child.said
    return root


@pytest.fixture
def root(undisturbed: Path, tmp_path: Path) -> Path:
    """A root without a run, where the corpus is read and the model is trained already."""
    shutil.copytree(undisturbed / "cache", tmp_path / "root" / "cache")
    return tmp_path / "root"


def run(root: Path, corpus: Path, *more: str, kill_at: str | None = None) -> Child:
    return start(root, arguments(corpus, "--set", "source.documents_per_shard=4", *more), kill_at=kill_at)


def again(root: Path, undisturbed: Path, *more: str, kill_at: str | None = None) -> Child:
    return run(root, undisturbed.parent / "corpus.jsonl", *more, kill_at=kill_at)


def nothing_twice(directory: Path) -> None:
    owners = [number for shard in Manifest.read(directory / "trace").shards.values() for number in shard.documents]
    assert sorted(owners) == list(range(len(StoredTrace.open(directory / "trace").documents)))


def same_as(directory: Path, undisturbed: Path) -> None:
    quiet = run_directory(undisturbed)
    assert (directory / "findings.json").read_bytes() == (quiet / "findings.json").read_bytes()
    assert (directory / "routing_stats.parquet").read_bytes() == (quiet / "routing_stats.parquet").read_bytes()
    assert StoredTrace.open(directory / "trace").verify() == StoredTrace.open(quiet / "trace").verify()
    nothing_twice(directory)


def test_killed_inside_every_write_and_at_the_end_of_every_stage(root: Path, undisturbed: Path) -> None:
    def dies_at(point: str) -> None:
        child = again(root, undisturbed, kill_at=point)
        assert child.end() == -signal.SIGKILL, (point, child.said)

    for point in ("state.write:1", "state.rename:1", "file.write:1", "file.rename:3"):  # before the first stage
        dies_at(point)
    for name in STAGE_NAMES[:-1]:
        if name == "collect":
            for point in INSIDE_COLLECTION:
                dies_at(point)
        dies_at("state.write:3")  # the work is done and nobody knows: opened, begun, and half of finished
        assert stages(run_directory(root))[name]["status"] == "RUNNING"
        dies_at("state.rename:3")
        assert stages(run_directory(root))[name]["status"] == "FINISHED"
    begun = sequences(run_directory(root))
    dies_at("file.sync:9")  # inside the report
    child = again(root, undisturbed)
    assert child.end() == 0, child.said
    after = sequences(run_directory(root))
    assert {name: after[name] for name in STAGE_NAMES[:-1]} == {name: begun[name] for name in STAGE_NAMES[:-1]}
    same_as(run_directory(root), undisturbed)
    looks = (root / "ledger.jsonl").read_text().splitlines()
    assert len(looks) == 1, "a resumed look at the test documents was counted again"


@pytest.mark.slow
def test_killed_at_random_moments_from_before_the_training(tmp_path: Path, undisturbed: Path) -> None:
    chance, root = random.Random(SEED), tmp_path / "root"
    root.mkdir()
    reached = []
    for _ in range(10):
        child = again(root, undisturbed)
        time.sleep(chance.uniform(0.2, 1.2))
        child.process.kill()
        assert child.end() == -signal.SIGKILL, child.said
        found = list(root.glob("*/state.json"))
        reached.append(sum(stage["status"] == "FINISHED" for stage in stages(found[0].parent).values()) if found else 0)
    print(f"seed {SEED}: stages finished at each kill: {reached}")
    assert reached == sorted(reached), "a finished stage was lost"
    child = again(root, undisturbed)
    while child.process.is_alive() and not (list(root.glob("*/state.json")) and "report" in stages(run_directory(root))):
        time.sleep(0.02)  # its report is another test's
    child.process.kill()
    assert child.end() == -signal.SIGKILL, child.said
    same_as(run_directory(root), undisturbed)


def test_killed_as_the_run_is_made_it_can_be_resumed_by_name(root: Path, undisturbed: Path) -> None:
    assert again(root, undisturbed, kill_at="state.rename:1").end() == -signal.SIGKILL
    child = start(root, ["resume", run_directory(root).name], kill_at="state.rename:3")
    assert child.end() == -signal.SIGKILL, child.said
    assert stages(run_directory(root))["corpus"]["status"] == "FINISHED"


def test_the_second_of_two_is_refused_and_changes_nothing(root: Path, undisturbed: Path) -> None:
    first = again(root, undisturbed)
    while not list(root.glob("*/trace/manifest.json")) and first.process.is_alive():
        pass
    second = again(root, undisturbed)
    status = second.end()
    held = first.process.is_alive()
    first.process.kill()
    first.end()
    assert held, first.said
    assert status == 1
    assert f"held by pid {first.process.pid}" in second.said and "wait for it, or begin another run with --new" in second.said
    assert "Traceback" not in second.said
    assert len(json.loads((run_directory(root) / "state.json").read_text())["attempts"]) == 1


def test_stopped_during_collection_it_prints_how_to_go_on(root: Path, undisturbed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": NOWHERE, "ASSAY_ROOT": str(root)}
    command = arguments(undisturbed.parent / "corpus.jsonl", "--set", "source.documents_per_shard=1")
    child = subprocess.Popen([sys.executable, "-m", "experiments.cli", *command], cwd=ROOT, env=environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _signalled_after_a_shard(child, root, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    whole = _goes_on_as_it_says(run_directory(root), errors)
    other = again(root, undisturbed, "--new", "--set", "source.documents_per_shard=1")
    _signalled_after_a_shard(other.process, root, signal.SIGTERM, already=whole)
    assert other.end() == 143, other.said


def _signalled_after_a_shard(child: subprocess.Popen[str] | ForkServerProcess, root: Path, number: signal.Signals, already: int = 0) -> None:
    alive = child.is_alive if isinstance(child, ForkServerProcess) else lambda: child.poll() is None
    while alive() and len(list(root.glob("*/trace/shard-*.parquet"))) <= already:
        pass
    assert child.pid is not None
    os.kill(child.pid, number)


def _goes_on_as_it_says(directory: Path, errors: str) -> int:
    """Type what the stopped process printed; returns how many shards there are in the end."""
    kept = json.loads((directory / "state.json").read_text())
    assert (kept["status"], kept["stages"]["collect"]["status"]) == ("INTERRUPTED", "INTERRUPTED")
    assert "Traceback" not in errors
    *_, to_type = errors.strip().splitlines()[-1].partition("Go on with: assay ")
    shards = len(Manifest.read(directory / "trace").shards)
    assert shards > 0
    resumed = start(directory.parent, to_type.split(), kill_at="state.rename:3")
    assert resumed.end() == -signal.SIGKILL, resumed.said
    assert stages(directory)["collect"]["status"] == "FINISHED"
    whole = len(Manifest.read(directory / "trace").shards)
    assert whole > shards
    nothing_twice(directory)
    return whole


def test_a_disk_that_fills_during_collection(undisturbed: Path, tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    with small_disk(disk, 8_000):
        root = disk / "root"
        shutil.copytree(undisturbed / "cache", root / "cache")
        assert again(root, undisturbed, kill_at="shard.rename:2").end() == -signal.SIGKILL
        room = shutil.disk_usage(disk).free
        filler = disk / "filler"
        filler.write_bytes(bytes(room - 60_000))
        full = again(root, undisturbed)
        assert full.end() == 1, full.said
        last = full.said.strip().splitlines()[-1]
        assert "no space left" in full.said and "bytes needed" in full.said and "make room there" in full.said, last
        assert "Traceback" not in full.said
        directory = run_directory(root)
        assert 0 < len(Manifest.read(directory / "trace").shards) < 9
        filler.unlink()
        resumed = again(root, undisturbed, kill_at="state.rename:3")
        assert resumed.end() == -signal.SIGKILL, resumed.said
        assert StoredTrace.open(directory / "trace").verify() == StoredTrace.open(run_directory(undisturbed) / "trace").verify()
        nothing_twice(directory)


def test_the_protocol_is_with_mlflow_before_a_shard_is(root: Path, undisturbed: Path) -> None:
    uri = f"sqlite:///{root / 'mlflow.db'}"
    child = start(root, arguments(undisturbed.parent / "corpus.jsonl"), kill_at="shard.write:1", uri=uri)
    assert child.end() == -signal.SIGKILL, child.said
    directory = run_directory(root)
    assert not list((directory / "trace").glob("shard-*.parquet"))
    client = MlflowClient(uri)
    (found,) = client.search_runs([one.experiment_id for one in client.search_experiments() if one.name != "Default"])
    protocol = json.loads((directory / "protocol.json").read_text())
    assert protocol["fingerprint"] in {**found.data.tags, **found.data.params}.values()
