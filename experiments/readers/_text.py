"""Plain text tables of whole numbers: each line is checked, and named where it is not what the format has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.readers import _json
from experiments.readers.contract import ReadError

NUMBER = re.compile(rb"-?\d{1,18}")
HEAD_LINES = 20
HEAD_BYTES = 4096


def rows(path: Path, separator: bytes | None, columns: int, header: Sequence[bytes] = ()) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(where, numbers) of every line after the header, which must be there if given; lines that begin with # are skipped."""
    waiting = bool(header)
    for number, _, line in _json.lines(path):
        where = f"{path}: line {number}"
        if line.startswith(b"#"):
            continue
        if not line.endswith(b"\n"):  # 0,12 may have been cut to 0,1
            raise ReadError(f"{where}: the line has no end; was the file cut? If not, end it with a newline")
        fields = [one.strip() for one in line.strip().split(separator)]
        if waiting:
            if fields != list(header):
                raise ReadError(f"{where}: {line[:60].decode(errors='replace').strip()!r}, expected the header {b','.join(header).decode()}")
            waiting = False
            continue
        if len(fields) != columns or not all(NUMBER.fullmatch(one) for one in fields):
            raise ReadError(f"{where}: {line[:60].decode(errors='replace').strip()!r}, expected {columns} whole numbers; was the line cut?")
        yield where, tuple(int(one) for one in fields)
    if waiting:
        raise ReadError(f"{path}: no header {b','.join(header).decode()}; export again")


def is_text(path: Path) -> bool:
    """Whether the beginning of a file has no zero byte, which saves a search through large binary files. Never raises."""
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(HEAD_BYTES)
    except OSError:
        return False


def begins_with(path: Path, header: Sequence[bytes]) -> bool:
    """Whether the first line that is no comment is this header. Never raises."""
    try:
        for number, _, line in _json.lines(path):
            if not line.startswith(b"#"):
                return [one.strip() for one in line.strip().split(b",")] == list(header)
            if number > HEAD_LINES:
                return False
    except ReadError:
        pass
    return False
