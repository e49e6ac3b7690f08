"""Corpus: the documents, split by hash; the run keeps what it needs to prove that they are the same later."""

from __future__ import annotations

from typing import Any

from experiments.collection import ROUTED
from experiments.corpora import CorpusError
from experiments.evaluation_files import plain
from experiments.stages.context import Context
from tracking.atomic import write_json


def run(context: Context) -> dict[str, Any]:
    """Load the corpus and keep its manifest: SHA-256s, counts per domain and split, what was dropped and why.

    Raises CorpusError where no document is left to route: before a model is trained for it.
    """
    documents = context.corpus.documents
    if not any(one.split in ROUTED for one in documents):
        raise CorpusError(f"corpus: none of its {len(documents)} documents falls into the splits {' and '.join(ROUTED)}; give more documents, "
                          "or raise corpus.test_share")
    manifest = plain(dict(context.corpus.manifest))
    write_json(context.directory / "corpus" / "manifest.json", manifest)
    return {"sha256": context.corpus.digest, "documents": len(documents)}
