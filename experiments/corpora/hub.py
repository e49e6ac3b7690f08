"""Corpora from `datasets` names, through the extra of that name; or from a directory with the same Parquet files, without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.corpora.document import CorpusError, RawDocument
from experiments.corpora.files import parquet_rows
from experiments.corpora.rules import MIN_BYTES, cut, whitespace_free_digest
from experiments.corpora.wheels import file_sha256
from experiments.progress import Progress, Task
from experiments.specs import CorpusSpec, DatasetSource

MAX_SKIPPED_PER_KEPT = 50  # a stream that yields one usable text in fewer rows than this is being read wrongly

Fields = dict[str, Any]


def identities(spec: CorpusSpec) -> dict[str, str]:
    """SHA-256 of each file of sources that are local directories; hub names are identified by their declared revision."""
    return {
        f"{source.name}:{path.name}": file_sha256(path)
        for source in spec.sources
        if Path(source.name).is_dir()
        for path in _local_files(source)
    }


def read(spec: CorpusSpec, progress: Progress) -> tuple[list[RawDocument], dict[str, object]]:
    """Up to `cap` distinct texts of each source, streamed, and where they came from.

    Raises CorpusError, before anything is streamed, if the extra is missing; and for a name, split or field that cannot be had.
    """
    if not spec.sources:
        raise CorpusError('corpus.sources: empty; name = "datasets" needs at least one [[sources]] table with name, domain and text_field')
    if any(not Path(source.name).is_dir() for source in spec.sources):
        _import_datasets(spec)
    documents: list[RawDocument] = []
    origin: dict[str, object] = {}
    with progress.stage("reading texts", sum(source.cap for source in spec.sources), "documents") as task:
        for number, source in enumerate(spec.sources):
            task.note(source.name)
            rows, revision = _open(source)
            documents += _texts(rows, source, spec, task)
            origin[f"{number}:{source.name}"] = source.model_dump(mode="json") | {"revision_read": revision}
    return documents, origin


def _texts(rows: Iterable[Fields], source: DatasetSource, spec: CorpusSpec, task: Task) -> Iterator[RawDocument]:
    seen: set[bytes] = set()
    prefix = f"{source.name.rstrip('/').rpartition('/')[2]}/{source.config or 'default'}/{source.split}"
    join = _JOIN.get(source.name.rstrip("/").rpartition("/")[2], _each)
    for n_rows, whole in enumerate(join(_field(row, source) for row in rows), 1):
        text = cut(whole, spec.max_bytes_per_document)
        digest = whitespace_free_digest(text)
        if len(text.encode()) >= MIN_BYTES and digest not in seen:
            seen.add(digest)
            yield RawDocument(f"{prefix}/{digest.hex()[:24]}", source.domain, text)
            task.advance()
        if len(seen) >= source.cap or n_rows > MAX_SKIPPED_PER_KEPT * source.cap:
            return


def _field(row: Fields, source: DatasetSource) -> str:
    """Text of a row: one field, or several joined by a newline ("question+answer")."""
    names = source.text_field.split("+")
    for name in names:
        if not isinstance(row.get(name), str):
            seen = ", ".join(map(repr, row))
            raise CorpusError(f"{_label(source)}: no text in the field {name!r} (corpus.sources.text_field); seen: {seen}; name one")
    return "\n".join(row[name] for name in names)


def _each(texts: Iterator[str]) -> Iterator[str]:
    return texts


def articles(lines: Iterator[str]) -> Iterator[str]:
    """WikiText's rows are lines: join them into articles, each beginning at a first-level heading (` = Title = `)."""
    article: list[str] = []
    for line in lines:
        heading = line.strip()
        if heading.startswith("= ") and heading.endswith(" =") and not heading.startswith("= ="):
            yield from _whole(article)
            article = []
        article.append(line)
    yield from _whole(article)


def _whole(article: list[str]) -> Iterator[str]:
    text = "".join(article).strip()
    if text:
        yield text


_JOIN: dict[str, Callable[[Iterator[str]], Iterator[str]]] = {"wikitext": articles}


def _label(source: DatasetSource) -> str:
    return f"corpus.sources: {source.name!r} (config {source.config!r}, split {source.split!r}, revision {source.revision!r})"


def _import_datasets(spec: CorpusSpec) -> Any:
    try:
        import datasets
    except ImportError:
        names = ", ".join(source.name for source in spec.sources)
        raise CorpusError(
            f"corpus.name = \"datasets\" ({names}) needs the extra: pip install 'moe-assay[datasets]'; "
            "or download the Parquet files and give their folder as the source's name"
        ) from None
    return datasets


def _open(source: DatasetSource) -> tuple[Iterator[Fields], str]:
    if Path(source.name).is_dir():
        return _local_rows(source), "local files"
    import datasets

    revision = source.revision or _present_commit(source)
    try:
        stream = datasets.load_dataset(source.name, source.config, split=source.split, streaming=True, revision=revision)
        rows = iter(stream)
        first = next(rows, None)
    except Exception as error:  # the hub client raises from a dozen libraries; whatever it was, this name cannot be had
        raise CorpusError(
            f"{_label(source)} cannot be had: {type(error).__name__}: {str(error)[:300]}; "
            "check the name, log in with 'hf auth login' if it is gated, "
            "or, offline, download its Parquet files elsewhere and give their folder as corpus.sources.name"
        ) from error
    if first is None:
        raise CorpusError(f"{_label(source)}: the split is empty; name another split")
    return _chain(first, rows, source), revision or "unpinned"


def _present_commit(source: DatasetSource) -> str | None:
    """The commit that a bare name stands for today, so that the manifest records what was read; None where no hub answers for it."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.name, timeout=10).sha
    except Exception:  # a local builder, or a hub that is away: loading itself says what is wrong
        return None


def _chain(first: Fields, rest: Iterator[Fields], source: DatasetSource) -> Iterator[Fields]:
    yield first
    try:
        yield from rest
    except CorpusError:
        raise
    except Exception as error:  # a stream that breaks half-way; see _open
        raise CorpusError(f"{_label(source)}: the stream broke ({type(error).__name__}: {str(error)[:300]}); run again") from error


def _local_files(source: DatasetSource) -> list[Path]:
    root = Path(source.name).resolve()
    beginnings = (f"{source.split}-", f"{source.split}.")
    every = [p for p in sorted(root.rglob("*.parquet")) if p.is_file() and p.resolve().is_relative_to(root)]
    chosen = [
        path
        for path in every
        if path.name.startswith(beginnings) and (source.config is None or source.config in path.relative_to(root).parts)
    ]
    if not chosen:
        seen = ", ".join(str(path.relative_to(root)) for path in every[:10]) or "none"
        raise CorpusError(f"{_label(source)}: no file [config/]{source.split}-*.parquet in {root}; Parquet files seen: {seen}")
    return chosen


def _local_rows(source: DatasetSource) -> Iterator[Fields]:
    names = tuple(source.text_field.split("+"))

    def check(seen: list[str]) -> None:
        for name in names:
            if name not in seen:
                columns = ", ".join(map(repr, seen))
                raise CorpusError(f"{_label(source)}: no column {name!r} (corpus.sources.text_field); columns seen: {columns}")

    for path in _local_files(source):
        for _, row in parquet_rows(path, check, names):
            yield row
