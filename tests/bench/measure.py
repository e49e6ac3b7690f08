"""Times of one subject and its rivals, taken in turn within one run, as ratios with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np


@dataclass(frozen=True)
class Rival:
    """Another way to the same numbers. share: the part of the work that `run` does; its time is divided by it."""

    name: str
    run: Callable[[], Any]
    share: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """check: shows, before anything is timed, that every rival gives our numbers; returns how closely."""

    name: str
    ours: Callable[[], Any]
    rivals: Sequence[Rival]
    check: Callable[[], str]
    work: float  # how many `unit` one run of ours handles
    unit: str
    note: str = ""


@dataclass
class Times:
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, run: Callable[[], Any], share: float = 1.0) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.wall.append((time.perf_counter() - wall) / share)
        self.cpu.append((time.process_time() - cpu) / share)

    def json(self) -> dict[str, list[float]]:
        return {"wall_s": [round(s, 6) for s in self.wall], "cpu_s": [round(s, 6) for s in self.cpu]}


def compare(workload: Workload, alternations: int) -> list[dict[str, Any]]:
    """One row per rival: wall time of the rival over ours, by alternation; the order turns round from one to the next."""
    agreed = workload.check()
    times = [Times() for _ in range(1 + len(workload.rivals))]
    jobs = [(workload.ours, 1.0), *((rival.run, rival.share) for rival in workload.rivals)]
    for alternation in range(alternations):
        for place in range(len(jobs)):
            chosen = (place + alternation) % len(jobs)
            times[chosen].add(*jobs[chosen])
    ours = times[0]
    rate = workload.work / statistics.median(ours.wall)
    rows = []
    for rival, theirs in zip(workload.rivals, times[1:], strict=True):
        ratios = [b / a for a, b in zip(ours.wall, theirs.wall, strict=True)]
        rows.append({"workload": workload.name, "rival": rival.name, "rival_note": rival.note, "share_run": rival.share,
                     "ours": ours.json(), "theirs": theirs.json(), "ratio": statistics.median(ratios), "ratio_low": min(ratios),
                     "ratio_high": max(ratios), "rate": rate, "unit": workload.unit, "agreed": agreed, "note": workload.note})
    return rows


YARD_TOKENS, YARD_LAYERS = 1_190_000, 12


@numba.njit(nogil=True, cache=True)
def _joint(x, y, table):  # type: ignore[no-untyped-def]
    for t in range(len(x)):
        table[(np.uint32(x[t]) << 7) | np.uint32(y[t])] += np.uint32(1)


class Yard:
    """One plain joint-increment pass over 66 layer pairs x 1.19M tokens, 128 experts: this machine's speed at this moment."""

    def __init__(self) -> None:
        self.ids = np.random.default_rng(0).integers(0, 128, (YARD_LAYERS, YARD_TOKENS), dtype=np.uint8)
        self.passes: list[float] = []
        _joint(self.ids[0, :8], self.ids[1, :8], np.zeros(1 << 14, np.uint32))

    def walk(self, passes: int = 3) -> float:
        """Median seconds of a few passes."""
        took = []
        for _ in range(passes):
            begun = time.perf_counter()
            for x in range(YARD_LAYERS):
                for y in range(x + 1, YARD_LAYERS):
                    table = np.zeros(1 << 14, np.uint32)
                    _joint(self.ids[x], self.ids[y], table)
            took.append(time.perf_counter() - begun)
            assert int(table.sum()) == YARD_TOKENS
        self.passes.append(statistics.median(took))
        return self.passes[-1]
