"""One Parquet shard of a trace: rows of whole documents to bytes and back, layer by layer.

T token (row), L MoE layer, K slot in the top-k. Little-endian.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceError

if TYPE_CHECKING:
    import pyarrow as pa

FAMILIES = ("ids", "weights", "entropy_nats", "simpson", "top1_prob", "dropped")
REALS = ("entropy_nats", "simpson", "top1_prob")
PLACE = ("document", "position")
TYPES = "token_id"  # int32, absent where the source did not record it
GROUP_ROWS = 65_536  # rows of a row group, the unit that is read at once; a longer document has one of its own
METADATA = b"assay"

if sys.byteorder != "little":
    raise ImportError("traces are little-endian; this machine is not")


def column_name(family: str, layer: int) -> str:
    """Name of one layer's column, such as ids/03."""
    return f"{family}/{layer:02d}"


def column_of(batch: TraceBatch, name: str) -> NDArray[Any]:
    """The values of the column called `name`: [T], or [T, K] for ids and weights."""
    if name == TYPES:
        return batch.types
    family, _, layer = name.partition("/")
    column: NDArray[Any] = getattr(batch, family)[int(layer)]
    return column


def columns_of(batch: TraceBatch, layers: Sequence[LayerMeta]) -> list[str]:
    """Names of the columns that `batch` fills beside document and position, in the order of files and digests."""
    names = [] if batch.token_id is None else [TYPES]
    for family in FAMILIES:
        column = getattr(batch, family)
        if column is not None:
            names += [column_name(family, index) for index in range(len(layers)) if column[index] is not None]
    return names


def canonical(batch: TraceBatch, layers: Sequence[LayerMeta]) -> TraceBatch:
    """The batch with rows by (document, position), narrow ids, and every array contiguous."""
    order: Any = slice(None)
    if not _ordered(batch):
        order = np.lexsort((batch.position, batch.document))

    def rows(array: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
        return np.ascontiguousarray(array[order], dtype=dtype)

    return TraceBatch(
        rows(batch.document), rows(batch.position), None if batch.token_id is None else rows(batch.token_id),
        ids=tuple(rows(ids, layer.id_dtype) for ids, layer in zip(batch.ids, layers)),
        weights=None if batch.weights is None else tuple(rows(weights) for weights in batch.weights),
        dropped=None if batch.dropped is None else tuple(None if mask is None else rows(mask) for mask in batch.dropped),
        **{name: None if getattr(batch, name) is None else np.ascontiguousarray(getattr(batch, name)[:, order]) for name in REALS})


def _ordered(batch: TraceBatch) -> bool:
    document, position = batch.document, batch.position
    return bool(np.all((document[1:] > document[:-1]) | ((document[1:] == document[:-1]) & (position[1:] > position[:-1]))))


def chosen_rows(batch: TraceBatch, rows: NDArray[np.bool_]) -> TraceBatch:
    """The rows of a batch for which `rows` [T] is True."""
    def parts(column: tuple[Any, ...] | None) -> Any:
        return None if column is None else tuple(None if part is None else part[rows] for part in column)

    reals = {name: None if getattr(batch, name) is None else getattr(batch, name)[:, rows] for name in REALS}
    return TraceBatch(batch.document[rows], batch.position[rows], None if batch.token_id is None else batch.token_id[rows],
                      ids=parts(batch.ids), weights=parts(batch.weights), dropped=parts(batch.dropped), **reals)


def encode(batch: TraceBatch, layers: Sequence[LayerMeta], documents: Mapping[int, DocumentRow], metadata: Mapping[str, Any]) -> bytes:
    """A canonical batch as a Parquet file: zstd-1, page checksums, row groups that never cut a document. metadata: kept in the file."""
    import io

    import pyarrow.parquet as pq

    table = _table(batch, layers, documents).replace_schema_metadata({METADATA: json.dumps(metadata).encode()})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", compression_level=1, use_dictionary=["domain", "split"],
                          write_statistics=False, write_page_checksum=True) as writer:
        for start, stop in _groups(batch.document):
            writer.write_table(table.slice(start, stop - start), row_group_size=stop - start)
    return buffer.getvalue()


