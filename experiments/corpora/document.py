"""Document and Corpus: the units that are routed, split and resampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "calibration", "test")


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names file, field and remedy."""


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A text as its source holds it, before any rule is applied.

    id: unique within the corpus; topic: a second label in the same format as its siblings (the wiki summaries have one), or None.
    """

    id: str
    domain: str
    text: str
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A text that passed the rules, with the split that the hash of its id gave it.

    split: train, calibration or test; sha256: of the UTF-8 text, hexadecimal.
    """

    id: str
    domain: str
    split: str
    text: str
    sha256: str = ""
    topic: str | None = None


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, and the manifest: where they came from, what was dropped and why, counts per domain and split.

    manifest["sha256"] is the digest over (id, domain, split, sha256 of the text) of all documents in order.
    """

    documents: tuple[Document, ...]
    manifest: Mapping[str, Any]

    @property
    def domains(self) -> tuple[str, ...]:
        """Domain names that have documents, in the order of first appearance."""
        return tuple(dict.fromkeys(document.domain for document in self.documents))

    @property
    def digest(self) -> str:
        """SHA-256 of the documents, as the manifest has it."""
        return str(self.manifest["sha256"])

    def of_split(self, split: str) -> tuple[Document, ...]:
        """Documents of one split, in corpus order."""
        return tuple(document for document in self.documents if document.split == split)
