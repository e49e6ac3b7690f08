"""Work done in a process of its own, so that its peak memory is its own: python -m tests.bench.child WORK DIRECTORY [NUMBER]."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.counts import CountPlan, RoutingCounts, accumulate
from analysis.loads import document_loads
from analysis.pair_counts import PairPlan, accumulate_pairs
from analysis.trace import RoutingTrace, TraceError
from tracking.traces import StoredTrace

MAX_UNITS, MAX_GROUPS = 50, 20
FREQUENCY = "frequency.npz"


def memory_mib(field: str) -> float:
    """A line of /proc/self/status. Not getrusage: its peak begins at that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) / 1024


def count(trace: RoutingTrace) -> RoutingCounts:
    """The counts of the streaming workload."""
    return accumulate(trace, CountPlan("test", "0", np.full((3, len(trace.meta.layers)), 0.5), max_units=MAX_UNITS))


def digest_of_types(counts: RoutingCounts, copies: int = 1) -> str:
    """SHA-256 of everything counted per type, as if the rows had been there `copies` times."""
    additive = [counts.n_V, counts.n_documents_V, counts.entropy_LV, counts.entropy_square_LV, counts.histogram, counts.position_V]
    additive += [column for choices in counts.choices for column in (choices.n, choices.first, choices.weight)]
    fixed = [counts.extremes_LV2, *(column for choices in counts.choices for column in (choices.type, choices.expert))]
    sha = hashlib.sha256()
    for array in [*(copies * column for column in additive), *fixed]:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def evaluate(directory: Path, replicates: int) -> dict[str, Any]:
    """The whole evaluation of the trace in `directory`, with the frequencies beside it."""
    from scipy.sparse import load_npz

    from hypotheses.var_evaluation import VarEvidence, VarSettings, evaluate

    frequency = load_npz(directory.parent / FREQUENCY)
    before, begun, cpu = memory_mib("VmHWM"), time.perf_counter(), time.process_time()
    settings = VarSettings(n_bootstrap=replicates, n_bootstrap_exploratory=min(replicates, VarSettings.n_bootstrap_exploratory))
    evaluation = evaluate(VarEvidence(StoredTrace.open(directory), frequency, (), settings))
    took = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    families = {name: [estimate] for name, estimate in evaluation.estimates.items()}
    families |= {f"{name} by layer": list(found) for name, found in evaluation.by_layer.items()}
    values = {name: [(e.value, e.low, e.high, e.null) for e in found] for name, found in families.items()}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return took | {"peak_mib": memory_mib("VmHWM"), "before_mib": before, "digest": digest, "estimates": len(evaluation.estimates)}


def stream(directory: Path) -> dict[str, Any]:
    """Count the trace in one pass."""
    begun, cpu = time.perf_counter(), time.process_time()
    counts = count(StoredTrace.open(directory))
    took = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    return took | {"digest": digest_of_types(counts), "tokens": counts.n_tokens, "peak_mib": memory_mib("VmHWM")}


def pairs_and_loads(trace: RoutingTrace) -> dict[str, str]:
    """SHA-256 of the joint tables of neighbouring layers by group of documents, and of the loads of folded documents."""
    layers = len(trace.meta.layers)
    plan = PairPlan("test", "0", tuple((layer, layer + 1) for layer in range(layers - 1)), max_groups=MAX_GROUPS)
    counts, loads = accumulate_pairs(trace, plan, "numba"), document_loads(trace, "test", max_units=MAX_UNITS, backend="numba")
    parts = {"pairs": [counts.groups(pair).tables[0] for pair in counts.pairs], "loads": [*loads.selected, *loads.first, loads.tokens]}
    return {name: _digest(arrays) for name, arrays in parts.items()}


def _digest(arrays: Iterable[NDArray[Any]]) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def pairs(directory: Path) -> dict[str, Any]:
    """Count layer pairs and loads, a pass each."""
    begun, cpu = time.perf_counter(), time.process_time()
    trace = StoredTrace.open(directory)
    digest = pairs_and_loads(trace)
    took = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    return took | {"digest": digest, "tokens": trace.n_tokens, "peak_mib": memory_mib("VmHWM")}


def seed_000(n_documents: int) -> list[dict[str, Any]]:
    """Peak memory of each stage of seed 000's statistics on top of the trace, which is held twice: as read, and layer by layer."""
    from dataclasses import replace

    from tests.bench.seed_000 import Seed000
    from tests.bench.worlds import SEED_000

    small, world = (Seed000.of(replace(SEED_000, n_documents=n)) for n in (60, n_documents))
    out = []
    for one in (small, world):  # the first loads every kernel
        of_stages = {"a": one.point_estimates, "b": lambda one=one: one.errors(1_000), "c, d": lambda one=one: one.shifts(2)}
        assert one.kept
        for name, run in of_stages.items():
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held
            before = memory_mib("VmHWM")
            run()
            if one is world:
                out.append({"name": f"stage {name}", "peak_mib": memory_mib("VmHWM"), "before_mib": before})
    return out


def whole(directory: Path) -> dict[str, Any]:
    """Hold every row at once, as a script does that reads first and counts then."""
    held = list(StoredTrace.open(directory).batches())
    return {"tokens": sum(len(batch) for batch in held), "peak_mib": memory_mib("VmHWM")}


def bounded(work: Callable[[Path], dict[str, Any]], directory: Path, mib: int) -> dict[str, Any]:
    """The work with at most `mib` MiB of private memory (RLIMIT_DATA); a refusal is said, not raised."""
    resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, mib << 20))
    try:
        return work(directory)
    except (MemoryError, TraceError) as error:
        if isinstance(error, TraceError) and "alloc" not in str(error):
            raise
    return {"refused": "out of memory"}


def main(work: str, directory: str, number: str) -> None:
    path = Path(directory)
    if work == "seed_000":
        found: Any = seed_000(int(number))
    elif work == "evaluate":
        found = evaluate(path, int(number))
    else:
        found = bounded({"stream": stream, "pairs": pairs, "whole": whole}[work], path, int(number))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
