"""Plain Parquet, JSON lines and npz as arrays by role, as a mapping says; documents, layers and slots are put in order by `mapped`.

n row of the table, K slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _json, _npz
from experiments.readers._columns import begins_as_parquet, parquet_batches, parquet_names
from experiments.readers._mapping import AXES, TableMapping
from experiments.readers.contract import ReadError

LISTS = ("ids", "weights")
WHOLE = ("position", "token_id", "layer", "slot", "ids", "expert")


@dataclass(frozen=True)
class Table:
    """Columns by role. document, domain: text [n]; position, token_id, layer, slot: int64 [n]; ids, weights: [n, K], or [n, L, K] with `depths`."""

    document: NDArray[Any]
    domain: NDArray[Any] | None
    position: NDArray[np.int64] | None
    token_id: NDArray[np.int64] | None
    layer: NDArray[np.int64] | None
    slot: NDArray[np.int64] | None
    ids: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    depths: tuple[int, ...] | None


def load(path: Path, mapping: TableMapping) -> Table:
    """The table of a file, whichever of the three it is. ReadError names file, row and field."""
    if _npz.is_archive(path):
        return _of_npz(path, mapping)
    if begins_as_parquet(path):
        columns = _of_parquet(path, mapping)
    elif _json.begins(path, b"{"):
        columns = _of_jsonl(path, mapping)
    else:
        raise ReadError(f"{path}: neither Parquet nor JSON lines nor npz; only these are read by a mapping")
    return _table(path, mapping, columns)


def _wanted(path: Path, mapping: TableMapping, names: Iterable[str]) -> list[str]:
    """Columns that the mapping names; every role must be found."""
    known, found = list(names), []
    for role in mapping.columns:
        pattern = mapping.pattern(role)
        matching = [name for name in known if pattern.fullmatch(name)]
        if not matching:
            raise ReadError(f"{path}: column {mapping.columns[role]!r} ({role}): absent; the table has {', '.join(map(repr, known[:20]))}: correct "
                            f"{mapping.path}")
        found += matching
    return list(dict.fromkeys(found))


def _of_parquet(path: Path, mapping: TableMapping) -> dict[str, Any]:
    import pyarrow as pa

    wanted = _wanted(path, mapping, parquet_names(path))
    batches = list(parquet_batches(path, wanted))
    if not batches:
        raise ReadError(f"{path}: no row in it")
    table = pa.Table.from_batches(batches)
    return {name: _of_arrow(table[name].combine_chunks(), f"{path}: column {name!r}") for name in wanted}


def _of_arrow(column: Any, where: str) -> Any:
    import pyarrow as pa

    if column.null_count:
        raise ReadError(f"{where}: {column.null_count} rows have none; every row needs one")
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _of_arrow(column.dictionary_decode(), where)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        flat = column.flatten()
        sizes = np.array([0]) if not len(column) else np.asarray(pa.compute.list_value_length(column))
        if flat.null_count or (sizes != sizes[0]).any():
            row = 0 if flat.null_count else int(np.flatnonzero(sizes != sizes[0])[0])
            raise ReadError(f"{where}: row {row}: {int(sizes[row])} entries{', some of them none' if flat.null_count else ''}; the first row has "
                            f"{int(sizes[0])}: k is the same for all tokens")
        return _of_arrow(flat, where).reshape(len(column), int(sizes[0]))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=object)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.to_numpy(zero_copy_only=False)
    raise ReadError(f"{where}: {kind}; numbers, text and lists of numbers are read")


def _of_jsonl(path: Path, mapping: TableMapping) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {}
    for number, _, line in _json.lines(path):
        where = f"{path}: line {number}"
        record = _json.parse(line, where)
        if not isinstance(record, dict):
            raise ReadError(f"{where}: no record; write one object a line")
        if not columns:
            columns = {name: [] for name in _wanted(path, mapping, record)}
        for name, values in columns.items():
            if name not in record:
                raise ReadError(f"{where}: field {name}: absent; the first line has it")
            values.append(_plain(record[name], f"{where}: field {name}", values))
    if not columns:
        raise ReadError(f"{path}: no record in it")
    return {name: np.array(values, dtype=object if isinstance(values[0], str) else None) for name, values in columns.items()}


def _plain(value: Any, where: str, before: Sequence[Any]) -> Any:
    """A number, text, or a list of numbers as long as those before."""
    members = value if isinstance(value, list) else [value]
    if isinstance(value, str) or (members and all(type(one) in (int, float) and abs(one) < 2**63 for one in members)):
        if before and (type(before[0]) is list or type(value) is list or isinstance(value, str) != isinstance(before[0], str)) and (
                type(before[0]) is not type(value) or (isinstance(value, list) and len(before[0]) != len(value))):
            raise ReadError(f"{where}: {str(value)[:80]!r}, but the first line has {str(before[0])[:80]!r}; k is the same for all tokens")
        return value
    raise ReadError(f"{where}: {str(value)[:80]!r}; numbers, text and lists of numbers are read")


def _table(path: Path, mapping: TableMapping, columns: Mapping[str, Any]) -> Table:
    ids, depths = _choices(path, mapping, columns, "expert" if mapping.form == "slot" else "ids")
    weights, weight_depths = _choices(path, mapping, columns, "weight" if mapping.form == "slot" else "weights")
    if ids is None or (weights is not None and (weights.shape != ids.shape or weight_depths != depths)):
        raise ReadError(f"{path}: columns of ids and weights: {None if ids is None else ids.shape[1:]} and "
                        f"{None if weights is None else weights.shape[1:]} a row; both have the same layers and slots")
    single = {role: _single(path, mapping, columns, role) for role in ("document", "domain", "position", "token_id", "layer", "slot")}
    document, domain = (None if single[role] is None else _text(single[role]) for role in ("document", "domain"))
    if document is None:
        raise ReadError(f"{path}: columns.lengths is for npz; name the column of the document in {mapping.path}")
    return Table(document, domain, single["position"], single["token_id"], single["layer"], single["slot"], _whole(path, ids, "ids"),
                 None if weights is None else weights.astype(np.float64), depths)


def _text(column: NDArray[Any]) -> NDArray[Any]:
    return np.array([str(one) for one in column.tolist()], dtype=object)


def _single(path: Path, mapping: TableMapping, columns: Mapping[str, Any], role: str) -> Any:
    if role not in mapping.columns:
        return None
    column = columns[mapping.columns[role]]
    if column.ndim != 1:
        raise ReadError(f"{path}: column {mapping.columns[role]!r} ({role}): {column.ndim} dimensions, expected one value a row")
    return _whole(path, column, mapping.columns[role]) if role in WHOLE else column


def _whole(path: Path, column: NDArray[Any], name: str) -> NDArray[np.int64]:
    if column.dtype.kind not in "iu" or (column.size and int(column.max()) >= 2**62):
        raise ReadError(f"{path}: column {name!r}: {column.dtype}, expected whole numbers below 2^62")
    return column.astype(np.int64)


def _choices(path: Path, mapping: TableMapping, columns: Mapping[str, Any], role: str) -> tuple[Any, tuple[int, ...] | None]:
    """ids or weights [n, K], or [n, L, K] with the layers' block indices, from one column or one for each layer (and slot)."""
    if role not in mapping.columns:
        return None, None
    pattern = mapping.pattern(role)
    found = {(int(match["layer"]) if "layer" in pattern.groupindex else -1, int(match["slot"]) if "slot" in pattern.groupindex else 0): columns[name]
             for name in columns if (match := pattern.fullmatch(name))}
    depths = sorted({layer for layer, _ in found})
    parts = []
    for depth in depths:
        slots = [found[key] for key in sorted(found) if key[0] == depth]
        parts.append(np.stack(slots, axis=1) if "slot" in pattern.groupindex else slots[0] if slots[0].ndim == 2 else slots[0][:, None])
    if len({part.shape for part in parts}) > 1 or any(part.dtype.kind not in "iuf" or part.ndim != 2 for part in parts):
        shapes = [list(part.shape) for part in parts][:4]
        raise ReadError(f"{path}: columns {mapping.columns[role]!r}: {shapes} by layer, expected numbers, as many for every layer")
    if depths == [-1]:
        if mapping.form == "token":
            raise ReadError(f"{path}: column {mapping.columns[role]!r} ({role}): says no layer; write {{layer}} where the block's index stands in "
                            f"{mapping.path}")
        return parts[0], None
    return np.stack(parts, axis=1), tuple(depths)


