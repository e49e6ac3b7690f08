"""From documents to tokens: which documents are routed, and how often each token type occurs in the ones that are not judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, TraceBatch
from experiments.corpora import Corpus, Document
from experiments.sources import TokenDocument
from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from experiments.sources.huggingface import HuggingFaceSource

ROUTED = ("calibration", "test")
TOKENIZE_AT_ONCE = 256  # documents


def routed_documents(corpus: Corpus, source: HuggingFaceSource) -> tuple[TokenDocument, ...]:
    """Calibration and test documents as the model's tokenizer sees them, numbered from 0; documents without a token are left out.

    Raises SourceError where the tokenizer makes a token of none of them.
    """
    documents = [one for one in corpus.documents if one.split in ROUTED]
    tokens = _tokenize(documents, source)
    kept = [(document, ids) for document, ids in zip(documents, tokens, strict=True) if len(ids)]
    if documents and not kept:
        raise SourceError(f"model {source.meta.model!r}: its tokenizer makes no token of any of {len(documents)} documents; "
                          "does the checkpoint have its tokenizer.json?")
    return tuple(TokenDocument(number, document.id, document.domain, document.split, tuple(ids))
                 for number, (document, ids) in enumerate(kept))


def _tokenize(documents: Sequence[Document], source: HuggingFaceSource) -> list[list[int]]:
    texts = [document.text for document in documents]
    return [ids for start in range(0, len(texts), TOKENIZE_AT_ONCE) for ids in source.tokenize(texts[start:start + TOKENIZE_AT_ONCE])]


@dataclass(frozen=True)
class TypeCounts:
    """Occurrences of token types in train and calibration documents, as a sparse matrix in three arrays.

    indptr [D+1], indices [n], counts [n] (int64): CSR of documents x vocabulary; domains: of each document.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    counts: NDArray[np.int64]
    vocabulary_size: int
    domains: tuple[str, ...]

    def matrix(self) -> csr_matrix:
        """The counts as scipy.sparse CSR [D, V]."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.counts, self.indices, self.indptr), shape=(len(self.indptr) - 1, self.vocabulary_size))


def counts_of_rows(documents: Sequence[DocumentRow], batches: Iterable[TraceBatch], vocabulary_size: int) -> TypeCounts:
    """Count token types in the given rows of a trace, document by document; for a trace whose texts are not at hand."""
    from scipy.sparse import csr_matrix

    place = {row.document: number for number, row in enumerate(documents)}
    counts = csr_matrix((len(documents), vocabulary_size), dtype=np.int64)
    for batch in batches:
        rows = np.array([place[document] for document in batch.document.tolist()], np.int64)
        counts += csr_matrix((np.ones(len(batch), np.int64), (rows, batch.types)), shape=counts.shape)
    return TypeCounts(counts.indptr.astype(np.int64), counts.indices.astype(np.int32), counts.data, vocabulary_size,
                      tuple(row.domain for row in documents))


def type_counts(corpus: Corpus, source: HuggingFaceSource) -> TypeCounts:
    """Count token types in train and calibration documents, which need a tokenizer but no model."""
    documents = [one for one in corpus.documents if one.split in ("train", "calibration")]
    rows = [np.unique(np.asarray(ids, dtype=np.int64), return_counts=True) for ids in _tokenize(documents, source)]
    indptr = np.concatenate(([0], np.cumsum([len(types) for types, _ in rows]))).astype(np.int64)
    empty: list[NDArray[Any]] = [np.zeros(0, np.int64)]
    return TypeCounts(indptr, np.concatenate([types for types, _ in rows] or empty).astype(np.int32),
                      np.concatenate([counts for _, counts in rows] or empty).astype(np.int64), source.meta.vocabulary_size,
                      tuple(document.domain for document in documents))
