"""Foreign traces of one model as one RoutingTrace: documents of several files side by side, dealt to splits by the hash of their id.

D domain, L MoE layer, E expert.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.trace import SPLITS, CountsTrace, DocumentRow, TraceBatch, TraceMeta
from experiments import readers
from experiments.readers.contract import SPLIT, ForeignCounts, ForeignTrace, ReadError, ReadOptions, Remark, Tallying
from tracking.atomic import sha256_file
from tracking.shards import chosen_rows
from tracking.trace_meta import difference_table, differences, meta_to_json

COUNTS, ROWS = "counts", "rows"
MAPPED = "mapped"  # format of whatever a mapping explains
PER_PART = 100_000  # numbers of a part: what was stored of one part says nothing of where the next one is
OF_ONE_MODEL = ("model", "revision", "layers", "score_function", "entropy_of", "weights_mean", "tokenizer")


@dataclass(frozen=True)
class Opened:
    """One path with the reader that knows it. sha256: over its bytes, or over names and bytes of everything in the folder."""

    path: Path
    format: str
    sha256: str
    trace: ForeignTrace | ForeignCounts


@dataclass(frozen=True)
class Draw:
    """How documents whose source has no splits are dealt: position of SHA-256(salt, id) in [0, 1) below `test_share` is test, else calibration."""

    test_share: float
    salt: str

    def split(self, document_id: str) -> str:
        """The split of a document; it depends on no other document."""
        digest = hashlib.sha256(f"{self.salt}\0{document_id}".encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") / 2**64 < self.test_share else "calibration"


@dataclass(frozen=True)
class Said:
    """What is said of all files together.

    moe_layers: how many the model has, where the files do not say (a trace may hold some of them);
    leave_out_first: rows at the beginning of every document that are left out, such as those of a chat template.
    """

    moe_layers: int | None = None
    leave_out_first: int = 0


def opened(paths: Sequence[Path], options: Sequence[ReadOptions], format_name: str | None = None) -> tuple[Opened, ...]:
    """Each path with its reader, the format recognised by content unless named. Raises ReadError for what cannot be read."""
    found = []
    for path, one in zip(paths, options, strict=True):
        named = format_name or (MAPPED if one.mapping else None)
        if not path.exists():
            raise ReadError(f"{path}: no such file or folder")
        readers.refuse_irregular(path)
        reader = readers.find(named) if named else readers.recognise(path)
        found.append(Opened(path, reader.NAME, sha256_of(path), reader.read(path, one)))
    if not found:
        raise ReadError("no path was given; name a trace file or folder")
    return tuple(found)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the relative names and digests of its files in order."""
    if path.is_file():
        return sha256_file(path)
    total = hashlib.sha256()
    for one in sorted(found for found in path.rglob("*") if found.is_file()):
        total.update(f"{one.relative_to(path).as_posix()}\0{sha256_file(one)}\n".encode())
    return total.hexdigest()


def joined(parts: Sequence[Opened], draw: Draw, said: Said = Said()) -> ImportedTrace | CountsTrace:
    """All parts as one trace. Raises ReadError where they are not of one model, or rows and counts are mixed."""
    meta = _meta_of(parts, said)
    counts = [part.trace for part in parts if isinstance(part.trace, ForeignCounts)]
    if not counts:
        return ImportedTrace(tuple(parts), draw, meta, said.leave_out_first)
    if said.leave_out_first:
        raise ReadError(f"{parts[0].path}: holds counts and no rows, so that none can be left out; leave --leave-out-first out")
    if len(counts) < len(parts):
        kinds = ", ".join(f"{part.path}: {COUNTS if isinstance(part.trace, ForeignCounts) else ROWS}" for part in parts)
        raise ReadError(f"rows and counts cannot be one trace ({kinds}); import them apart")
    return _together(counts, meta)