def _of_npz(path: Path, mapping: TableMapping) -> Table:
    if mapping.form != "token":
        raise ReadError(f"{path}: npz is read with form \"token\": one array of ids with axes {', '.join(AXES)}; correct {mapping.path}")
    with _npz.Archive(path) as archive:
        _wanted(path, mapping, archive.headers)
        columns = archive.arrays(list(dict.fromkeys(mapping.columns.values())))
    order = [mapping.axes.index(axis) for axis in AXES]
    shaped = {}
    for role in LISTS:
        if role in mapping.columns:
            array = columns[mapping.columns[role]]
            if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "iuf":
                raise ReadError(f"{path}: field {mapping.columns[role]}: {array.dtype} {list(array.shape)}, expected numbers "
                                f"[{', '.join(mapping.axes)}]")
            shaped[role] = array.transpose(order)
    ids = _whole(path, shaped["ids"], mapping.columns["ids"])
    if "weights" in shaped and shaped["weights"].shape != ids.shape:
        raise ReadError(f"{path}: field {mapping.columns['weights']}: {list(shaped['weights'].shape)}, but the ids are {list(ids.shape)}")
    depths = mapping.layers or tuple(range(ids.shape[1]))
    if len(depths) != ids.shape[1]:
        raise ReadError(f"{path}: field {mapping.columns['ids']}: {ids.shape[1]} layers, but {mapping.path} names {len(depths)}")
    single = _per_row(path, mapping, columns, len(ids))
    weights = shaped["weights"].astype(np.float64) if "weights" in shaped else None
    return Table(_text(single["document"]), None if "domain" not in single else _text(single["domain"]), single.get("position"),
                 single.get("token_id"), None, None, ids, weights, depths)


def _per_row(path: Path, mapping: TableMapping, columns: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """Columns by role, a value per row: those given by document are spread by `lengths`."""
    found = {role: columns[mapping.columns[role]] for role in ("document", "domain", "position", "token_id") if role in mapping.columns}
    if "lengths" in mapping.columns:
        lengths = _whole(path, columns[mapping.columns["lengths"]], mapping.columns["lengths"])
        if lengths.ndim != 1 or (lengths < 1).any() or int(lengths.sum()) != n_rows:
            raise ReadError(f"{path}: field {mapping.columns['lengths']}: lengths of at least 1 that sum to {n_rows} tokens are needed, they sum to "
                            f"{int(lengths.sum())}")
        found.setdefault("document", np.arange(len(lengths)))
        for role in ("document", "domain"):
            if role in found and found[role].shape == lengths.shape:
                found[role] = np.repeat(found[role], lengths)
    for role, column in found.items():
        if column.shape != (n_rows,):
            raise ReadError(f"{path}: field {mapping.columns.get(role)} ({role}): {list(column.shape)}, expected one value for each of {n_rows} "
                            "tokens")
    return {role: _whole(path, column, mapping.columns[role]) if role in WHOLE else column for role, column in found.items()}
