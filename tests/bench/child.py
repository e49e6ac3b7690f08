"""Work done in a process of its own, so that its peak memory is its own: python -m tests.bench.child WORK DIRECTORY [NUMBER]."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analysis.counts import CountPlan, RoutingCounts, accumulate
from analysis.trace import RoutingTrace, TraceError
from tracking.traces import StoredTrace

MAX_UNITS = 50
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
    found = evaluate(path, int(number)) if work == "evaluate" else bounded({"stream": stream, "whole": whole}[work], path, int(number))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
