"""Other people's traces: one module per format, found by its name, recognised by what a file holds and never by how it is called."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

from experiments.readers.contract import ForeignCounts, ForeignTrace, ReadError, ReadOptions, Remark, refuse_irregular

__all__ = ["ForeignCounts", "ForeignTrace", "ReadError", "ReadOptions", "Reader", "Remark", "find", "formats", "recognise",
           "refuse_irregular"]

NOT_READERS = ("contract",)  # a module whose name begins with an underscore serves other readers


class Reader(Protocol):
    """What a module of this package has. Its docstring's first line says what the format is and who writes it."""

    NAME: str  # as `assay import --format` takes it
    KIND: str  # "rows" or "counts"

    def recognises(self, path: Path) -> bool:
        """Whether the file or folder is of this format, judged by its content; reads little, never raises, runs nothing."""

    def read(self, path: Path, options: ReadOptions) -> ForeignTrace | ForeignCounts:
        """Open it: meta, documents, warnings; rows only when asked. Raises ReadError with file, place, field and remedy."""


def formats() -> tuple[str, ...]:
    """Names of the formats, sorted."""
    return tuple(sorted(one.NAME for one in _every()))


def find(name: str) -> Reader:
    """The reader of a format. Raises ReadError, with the names there are, for another."""
    for one in _every():
        if name == one.NAME:
            return one
    raise ReadError(f"format {name!r}: not known; one of {', '.join(formats())}")


def recognise(path: Path) -> Reader:
    """The one reader whose format this is. Raises ReadError where there is no such path, or no reader or several recognise it."""
    if not path.exists():
        raise ReadError(f"{path}: no such file or folder")
    refuse_irregular(path)
    found = [one for one in _every() if one.recognises(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ReadError(f"{path}: could be {' or '.join(one.NAME for one in found)}; say which with --format")
    raise ReadError(f"{path}: its content is of none of the formats {', '.join(formats())}; if it is plain Parquet, JSONL or npz, say what its "
                    "columns mean with --mapping FILE.toml")


def _every() -> Iterator[Reader]:
    for name in _names():
        yield cast(Reader, importlib.import_module(f"{__name__}.{name}"))


def _names() -> Sequence[str]:
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_") and found.name not in NOT_READERS)
