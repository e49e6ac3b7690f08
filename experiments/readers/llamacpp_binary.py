"""Operation traces of llama.cpp in binary: `tensor_trace.bin`, packed records of 1,024 bytes, one for each operation of the graph.

A record is 24 bytes (time, token, layer, thread, operation, phase, number of sources), a name of 128, four sources of 160, sixteen int32 ids and
how many of them are there, and 167 bytes of nothing; little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import llamacpp
from experiments.readers._rows import DocumentTrace, plain
from experiments.readers.contract import ReadError, ReadOptions

NAME, KIND = "llamacpp-binary", "rows"
FILES = "tensor_trace*.bin"  # in folders; a file that is named may have any name
RECORD = np.dtype([("time", "<u8"), ("token", "<u4"), ("layer", "<u2"), ("thread", "<u2"), ("operation", "u1"), ("phase", "u1"), ("sources", "u1"),
                   ("pad", "V5"), ("name", "S128"), ("source", "V640"), ("ids", "<i4", (16,)), ("n_ids", "u1"), ("rest", "V167")])
NO_LAYER = 65_535
MOST_SOURCES, MOST_IDS = 4, 16
PROBED = 4096  # records that tell the format


def recognises(path: Path) -> bool:
    """A file of whole records, one of the first of which is of an expert product, or a folder of such files or of domains with one."""
    return any(_is_trace(file) for _, file in _files(path))


def read(path: Path, options: ReadOptions) -> DocumentTrace:
    """Each file is one document: the tokens of one generation, of the domain in the folder's name (a lone file's: its own).

    Records are taken as `llamacpp` takes those of its JSON: gate, up and down of a decision are one row, more ids than top_k are cut. ReadError for
    a file that ends within a record, and for a record with more sources or ids than it has room for.
    """
    files = list(_files(path))
    strange = next((file for _, file in files if not _is_trace(file)), None if files else path)
    if strange is not None:
        raise ReadError(f"{strange}: no tensor trace of 1,024-byte records with an expert product in it; copy it again, or leave it out")
    names = [name for name, _ in files]
    if len(set(names)) != len(names):
        raise ReadError(f"{path}: two traces of the name {max(set(names), key=names.count)!r}; give each domain a folder of its own")
    return llamacpp.trace_of(path, [(plain(name), _tokens(file)) for name, file in files], options, NAME)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """(domain, file) of every trace: the file itself, those in a folder, or those in its sub-folders."""
    if path.is_file():
        yield path.stem, path
    elif path.is_dir():
        inside = sorted(path.glob(FILES))
        for file in inside:
            yield path.resolve().name if len(inside) == 1 else file.stem, file
        for one in sorted(path.iterdir()):
            for file in sorted(one.glob(FILES)) if one.is_dir() else ():
                yield one.name, file


def _is_trace(path: Path) -> bool:
    """Whether the first record was written and one of the first is of an expert product."""
    try:
        with path.open("rb") as file:
            head = file.read(PROBED * RECORD.itemsize)
    except OSError:
        return False
    records = np.frombuffer(head[:len(head) // RECORD.itemsize * RECORD.itemsize], RECORD)
    if not len(records) or not records["time"][0]:
        return False
    return any(llamacpp.COMPONENT.fullmatch(_name(one)) for one in np.unique(records["name"][records["n_ids"] > 0]))


def _name(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")


def _tokens(path: Path) -> list[llamacpp.Token]:
    """Tokens in the order of their numbers, each with its records in the order of the file."""
    size = path.stat().st_size
    if size % RECORD.itemsize:
        raise ReadError(f"{path}: {size:,} bytes are no whole number of records of {RECORD.itemsize:,} bytes; it was cut: copy or trace again")
    records = np.memmap(path, RECORD, "r")
    bad = np.flatnonzero((records["sources"] > MOST_SOURCES) | (records["n_ids"] > MOST_IDS) | (records["phase"] > 1))
    if len(bad):
        row = int(bad[0])
        raise ReadError(f"{path}: record {row}: {records['sources'][row]} sources, {records['n_ids'][row]} expert ids, phase "
                        f"{records['phase'][row]}: "
                        f"there is room for {MOST_SOURCES} and {MOST_IDS}, and phases are 0 and 1; the file is damaged: copy or trace again")
    kept = np.flatnonzero((records["time"] != 0) & (records["n_ids"] > 0))  # without a time a record was never written
    numbers = records["token"][kept].astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    return [_token(path, records, int(number), rows) for number, rows in zip(found, np.split(kept[order], starts[1:]))]


def _token(path: Path, records: NDArray[Any], number: int, rows: NDArray[np.intp]) -> llamacpp.Token:
    def entries() -> Iterator[tuple[str, Mapping[str, Any]]]:
        for row in rows.tolist():
            one = records[row]
            layer = None if one["layer"] == NO_LAYER else int(one["layer"])
            yield f"{path}: record {row}", {"operation_type": llamacpp.OPERATION, "dst_name": _name(one["name"]), "layer_id": layer,
                                            "phase": llamacpp.PHASES[int(one["phase"])], "expert_ids": one["ids"][:int(one["n_ids"])].tolist()}

    return llamacpp.Token(number, f"{path}: token {number}", entries)
