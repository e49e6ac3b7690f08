"""Predicted experts beside the rows of planes, and the Parquet file that keeps them: one row per document, token and layer."""
# T token (row of the planes), L layer, R rank of a guess

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.planes import Planes
from analysis.trace import DocumentRow, LayerMeta
from tracking.atomic import write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("document", "token", "layer", "ids")
METADATA = b"assay"


@dataclass(frozen=True)
class Predictions:
    """What a predictor says of the rows of planes, in their order.

    sets: per layer distinct expert ids [R, T], best guess first (R is the layer's k, or what was imported); None for a layer that was not
    predicted. about: where they come from, plain JSON.
    """

    layers: tuple[LayerMeta, ...]
    sets: tuple[NDArray[Any] | None, ...]
    about: Mapping[str, Any]

    @property
    def first(self) -> tuple[NDArray[Any] | None, ...]:
        """Predicted first choice of every row, per layer [T]."""
        return tuple(None if ids is None else ids[0] for ids in self.sets)


def save(path: Path, predictions: Predictions, planes: Planes, documents: Sequence[DocumentRow]) -> None:
    """Write predictions for the rows of planes: document id, token (its position), layer key, ids by rank; read back by imported.py.

    documents: of the trace that the planes are of. What was there stays whole until the new file is.
    """
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    given = [index for index, ids in enumerate(predictions.sets) if ids is not None]
    about = json.dumps(dict(predictions.about), sort_keys=True, allow_nan=False).encode()
    schema = _schema().with_metadata({METADATA: about})
    with pq.ParquetWriter(buffer, schema, compression="zstd", compression_level=1, use_dictionary=["document", "layer"],
                          write_statistics=False, write_page_checksum=True) as writer:
        for index in given:
            writer.write_table(_layer(predictions, index, planes, documents).replace_schema_metadata(schema.metadata))
    write_bytes(path, buffer.getbuffer())


def save_as_text(path: Path, predictions: Predictions, planes: Planes, documents: Sequence[DocumentRow]) -> None:
    """The same rows as CSV, or as JSON lines where the name ends in .jsonl."""
    import csv

    text = io.StringIO()
    names = {row.document: row.id for row in documents}
    of_row = [names[int(number)] for number in np.repeat(planes.document, planes.lengths)]
    table = csv.writer(text, lineterminator="\n")
    if path.suffix == ".csv":
        table.writerow(COLUMNS)
    for layer, ids in zip(predictions.layers, predictions.sets):
        for name, token, guessed in zip(of_row, planes.position.tolist(), () if ids is None else ids.T.tolist()):
            if path.suffix == ".csv":
                table.writerow((name, token, layer.key, " ".join(map(str, guessed))))
            else:
                text.write(json.dumps(dict(zip(COLUMNS, (name, token, layer.key, guessed)))) + "\n")
    write_bytes(path, text.getvalue().encode())


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([("document", text), ("token", pa.int32()), ("layer", text), ("ids", pa.list_(pa.uint16()))])


def _layer(predictions: Predictions, index: int, planes: Planes, documents: Sequence[DocumentRow]) -> pa.Table:
    import pyarrow as pa

    ids = predictions.sets[index]
    assert ids is not None
    names = {row.document: row.id for row in documents}
    place = np.repeat(np.arange(len(planes.document), dtype=np.int32), planes.lengths)
    n_ranks, n_rows = ids.shape
    offsets = pa.array(np.arange(0, n_ranks * n_rows + 1, n_ranks, dtype=np.int32))
    columns = [pa.DictionaryArray.from_arrays(pa.array(place), pa.array([names[int(number)] for number in planes.document], pa.string())),
               pa.array(planes.position),
               pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, np.int32)), pa.array([predictions.layers[index].key], pa.string())),
               pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(ids.T).reshape(-1), pa.uint16()))]
    return pa.Table.from_arrays(columns, schema=_schema())


def about(path: Path) -> dict[str, Any]:
    """What `save` was told of the predictions; empty where the file does not say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = json.loads((pq.read_schema(path).metadata or {})[METADATA])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
