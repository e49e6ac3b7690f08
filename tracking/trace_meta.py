"""What a trace's manifest says about its rows: meta and documents as plain values, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.trace import SPLITS, DocumentRow, LayerMeta, TraceError, TraceMeta

SHOWN = 20  # differences in one message


def meta_to_json(meta: TraceMeta) -> dict[str, Any]:
    """The meta as JSON gives it back. Raises TraceError for a value that JSON has not."""
    try:
        return dict(json.loads(json.dumps(asdict(meta), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise TraceError(f"TraceMeta.versions or .details: not plain JSON ({error}); "
                         "give strings, finite numbers, lists and mappings") from error


def meta_from_json(fields: Mapping[str, Any]) -> TraceMeta:
    """Inverse of meta_to_json."""
    layers = tuple(LayerMeta(**layer) for layer in fields["layers"])
    return TraceMeta(**{**fields, "layers": layers})


def fingerprint(value: Any) -> str:
    """SHA-256 of canonical JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def differences(was: Any, now: Any, name: str = "") -> list[tuple[str, str, str]]:
    """(field, was, is) of every leaf in which two JSON values differ, fields as dotted paths."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = list(was) + [key for key in now if key not in was]
        return [row for key in keys
                for row in differences(was.get(key, "absent"), now.get(key, "absent"), f"{name}.{key}" if name else str(key))]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [row for index, pair in enumerate(zip(was, now)) for row in differences(*pair, f"{name}[{index}]")]
    return [] if was == now and type(was) is type(now) else [(name, _shown(was), _shown(now))]


def _shown(value: Any) -> str:
    text = value if value == "absent" else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def difference_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """The rows under the heads field, was, is, in aligned columns; beyond SHOWN, a count."""
    shown = [("field", "was", "is"), *rows[:SHOWN]]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in shown]
    if len(rows) > SHOWN:
        lines.append(f"... and {len(rows) - SHOWN} more")
    return "\n".join(f"  {line}" for line in lines)


def check_meta(meta: TraceMeta) -> None:
    """Raise TraceError, naming layer and field, where a meta cannot describe rows."""
    if not meta.layers:
        raise TraceError("TraceMeta.layers is empty; a trace needs at least one MoE layer")
    if len({(layer.stack, layer.key) for layer in meta.layers}) != len(meta.layers):
        raise TraceError("TraceMeta.layers: two layers have the same key; give each router its own")
    for layer in meta.layers:
        if not 1 <= layer.top_k <= layer.n_experts <= 65536:
            raise TraceError(f"TraceMeta.layers {layer.key}: top_k {layer.top_k} of {layer.n_experts} experts; "
                             "1 <= top_k <= n_experts <= 65536")


def check_documents(documents: Sequence[DocumentRow], where: str) -> tuple[DocumentRow, ...]:
    """The documents by number. Raises TraceError for numbers or ids that occur twice, unknown splits, and names that UTF-8 cannot hold."""
    if not documents:
        raise TraceError(f"{where}: no documents were given; a trace needs at least one")
    numbers: dict[int, str] = {}
    ids: dict[str, int] = {}
    for row in documents:
        if not 0 <= row.document < 2**31:
            raise TraceError(f"{where}: document number {row.document} of {row.id!r} is outside int32; number documents from 0")
        if row.document in numbers or row.id in ids:
            raise TraceError(f"{where}: document {row.document} ({row.id!r}) occurs twice, as "
                             f"{numbers.get(row.document, row.id)!r}; every document has one number and one id")
        if row.split not in SPLITS:
            raise TraceError(f"{where}: document {row.id!r} is of split {row.split!r}; use one of {', '.join(SPLITS)}")
        try:
            f"{row.id}{row.domain}".encode()
        except UnicodeEncodeError as error:
            raise TraceError(f"{where}: document {row.id!r}: id or domain holds half a surrogate pair; give it a name in UTF-8") from error
        numbers[row.document], ids[row.id] = row.id, row.document
    return tuple(sorted(documents, key=lambda row: row.document))


def documents_table(documents: Sequence[DocumentRow]) -> bytes:
    """documents.parquet: document int32, id, domain and split as text."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"document": pa.array([row.document for row in documents], pa.int32()),
                      "id": pa.array([row.id for row in documents], pa.string()),
                      "domain": pa.array([row.domain for row in documents], pa.string()).dictionary_encode(),
                      "split": pa.array([row.split for row in documents], pa.string()).dictionary_encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1, write_page_checksum=True)
    return buffer.getvalue()


def read_documents(path: Path) -> tuple[DocumentRow, ...]:
    """Inverse of documents_table."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, page_checksum_verification=True)
    columns = (table[name].to_pylist() for name in ("document", "id", "domain", "split"))
    return tuple(DocumentRow(*row) for row in zip(*columns))
