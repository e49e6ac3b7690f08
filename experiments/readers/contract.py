"""What a reader gives: rows in numbered whole-document batches, or additive tables where only counts were kept.

D domain, L MoE layer, E expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.trace import DocumentRow, TraceBatch, TraceError, TraceMeta

SPLIT = "test"  # of documents whose source has no splits; the import deals them out by the hash of their id


class ReadError(TraceError):
    """A file that cannot be read as what it is taken for; the message names file, place, field and remedy."""


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


@dataclass(frozen=True)
class ForeignCounts:
    """Additive tables of a source that kept no rows. Undefined for everything that needs tokens or documents.

    domains: labels; counts: L arrays int64 [D, E] of selections (k per token); first: the same of first choices, or None;
    pairs: (layer index, later layer index) -> int64 [D, E, E'] of first choices where `pairs_first`, else of equal ranks;
    tokens: int64 [D], or None; types: L arrays of rows (domain index, expert, token id, count) int64 [n, 4], or None.
    """

    meta: TraceMeta
    domains: tuple[str, ...]
    counts: tuple[NDArray[np.int64], ...]
    first: tuple[NDArray[np.int64], ...] | None = None
    pairs: Mapping[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    pairs_first: bool = True
    tokens: NDArray[np.int64] | None = None
    types: tuple[NDArray[np.int64], ...] | None = None
    remarks: tuple[Remark, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
