"""`make bench`: our counting beside the usual ways, as ratios of one run; tables on stdout, JSON with --out, Markdown with --markdown."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from tests.bench import all_counts, bootstrap, evaluation, null, report, router_rows, stages, start, store, topk, type_statistics, vectors
from tests.bench.measure import Workload, Yard, compare
from tests.bench.rows import Sample, Sizes
from tests.bench.seed_000 import Seed000
from tests.bench.seed_000_parts import Parts
from tests.bench.worlds import FINE_GRAINED, MIXTRAL_LIKE

ROOT = Path(__file__).resolve().parents[2]
LONG = Sizes(tokens=500_000, vocabularies=(2_048, 32_768), loop_tokens=10_000, replicates=999, rival_replicates=5, null_draws=99, rival_draws=2,
             store_tokens=150_000, evaluated_tokens=150_000, evaluations=3, bound_mib=448)
SHORT = Sizes(tokens=100_000, vocabularies=(2_048, 32_768), loop_tokens=4_000, replicates=199, rival_replicates=4, null_draws=19, rival_draws=2,
              store_tokens=60_000, evaluated_tokens=40_000, evaluations=2, bound_mib=352, seed_documents=3_720, stage_replicates=200,
              stage_draws=(5, 20), exact_pairs=2, alternations=2, shape_share=0.25, topk_loop_tokens=300, half_values=2_000_000, moment_rows=300_000,
              moment_loop_rows=2_000, silhouette_rows=(10_000, 1_000), pairs_bound_mib=None, starts=3)
FORM = 2  # of the JSON; raise it when a workload changes, so that runs are not compared that cannot be


def machine() -> dict[str, Any]:
    model = "unknown"
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        model = next((line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), model)
    return {"cpu": model, "cores": cores(), "system": platform.platform(), "load": load()}


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> list[float]:
    return [round(one, 1) for one in os.getloadavg()]


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("numpy", "scipy", "numba", "scikit-learn", "pandas", "polars", "pyarrow", "torch")}


def commit() -> str:
    """The commit, with + where tracked files differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Run:
    """Rows and stages as they are measured."""

    def __init__(self, sizes: Sizes, root: Path) -> None:
        self.sizes, self.root, self.begun = sizes, root, time.perf_counter()
        self.yard = Yard(sizes.yard_tokens)
        self.rows: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []
        self.memory: list[dict[str, Any]] = []
        self.start: list[dict[str, Any]] = []

    def say(self, what: str) -> None:
        print(f"[{time.perf_counter() - self.begun:5.0f} s] {what}", file=sys.stderr, flush=True)

    def seed_000(self) -> None:
        """Parts, then stages, whose kernels are then loaded."""
        world = Seed000.of(self.sizes.seed_000)
        few = min(2_000, world.shape.n_documents // 3)
        self.compare(Parts(world, few, self.sizes.stage_replicates, self.sizes.stage_draws[0]).all())
        self.say("stages")
        self.stages = stages.run(world, self.yard, self.sizes, min(2, cores()))

    def compare(self, workloads: Iterable[Workload]) -> None:
        """One after the other."""
        for workload in workloads:
            self.say(workload.name)
            self.rows += compare(workload, self.sizes.alternations)

    def shapes(self) -> None:
        """Top-k routing, 16-bit router outputs, vectors; torch comes with these."""
        sizes = self.sizes
        for shape, label in ((MIXTRAL_LIKE, "Mixtral-like"), (FINE_GRAINED, "fine-grained")):
            self.compare(topk.TopK(sizes.part_of(shape), sizes.topk_loop_tokens, label).all())
        self.compare(router_rows.entropies(sizes.half_values))
        self.compare([router_rows.moments(sizes.moment_rows, sizes.moment_loop_rows)])
        self.compare([vectors.workload(*sizes.silhouette_rows)])

    def types_and_store(self) -> None:
        """Per-type statistics, bootstrap, matched null, trace store."""
        sizes = self.sizes
        samples = [Sample.of(sizes.tokens, vocabulary) for vocabulary in sizes.vocabularies]
        for sample in samples:
            self.compare([type_statistics.workload(sizes, sample), all_counts.workload(sample)])
        self.compare([bootstrap.workload(sizes, samples[0]), null.workload(sizes, samples[0])])
        self.compare(store.workloads(self.root / "store", Sample.of(sizes.store_tokens, 2_048)))

    def processes(self) -> None:
        """What needs a process of its own."""
        self.say("start of commands")
        self.start = start.rows(self.sizes.starts)
        if not sys.platform.startswith("linux"):
            self.say("peak memory and its bound are measured on Linux only: evaluate() and the streamed traces are left out")
            return
        self.say("memory of the stages")
        self.memory = evaluation.child("seed_000", self.root, self.sizes.seed_documents)
        self.say("evaluate()")
        self.rows.append(evaluation.whole_evaluation(self.root / "evaluate", self.sizes))
        self.say("a trace larger than memory")
        self.rows.append(evaluation.beyond_memory(self.root / "beyond", self.sizes))
        if self.sizes.pairs_bound_mib is None:
            self.say("joint tables of a trace larger than memory: left out of the quick bench")
        else:
            self.rows.append(evaluation.pairs_beyond_memory(self.root / "pairs", self.sizes.pairs_bound_mib))


def measure(sizes: Sizes, root: Path) -> dict[str, Any]:
    """Everything, the yard first and last."""
    what, one = machine(), Run(sizes, root)
    with threadpool_limits(1):
        one.yard.walk()
        one.seed_000()
        one.yard.walk()
        one.shapes()
        one.yard.walk()
        one.types_and_store()
        one.processes()
        one.yard.walk()
    one.say("done")
    found = {"form": FORM, "sizes": vars(sizes), "machine": what | {"load_after": load()}, "versions": versions(), "commit": commit(),
             "yard_s": one.yard.passes, "wall_s": time.perf_counter() - one.begun, "rows": one.rows, "stages": one.stages, "memory": one.memory,
             "start": one.start}
    return found | {"gates": stages.gates(found)}


def _measured(quick: bool) -> dict[str, Any]:
    """As it will be read back."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as root:
        found: dict[str, Any] = json.loads(json.dumps(measure(SHORT if quick else LONG, Path(root))))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under two minutes")
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    parser.add_argument("--markdown", type=Path, help="write the tables as a page")
    parser.add_argument("--against", type=Path, help="JSON of an earlier run, to show its ratios beside this one's")
    parser.add_argument("--read", type=Path, help="JSON of an earlier run: measure nothing, write its tables")
    asked = parser.parse_args(arguments)
    measured = json.loads(asked.read.read_text()) if asked.read else _measured(asked.quick)
    if measured["form"] != FORM:
        raise ValueError(f"--read: {asked.read} is of another form of the bench; run it again")
    print(report.whole(measured))
    if asked.out:
        asked.out.write_text(json.dumps(measured, indent=1) + "\n")
    if asked.markdown:
        asked.markdown.parent.mkdir(parents=True, exist_ok=True)
        asked.markdown.write_text(report.page(measured))
    if asked.against:
        print("\n" + report.changes(json.loads(asked.against.read_text()), measured))


if __name__ == "__main__":
    main()
