"""What a reader gives: rows in numbered whole-document batches, or additive tables where only counts were kept."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from analysis.trace import CountsTrace, DocumentRow, TraceBatch, TraceError, TraceMeta

UNKNOWN = "unknown"  # revision of a model whose files the source does not identify
SPLIT = "test"  # of documents whose source has no splits; the import deals them out by the hash of their id


class ReadError(TraceError):
    """A file that cannot be read as what it is taken for; the message names file, place, field and remedy."""


def refuse_irregular(path: Path) -> None:
    """Raise ReadError where a path, or anything in the folder, is no file and no folder: reading a pipe or a device may never end."""
    seen: set[tuple[int, int]] = set()
    waiting = [path]
    while waiting:
        one = waiting.pop()
        try:
            found = one.stat()
            if stat.S_ISDIR(found.st_mode):
                if (found.st_dev, found.st_ino) not in seen:  # links can lead in circles
                    seen.add((found.st_dev, found.st_ino))
                    waiting += one.iterdir()
                continue
        except OSError:
            continue  # a link that leads nowhere, or what must not be read: said by who opens it
        if not stat.S_ISREG(found.st_mode):
            raise ReadError(f"{one}: a pipe, socket or device, and no file; copy what it gives into a file, or take it out of the folder")


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say by itself; None where the file has to say it, and ReadError asks for it where it does not.

    domain: label of all its documents (else the file's own, else its name); model, n_experts, top_k, layers: of the model that was recorded;
    mapping: TOML file that names the columns of a plain table.
    """

    domain: str | None = None
    model: str | None = None
    n_experts: int | None = None
    top_k: int | None = None
    layers: tuple[int, ...] | None = None
    mapping: Path | None = None


@dataclass(frozen=True)
class Remark:
    """Something a reader changed, left out or could not tell. code: a fixed name, such as `truncated_top_k`; count: how many records."""

    code: str
    words: str
    count: int | None = None
    share: float | None = None


class ForeignTrace(Protocol):
    """Rows of a foreign trace. `remarks` are complete once the batches were read to the end."""

    @property
    def meta(self) -> TraceMeta:
        """What the columns mean; `details` holds what else the source said."""

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """Numbered from 0, every one with its domain; `split` is the source's own, or SPLIT."""

    @property
    def remarks(self) -> Sequence[Remark]:
        """What was met so far."""

    def batches(self, *, after: int = -1) -> Iterator[tuple[int, TraceBatch]]:
        """(number, rows) of whole documents in a fixed order, numbered from 0; those up to `after` are skipped without being decoded."""


@runtime_checkable
class Tallying(Protocol):
    """A ForeignTrace whose remarks are sums over batches; what an import that goes on later has to keep of those it does not read again.

    tallies: by number of the batch, top-k rows and how many of them each code of a remark counts.
    """

    tallies: dict[int, tuple[int, Mapping[str, int]]]


@dataclass(frozen=True)
class ForeignCounts(CountsTrace):
    """Additive tables of a source that kept no rows, with what its reader met."""

    remarks: tuple[Remark, ...] = ()
