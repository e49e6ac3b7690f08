"""An Evaluation on disk: estimates and facts as JSON, tables as Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from hypotheses.claim import Evaluation
from tracking.atomic import write_bytes, write_json


def plain(value: Any) -> Any:
    """`value` with numpy scalars and arrays turned into JSON's own types. Raises ValueError at NaN: undefined is null with a reason."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    return value


def save(evaluation: Evaluation, directory: Path) -> None:
    """Write evaluation.json and tables/*.parquet; the JSON comes last, so that its presence means the whole is there."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    (directory / "tables").mkdir(parents=True, exist_ok=True)
    for name, columns in evaluation.tables.items():
        buffer = io.BytesIO()
        pq.write_table(pa.table({column: pa.array(values, from_pandas=True) for column, values in columns.items()}), buffer,
                       write_page_checksum=True)
        write_bytes(directory / "tables" / f"{name}.parquet", buffer.getvalue())
    write_json(directory / "evaluation.json", plain({
        "estimates": {name: one.to_json() for name, one in evaluation.estimates.items()},
        "by_layer": {name: [one.to_json() for one in layers] for name, layers in evaluation.by_layer.items()},
        "facts": dict(evaluation.facts), "tables": sorted(evaluation.tables)}))


def load(directory: Path) -> Evaluation:
    """Inverse of save; numeric columns come back as numpy arrays, with NaN for undefined entries, text columns as lists."""
    import pyarrow.parquet as pq

    fields = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    tables: dict[str, dict[str, Any]] = {}
    for name in fields["tables"]:
        table = pq.read_table(directory / "tables" / f"{name}.parquet", page_checksum_verification=True)
        tables[name] = {column: _values(table[column]) for column in table.column_names}
    return Evaluation(
        estimates={name: Estimate.from_json(one) for name, one in fields["estimates"].items()},
        by_layer={name: tuple(Estimate.from_json(one) for one in layers) for name, layers in fields["by_layer"].items()},
        tables=tables, facts=fields["facts"])


def _values(column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.to_pylist()
    return column.to_numpy()
