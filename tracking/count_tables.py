"""Keeps a trace of which only counts are known: one npz of additive tables, and a sealed list that proves them unchanged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from analysis.trace import CountsTrace, TraceError
from tracking.atomic import ContentError, read_sealed, sha256_file, write_bytes, write_sealed
from tracking.trace_meta import check_meta, meta_from_json, meta_to_json

TABLES, LIST = "counts.npz", "counts.json"
FORMAT = "assay counts 1"


def save(trace: CountsTrace, directory: Path) -> str:
    """Write the tables; returns their SHA-256. Raises TraceError, with nothing written, for tables that cannot be counts."""
    _check(trace)
    directory.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_arrays(trace))  # type: ignore[arg-type]  # its stub takes a keyword for an option
    write_bytes(directory / TABLES, buffer.getvalue())
    digest = sha256_file(directory / TABLES)
    write_sealed(directory / LIST, {"format": FORMAT, "meta": meta_to_json(trace.meta), "domains": list(trace.domains), "sha256": digest,
                                    "pairs_first": trace.pairs_first})
    return digest


def is_counts(directory: Path) -> bool:
    """Whether a directory holds counts and no rows."""
    return (directory / LIST).is_file()


def load(directory: Path) -> CountsTrace:
    """The tables of `directory`. Raises TraceError where they are not what was written."""
    remedy = "import the file again"
    try:
        fields = read_sealed(directory / LIST, remedy)
        found = sha256_file(directory / TABLES)
    except (ContentError, OSError) as error:
        raise TraceError(f"{directory}: {error}; {remedy}") from error
    if fields.get("format") != FORMAT or fields.get("sha256") != found:
        raise TraceError(f"{directory / TABLES}: expected sha256 {fields.get('sha256')}, found {found}; {remedy}")
    try:
        with np.load(directory / TABLES, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        meta = meta_from_json(fields["meta"])
        pairs = {(int(one), int(other)): table for name, table in columns.items() if name.startswith("pairs/")
                 for one, other in [name.removeprefix("pairs/").split("-")]}
        trace = CountsTrace(meta, tuple(fields["domains"]), _layers(columns, "counts") or (), _layers(columns, "first"), pairs,
                            bool(fields["pairs_first"]), columns.get("tokens"), _layers(columns, "types"))
        _check(trace)
    except TraceError as error:
        raise TraceError(f"{directory}: {error}; {remedy}") from error
    except (KeyError, TypeError, AttributeError, ValueError, OSError, BadZipFile) as error:
        raise TraceError(f"{directory}: no whole tables ({type(error).__name__}: {error}); {remedy}") from error
    return trace


def _arrays(trace: CountsTrace) -> dict[str, NDArray[Any]]:
    columns = {f"{name}/{layer:02d}": table for name in ("counts", "first", "types") for layer, table in enumerate(getattr(trace, name) or ())}
    columns |= {f"pairs/{one}-{other}": table for (one, other), table in trace.pairs.items()}
    return columns if trace.tokens is None else columns | {"tokens": trace.tokens}


def _layers(columns: dict[str, NDArray[Any]], name: str) -> tuple[NDArray[Any], ...] | None:
    found = [key for key in columns if key.startswith(f"{name}/")]
    return tuple(columns[key] for key in sorted(found, key=lambda key: int(key.rpartition("/")[2]))) or None


def _check(trace: CountsTrace) -> None:
    check_meta(trace.meta)
    for name in ("counts", "first", "types"):
        tables = getattr(trace, name)
        if (tables is not None or name == "counts") and len(tables) != len(trace.meta.layers):
            raise TraceError(f"{name}: {len(tables)} layers, the meta has {len(trace.meta.layers)}; give one table a layer")
    for name in ("counts", "first"):
        for layer, table in zip(trace.meta.layers, getattr(trace, name) or ()):
            if table.shape != (len(trace.domains), layer.n_experts) or table.dtype != np.int64 or (table < 0).any():
                raise TraceError(f"{name}, layer {layer.key}: {table.dtype} {list(table.shape)}, expected int64 "
                                 f"[{len(trace.domains)}, {layer.n_experts}] of counts of at least 0")
    _check_others(trace)


def _check_others(trace: CountsTrace) -> None:
    n, layers = len(trace.domains), trace.meta.layers
    for (one, other), table in trace.pairs.items():
        if not 0 <= min(one, other) <= max(one, other) < len(layers) or table.shape != (n, layers[one].n_experts, layers[other].n_experts):
            raise TraceError(f"pairs {one}-{other}: {list(table.shape)}, expected [{n} domains, experts of both of {len(layers)} layers]")
    for layer, rows in zip(layers, trace.types or ()):
        if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iu":
            raise TraceError(f"types, layer {layer.key}: {rows.dtype} {list(rows.shape)}, expected rows of domain, expert, type and count")
    if trace.tokens is not None and (trace.tokens.shape != (n,) or trace.tokens.dtype.kind not in "iu"):
        raise TraceError(f"tokens: {trace.tokens.dtype} {list(trace.tokens.shape)}, expected whole numbers [{n}]")
