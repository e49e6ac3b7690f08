"""STATS files of colibri: lines `layer expert count`; lines with a negative layer are a header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.readers import _text
from experiments.readers._recorded import Row, counted
from experiments.readers.contract import ForeignCounts, ReadError, ReadOptions

NAME, KIND = "colibri", "counts"
CHECKED = 200  # lines that must be of the form before a file is taken for one


def recognises(path: Path) -> bool:
    """A text file whose first lines are three whole numbers each, a layer's experts rising."""
    if not path.is_file():
        return False
    last = (-1, -1)
    n = 0
    try:
        for _, (layer, expert, count) in _text.rows(path, None, 3):
            if layer >= 0:
                if expert < 0 or count < 0 or (layer, expert) == last:
                    return False
                last = (layer, expert)
                n += 1
            if n >= CHECKED:
                break
    except ReadError:
        return False
    return n > 0


def read(path: Path, options: ReadOptions) -> ForeignCounts:
    """Counts by layer. ReadError for a pair of layer and expert that is there twice: such a file was put together from two."""
    headers: list[list[int]] = []
    return counted(path, _rows(path, headers), options, NAME, {"header": headers})


def _rows(path: Path, headers: list[list[int]]) -> Iterator[Row]:
    seen = set()
    for where, (layer, expert, count) in _text.rows(path, None, 3):
        if layer < 0:
            headers.append([layer, expert, count])
            continue
        if (layer, expert) in seen:
            raise ReadError(f"{where}: layer {layer}, expert {expert} is there twice; give the statistics of one run")
        seen.add((layer, expert))
        yield where, layer, expert, count
