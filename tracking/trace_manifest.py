"""A trace's manifest: which shards are whole, with size and checksum, and everything that happened to them, in sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.trace import TraceError
from tracking.atomic import ContentError, read_sealed, sha256_file, write_sealed
from tracking.kill_points import announce
from tracking.run_state import NAME as STATE
from tracking.trace_meta import meta_from_json
from tracking.untrusted import safe_name

NAME = "manifest.json"
FORMAT = "assay trace 1"
RECOLLECT = "re-collect it with: assay resume {run}"

announce("manifest", "a trace's manifest")


@dataclass(frozen=True)
class ListedFile:
    """A file as it was written; `name` is relative to the trace's directory."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ListedShard(ListedFile):
    """A whole shard. documents and rows_of: each document in it, with its number of rows (0: nothing of it was kept).

    footer_sha256: of the Parquet footer, checked at every reading.
    """

    footer_sha256: str
    number: int
    rows: int
    documents: tuple[int, ...]
    rows_of: tuple[int, ...]
    sequence: int


@dataclass
class Manifest:
    """What manifest.json says. columns: names of all columns but document and position, fixed by the first shard; digest: set when finished."""

    meta: dict[str, Any]
    documents: ListedFile
    n_documents: int
    columns: list[str] | None = None
    shards: dict[int, ListedShard] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    sequence: int = 0
    finished: bool = False
    digest: str | None = None

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest of a trace. Raises TraceError where there is none, or where it is not what was written."""
        path = directory / NAME
        remedy = f"take it from a copy, or move {directory} away and collect again"
        if not path.exists():
            raise TraceError(f"{path}: not there; {directory} holds no trace, {remedy}")
        try:
            fields = read_sealed(path, remedy)
        except ContentError as error:
            raise TraceError(str(error)) from error
        if fields.pop("format", None) != FORMAT:
            raise TraceError(f"{path}: format: expected {FORMAT!r}; it was written by another version, {remedy}")
        try:
            shards = [ListedShard(**{**shard, "documents": tuple(shard["documents"]), "rows_of": tuple(shard["rows_of"])})
                      for shard in fields.pop("shards")]
            found = cls(**{**fields, "documents": ListedFile(**fields["documents"]), "shards": {shard.number: shard for shard in shards}})
            found.check()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise TraceError(f"{path}: not a whole manifest ({type(error).__name__}: {error}); {remedy}") from error
        return found

    def check(self) -> None:
        """Raise ValueError, TypeError or AttributeError for what `write` never writes, such as a shard in another directory."""
        for one in (self.documents, *self.shards.values()):
            safe_name(one.name, "a listed file")
            if type(one.bytes) is not int or one.bytes < 0:
                raise ValueError(f"{one.name}: bytes {one.bytes!r}")
        if not isinstance(self.meta, dict) or not isinstance(self.events, list) or not isinstance(self.n_documents, int):
            raise TypeError("meta, events or n_documents are of another kind")
        meta_from_json(self.meta)

    def write(self, directory: Path) -> None:
        """Replace manifest.json by this, with the next sequence number."""
        self.sequence += 1
        shards = [vars(self.shards[number]) for number in sorted(self.shards)]  # asdict would copy every document's number
        fields = {"format": FORMAT} | vars(self) | {"documents": vars(self.documents), "shards": shards}
        write_sealed(directory / NAME, fields, "manifest")

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Note an event with the sequence number that the next write gets; the time is a label only."""
        self.events.append({"sequence": self.sequence + 1, "utc": datetime.now(UTC).isoformat(timespec="seconds"), **event})

    def owner_of(self) -> dict[int, int]:
        """The shard that each finished document is in."""
        return {document: shard.number for shard in self.shards.values() for document in shard.documents}


def remedy(directory: Path) -> str:
    """What to do about a damaged shard of the trace in `directory`."""
    full = directory.resolve()
    run = next((path.name for path in full.parents if (path / STATE).exists()), full.parent.name if full.name == "trace" else full.name)
    return RECOLLECT.format(run=run)


def fault_of(directory: Path, listed: ListedFile, manifest: Manifest) -> str | None:
    """What is wrong with a listed file, with expected and found; None when it is the one that was written."""
    path = directory / listed.name
    if not path.is_file():
        return f"{path}: expected {listed.bytes:,} bytes with sha256 {listed.sha256}, found no such file"
    size, found = path.stat().st_size, sha256_file(path)
    if size == listed.bytes and found == listed.sha256:
        return None
    text = f"{path}: expected {listed.bytes:,} bytes with sha256 {listed.sha256}, found {size:,} bytes with sha256 {found}"
    others = [other for other in manifest.shards.values() if other.sha256 == found]
    return text + (f", which is {others[0].name}: were the two swapped?" if others else _stranger(path, manifest))


def _stranger(path: Path, manifest: Manifest) -> str:
    from tracking.shards import metadata_of
    from tracking.trace_meta import fingerprint

    written_for = metadata_of(path).get("meta")
    ours = fingerprint(manifest.meta)
    if written_for is None or written_for == ours:
        return ""
    return f"; it belongs to another trace (meta {written_for}, this one has {ours}), and one trace has one model"


def faults(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Every listed file that is missing or changed, and every shard that is not listed."""
    for listed in (manifest.documents, *manifest.shards.values()):
        fault = fault_of(directory, listed, manifest)
        if fault:
            yield fault
    for path in unlisted(directory, manifest):
        yield f"{path}: not listed in {NAME}; expected {len(manifest.shards)} shards"


def unlisted(directory: Path, manifest: Manifest | None) -> list[Path]:
    """Shards in the directory that no manifest lists."""
    listed = set() if manifest is None else {shard.name for shard in manifest.shards.values()}
    return sorted(path for path in directory.glob("shard-*") if path.suffix == ".parquet" and path.name not in listed)
