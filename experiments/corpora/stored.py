"""Finished corpora on disk: one Parquet file and its manifest, written aside and renamed; and splits as JSONL."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.corpora.document import SPLITS, Corpus, Document
from hypotheses.claim import fingerprint
from tracking.atomic import write_bytes, write_json, write_text

COLUMNS = ("id", "domain", "split", "text", "sha256", "topic")


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as Parquet with the columns id, domain, split, text, sha256, topic."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({column: pa.array([getattr(d, column) for d in documents], pa.string()) for column in COLUMNS})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, file.getbuffer())


def read_documents(path: Path) -> tuple[Document, ...]:
    """Documents of a file that `write_documents` made, page checksums verified."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(COLUMNS), page_checksum_verification=True)
    return tuple(Document(*row) for row in zip(*(table[column].to_pylist() for column in COLUMNS), strict=True))


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
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for split in SPLITS:
        path = directory / f"{split}.jsonl"
        rows = ({"id": d.id, "domain": d.domain, "text": d.text, "topic": d.topic} for d in corpus.of_split(split))
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        paths.append(path)
    write_json(directory / "manifest.json", corpus.manifest)
    return tuple(paths)
