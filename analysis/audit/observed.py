"""One pass over a trace: everything that the findings are made of, in memory that does not grow with the rows but by their keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.audit.blocks import BlockTally
from analysis.audit.hashing import Choices, rows_of, telling_layers
from analysis.audit.of_documents import DocumentTally
from analysis.audit.of_layers import LayersTally
from analysis.audit.words import declared_sum
from analysis.kernels import Int
from analysis.trace import RoutingTrace, TraceMeta


@dataclass(frozen=True)
class Observed:
    """What was seen of a trace. domains: labels; domain: number of each document's domain [D], by place in `documents.documents`."""

    meta: TraceMeta
    documents: DocumentTally
    layers: LayersTally
    blocks: BlockTally
    domains: tuple[str, ...]
    domain: Int

    @property
    def n_rows(self) -> int:
        """Rows that were read."""
        return self.layers.rows

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.key for layer in self.meta.layers)


def observe(trace: RoutingTrace, split: str | None = None) -> Observed:
    """Read the documents of `split` (all, if None) once. TraceError where a batch does not fit the meta or the list of documents."""
    meta = trace.meta
    kept = [one for one in trace.documents if split in (None, one.split)]
    documents = DocumentTally(kept)
    domains = tuple(dict.fromkeys(one.domain for one in documents.documents))
    domain = np.array([domains.index(one.domain) for one in documents.documents], np.int64)
    layers, blocks, choices = LayersTally(meta, declared_sum(meta.weights_mean)[1]), BlockTally(meta.layers, domain), Choices(meta.layers)
    telling = telling_layers(meta.layers)
    for batch in trace.batches(split=split):
        if not len(batch):
            continue
        sets = tuple(choices.sets(ids) for ids in batch.ids)
        rows = rows_of(batch, sets, documents.places(batch), documents.rows, telling)
        layers.add(rows, batch, sets)
        blocks.add(rows, batch)
        documents.add(rows, batch)
    return Observed(meta, documents, layers, blocks, domains, domain)
