"""How often test documents were looked at: one line for each time a run's protocol first meets those of a hypothesis, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tracking.atomic import storage_errors

FILE = "ledger.jsonl"
TORN = "ledger.torn"
REMEDY = "restore the file from a copy, or move it away: the count then begins again"


class LedgerError(ValueError):
    """A line of the ledger is not what was written; the message names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One look.

    run: name of the run directory; claim, protocol, documents: SHA-256 of declaration, protocol, corpus manifest; at: UTC, a label.
    """

    run: str
    hypothesis: str
    claim: str
    protocol: str
    documents: str
    at: str


def record(root: Path, opening: Opening) -> bool:
    """Append an opening, synced and under a lock, unless the same run opened the same before (it was resumed); returns whether it was new.

    A tail that a dead process tore is moved to ledger.torn. Raises LedgerError for a damaged ledger, StorageError when the disk refuses.
    """
    path = root / FILE
    with storage_errors(path, 1024), _locked(path) as descriptor:
        whole = _heal(path, descriptor)
        before = _parse(path, whole)
        if any(_same(one, opening) for one in before):
            return False
        try:
            _append(descriptor, _line(len(before) + 1, opening))
        except OSError:
            os.ftruncate(descriptor, len(whole))
            raise
    return True


def openings(root: Path) -> Iterator[Opening]:
    """Every opening, in order; a torn last line is not one. Raises LedgerError where a line was changed, added or taken away."""
    path = root / FILE
    if path.exists():
        yield from _parse(path, _whole_lines(path.read_bytes()))


def counts(root: Path, *, excluding: str | None = None) -> dict[str, int]:
    """Openings by hypothesis name, those of the run `excluding` left out."""
    return dict(Counter(one.hypothesis for one in openings(root) if one.run != excluding))


def protocol_counts(root: Path) -> dict[str, int]:
    """Openings by fingerprint of the protocol."""
    return dict(Counter(one.protocol for one in openings(root)))


def _same(one: Opening, other: Opening) -> bool:
    return (one.run, one.hypothesis, one.protocol, one.documents) == (other.run, other.hypothesis, other.protocol, other.documents)


def _whole_lines(content: bytes) -> bytes:
    return content[:content.rfind(b"\n") + 1]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _heal(path: Path, descriptor: int) -> bytes:
    content = path.read_bytes()
    whole = _whole_lines(content)
    if len(whole) < len(content):
        with path.with_name(TORN).open("ab") as torn:
            torn.write(content[len(whole):] + b"\n")
        os.ftruncate(descriptor, len(whole))
    return whole


def _append(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content):]
    os.fsync(descriptor)


def _line(sequence: int, opening: Opening) -> bytes:
    fields = {"sequence": sequence} | asdict(opening)
    return (json.dumps(fields | {"crc32": _crc(fields)}) + "\n").encode()


def _crc(fields: dict[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(fields, sort_keys=True).encode()):08x}"


def _parse(path: Path, content: bytes) -> list[Opening]:
    found = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            crc, ours = fields.pop("crc32"), _crc(fields)
            sequence = fields.pop("sequence")
            found.append(Opening(**fields))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LedgerError(f"{path}: line {number}: not an opening ({type(error).__name__}); {REMEDY}") from error
        if (crc, sequence) != (ours, number):
            raise LedgerError(f"{path}: line {number}: expected sequence {number} and crc32 {crc}, found {sequence} and {ours}; {REMEDY}")
    return found