class ImportedTrace:
    """Implements analysis.trace.RoutingTrace over foreign parts; `numbered` is what a store is filled from."""

    def __init__(self, parts: tuple[Opened, ...], draw: Draw, meta: TraceMeta, leave_out_first: int = 0) -> None:
        self.meta = meta
        self.parts = parts
        self._draw, self._leave_out = draw, leave_out_first
        self._first = [0]
        self._rows: list[DocumentRow] = []
        for part in parts:
            self._rows += self._of(part, len(self._rows))
            self._first.append(len(self._rows))
        _refuse_repeats(parts, self._first, self._rows)

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """Of all parts in order, numbered from 0."""
        return self._rows

    @property
    def remarks(self) -> tuple[tuple[str, Remark], ...]:
        """(path, remark) of every part; complete once the batches were read to the end."""
        return tuple((str(part.path), one) for part in self.parts for one in part.trace.remarks)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files' digests and the documents with their splits."""
        lines = [f"{part.format} {part.sha256}" for part in self.parts] + [f"{row.id}\0{row.domain}\0{row.split}" for row in self._rows]
        lines += [f"without the first {self._leave_out} rows"] if self._leave_out else []
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def numbered(self, finished: frozenset[int] = frozenset()) -> Iterator[tuple[int, TraceBatch]]:
        """(number, rows) of whole documents; every part has its own range of numbers, those in `finished` are not yielded.

        A part whose first batches are all finished is not decoded from its start.
        """
        for index, part in enumerate(self.parts):
            base = index * PER_PART
            after = -1
            while base + after + 1 in finished:
                after += 1
            for number, batch in part.trace.batches(after=after):  # type: ignore[union-attr]
                if number >= PER_PART:
                    raise ReadError(f"{part.path}: more than {PER_PART:,} batches; split the file, or import it in parts")
                if base + number not in finished:
                    batch = _without_first(batch, self._leave_out, part) if self._leave_out else batch
                    yield base + number, replace(batch, document=(batch.document + self._first[index]).astype(np.int32))

    def tally(self, number: int) -> tuple[int, Mapping[str, int]] | None:
        """What batch `number` of `numbered` adds to the remarks, once it was read; None where its part counts nothing by batch."""
        trace: object = self.parts[number // PER_PART].trace
        return trace.tallies[number % PER_PART] if isinstance(trace, Tallying) else None

    def remember(self, number: int, tally: tuple[int, Mapping[str, int]] | None) -> bool:
        """Take a batch that is not read again for read; False where it would count but no tally of it was kept."""
        trace: object = self.parts[number // PER_PART].trace if number < PER_PART * len(self.parts) else None
        if not isinstance(trace, Tallying):
            return True
        if tally is not None:
            trace.tallies[number % PER_PART] = tally
        return tally is not None

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        """Rows of a split (all, if None) with the chosen layers, in the parts' order."""
        if split not in (None, *SPLITS):
            raise ReadError(f"split {split!r}: use one of {', '.join(SPLITS)}")
        wanted = np.array([row.split == split or split is None for row in self._rows])
        for _, batch in self.numbered():
            rows = wanted[batch.document]
            if rows.any():
                kept = batch if rows.all() else chosen_rows(batch, rows)
                yield kept if layers is None else _of_layers(kept, list(layers))

    def _of(self, part: Opened, first: int) -> list[DocumentRow]:
        rows = part.trace.documents  # type: ignore[union-attr]
        dealt = all(row.split == SPLIT for row in rows)
        return [replace(row, document=first + number, split=self._draw.split(row.id) if dealt else row.split) for number, row in enumerate(rows)]


def _without_first(batch: TraceBatch, n: int, part: Opened) -> TraceBatch:
    """The rows of whole documents but for the first n of each. Raises ReadError for a document that has no more."""
    new = np.r_[True, batch.document[1:] != batch.document[:-1]] if len(batch) else np.zeros(0, bool)
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(batch))
    if (lengths <= n).any():
        short = int(batch.document[starts[np.argmin(lengths)]])
        name = part.trace.documents[short].id  # type: ignore[union-attr]
        raise ReadError(f"{part.path}: document {name!r} has {int(lengths.min())} rows, of which the first {n} would be left out "
                        f"({int((lengths <= n).sum())} such documents here); choose a smaller --leave-out-first (trace.leave_out_first)")
    return chosen_rows(batch, np.arange(len(batch)) - np.repeat(starts, lengths) >= n)


def _of_layers(batch: TraceBatch, layers: list[int]) -> TraceBatch:
    def parts(column: tuple[Any, ...] | None) -> Any:
        return None if column is None else tuple(column[layer] for layer in layers)

    reals: dict[str, Any] = {name: None if (column := getattr(batch, name)) is None else column[layers]
                             for name in ("entropy_nats", "simpson", "top1_prob")}
    return replace(batch, ids=parts(batch.ids), weights=parts(batch.weights), dropped=parts(batch.dropped), **reals)


def _refuse_repeats(parts: Sequence[Opened], first: Sequence[int], rows: Sequence[DocumentRow]) -> None:
    repeated = [name for name, n in Counter(row.id for row in rows).items() if n > 1]
    if repeated:
        paths = [str(part.path) for index, part in enumerate(parts) if any(row.id == repeated[0] for row in rows[first[index]:first[index + 1]])]
        raise ReadError(f"{' and '.join(paths)}: document {repeated[0]!r} is in the trace more than once ({len(repeated)} such ids); "
                        "a document is counted once: give each file once, or each its own domain")


def _meta_of(parts: Sequence[Opened], said: Said) -> TraceMeta:
    """The parts' common meta, with the largest vocabulary, and what each file said kept under `details.imported`."""
    first = parts[0].trace.meta
    for part in parts[1:]:
        was, now = ({key: meta_to_json(one)[key] for key in OF_ONE_MODEL} for one in (first, part.trace.meta))
        found = differences(was, now)
        if found:
            raise ReadError(f"{parts[0].path} and {part.path} are not of one model and cannot be one trace; import them apart\n"
                            f"{difference_table(found)}")
    details: dict[str, Any] = {"imported": [{"file": part.path.name, "format": part.format, "sha256": part.sha256, **part.trace.meta.details}
                                            for part in parts]}
    if len(parts) == 1:  # what later stages look for by name
        details = {**first.details, **details}
    else:
        details |= {**_lengths(parts), **_said_by_all(parts)}
    if said.moe_layers is not None:
        details["moe_layers_of_model"] = said.moe_layers
    if said.leave_out_first:
        details["rows_left_out_first"] = said.leave_out_first
    known = details.get("moe_layers_of_model", len(first.layers))
    if known < len(first.layers):
        raise ReadError(f"{parts[0].path}: {len(first.layers)} layers were recorded, and the model is said to have {known} MoE layers; correct "
                        "--moe-layers (trace.moe_layers)")
    return replace(first, vocabulary_size=max(part.trace.meta.vocabulary_size for part in parts), details=details)


def _said_by_all(parts: Sequence[Opened]) -> dict[str, Any]:
    """What the audit and the claims look for by name: vouched for where every part vouches, in doubt where one part is."""
    told = [part.trace.meta.details for part in parts]
    found: dict[str, Any] = {}
    doubts = list(dict.fromkeys(str(one["documents_are"]) for one in told if one.get("documents_are")))
    if doubts:
        found["documents_are"] = "; ".join(doubts)
    if all(one.get("slot_order") for one in told):
        found["slot_order"] = "; ".join(dict.fromkeys(str(one["slot_order"]) for one in told))
    if all(isinstance(one.get("special_tokens"), dict) for one in told):
        ids = {name: sorted({token for one in told for token in one["special_tokens"].get(name, ())})
               for name in ("prefix", "suffix", "without_rows")}
        alike = all(one["special_tokens"] == told[0]["special_tokens"] for one in told)
        found["special_tokens"] = told[0]["special_tokens"] if alike else ids
    layers = [one["moe_layers_of_model"] for one in told if "moe_layers_of_model" in one]
    return found | ({"moe_layers_of_model": max(layers)} if layers else {})


def _lengths(parts: Sequence[Opened]) -> dict[str, Any]:
    """`document_lengths` of all parts under their common numbers, for the parts that tell."""
    merged, first = {}, 0
    for part in parts:
        if isinstance(part.trace, ForeignCounts):
            return {}
        for number, length in dict(part.trace.meta.details.get("document_lengths", {})).items():
            merged[str(int(number) + first)] = length
        first += len(part.trace.documents)
    return {"document_lengths": merged} if merged else {}


def _together(parts: Sequence[ForeignCounts], meta: TraceMeta) -> CountsTrace:
    """Tables of several files, domains side by side; a column that some files lack is left out of all."""
    domains = [name for part in parts for name in part.domains]
    if len(set(domains)) < len(domains):
        raise ReadError(f"domain {Counter(domains).most_common(1)[0][0]!r} is in two files; give each file its own domain, or sum them yourself")

    def stacked(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if any(column is None for column in columns) else tuple(np.concatenate(of_layer) for of_layer in zip(*columns))

    common = set.intersection(*(set(part.pairs) for part in parts)) if len({part.pairs_first for part in parts}) == 1 else set()
    pairs = {pair: np.concatenate([part.pairs[pair] for part in parts]) for pair in sorted(common)}
    tokens = None if any(part.tokens is None for part in parts) else np.concatenate([part.tokens for part in parts if part.tokens is not None])
    remarks = [*meta.details.get("remarks", ()), *(asdict(one) for part in parts for one in part.remarks)]
    return CountsTrace(replace(meta, details={**meta.details, "remarks": remarks}),
                       tuple(domains), stacked("counts"), stacked("first"), pairs, parts[0].pairs_first, tokens, _types(parts))


def _types(parts: Sequence[ForeignCounts]) -> Any:
    if any(part.types is None for part in parts):
        return None
    offsets = np.cumsum([0, *(len(part.domains) for part in parts)])
    shifted = [[rows + np.array([offset, 0, 0, 0]) for rows in part.types or ()] for part, offset in zip(parts, offsets)]
    return tuple(np.concatenate(of_layer) for of_layer in zip(*shifted))
