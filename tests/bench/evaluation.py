"""The whole evaluation with its peak memory, and a trace larger than the memory it is counted in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from analysis.rows import take
from analysis.trace import DocumentRow, TraceBatch
from tests.bench.child import FREQUENCY, MAX_UNITS, count, digest_of_types, pairs_and_loads
from tests.bench.rows import Sample, Sizes, corpus_tokens, frequency_matrix, n_bytes
from tests.bench.worlds import HeldTrace, Shape, documents_of, meta_of, trace_of
from tracking.traces import TraceWriter

ROOT = Path(__file__).resolve().parents[2]
REPLICATES = 999
STREAMED = Shape("16 x 64, top-8", 60, 512, 16, 64, 8)  # a shard
LARGER = 1.25  # the streamed trace over its memory bound


def child(work: str, directory: Path, number: int) -> Any:
    """What `tests.bench.child` prints."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run([sys.executable, "-m", "tests.bench.child", work, str(directory), str(number)], cwd=ROOT, text=True,
                          env={**os.environ, **one_thread, "ARROW_DEFAULT_MEMORY_POOL": "system"}, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{work}: child ended with {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def write(directory: Path, meta: Any, documents: Sequence[DocumentRow], shards: Iterator[TraceBatch]) -> None:
    writer = TraceWriter.create_or_resume(directory, meta, documents)
    for number, batch in enumerate(shards):
        writer.write_shard(number, batch, np.unique(batch.document).tolist())
    writer.finish()


def sharded(batch: TraceBatch, per_shard: int) -> Iterator[TraceBatch]:
    """The same rows, `per_shard` documents a batch."""
    numbers = np.unique(batch.document)
    for start in range(0, len(numbers), per_shard):
        yield take(batch, np.isin(batch.document, numbers[start:start + per_shard]))


def whole_evaluation(root: Path, sizes: Sizes) -> dict[str, Any]:
    """A row: evaluate() in a child, by turns on the same rows in large and in small shards; the estimates must be the same bits."""
    from scipy.sparse import save_npz

    root.mkdir(parents=True)
    sample = Sample.of(sizes.evaluated_tokens, 2048, calibration=0.3)
    for name, per_shard in (("large", 64), ("small", 7)):
        write(root / name, sample.meta, sample.documents, sharded(sample.rows, per_shard))
    save_npz(root / FREQUENCY, frequency_matrix(corpus_tokens(sample, 600), sample.meta.vocabulary_size))
    found = [child("evaluate", root / ("large", "small")[i % 2], REPLICATES) for i in range(max(2, sizes.evaluations))]
    assert len({one["digest"] for one in found}) == 1, "the estimates depend on the shards"
    walls = [one["wall_s"] for one in found]
    return {"workload": "evaluate(), from the store to every estimate, null and table", "ours": _times(found),
            "rate": len(sample.rows) / median(walls), "unit": "tokens/s", "peak_mib": max(one["peak_mib"] for one in found),
            "before_mib": max(one["before_mib"] for one in found),
            "agreed": "the same estimates, bit for bit, from shards of 64 and of 7 documents",
            "note": f"{len(sample.rows):,} tokens x {len(sample.meta.layers)} layers, {len(sample.documents)} documents, B = {REPLICATES}, "
            f"99 null draws, {found[0]['estimates']} metrics"}


def beyond_memory(root: Path, sizes: Sizes) -> dict[str, Any]:
    """A row: one batch of documents written many times over, streamed through the counts by a child that may not hold it."""
    base = Sample.of(26_000, 2048)
    batch, n = base.rows, len(base.documents)
    copies = int(np.ceil(LARGER * sizes.bound_mib * 2**20 / n_bytes(batch)))
    documents = [DocumentRow(c * n + d.document, f"{d.id} copy {c}", d.domain, d.split) for c in range(copies) for d in base.documents]
    write(root, base.meta, documents, (replace(batch, document=(batch.document + c * n).astype(np.int32)) for c in range(copies)))
    found = child("stream", root, sizes.bound_mib)
    assert "refused" not in found, f"the stream does not fit in {sizes.bound_mib} MiB"
    assert found["digest"] == digest_of_types(count(base.trace), copies), "the stream's numbers are not those of its parts"
    held = child("whole", root, sizes.bound_mib)
    outcome = held.get("refused", f"fits, peak {held.get('peak_mib', 0):.0f} MiB")
    return {"workload": "a trace larger than memory, streamed through the counts", "ours": _times([found]),
            "rate": found["tokens"] / found["wall_s"], "unit": "tokens/s", "peak_mib": found["peak_mib"],
            "bound_mib": sizes.bound_mib, "trace_mib": copies * n_bytes(batch) / 2**20,
            "all_rows_held": outcome, "agreed": f"every sum per type is {copies} times that of the batch that was copied, bit for bit",
            "note": f"{found['tokens']:,} tokens x 4 layers, {copies * n_bytes(batch) / 2**20:.0f} MiB of arrays within RLIMIT_DATA "
            f"{sizes.bound_mib} MiB, {MAX_UNITS} units; holding all rows: {outcome}"}


def pairs_beyond_memory(root: Path, bound_mib: int) -> dict[str, Any]:
    """A row: joint tables and loads of a trace whose ids alone exceed the memory of the child that counts them; the same bits as in memory."""
    per_token = STREAMED.n_layers * STREAMED.top_k
    copies = int(np.ceil(LARGER * bound_mib * 2**20 / (per_token * STREAMED.rows)))
    shape = replace(STREAMED, n_documents=copies * STREAMED.n_documents)
    batch = trace_of(STREAMED, per_batch=STREAMED.n_documents).shards[0]
    shards = [replace(batch, document=(batch.document + c * STREAMED.n_documents).astype(np.int32)) for c in range(copies)]
    trace = HeldTrace(meta_of(shape), documents_of(shape), shards)  # its shards share their arrays
    write(root, trace.meta, trace.documents, iter(shards))
    found = child("pairs", root, bound_mib)
    assert "refused" not in found, f"the stream does not fit in {bound_mib} MiB"
    assert found["digest"] == pairs_and_loads(trace), "the streamed tables are not those in memory"
    held = child("whole", root, bound_mib)
    outcome, mib = held.get("refused", f"fits, peak {held.get('peak_mib', 0):.0f} MiB"), shape.rows * per_token / 2**20
    return {"workload": "a trace larger than memory, streamed into joint tables and loads", "ours": _times([found]),
            "rate": found["tokens"] / found["wall_s"], "unit": "tokens/s", "peak_mib": found["peak_mib"], "bound_mib": bound_mib,
            "trace_mib": mib, "all_rows_held": outcome, "agreed": "tables by group and loads by unit are those of the trace in memory, bit for bit",
            "note": f"{found['tokens']:,} tokens x {STREAMED.n_layers} layers, top-{STREAMED.top_k} of {STREAMED.n_experts}: {mib:.0f} MiB of ids "
            f"within RLIMIT_DATA {bound_mib} MiB, a pass for {STREAMED.n_layers - 1} pairs and one for loads; holding all rows: {outcome}"}


def _times(found: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [round(one[name], 4) for one in found] for name in ("wall_s", "cpu_s")}
