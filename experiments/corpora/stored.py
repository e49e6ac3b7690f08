"""Finished corpora on disk: one Parquet file and its manifest, written aside and renamed; and splits as JSONL."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.corpora.document import SPLITS, Corpus, Document
from hypotheses.claim import fingerprint

COLUMNS = ("id", "domain", "split", "text", "sha256", "topic")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name, synced, when the block ends well; nothing is left otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.chmod(0o644)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as Parquet with the columns id, domain, split, text, sha256, topic."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({column: pa.array([getattr(d, column) for d in documents], pa.string()) for column in COLUMNS})
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)


def read_documents(path: Path) -> tuple[Document, ...]:
    """Documents of a file that `write_documents` made, page checksums verified."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(COLUMNS), page_checksum_verification=True)
    return tuple(Document(*row) for row in zip(*(table[column].to_pylist() for column in COLUMNS), strict=True))


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest as JSON."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_corpus(documents: Path, manifest: Path) -> Corpus | None:
    """The corpus in these two files, or None if it is not there or does not match its digest."""
    try:
        about = json.loads(manifest.read_text(encoding="utf-8"))
        corpus = Corpus(read_documents(documents), about)
    except (OSError, ValueError):
        return None
    if about.get("sha256") != fingerprint([[d.id, d.domain, d.split, d.sha256] for d in corpus.documents]):
        return None
    return corpus


def write_splits(corpus: Corpus, directory: Path) -> tuple[Path, ...]:
    """Write train.jsonl, calibration.jsonl and test.jsonl (id, domain, text, topic per line) and manifest.json; their paths."""
    paths = []
    for split in SPLITS:
        path = directory / f"{split}.jsonl"
        with replacing(path) as aside, aside.open("w", encoding="utf-8") as lines:
            for d in corpus.of_split(split):
                lines.write(json.dumps({"id": d.id, "domain": d.domain, "text": d.text, "topic": d.topic}, ensure_ascii=False) + "\n")
        paths.append(path)
    write_manifest(directory / "manifest.json", dict(corpus.manifest))
    return tuple(paths)
