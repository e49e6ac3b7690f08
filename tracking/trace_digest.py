"""SHA-256 over a trace's logical columns: the same for the same rows, however they are compressed, cut into shards, or ordered.

T token (row).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, LayerMeta, TraceBatch
from tracking.shards import column_of

PIECE_ROWS = 8192


class TraceDigest:
    """Takes batches of whole documents in any order; holds 32 bytes a document."""

    def __init__(self, layers: Sequence[LayerMeta], columns: Sequence[str]) -> None:
        self._layers, self._columns = layers, tuple(columns)
        self._documents: dict[int, tuple[int, bytes]] = {}

    def add(self, batch: TraceBatch) -> None:
        """Hash the rows of each document of `batch`, which are together and ordered by position."""
        edges = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1], True]) if len(batch) else np.zeros(0, int)
        sources = self._sources(batch)
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist()):
            running = hashlib.sha256()
            for piece in range(start, stop, PIECE_ROWS):
                running.update(_rows(sources, piece, min(piece + PIECE_ROWS, stop)))
            self._documents[int(batch.document[start])] = (stop - start, running.digest())

    def _sources(self, batch: TraceBatch) -> list[NDArray[np.uint8]]:
        arrays = [batch.position, batch.token_id, *(column_of(batch, name) for name in self._columns)]
        return [np.ascontiguousarray(array).view(np.uint8).reshape(len(batch), -1) for array in arrays]

    def value(self, documents: Iterable[DocumentRow]) -> str:
        """The digest, hexadecimal: columns with their types, then every document that has rows, by number, with id, domain and split."""
        total = hashlib.sha256(json.dumps(["position:int32", "token_id:int32", *map(self._typed, self._columns)]).encode())
        for row in sorted(documents, key=lambda row: row.document):
            if row.document in self._documents:
                n_rows, digest = self._documents[row.document]
                total.update(json.dumps([row.document, row.id, row.domain, row.split, n_rows]).encode() + digest)
        return total.hexdigest()

    def _typed(self, name: str) -> str:
        family, _, index = name.partition("/")
        layer = self._layers[int(index)]
        types = {"ids": f"{layer.id_dtype}x{layer.top_k}", "weights": f"float16x{layer.top_k}", "dropped": "uint8"}
        return f"{name}:{types.get(family, 'float32')}"


def _rows(sources: Sequence[NDArray[np.uint8]], start: int, stop: int) -> bytes:
    """The bytes of rows start to stop, row by row."""
    return np.concatenate([source[start:stop] for source in sources], axis=1).tobytes()


