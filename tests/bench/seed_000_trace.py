"""Writes the world of seed 000 as a trace, to put the whole command to the seed's size: python -m tests.bench.seed_000_trace DIRECTORY."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.worlds import SEED_000, Shape, documents_of, meta_of, planes_of, trace_of
from tracking.traces import TraceWriter


def write(directory: Path, shape: Shape = SEED_000) -> None:
    """Store the trace, 30 % of its documents in calibration."""
    documents = [replace(row, split="calibration" if number % 10 < 3 else "test") for number, row in enumerate(documents_of(shape))]
    trace = trace_of(shape, planes=planes_of(shape))
    writer = TraceWriter.create_or_resume(directory, meta_of(shape), documents)
    for number, batch in enumerate(trace.batches()):
        if number not in writer.finished:
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
    writer.finish()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
