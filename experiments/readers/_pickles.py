"""Pickle and .pt files as readers see them: known by a few of their bytes, read only through a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.readers import _json
from experiments.readers.contract import ReadError
from tracking.untrusted import UntrustedError
from tracking.untrusted_files import plain_values

BEGINNINGS = (0x80, *b"(]}c")  # of protocol 2 and later, and of lists, mappings and calls in 0 and 1
END = b"."


def is_pickle(path: Path) -> bool:
    """Whether a file begins and ends as a pickle does. Never raises."""
    try:
        with path.open("rb") as file:
            first = file.read(1)
            file.seek(-1, 2)
            return bool(first) and first[0] in BEGINNINGS and file.read(1) == END
    except OSError:
        return False


def names(path: Path, words: Sequence[str]) -> bool:
    """Whether a file holds each of these words. Never raises."""
    return all(_json.holds(path, word.encode()) for word in words)


def values(path: Path, kind: Literal["pickle", "pt"], dropped: Sequence[str] = ()) -> Any:
    """What the file holds, as plain values. ReadError, with the refused global, for anything else."""
    try:
        return plain_values(path, kind, dropped)
    except UntrustedError as error:
        raise ReadError(str(error)) from error
