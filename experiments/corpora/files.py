"""A user's own corpus: JSONL, Parquet, or a folder of text files whose sub-folders are domains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.corpora.document import CorpusError, RawDocument
from experiments.corpora.rules import domains_asked_for, whitespace_free_digest
from experiments.corpora.wheels import file_sha256
from experiments.progress import Progress
from experiments.specs import CorpusSpec

MAX_LINE_BYTES = 64 * 2**20
MAX_COLUMN_CHUNK_BYTES = 2**31
SUFFIXES = {"jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",), "text": (".txt", ".md")}

Row = tuple[str, dict[str, Any]]  # where it is (file and line), and its fields


def files_of(spec: CorpusSpec) -> list[Path]:
    """Files of the declared path, sorted; only regular files that lie inside it. Raises CorpusError if there are none."""
    if spec.path is None:
        raise CorpusError(f'corpus.path: missing; name = "{spec.name}" needs the file or folder with the documents')
    root = Path(spec.path).expanduser()
    if not root.exists():
        raise CorpusError(f"{root}: no such file or folder (corpus.path); correct the path in the declaration")
    if root.is_file():
        if spec.name == "text":
            raise CorpusError(f"{root}: corpus.path is a file; a text corpus is a folder with one sub-folder per domain")
        return [root]
    inside = root.resolve()
    endings = SUFFIXES[spec.name]
    found = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in endings and p.is_file() and p.resolve().is_relative_to(inside)]
    if not found:
        raise CorpusError(f"{root}: the corpus is empty: no file ending in {' or '.join(endings)}; correct corpus.path or corpus.name")
    return found


def identities(spec: CorpusSpec) -> dict[str, str]:
    """SHA-256 of each file, by its name below corpus.path."""
    paths = files_of(spec)
    root = Path(spec.path or "").expanduser()
    return {str(path.relative_to(root)) if path != root else path.name: file_sha256(path) for path in paths}


def read(spec: CorpusSpec, progress: Progress) -> tuple[list[RawDocument], dict[str, object]]:
    """Documents of the declared path and where they came from.

    Raises CorpusError for a wrong column, a broken line, a repeated id, or one text under two domains.
    """
    paths = files_of(spec)
    documents: list[RawDocument] = []
    with progress.stage("reading texts", len(paths), "files") as task:
        for path in paths:
            documents += _DOCUMENTS[spec.name](path, spec)
            task.advance()
    asked = domains_asked_for(spec)
    if asked:
        documents = [document for document in documents if document.domain in asked]
    refuse_repeated_ids(documents, str(spec.path), spec.id_field)
    _refuse_two_labels(documents, str(spec.path), spec)
    return documents, {"path": str(spec.path), "files": identities(spec), "licence": "the user's own"}


def refuse_repeated_ids(documents: list[RawDocument], where: str, field: str) -> None:
    """Raise CorpusError if two documents of different text share an id; a row that is there twice is left to the rules."""
    first: dict[str, RawDocument] = {}
    for document in documents:
        other = first.setdefault(document.id, document)
        if other.text != document.text:
            raise CorpusError(f"{where}: the id {document.id!r} (field {field!r}) occurs twice; make ids unique, or leave the field out")


def _refuse_two_labels(documents: list[RawDocument], where: str, spec: CorpusSpec) -> None:
    first: dict[bytes, RawDocument] = {}
    clashes = []
    for document in documents:
        other = first.setdefault(whitespace_free_digest(document.text), document)
        if other.domain != document.domain:
            clashes.append((other, document))
    if clashes:
        a, b = clashes[0]
        raise CorpusError(
            f"{where}: {len(clashes)} texts stand under two domains, such as {a.id!r} in {a.domain!r} and {b.id!r} in {b.domain!r}; "
            f"that would inflate agreement between domains: keep each text once, or correct the field {spec.domain_field!r}"
        )


def from_row(where: str, row: dict[str, Any], spec: CorpusSpec) -> RawDocument:
    """Document of one row, its fields checked. An absent `id` becomes the digest of the text, so that order does not matter."""
    domain = _only_domain(spec) if spec.domain_field not in row else row[spec.domain_field]
    for field, value in ((spec.text_field, row.get(spec.text_field)), (spec.domain_field, domain)):
        if not isinstance(value, str) or (field == spec.domain_field and not value.strip()):
            raise CorpusError(f"{where}: the field {field!r} must be text and is {_kind(value)}; {_remedy(field, spec)}")
    text, given = str(row[spec.text_field]), row.get(spec.id_field)
    for field, value in ((spec.text_field, text), (spec.domain_field, str(domain)), (spec.id_field, str(given))):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{where}: {field!r} holds half a surrogate pair at character {error.start}; encode it again") from None
    if given is None:
        given = f"{domain}/{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return RawDocument(str(given), str(domain), text)


def _only_domain(spec: CorpusSpec) -> str | None:
    asked = domains_asked_for(spec)
    return asked[0] if len(asked) == 1 else None


def _kind(value: object) -> str:
    return "absent" if value is None else "blank" if value == "" else type(value).__name__


def _remedy(field: str, spec: CorpusSpec) -> str:
    key = "text_field" if field == spec.text_field else "domain_field"
    return f"correct the file, or name the right field with corpus.{key}"


def check_columns(where: str, seen: list[str], spec: CorpusSpec) -> None:
    """Raise CorpusError, with the columns seen, if a declared field is not among them."""
    needed = {"text_field": spec.text_field, "domain_field": spec.domain_field}
    if _only_domain(spec) is not None and spec.domain_field == "domain":
        del needed["domain_field"]
    if spec.id_field != "id":
        needed["id_field"] = spec.id_field
    for key, field in needed.items():
        if field not in seen:
            columns = ", ".join(repr(name) for name in seen[:40]) or "none"
            raise CorpusError(f"{where}: no column {field!r} (corpus.{key}); columns seen: {columns}; set corpus.{key} to one of them")


def _jsonl(path: Path, spec: CorpusSpec) -> Iterator[RawDocument]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise CorpusError(f"{where}: the line is longer than {MAX_LINE_BYTES} bytes; one document per line is expected")
            if not line.strip():
                continue
            row = _parse(line, where)
            check_columns(where, list(row), spec)
            yield from_row(where, row, spec)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: byte {error.start} is not UTF-8; convert the file with 'iconv -t UTF-8'") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error}); correct or delete the line") from None
    if not isinstance(row, dict):
        raise CorpusError(f"{where}: a JSON object is expected, found {type(row).__name__}; write one object with text and domain per line")
    return row


def _parquet(path: Path, spec: CorpusSpec) -> Iterator[RawDocument]:
    fields = (spec.text_field, spec.domain_field, spec.id_field)
    for where, row in parquet_rows(path, lambda seen: check_columns(str(path), seen, spec), fields):
        yield from_row(where, row, spec)


def parquet_rows(path: Path, check: Callable[[list[str]], None], fields: tuple[str, ...]) -> Iterator[Row]:
    """Rows of a Parquet file, the given fields only. `check` sees the column names first; claimed sizes are checked before reading."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        check(list(file.schema_arrow.names))
        for group in range(file.metadata.num_row_groups):
            chunks = file.metadata.row_group(group)
            claimed = max((chunks.column(i).total_uncompressed_size for i in range(chunks.num_columns)), default=0)
            if claimed > MAX_COLUMN_CHUNK_BYTES or file.metadata.num_rows < 0:
                limit = MAX_COLUMN_CHUNK_BYTES
                raise CorpusError(f"{path}: row group {group} claims {claimed} bytes in one column, limit {limit}; write smaller ones")
        number, columns = 0, [name for name in fields if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path}: not a readable Parquet file ({error}); write it again") from None


