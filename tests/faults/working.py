"""What the children of the fault tests do: `python -m tests.faults.working collect|run|hold|record DIRECTORY`.

The same directory gives the same trace or run whatever happened before; "ready" is printed when work begins.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from analysis.trace import TraceMeta
from tests.synthetic_trace import make_batch, make_documents, make_meta
from tracking import ledger, signals
from tracking.atomic import write_json
from tracking.run import Run
from tracking.traces import StoredTrace, TraceWriter

LAYERS = ((16, 2), (300, 3), (8, 1))  # k that is no power of two, ids beyond uint8, one expert of few
N_SHARDS = 12
PER_SHARD = 3
DOCUMENTS = make_documents(N_SHARDS * PER_SHARD)
DECLARATION = {"experiment": "var", "seed": 0, "source": {"k": 2}, "hypotheses": ["var"]}
STAGES = ("corpus", "analyse", "report")


def ready() -> None:
    print("ready", flush=True)


def meta() -> TraceMeta:
    return make_meta(LAYERS)


def collect(directory: Path) -> str:
    """Collect what is missing, slowly enough to be killed; returns the digest."""
    writer = TraceWriter.create_or_resume(directory, meta(), DOCUMENTS)
    ready()
    for number in range(N_SHARDS):
        if number not in writer.finished:
            chosen = DOCUMENTS[number * PER_SHARD:(number + 1) * PER_SHARD]
            batch = make_batch(np.random.default_rng([5, number]), meta(), chosen, dropping=(1,))
            writer.write_shard(number, batch, [row.document for row in chosen])
    return writer.finish()


def run(directory: Path) -> dict[str, object]:
    """Do every stage that is still to do, each leaving one file."""
    with Run.open(directory.parent, directory.name, DECLARATION) as current:
        for name in STAGES:
            if current.needs(name, f"inputs of {name}"):
                with current.stage(name, f"inputs of {name}") as stage:
                    write_json(current.directory / f"{name}.json", {"made by": name})
                    stage.output(f"{name}.json")
        current.finish()
    return {name: (directory / f"{name}.json").read_text() for name in STAGES}


def hold(directory: Path) -> None:
    """Take the run and keep it until killed or signalled."""
    with Run.open(directory.parent, directory.name, DECLARATION) as current, current.stage("analyse", "-"):
        ready()
        time.sleep(60)


def finish_batch(directory: Path) -> None:
    """A deferring stage: batches of a tenth of a second, each kept when it ends."""
    with Run.open(directory.parent, directory.name, DECLARATION) as current, current.stage("collect", "-", defers=True):
        ready()
        for number in range(100):
            with signals.deferred():
                time.sleep(0.1)
                write_json(current.directory / "batches.json", {"whole": number})
            signals.pause_point()


def hang(directory: Path) -> None:
    """A deferring stage that comes to no pause point."""
    with Run.open(directory.parent, directory.name, DECLARATION) as current, current.stage("collect", "-", defers=True):
        ready()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)


def record(directory: Path) -> None:
    """Enter 20 openings of runs of our own into the ledger."""
    ready()
    for number in range(20):
        ledger.record(directory.parent, ledger.Opening(f"{directory.name}-{number}", "var", "c", "p", "d", "2026-11-22T12:00:00+00:00"))


def read(directory: Path) -> str:
    """Verify a finished trace; returns its digest."""
    return StoredTrace.open(directory).verify()


WORK: dict[str, Callable[[Path], object]] = {"collect": collect, "run": run, "hold": hold, "finish_batch": finish_batch, "hang": hang,
                                             "record": record, "read": read}

if __name__ == "__main__":
    outcome = WORK[sys.argv[1]](Path(sys.argv[2]))
    print(outcome if isinstance(outcome, str) else "done", flush=True)
