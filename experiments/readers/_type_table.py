"""A table of token types with the columns of seed 003's `routing_stats`, Parquet or CSV, as rows by layer; no reader of a trace.

m token type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers._columns import begins_as_parquet, csv_rows, parquet_batches, parquet_names
from experiments.readers.contract import ReadError
from hypotheses.var_type_table import TypeRows

NEEDED = ("token_id", "frequency", "mean_entropy")
WHOLE = ("token_id", "frequency", "corpus_frequency", "layer")
REAL = ("mean_entropy", "std_entropy", "min_entropy", "max_entropy", "routing_consistency", "collision", "consistency_rarefied", "consistency_null")
TRUE, FALSE = ("true", "True", "1"), ("false", "False", "0")
ENTROPIES = ("mean_entropy", "std_entropy", "min_entropy", "max_entropy")
ARROW = {"entropy_unit": "string", "eligible": "bool_"}
UNITS = ("nats", "bits", "normalised")
SLACK = 1e-3  # nats; a mean of float32
TYPES_LIMIT = 20_000_000

Columns = Mapping[str, NDArray[Any]]


def read(path: Path, unit: str | None, n_experts: int | None) -> dict[int, tuple[TypeRows, Columns]]:
    """Layer -> its rows, and its columns for drawing, entropies in nats. A table without `layer` is layer 0.

    unit: of the entropies, where no column `entropy_unit` says it; n_experts: bounds them, and gives the unit `normalised` its size. Raises
    ReadError with file, row, field and remedy.
    """
    columns = _parquet(path) if begins_as_parquet(path) else _csv(path)
    n_rows = len(columns["token_id"])
    if not n_rows:
        raise ReadError(f"{path}: no row in it; a table has one row per token type")
    factor = _factor(path, columns, unit, n_experts)
    columns = {name: column * factor if name in ENTROPIES else column for name, column in columns.items()}
    _check(path, columns, n_experts)
    layer = columns.get("layer", np.zeros(n_rows, np.int64))
    found: dict[int, tuple[TypeRows, Columns]] = {}
    for number in np.unique(layer).tolist():
        chosen = {name: column[layer == number] for name, column in columns.items()}
        twice = len(chosen["token_id"]) - len(np.unique(chosen["token_id"]))
        if twice:
            raise ReadError(f"{path}: field token_id: {twice} rows of layer {number} are of a type that has another row; one row is one type")
        if not chosen["frequency"].sum():
            raise ReadError(f"{path}: field frequency: no type of layer {number} occurs; there is nothing to judge")
        found[number] = (TypeRows(number, chosen["token_id"], chosen["frequency"], chosen["mean_entropy"], chosen.get("corpus_frequency"),
                                  chosen.get("routing_consistency"), chosen.get("eligible"), n_experts), chosen)
    return found


def _parquet(path: Path) -> Columns:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = parquet_names(path)
    _check_names(path, names)
    wanted = [name for name in names if name in (*WHOLE, *REAL, "eligible", "entropy_unit")]
    batches = []
    for batch in parquet_batches(path, wanted):
        batches.append(batch)
        if sum(len(one) for one in batches) > TYPES_LIMIT:
            raise ReadError(f"{path}: more than {TYPES_LIMIT:,} rows; a table has one row per token type and layer")
    table = pa.Table.from_batches(batches) if batches else pa.table({name: [] for name in wanted})
    found: dict[str, NDArray[Any]] = {}
    for name in wanted:
        column = table[name].combine_chunks()
        try:
            if name not in REAL and column.null_count:
                raise ReadError(f"{path}: field {name}: {column.null_count} rows have none; every type needs one")
            found[name] = pc.cast(column, getattr(pa, ARROW.get(name, "int64" if name in WHOLE else "float64"))()).to_numpy(zero_copy_only=False)
        except pa.ArrowException as error:
            raise ReadError(f"{path}: field {name}: {column.type} ({str(error)[:120]}); write the columns as seed 003 has them") from error
    return found


def _csv(path: Path) -> Columns:
    rows: dict[str, list[Any]] = {}
    for number, (line, row) in enumerate(csv_rows(path)):
        if not number:
            _check_names(path, list(row))
            rows = {name: [] for name in row if name in (*WHOLE, *REAL, "eligible", "entropy_unit")}
        if number >= TYPES_LIMIT:
            raise ReadError(f"{path}: more than {TYPES_LIMIT:,} rows; a table has one row per token type and layer")
        for name, values in rows.items():
            values.append(_value(name, row[name], f"{path}: line {line}"))
    if not rows:
        _check_names(path, [])
    kinds: dict[str, Any] = {"eligible": bool, "entropy_unit": object} | dict.fromkeys(WHOLE, np.int64) | dict.fromkeys(REAL, np.float64)
    return {name: np.array(values, kinds[name]) for name, values in rows.items()}


def _value(name: str, text: str, where: str) -> Any:
    if name == "entropy_unit":
        return text
    if name == "eligible":
        if text not in TRUE + FALSE:
            raise ReadError(f"{where}: field eligible: {text[:40]!r}, expected true or false")
        return text in TRUE
    try:
        if name in WHOLE:
            return _int64(text)
        return float(text) if text else math.nan
    except ValueError:
        raise ReadError(f"{where}: field {name}: {text[:40]!r}, expected {'a whole number' if name in WHOLE else 'a number or nothing'}") from None


def _int64(text: str) -> int:
    value = int(text) if len(text) < 20 else 2**63
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _check_names(path: Path, names: Sequence[str]) -> None:
    lacking = [name for name in NEEDED if name not in names]
    if lacking:
        raise ReadError(f"{path}: column {lacking[0]}: absent; a table of token types has {', '.join(NEEDED)} at least, and has "
                        f"{', '.join(map(repr, names[:12])) or 'nothing'}")


def _factor(path: Path, columns: Columns, unit: str | None, n_experts: int | None) -> float:
    """Nats per unit of the table's entropies."""
    said = set(columns["entropy_unit"].tolist()) if "entropy_unit" in columns else set()
    units = said | ({unit} if unit else set())
    if len(units) != 1 or not units <= set(UNITS):
        raise ReadError(f"{path}: field entropy_unit: {', '.join(sorted(map(str, units))) or 'absent'}; nats, bits and shares of ln E differ: give "
                        f"--unit, one of {', '.join(UNITS)}{', as the table says' if said else ''}")
    chosen = units.pop()
    if chosen == "normalised":
        if n_experts is None or n_experts < 2:
            raise ReadError(f"{path}: entropies are shares of ln E, and E is not known; give --n-experts")
        return math.log(n_experts)
    return math.log(2) if chosen == "bits" else 1.0


def _check(path: Path, columns: Columns, n_experts: int | None) -> None:
    for name, low, high in (("token_id", 0, 2**31), ("frequency", 0, 2**53), ("corpus_frequency", 0, 2**53), ("layer", 0, 2**31)):
        if name in columns:
            bad = np.flatnonzero((columns[name] < low) | (columns[name] >= high))
            if len(bad):
                raise ReadError(f"{path}: row {int(bad[0])}, field {name}: {int(columns[name][bad[0]])}; whole numbers from {low} are needed")
    limits = {"mean_entropy": math.inf if n_experts is None else math.log(n_experts) + SLACK, "routing_consistency": 1 + SLACK}
    for name, most in limits.items():
        if name in columns:
            values = columns[name]
            bad = np.flatnonzero((values < -SLACK) | (values > most) | np.isinf(values))
            if len(bad):
                hint = "; is it in bits? give --unit bits" if name == "mean_entropy" and most < math.inf and values[bad[0]] > 0 else ""
                raise ReadError(f"{path}: row {int(bad[0])}, field {name}: {values[bad[0]]:.6g}, expected 0 to {most:.4g}"
                                f"{' nats' if name == 'mean_entropy' else ''}{hint}")
