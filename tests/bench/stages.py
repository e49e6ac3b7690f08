"""The whole of seed 000's statistics, stage by stage, with its memory; and the gates that the measured numbers are held to."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.measure import YARD_TOKENS, Stage, Yard, walk_stages
from tests.bench.seed_000 import Seed000

Row = Mapping[str, Any]


def stages(world: Seed000, n_replicates: int, n_draws: tuple[int, int], threads: int, *, exact_pairs: int | None = None) -> list[Stage]:
    """In the order in which they add up; n_draws: of stages c and d; exact_pairs: of the opt-in stage, all if None."""
    few, many = n_draws
    return [
        Stage("a", "every point estimate", world.point_estimates),
        Stage("b", f"+ {n_replicates:,} replicates of every marginal, corrected information with document errors",
              lambda: world.errors(n_replicates), after=("a",)),
        Stage("c", f"+ {few} circular shifts x {len(world.pairs)}", lambda: world.shifts(few), after=("a", "b")),
        Stage("d", f"+ {many} circular shifts x {len(world.pairs)} in place of {few}", lambda: world.shifts(many, threads), threads, ("a", "b")),
        Stage("e", f"{n_replicates:,} exact replicates of information, {exact_pairs or len(world.pairs)} pairs (opt-in)",
              lambda: world.exact_replicates(n_replicates, threads, exact_pairs), threads),
        Stage("g", f"the same, documents in {world.shape.groups:,} hashed groups (opt-in)",
              lambda: world.exact_replicates(n_replicates, threads, exact_pairs, world.shape.groups), threads),
        Stage("j", f"information of {len(world.pairs)} pairs by leaving out 100 groups of documents (for judged numbers)", world.jackknife)]


def rivals_of_stages(rows: Iterable[Row], kind: str) -> dict[str, float]:
    """Seconds of a stage's parts by the fastest way of a kind, summed; a stage with a part that has no such way is left out."""
    parts: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.get("stage") and "rival" in row:
            found = parts.setdefault(row["stage"], {}).setdefault(row["workload"], [])
            if row["kind"] == kind:
                found.append(statistics.median(row["theirs"]["wall_s"]) / row["share_of_stage"])
    return {stage: sum(min(times) for times in of.values()) for stage, of in parts.items() if all(of.values())}


def run(world: Seed000, yard: Yard, sizes: Any, threads: int) -> list[dict[str, Any]]:
    """Every stage between yards."""
    assert world.kept
    chosen = stages(world, sizes.stage_replicates, sizes.stage_draws, threads, exact_pairs=sizes.exact_pairs)
    return walk_stages(chosen, yard, sizes.alternations)


@dataclass(frozen=True)
class Gate:
    """A target: measured at most (or at least) `bound`."""

    name: str
    measured: float | None
    bound: float
    unit: str
    least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.least else self.measured <= self.bound

    def json(self) -> dict[str, Any]:
        return {"gate": self.name, "measured": self.measured, "bound": self.bound, "unit": self.unit, "at_least": self.least, "met": self.met,
                "note": self.note}


def stage_gates(found: Sequence[Row]) -> list[Gate]:
    """Those in yards, and the one in seconds."""
    by = {one["stage"]: one for one in found}
    gates = [Gate(f"stage {letter}: {by[letter]['name']}", by[letter]["whole"]["yards"], bound, "yards")
             for letter, bound in (("a", 10.0), ("b", 30.0), ("c", 60.0), ("d", 330.0), ("e", 300.0), ("g", 120.0)) if letter in by]
    if "d" in by:
        gates.append(Gate(f"stage d, wall, {by['d']['threads']} threads", by["d"]["whole"]["wall_s"], 20.0, "s"))
    return gates


def ratio(rows: Iterable[Row], workload: str, rival: str) -> float | None:
    """Theirs over ours of the first row whose names begin so."""
    return next((row["ratio"] for row in rows if row["workload"].startswith(workload) and row.get("rival", "").startswith(rival)), None)


LIMIT = 1 / 1.3  # of the bare loop's time over ours
RATIO_GATES = (  # workload, rival, at least so many times ours
    ("joint tables", "bare increment loop", LIMIT), ("joint tables", "numpy bincount", 3.0), ("joint tables", "sklearn", 300.0),
    ("entropy of float16 probabilities, E = 8", "torch", 5.0), ("entropy of float16 probabilities, E = 128", "torch", 8.0),
    ("per-type statistics from float16", "pandas", 5.0), ("per-type statistics from float16", "dict of lists", 500.0),
    ("silhouette", "sklearn", 50.0))
TIME_GATES = (  # workload, CPU nanoseconds a unit
    ("Mixtral-like: top-2 joint", 0.8), ("fine-grained: top-8 joint", 0.8), ("per-type statistics from float16", 35.0), ("silhouette", 30_000.0))
YARD_INCREMENTS = 66 * YARD_TOKENS


def nanoseconds(rows: Iterable[Row], workload: str) -> float | None:
    """CPU time of one unit of a workload's work."""
    found = next((row for row in rows if row["workload"].startswith(workload)), None)
    if found is None:
        return None
    work = found["rate"] * statistics.median(found["ours"]["wall_s"])
    return 1e9 * statistics.median(found["ours"]["cpu_s"]) / work


def time_gates(measured: Row) -> list[Gate]:
    """Targets a unit of work; increments may cost 1.3 times those of the yard where this machine is slower than the target."""
    yard = statistics.median(one["own"]["cpu_s"] / one["own"]["yards"] for one in measured["stages"]) / YARD_INCREMENTS * 1e9
    found = []
    for workload, bound in TIME_GATES:
        joint = "joint" in workload
        found.append(Gate(workload, nanoseconds(measured["rows"], workload), max(bound, 1.3 * yard) if joint else bound, "CPU ns a unit",
                          note=f"{bound} ns, or 1.3 x the yard's {yard:.2f}" if joint else ""))
    return found


def _limit(rows: Iterable[Row], workload: str, rival: str) -> str:
    """What the bare loop would reach."""
    theirs, bare = ratio(rows, workload, rival), ratio(rows, workload, "bare")
    return "" if theirs is None or bare is None or rival.startswith("bare") else f"the bare loop itself reaches {theirs / bare:.3g} x"


def gates(measured: Row) -> list[dict[str, Any]]:
    """All targets that a run has numbers for: those of stages, of whole shapes and vectors at full size only."""
    rows, sizes = measured["rows"], measured["sizes"]
    full = sizes["seed_documents"] == 37_200 and sizes["stage_replicates"] == 1_000 and tuple(sizes["stage_draws"]) == (25, 200)
    found = stage_gates([one for one in measured["stages"] if one["stage"] not in "eg" or sizes["exact_pairs"] is None] if full else [])
    if full:
        found += [Gate(f"{workload} against {rival}", ratio(rows, workload, rival), bound, "x", True, _limit(rows, workload, rival))
                  for workload, rival, bound in RATIO_GATES]
        found += time_gates(measured)
    found += [Gate(one["what"], statistics.median(one["wall_s"]), one["bound_s"], "s") for one in measured["start"] if one["bound_s"] is not None]
    return [gate.json() for gate in found if gate.measured is not None]
