"""moe-atlas' captures: a JSON object per prompt with `token_ids` and a list of `activations`, one for each token, layer and chosen expert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.readers import _json, mapped
from experiments.readers._mapping import TableMapping
from experiments.readers._plain_tables import Table
from experiments.readers._rows import DocumentTrace
from experiments.readers.contract import ReadError, ReadOptions

NAME, KIND = "moe-atlas", "rows"
FIELDS = ("layer", "token_idx", "expert_idx", "gate_weight")
SIZES = ("num_layers", "num_experts", "top_k")


def recognises(path: Path) -> bool:
    """A JSON object with `activations` and `token_ids`, or a folder whose first .json is one."""
    first = next(iter(_files(path)), None)
    return first is not None and _json.begins(first, b"{") and all(_json.holds(first, name) for name in (b'"activations"', b'"gate_weight"',
                                                                                                         b'"token_ids"'))


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """A document per file, of the domain it says (else the file's name); layers are numbered as recorded, slots put by falling weight."""
    files = _files(path)
    if not files:
        raise ReadError(f"{path}: no .json in it; give a capture or a folder of captures")
    contents = [_json.load(file) for file in files]
    heads = [(_json.field(one, "model_id", str, str(file)), *(_json.field(one, name, int, str(file)) for name in SIZES))
             for file, one in zip(files, contents)]
    for file, head in zip(files, heads):
        if head != heads[0]:
            raise ReadError(f"{file}: model and sizes {head}, but {files[0]} has {heads[0]}; two models are never one trace: import them apart")
    parts = [_rows(file, one) for file, one in zip(files, contents)]
    n_experts, top_k = (_json.field(contents[0], name, int, str(files[0])) for name in SIZES[1:])
    columns = [np.concatenate(column) for column in zip(*(part[2:] for part in parts))]
    document, domain = (np.array([part[which] for part in parts for _ in part[2]], dtype=object) for which in (0, 1))
    layer, position, expert, weight, token = columns
    table = Table(document, domain, position, token, layer, None, expert[:, None], weight[:, None], None)
    mapping = TableMapping(path, "slot", {"document": "file", "domain": "domain", "position": "token_idx", "token_id": "token_ids", "layer": "layer"},
                           options.model or str(heads[0][0]), options.n_experts or n_experts, options.top_k or top_k, options.layers,
                           weights_mean="gate weight as recorded")
    return mapped.trace_of(path, mapping, table, options.domain)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.json")) if path.is_dir() else [path] if path.is_file() else []


def _rows(file: Path, content: Any) -> tuple[Any, ...]:
    """Document, domain, and the columns layer, position, expert, weight and token id of one file."""
    tokens = _json.field(content, "token_ids", list, str(file))
    records = _json.field(content, "activations", list, str(file))
    if not records or any(type(one) is not int or not 0 <= one < 2**31 for one in tokens):
        raise ReadError(f"{file}: field {'token_ids' if records else 'activations'}: {'a value that is no token id' if records else 'empty'}; "
                        "capture again")
    columns: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for number, one in enumerate(records):
        where = f"{file}: activations[{number}]"
        for name in FIELDS:
            value = _json.number(one, name, where)
            if name != "gate_weight" and (value != int(value) or not 0 <= value < 2**31):
                raise ReadError(f"{where}: field {name}: {value:g}, expected a whole number from 0; capture again")
            columns[name].append(value)
    position = np.array(columns["token_idx"]).astype(np.int64)
    if int(position.max()) >= len(tokens):
        raise ReadError(f"{file}: field token_idx: {int(position.max())}, but there are {len(tokens)} token_ids; off by one? capture again")
    layer, expert = (np.array(columns[name]).astype(np.int64) for name in ("layer", "expert_idx"))
    return (file.stem, str(content.get("domain") or file.stem), layer, position, expert, np.array(columns["gate_weight"]),
            np.array(tokens, np.int64)[position])
