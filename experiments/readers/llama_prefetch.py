"""Expert statistics of llama-prefetch.cpp: JSON with, per layer, how often each expert was activated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.readers import _json
from experiments.readers._recorded import Row, counted
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions

NAME, KIND = "llama-prefetch", "counts"
MARKS = (b'"layers"', b'"activations"', b'"expert_id"', b'"total_tokens"')


def recognises(path: Path) -> bool:
    """A JSON object with the format's keys."""
    return path.is_file() and _json.begins(path, b"{") and all(_json.holds(path, mark) for mark in MARKS)


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts by layer. `total_tokens` counts selections and not tokens: each layer's activations must sum to it."""
    return counted(path, _rows(path), options, NAME, {})


def _rows(path: Path) -> Iterator[Row]:
    layers = set()
    for index, layer in enumerate(_json.field(_json.load(path), "layers", list, str(path))):
        where = f"{path}: layers[{index}]"
        number, total = _json.field(layer, "layer_id", int, where), _json.field(layer, "total_tokens", int, where)
        if number in layers:
            raise ReadError(f"{where}: field layer_id: {number} is there twice; give the statistics of one run")
        layers.add(number)
        seen, found = set(), 0
        for place, one in enumerate(_json.field(layer, "experts", list, where)):
            at = f"{where}.experts[{place}]"
            expert, count = _json.field(one, "expert_id", int, at), _json.field(one, "activations", int, at)
            if expert in seen:
                raise ReadError(f"{at}: field expert_id: {expert} is there twice; give the statistics of one run")
            seen.add(expert)
            found += count
            yield at, number, expert, count
        if found != total:
            raise ReadError(f"{where}: field total_tokens: {total}, but the activations sum to {found}; export again")
