"""Predictions and retention tables made elsewhere, from Parquet, CSV or JSON lines."""
# T token (row of the planes), L layer, R rank of a guess, I row of the file

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int
from analysis.planes import Planes
from analysis.trace import DocumentRow, LayerMeta
from experiments.predictor import foreign
from experiments.predictor.foreign import refuse, shown
from experiments.predictor.predictions import COLUMNS, Predictions

if TYPE_CHECKING:
    import pyarrow as pa

RETENTION_COLUMNS = ("source", "target", "value")


@dataclass(frozen=True)
class ImportedRetention:
    """Retention of a predictor of `source` on `target`; value: None where the file leaves it empty (undefined)."""

    source: str
    target: str
    value: float | None


def read_retention(path: Path, domains: Collection[str] | None = None) -> tuple[ImportedRetention, ...]:
    """Rows source, target, value. ImportedError for a domain that is none of `domains`, a pair given twice, and a value that is no number."""
    first: dict[tuple[str, str], str] = {}
    out = []
    for where, row in foreign.rows(path, RETENTION_COLUMNS):
        source, target = (foreign.text(row[field], where, field) for field in ("source", "target"))
        for field, name in (("source", source), ("target", target)):
            if domains is not None and name not in domains:
                refuse(where, field, f"unknown domain {shown(name)}", f"the domains are {', '.join(sorted(domains))}")
        if (source, target) in first:
            refuse(where, "source, target", f"{shown(source)} to {shown(target)} was given at {first[source, target]}", "keep one of the rows")
        first[source, target] = where
        out.append(ImportedRetention(source, target, foreign.number(row["value"], where, "value")))
    return tuple(out)


def read_predictions(path: Path, planes: Planes, documents: Sequence[DocumentRow]) -> Predictions:
    """Predictions for every row of the planes from rows document, token, layer, ids, in any order; layers may be left out as a whole.

    document: id as in the trace; token: position in the document; layer: its key, or its place among the planes' layers from 0; ids: experts,
    best first, equally many in all rows of a layer. Rows of documents outside the planes are passed over. documents: of the trace.
    ImportedError names file, row, field and remedy.
    """
    found = _parquet(path) if foreign.format_of(path) == "Parquet" else _text(path)
    row_I = _rows_of(found, planes, documents)
    layer_I = _layers_of(found, planes.layers)
    ends = np.cumsum(found.length_I)
    sets: list[NDArray[Any] | None] = []
    for index, layer in enumerate(planes.layers):
        chosen = np.flatnonzero((layer_I == index) & (row_I >= 0))
        sets.append(_layer(found, chosen, row_I[chosen], ends, layer, planes, documents) if len(chosen) else None)
    if all(ids is None for ids in sets):
        refuse(str(path), "document", "no row is of these documents", "export the predictions of the documents that are scored")
    return Predictions(planes.layers, tuple(sets), {"imported": str(path)})


@dataclass(frozen=True)
class _Found:
    """Rows of a file as columns: names of documents and layers by code, ids of all rows one after the other."""

    path: Path
    line_I: Int | None  # line of each row in the file; None: rows of a Parquet file
    documents: Sequence[Any]
    document_I: Int
    token_I: Int
    layers: Sequence[Any]
    layer_I: Int
    length_I: Int
    ids: Int

    def where(self, row: int) -> str:
        return f"{self.path}:row {row + 1}" if self.line_I is None else f"{self.path}:{self.line_I[row]}"


def _text(path: Path) -> _Found:
    lines, tokens, lengths, ids = [], [], [], []
    codes: tuple[dict[str, int], dict[str, int]] = ({}, {})
    places: tuple[list[int], list[int]] = ([], [])
    for where, row in foreign.rows(path, COLUMNS):
        lines.append(int(where.rpartition(":")[2]))
        for field, code, place in zip(("document", "layer"), codes, places):
            place.append(code.setdefault(foreign.text(row[field], where, field), len(code)))
        tokens.append(foreign.integer(row["token"], where, "token"))
        guessed = foreign.ids(row["ids"], where, "ids")
        lengths.append(len(guessed))
        ids += guessed
    columns = [np.array(column, np.int64) for column in (lines, places[0], tokens, places[1], lengths, ids)]
    return _Found(path, columns[0], list(codes[0]), columns[1], columns[2], list(codes[1]), columns[3], columns[4], columns[5])


def _parquet(path: Path) -> _Found:
    table = foreign.parquet_table(path, COLUMNS)
    if not table.num_rows:
        refuse(str(path), "rows", "none", f"write one row with {', '.join(COLUMNS)} each")
    columns = {name: _whole(table, name, path) for name in COLUMNS}
    documents, document_I = _coded(columns["document"], path, "document")
    layers, layer_I = _coded(columns["layer"], path, "layer")
    length_I, ids = _lists(columns["ids"], path)
    return _Found(path, None, documents, document_I, _integers(columns["token"], path, "token"), layers, layer_I, length_I, ids)


def _whole(table: pa.Table, name: str, path: Path) -> pa.Array:
    column = table[name].combine_chunks()
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        refuse(f"{path}:row {row + 1}", name, "null", "write a value in every row")
    return column


def _coded(column: pa.Array, path: Path, name: str) -> tuple[list[Any], Int]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        refuse(str(path), name, f"the column is {column.type}", "write it as text")
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    try:
        names = [None if value is None else str(value) for value in coded.dictionary.to_pylist()]
    except UnicodeDecodeError:
        refuse(str(path), name, "not UTF-8", "write it as text in UTF-8")
    return names, coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _integers(column: pa.Array, path: Path, name: str) -> Int:
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        refuse(str(path), name, f"the column is {column.type}", "write it as integers")
    values = column.to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((values < 0) | (values > foreign.LARGEST))
    if len(wrong):
        refuse(f"{path}:row {wrong[0] + 1}", name, str(values[wrong[0]]), f"write a whole number from 0 to {foreign.LARGEST}")
    whole: Int = values.astype(np.int64)
    return whole


