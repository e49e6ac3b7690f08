"""CSV of llama.cpp's moe-trace example: the header `layer,expert` and a line per selection; which token it was of is not kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.readers import _text
from experiments.readers._recorded import Row, counted
from experiments.readers.contract import ForeignCounts, ReadOptions

NAME, KIND = "moe-trace", "counts"
HEADER = (b"layer", b"expert")


def recognises(path: Path) -> bool:
    """A file whose first line is the header."""
    return path.is_file() and _text.begins_with(path, HEADER)


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts by layer: lines of several layers stand between those of one token, and tokens have no mark."""
    return counted(path, _rows(path), options, NAME, {})


def _rows(path: Path) -> Iterator[Row]:
    for where, (layer, expert) in _text.rows(path, b",", 2, HEADER):
        yield where, layer, expert, 1
