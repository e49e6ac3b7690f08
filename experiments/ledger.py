"""The ledger of test-split openings: one line for each time a run's protocol first meets the test documents of a hypothesis."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "ledger.jsonl"


class LedgerError(ValueError):
    """A ledger that cannot be read; the message names file, line and remedy."""


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
    """Append an opening, synced, unless the same run opened the same before (it was resumed); returns whether it was new."""
    same = (opening.run, opening.hypothesis, opening.protocol, opening.documents)
    if any((one.run, one.hypothesis, one.protocol, one.documents) == same for one in openings(root)):
        return False
    root.mkdir(parents=True, exist_ok=True)
    path = root / FILE
    line = json.dumps(asdict(opening), sort_keys=True, ensure_ascii=False) + "\n"
    torn = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
    with path.open("ab") as file:  # appended in one write, so that runs side by side keep whole lines
        file.write((b"\n" if torn else b"") + line.encode())
        file.flush()
        os.fsync(file.fileno())
    return True


def openings(root: Path) -> Iterator[Opening]:
    """Every opening, in order. A line that a death cut short is passed over; other damage raises LedgerError."""
    path = root / FILE
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Opening(**json.loads(line))
        except (ValueError, TypeError):
            if not line.startswith(b"{") or line.endswith(b"}"):  # not a whole line cut short
                raise LedgerError(f"{path}: line {number} is not an opening; restore the file from a backup, or delete that line") from None


def counts(root: Path, *, excluding: str | None = None) -> dict[str, int]:
    """Openings by hypothesis name, those of the run `excluding` left out."""
    return dict(Counter(one.hypothesis for one in openings(root) if one.run != excluding))


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
