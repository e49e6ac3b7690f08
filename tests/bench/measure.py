"""Times of one subject and its rivals, taken in turn within one run, as ratios with their spread; stages in yards."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numba
import numpy as np

Kind = Literal["naive", "library", "limit"]


@dataclass(frozen=True)
class Rival:
    """Another way to the same numbers. share: the part of the work that `run` does; its time is divided by it.

    kind: what people write first, the best that general libraries give, or the bare loop that nothing can beat.
    """

    name: str
    run: Callable[[], Any]
    share: float = 1.0
    note: str = ""
    kind: Kind = "library"


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
    stage: str = ""  # of the seed 000 workload that this is a part of
    share_of_stage: float = 1.0  # where only some of the stage's pairs are compared


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
    common = {"workload": workload.name, "stage": workload.stage, "share_of_stage": workload.share_of_stage, "ours": ours.json(),
              "rate": workload.work / statistics.median(ours.wall), "unit": workload.unit, "agreed": agreed, "note": workload.note}
    rows = []
    for rival, theirs in zip(workload.rivals, times[1:], strict=True):
        ratios = [b / a for a, b in zip(ours.wall, theirs.wall, strict=True)]
        rows.append({**common, "rival": rival.name, "kind": rival.kind, "rival_note": rival.note, "share_run": rival.share,
                     "theirs": theirs.json(), "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)})
    return rows or [common]


YARD_TOKENS, YARD_LAYERS = 1_190_000, 12


@numba.njit(nogil=True, cache=True)
def bare_increments(x, y, shift, table):  # type: ignore[no-untyped-def]
    """table[x << shift | y] += 1: the counting limit of this machine."""
    for t in range(len(x)):
        table[(np.uint32(x[t]) << shift) | np.uint32(y[t])] += np.uint32(1)


class Yard:
    """One plain joint-increment pass over 66 layer pairs x 1.19M tokens, 128 experts: this machine's speed at this moment."""

    def __init__(self, tokens: int = YARD_TOKENS) -> None:
        self.ids = np.random.default_rng(0).integers(0, 128, (YARD_LAYERS, tokens), dtype=np.uint8)
        self.scale = YARD_TOKENS / tokens
        self.passes: list[float] = []
        self.cpu: list[float] = []
        bare_increments(self.ids[0, :8], self.ids[1, :8], np.uint32(7), np.zeros(1 << 14, np.uint32))

    def walk(self, passes: int = 3) -> float:
        """Median seconds of a few passes."""
        took = Times()
        for _ in range(passes):
            took.add(self._pass, 1 / self.scale)
        self.passes.append(statistics.median(took.wall))
        self.cpu.append(statistics.median(took.cpu))
        return self.passes[-1]

    def _pass(self) -> None:
        for x in range(YARD_LAYERS):
            for y in range(x + 1, YARD_LAYERS):
                table = np.zeros(1 << 14, np.uint32)
                bare_increments(self.ids[x], self.ids[y], np.uint32(7), table)
        assert int(table.sum()) == self.ids.shape[1]


@dataclass(frozen=True)
class Stage:
    """What a whole analysis adds to the one before it."""

    letter: str
    name: str
    run: Callable[[], Any]
    threads: int = 1
    after: tuple[str, ...] = ()  # stages that come before it, whose time counts with its own


def walk_stages(stages: Sequence[Stage], yard: Yard, passes: int) -> list[dict[str, Any]]:
    """Each stage a few times between yards: seconds, and CPU seconds over those of the yards beside it."""
    out: list[dict[str, Any]] = []
    for stage in stages:
        times, yards = Times(), []
        yard.walk(1)
        for _ in range(passes if stage.threads == 1 else 1):
            times.add(stage.run)
            yard.walk(1)
            yards.append(2 * times.cpu[-1] / (yard.cpu[-1] + yard.cpu[-2]))
        before = [one for one in out if one["stage"] in stage.after]
        own = {"wall_s": statistics.median(times.wall), "cpu_s": statistics.median(times.cpu), "yards": statistics.median(yards)}
        out.append({"stage": stage.letter, "name": stage.name, "threads": stage.threads, "own": own, "times": times.json(),
                    "yards": [round(y, 3) for y in yards], "with": list(stage.after),
                    "whole": {name: own[name] + sum(one["own"][name] for one in before) for name in own}})
    return out