def _text(path: Path, spec: CorpusSpec) -> Iterator[RawDocument]:
    relative = path.relative_to(Path(spec.path or "").expanduser())
    if len(relative.parts) < 2 and _only_domain(spec) is None:
        raise CorpusError(f"{path}: lies in no sub-folder, so it has no domain; put it in {path.parent}/<domain>/")
    with path.open("rb") as stream:
        content = stream.read(spec.max_bytes_per_document + 4)
    whole = len(content) <= spec.max_bytes_per_document
    try:
        text = content.decode() if whole else cut_bytes(content, spec.max_bytes_per_document)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start} is not UTF-8; convert the file with 'iconv -t UTF-8', or remove it") from None
    yield RawDocument(str(relative), relative.parts[0] if len(relative.parts) > 1 else str(_only_domain(spec)), text)


def cut_bytes(content: bytes, max_bytes: int) -> str:
    """Text of the first `max_bytes` bytes, a character cut in two at the end left out. Raises UnicodeDecodeError for other bad bytes."""
    end = max_bytes
    while end > max_bytes - 4 and end < len(content) and content[end] & 0xC0 == 0x80:
        end -= 1
    return content[:end].decode()


_DOCUMENTS: dict[str, Callable[[Path, CorpusSpec], Iterator[RawDocument]]] = {"jsonl": _jsonl, "parquet": _parquet, "text": _text}
