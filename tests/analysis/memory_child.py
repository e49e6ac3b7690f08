"""Counts a small trace with `backend` within MIB of address space beyond what numpy holds: python -m tests.analysis.memory_child BACKEND MIB."""

import hashlib
import resource
import sys
from pathlib import Path

import numpy as np

from analysis import counts as counting
from analysis.counts import CountPlan, RoutingCounts, accumulate
from tests.references.memory_trace import Shape, sample_trace

TRACE, _ = sample_trace(3, Shape(n_test=12, n_calibration=5, n_train=3, length=30, vocabulary=25), shard=4)
PLAN = CountPlan("test", "0", np.array([[0.5, 0.6], [0.3, 0.3]]))


def digest(counts: RoutingCounts) -> str:
    """SHA-256 of sums of every kind."""
    columns = [counts.n, counts.entropy, counts.entropy_LV, counts.below_HLD, counts.histogram, *(c.weight for c in counts.choices)]
    return hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()


def main(backend: str, mib: int) -> None:
    size = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize:"))
    limit = (size << 10) + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counting.COMPILED_FROM = 0
    try:
        print(digest(accumulate(TRACE, PLAN, None if backend == "chosen" else backend)), "numba" in sys.modules)
    except MemoryError as error:
        print("refused:", error)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