def _lists(column: pa.Array, path: Path) -> tuple[Int, Int]:
    """Lengths of the lists, and their integers one after the other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (listed and pa.types.is_integer(kind.value_type)):
        refuse(str(path), "ids", f"the column is {kind}", "write it as lists of integers, best guess first")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten()
    if flat.null_count:
        row = int(np.searchsorted(np.cumsum(lengths), np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0], side="right"))
        refuse(f"{path}:row {row + 1}", "ids", "a null among them", "write only expert ids")
    values = flat.to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((values < 0) | (values > foreign.LARGEST))
    if len(wrong):
        row = int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right"))
        refuse(f"{path}:row {row + 1}", "ids", f"expert {values[wrong[0]]}", "ids count from 0; leave a slot that was dropped out of both sides")
    return lengths, values.astype(np.int64)


def _layers_of(found: _Found, layers: Sequence[LayerMeta]) -> Int:
    """Place of each row's layer [I]."""
    places = {str(index): index for index in range(len(layers))} | {layer.key: index for index, layer in enumerate(layers)}
    code = np.array([places.get(name, -1) for name in found.layers], np.int64)
    out: Int = code[found.layer_I]
    if (out < 0).any():
        row = int(np.flatnonzero(out < 0)[0])
        keys = ", ".join(layer.key for layer in layers[:12])
        refuse(found.where(row), "layer", f"unknown layer {shown(found.layers[found.layer_I[row]])}",
               f"write a layer's key or its place from 0 to {len(layers) - 1}; keys: {keys}{', ...' if len(layers) > 12 else ''}")
    return out


def _rows_of(found: _Found, planes: Planes, documents: Sequence[DocumentRow]) -> Int:
    """Row of the planes of each row of the file [I]; -1 where its document is not among them."""
    numbers = {row.id: row.document for row in documents}
    place_of = {int(number): place for place, number in enumerate(planes.document)}
    unknown, elsewhere = -2, -1
    code = np.array([place_of.get(numbers[name], elsewhere) if name in numbers else unknown for name in found.documents], np.int64)
    place_I: Int = code[found.document_I]
    if (place_I == unknown).any():
        row = int(np.flatnonzero(place_I == unknown)[0])
        refuse(found.where(row), "document", f"unknown document {shown(found.documents[found.document_I[row]])}",
               f"write the id that the trace's document table has, such as {shown(documents[0].id)}" if documents else "the trace has no document")
    key_T = np.repeat(np.arange(len(planes.document)), planes.lengths) * (foreign.LARGEST + 1) + planes.position
    order = np.argsort(key_T, kind="stable")
    wanted = place_I * (foreign.LARGEST + 1) + found.token_I
    nearest = order[np.minimum(np.searchsorted(key_T[order], wanted), len(order) - 1)]
    missing = (key_T[nearest] != wanted) & (place_I >= 0)
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        start, end = planes.starts[place_I[row]], planes.starts[place_I[row] + 1]
        refuse(found.where(row), "token", f"document {shown(found.documents[found.document_I[row]])} has no token at position {found.token_I[row]}",
               f"the trace keeps {end - start} of its tokens, at positions {planes.position[start]} to {planes.position[end - 1]}")
    return np.where(place_I >= 0, nearest, -1)


def _layer(found: _Found, chosen: Int, row_J: Int, ends: Int, layer: LayerMeta, planes: Planes, documents: Sequence[DocumentRow]) -> NDArray[Any]:
    """Guesses [R, T] of one layer from the file's rows `chosen`, which speak of the planes' rows row_J."""
    n_ranks = int(found.length_I[chosen[0]])
    for wrong, what, remedy in (
        (found.length_I[chosen] != n_ranks, f"not {n_ranks} ids, as in {found.where(int(chosen[0]))}", "write equally many in all rows of a layer"),
        (found.length_I[chosen] == 0, "empty", "write at least one expert"),
    ):
        if wrong.any():
            refuse(found.where(int(chosen[np.flatnonzero(wrong)[0]])), "ids", what, remedy)
    ids_JR = found.ids[(ends[chosen] - n_ranks)[:, None] + np.arange(n_ranks)]
    outside = (ids_JR >= layer.n_experts).any(axis=1)
    ordered = np.sort(ids_JR, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    for bad, what in ((outside, f"an expert beyond the {layer.n_experts} of layer {layer.key}"), (twice, "an expert twice")):
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            refuse(found.where(int(chosen[at])), "ids", f"{what}: {shown(ids_JR[at].tolist())}",
                   f"write different experts from 0 to {layer.n_experts - 1}")
    times = np.bincount(row_J, minlength=len(planes))
    if (times > 1).any():
        again = np.flatnonzero(times[row_J] > 1)
        same = again[row_J[again] == row_J[again[0]]]
        refuse(found.where(int(chosen[same[1]])), "document, token, layer", f"given before at {found.where(int(chosen[same[0]]))}",
               "keep one of the rows")
    if (times == 0).any():
        row = int(np.flatnonzero(times == 0)[0])
        number = int(planes.document[np.searchsorted(planes.starts, row, side="right") - 1])
        name = next(one.id for one in documents if one.document == number)
        refuse(str(found.path), "token", f"no prediction for document {shown(name)}, token {planes.position[row]}, layer {layer.key}",
               "a predictor guesses for every token of a layer, or leaves the layer out")
    out = np.empty((n_ranks, len(planes)), layer.id_dtype)
    out[:, row_J] = ids_JR.T
    return out