def _groups(document: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold whole documents, as many as fit in GROUP_ROWS, at least one."""
    ends = np.append(np.flatnonzero(document[1:] != document[:-1]) + 1, len(document))
    start = 0
    while start < len(document):
        fitting = ends[(ends > start) & (ends <= start + GROUP_ROWS)]
        stop = int(fitting[-1]) if len(fitting) else int(ends[ends > start][0])
        yield start, stop
        start = stop


def _table(batch: TraceBatch, layers: Sequence[LayerMeta], documents: Mapping[int, DocumentRow]) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {name: pa.array(getattr(batch, name)) for name in PLACE}
    numbers, inverse = np.unique(batch.document, return_inverse=True)
    for name in ("domain", "split"):
        words = [getattr(documents[int(number)], name) for number in numbers]
        kinds = sorted(set(words))
        code = np.array([kinds.index(word) for word in words], dtype=np.int32)
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(code[inverse], pa.int32()), pa.array(kinds, pa.string()))
    for name in columns_of(batch, layers):
        array = column_of(batch, name)
        columns[name] = _fixed(array) if array.ndim == 2 else pa.array(array)
    return pa.table(columns)


def _fixed(array_TK: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    import pyarrow as pa

    n_rows, k = array_TK.shape
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(k * array_TK.itemsize), n_rows, [None, pa.py_buffer(array_TK)])


def footer_sha256(file: BinaryIO) -> str:
    """SHA-256 of a Parquet file's footer, which page checksums do not cover: a flipped bit in it can make levels read as values.

    A file too short to have one gives the digest of what there is.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, n_bytes - 8))
    (length,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
    file.seek(max(0, n_bytes - 8 - length))
    return hashlib.sha256(file.read()).hexdigest()


def read_batches(path: Path, layers: Sequence[LayerMeta], chosen: Sequence[int], families: Sequence[str]) -> Iterator[TraceBatch]:
    """Rows of a shard, one batch per row group, with the chosen layers and column families only; page checksums are verified.

    Raises TraceError for what pyarrow refuses. The footer is the caller's to check.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            there = set(file.schema_arrow.names)
            wanted = [TYPES] if TYPES in there else []
            wanted += [name for family in families for layer in chosen if (name := column_name(family, layer)) in there]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=[*PLACE, *wanted], use_threads=False)
                yield _batch(table, layers, chosen, families)
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        raise TraceError(f"{path}: cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}") from error


def _batch(table: pa.Table, layers: Sequence[LayerMeta], chosen: Sequence[int], families: Sequence[str]) -> TraceBatch:
    plain = (*PLACE, TYPES) if TYPES in table.column_names else PLACE
    columns: dict[str, Any] = {"ids": (), TYPES: None} | {name: _values(table[name], np.dtype(np.int32)) for name in plain}
    for family in families:
        parts = [_layer_column(table, family, layer, layers[layer]) for layer in chosen]
        if any(part is not None for part in parts):
            columns[family] = np.stack(parts) if family in REALS else tuple(parts)  # type: ignore[arg-type]
    return TraceBatch(**columns)


def _layer_column(table: pa.Table, family: str, index: int, layer: LayerMeta) -> NDArray[Any] | None:
    name = column_name(family, index)
    if name not in table.column_names:
        return None
    if family in ("ids", "weights"):
        return _values(table[name], layer.id_dtype if family == "ids" else np.dtype(np.float16), layer.top_k)
    return _values(table[name], np.dtype(np.uint8 if family == "dropped" else np.float32))


def _values(column: pa.ChunkedArray, dtype: np.dtype[Any], k: int = 0) -> NDArray[Any]:
    """The column's values [T], or [T, K], copied out of Arrow. Raises TraceError where its type, width or nulls are not ours."""
    import pyarrow as pa

    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    expected = pa.binary(k * dtype.itemsize) if k else pa.from_numpy_dtype(dtype)
    if array.type != expected or array.null_count:
        raise TraceError(f"a column is {array.type} with {array.null_count} nulls, expected {expected} without")
    width = max(k, 1)
    values = np.zeros(0, dtype)
    if len(array):
        values = np.frombuffer(array.buffers()[1], dtype, len(array) * width, array.offset * width * dtype.itemsize).copy()
    return values.reshape(len(array), k) if k else values


def metadata_of(path: Path) -> dict[str, Any]:
    """What `encode` was given as metadata; empty where the file cannot say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = json.loads((pq.read_schema(path).metadata or {})[METADATA])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
