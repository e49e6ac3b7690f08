"""SHA-256 over a trace's logical columns: the same for the same rows, however they are compressed, cut into shards, or ordered.

T token (row).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, LayerMeta, TraceBatch
from tracking.shards import TYPES, column_of

WORDS = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


class TraceDigest:
    """Takes batches of whole documents in any order; holds 32 bytes a document."""

    def __init__(self, layers: Sequence[LayerMeta], columns: Sequence[str]) -> None:
        self._layers, self._columns = layers, tuple(columns)
        self._documents: dict[int, tuple[int, bytes]] = {}

    def add(self, batch: TraceBatch) -> None:
        """Hash the rows of each document of `batch`, which are together and ordered by position."""
        if not len(batch):
            return
        edges = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1], True]).tolist()
        rows = _row_bytes([batch.position, *(column_of(batch, name) for name in self._columns)])
        for start, stop in zip(edges[:-1], edges[1:]):
            self._documents[int(batch.document[start])] = (stop - start, hashlib.sha256(rows[start:stop]).digest())

    def value(self, documents: Iterable[DocumentRow]) -> str:
        """The digest, hexadecimal: columns with their types, then every document that has rows, by number, with id, domain and split."""
        total = hashlib.sha256(json.dumps(["position:int32", *map(self._typed, self._columns)]).encode())
        for row in sorted(documents, key=lambda row: row.document):
            if row.document in self._documents:
                n_rows, digest = self._documents[row.document]
                total.update(json.dumps([row.document, row.id, row.domain, row.split, n_rows]).encode() + digest)
        return total.hexdigest()

    def _typed(self, name: str) -> str:
        if name == TYPES:
            return f"{name}:int32"
        family, _, index = name.partition("/")
        layer = self._layers[int(index)]
        types = {"ids": f"{layer.id_dtype}x{layer.top_k}", "weights": f"float16x{layer.top_k}", "dropped": "uint8"}
        return f"{name}:{types.get(family, 'float32')}"


def _row_bytes(columns: Sequence[NDArray[Any]]) -> memoryview:
    """The bytes of all columns, row by row: one item a row."""
    values = [np.ascontiguousarray(column).reshape(len(column), -1) for column in columns]
    widths = [value.shape[1] * value.itemsize for value in values]
    offsets = np.cumsum([0, *widths]).tolist()
    rows = np.empty((len(values[0]), offsets[-1]), dtype=np.uint8)
    for value, width, offset in zip(values, widths, offsets):
        word = np.dtype(WORDS.get(width, f"V{width}"))  # a row of a column as one word is copied ten times faster than as bytes
        target: NDArray[Any] = np.ndarray(len(rows), word, rows.data, offset, (offsets[-1],))
        target[:] = value.view(word)[:, 0]
    return rows.data
