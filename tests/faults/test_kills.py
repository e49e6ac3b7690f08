"""kill -9 at every announced point and at random times: nothing finished is lost, nothing is counted twice, the numbers are the same."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults import working
from tests.faults.children import end, start, wait_until_ready
from tracking import run, traces  # noqa: F401  # their import announces their points
from tracking.kill_points import announced
from tracking.trace_manifest import Manifest
from tracking.traces import StoredTrace

SEED = 20261122
SCENARIOS = {  # family of points -> (work, passings at which it is killed)
    "shard": ("collect", (7,)),
    "manifest": ("collect", (1, 8)),
    "file": ("collect", (1,)),
    "state": ("run", (1, 4)),
}
CASES = [(point, passing) for point in announced() for passing in SCENARIOS.get(point.partition(".")[0], ("", (1,)))[1]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return working.collect(tmp_path_factory.mktemp("undisturbed") / "trace")


def test_every_announced_point_has_a_case() -> None:
    assert {point.partition(".")[0] for point in announced()} == set(SCENARIOS), "give the new family a scenario"


@pytest.mark.parametrize(("point", "passing"), CASES)
def test_killed_at_a_point_then_resumed(point: str, passing: int, tmp_path: Path, undisturbed: str) -> None:
    work = SCENARIOS[point.partition(".")[0]][0]
    directory = tmp_path / work
    status, _, errors = end(start(work, directory, f"{point}:{passing}"))
    assert status == -signal.SIGKILL, errors
    if work == "run":
        assert working.run(directory) == {name: f'{{\n "made by": "{name}"\n}}\n' for name in working.STAGES}
        return
    whole = Manifest.read(directory).shards if (directory / "manifest.json").exists() else {}
    kept = {shard.name: (directory / shard.name).stat().st_mtime_ns for shard in whole.values()}
    assert len(whole) == {"shard": passing - 1, "manifest": max(0, passing - 2), "file": 0}[point.partition(".")[0]] + (
        1 if point in ("manifest.rename", "manifest.directory") and passing > 1 else 0)
    assert working.collect(directory) == undisturbed
    assert kept == {name: (directory / name).stat().st_mtime_ns for name in kept}, "a finished shard was written again"
    assert StoredTrace.open(directory).verify() == undisturbed
    _nothing_twice(directory)


def _nothing_twice(directory: Path) -> None:
    owners = [number for shard in Manifest.read(directory).shards.values() for number in shard.documents]
    assert sorted(owners) == sorted(row.document for row in working.DOCUMENTS)


def test_remains_are_set_aside_and_named(tmp_path: Path) -> None:
    directory = tmp_path / "trace"
    end(start("collect", directory, "shard.write:3"))
    (half,) = directory.glob("shard-*.part")
    end(start("collect", directory, "shard.rename:1"))
    assert [path.name for path in (directory / "orphans").iterdir()] == [half.name]
    working.collect(directory)
    named = [name for event in Manifest.read(directory).events if event["event"] == "orphans" for name in event["names"]]
    assert named == [half.name, "shard-00002.parquet"]
    assert sorted(path.name for path in (directory / "orphans").iterdir()) == sorted(named)


def test_ten_kills_between_and_inside_shards(tmp_path: Path, undisturbed: str) -> None:
    directory = tmp_path / "trace"
    for point in ("shard.write:1", "manifest.write:2", "shard.sync:2", "manifest.sync:3", "shard.rename:2", "manifest.rename:3",
                  "shard.directory:2", "manifest.directory:2", "shard.write:2", "manifest.sync:2"):
        status, _, errors = end(start("collect", directory, point))
        assert status == -signal.SIGKILL, (point, errors)
    assert working.collect(directory) == undisturbed
    _nothing_twice(directory)


def test_ten_kills_at_random_moments(tmp_path: Path, undisturbed: str) -> None:
    chance = random.Random(SEED)
    directory, deaths = tmp_path / "trace", []
    for kill in range(10):
        child = start("collect", directory)
        wait_until_ready(child)
        while len(list(directory.glob("shard-*.parquet"))) < kill and child.poll() is None:
            pass
        time.sleep(chance.uniform(0, 0.004))
        child.kill()
        status, _, errors = end(child)
        assert status in (0, -signal.SIGKILL), errors
        deaths.append(len(Manifest.read(directory).shards))
    print(f"seed {SEED}: whole shards at each kill: {deaths}")
    assert deaths == sorted(deaths), "a finished shard was lost"
    assert working.collect(directory) == undisturbed
    _nothing_twice(directory)


def test_killed_in_a_stage_the_state_is_readable_and_only_that_stage_is_done_again(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    status, _, _ = end(start("run", directory, "state.write:4"))  # open, corpus begun, corpus finished, analyse begun
    assert status == -signal.SIGKILL
    state = json.loads((directory / "state.json").read_text())
    assert {name: stage["status"] for name, stage in state["stages"].items()} == {"corpus": "FINISHED"}
    first = (directory / "corpus.json").stat().st_mtime_ns
    working.run(directory)
    assert (directory / "corpus.json").stat().st_mtime_ns == first
    state = json.loads((directory / "state.json").read_text())
    assert state["status"] == "FINISHED" and len(state["attempts"]) == 2
