"""Rows of any kind: the audit ends, counts no more than there is, and finds the worst; nothing warns and nothing is changed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.audit import audit
from analysis.audit.of_documents import Keys
from analysis.trace import TraceBatch
from tests.analysis.audit.flaws import rows, whole, with_rows
from tests.analysis.audit.worlds import World, clean
from tests.references.memory_trace import MemoryTrace

SMALL = World(documents=40, length=20, layers=2, experts=8)


def junk(seed: int) -> MemoryTrace:
    """A clean trace with rows out of order and columns overwritten by what no source should write."""
    rng = np.random.default_rng(seed)
    trace = clean(SMALL, seed)
    batch = rows(whole(trace), rng.integers(0, len(whole(trace)), int(rng.integers(1, 600))))
    ids = tuple(rng.integers(-2, 12, one.shape).astype(np.int32) if rng.random() < 0.4 else one for one in batch.ids)
    weights = None if batch.weights is None or rng.random() < 0.2 else tuple(
        np.where(rng.random(one.shape) < 0.1, rng.choice([np.nan, np.inf, -np.inf, -1.0]), one).astype(np.float16) for one in batch.weights)
    assert batch.entropy_nats is not None
    entropy = np.where(rng.random(batch.entropy_nats.shape) < 0.2, rng.choice([np.nan, np.inf, -3.0, 99.0]), batch.entropy_nats).astype(np.float32)
    position = batch.position + rng.choice([0, 0, 2**30]).astype(np.int32)
    dropped = (rng.integers(0, 4, len(batch)).astype(np.uint8), None) if rng.random() < 0.3 else None
    mixed = TraceBatch(batch.document, position.astype(np.int32), None if rng.random() < 0.3 else batch.token_id, ids, weights, entropy,
                       batch.simpson if rng.random() < 0.5 else None, batch.top1_prob if rng.random() < 0.5 else None, dropped)
    cuts = np.sort(rng.integers(0, len(mixed), 3))
    parts = [rows(mixed, slice(a, b)) if dropped is None else mixed for a, b in zip([0, *cuts], [*cuts, len(mixed)])][:1 if dropped else 4]
    return replace(trace, shards=parts)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.filterwarnings("error")
def test_any_rows_end_in_findings(seed: int) -> None:
    trace = junk(seed)
    before = [one.tobytes() for shard in trace.shards for one in shard.ids]
    found = audit(trace)
    for one in found:
        assert 0 < one.count <= max(one.of, 1) or one.code == "few_documents"
        json.dumps(one.to_json(), allow_nan=False)
    assert found == audit(trace)
    assert [one.tobytes() for shard in trace.shards for one in shard.ids] == before
    codes = {one.code for one in found}
    signed = any(bool(((one < 0) | (one >= 8)).any()) for shard in trace.shards for one in shard.ids)
    assert ("ids_beyond_range" in codes) == signed


def test_keys_are_counted_as_a_set_counts_them() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        keys, seen = Keys(), set()
        for _ in range(int(rng.integers(1, 6))):
            document, position = rng.integers(0, 4, 50), rng.integers(0, 60, 50)
            keys.add((document << 32) + position)
            seen |= set(zip(document.tolist(), position.tolist()))
        assert keys.covered(4).tolist() == [sum(one == number for one, _ in seen) for number in range(4)]


def test_more_of_a_flaw_counts_more() -> None:
    trace = clean(SMALL)
    batch, counts = whole(trace), []
    for n in (1, 7, 60):
        index = np.sort(np.r_[np.arange(len(batch)), np.arange(n) * 3])
        counts.append({one.code: one.count for one in audit(with_rows(trace, rows(batch, index)))}["duplicate_keys"])
    assert counts == [1, 7, 60]
