"""Collect: routing of calibration and test documents into the trace store; type counts of the documents that are not judged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.trace import DocumentRow
from experiments.collected import whole_collection
from experiments.collection import TypeCounts, routed_documents, type_counts
from experiments.evaluation_files import plain
from experiments.stages.context import Context
from tracking.atomic import write_bytes, write_json

TYPE_COUNTS = "frequency/type_counts.npz"


def run(context: Context) -> dict[str, Any]:
    """Collect what is not collected yet; a document is never counted twice."""
    from tracking.traces import TraceWriter

    source = context.source
    _keep_type_counts(context)
    documents = routed_documents(context.corpus, source)
    rows = [DocumentRow(one.document, one.id, one.domain, one.split) for one in documents]
    writer = TraceWriter.create_or_resume(context.directory / "trace", source.meta, rows)
    report = source.collect(documents, writer, context.progress)
    writer.finish()
    write_json(context.directory / "trace" / "collection.json", plain(whole_collection(report, context.trace.manifest.events)))
    return {"digest": context.trace.digest, "rows": context.trace.n_tokens}


def _keep_type_counts(context: Context) -> None:
    keep_type_counts(context, type_counts(context.corpus, context.source), context.source.token_strings())


def keep_type_counts(context: Context, counts: TypeCounts, strings: Sequence[str]) -> None:
    """Write the type counts and the strings of the types, where kept_type_counts and the evidence find them."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, indptr=counts.indptr, indices=counts.indices, counts=counts.counts, vocabulary_size=counts.vocabulary_size,
                        domains=np.array(counts.domains))
    write_bytes(context.directory / TYPE_COUNTS, buffer.getvalue())
    write_json(context.directory / "frequency" / "token_strings.json", list(strings))


def kept_type_counts(context: Context) -> TypeCounts:
    """The type counts of this run, as the collect stage kept them."""
    with np.load(context.directory / TYPE_COUNTS, allow_pickle=False) as stored:
        return TypeCounts(stored["indptr"], stored["indices"], stored["counts"], int(stored["vocabulary_size"]),
                          tuple(stored["domains"].tolist()))
