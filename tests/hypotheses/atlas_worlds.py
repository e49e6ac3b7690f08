"""Small corpora on which the atlas' controls are planted, and counts without documents."""

from __future__ import annotations

import numpy as np

from analysis.atlas_controls import Planting
from analysis.trace import CountsTrace
from tests.hypotheses.topology_worlds import corpus
from tests.references.memory_trace import MemoryTrace


def world(plan, base=None, seed=0, **shape):
    """Documents of `shape` with routing planted by a plan."""
    base = base or corpus(**{"domains": 3, "test": 60, "calibration": 5, **shape})
    return MemoryTrace(base.meta, base.documents, list(Planting.of(base, plan, seed).rows(base.batches())))


def counts_of(trace):
    """What is left of a trace when only its counts are kept."""
    names = sorted({row.domain for row in trace.documents})
    of = {row.document: names.index(row.domain) for row in trace.documents}
    tables = [np.zeros((len(names), layer.n_experts), np.int64) for layer in trace.meta.layers]
    tokens = np.zeros(len(names), np.int64)
    for batch in trace.batches():
        domain = np.array([of[one] for one in batch.document.tolist()])
        np.add.at(tokens, domain, 1)
        for table, ids in zip(tables, batch.ids):
            for slot in ids.T:
                np.add.at(table, (domain, slot), 1)
    return CountsTrace(trace.meta, tuple(names), tuple(tables), tokens=tokens)
