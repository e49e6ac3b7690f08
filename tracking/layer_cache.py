"""A disposable copy of a trace's ids, layer by layer, as kernels want them; named by the trace's digest, remade when it is gone or damaged.

T token (row) in the order of StoredTrace.batches(), K slot in the top-k.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracking.atomic import PART, ContentError, read_sealed, sha256_file, storage_errors, sync_directory, write_sealed
from tracking.shards import PLACE, TYPES
from tracking.traces import StoredTrace

CACHE = "cache"
SEAL = "cache.json"


@dataclass(frozen=True)
class LayerMajor:
    """Memory-mapped, read-only. document, position, token_id: int32 [T], token_id None where the trace has none; ids: one array [T, K] a layer."""

    document: NDArray[np.int32]
    position: NDArray[np.int32]
    token_id: NDArray[np.int32] | None
    ids: tuple[NDArray[Any], ...]


def layer_major(trace: StoredTrace) -> LayerMajor:
    """The ids of `trace`, from cache/ in its directory; made first where they are not there, or are not what was written."""
    directory = trace.directory / CACHE / trace.digest[:16]
    if not _whole(directory, trace.digest):
        shutil.rmtree(directory, ignore_errors=True)
        _make(directory, trace)
    columns = {name: np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _names(trace)}
    ids = tuple(columns[name] for name in _names(trace)[len(_plain(trace)):])
    return LayerMajor(columns["document"], columns["position"], columns.get(TYPES), ids)


def _plain(trace: StoredTrace) -> tuple[str, ...]:
    return (*PLACE, TYPES) if TYPES in (trace.manifest.columns or ()) else PLACE


def _names(trace: StoredTrace) -> tuple[str, ...]:
    return (*_plain(trace), *(f"ids_TK-{layer:02d}" for layer in range(len(trace.meta.layers))))


def _whole(directory: Path, digest: str) -> bool:
    if not (directory / SEAL).exists():
        return False
    try:
        fields = read_sealed(directory / SEAL, "remove it")
        return fields["digest"] == digest and all(sha256_file(directory / name) == found for name, found in fields["files"].items())
    except (ContentError, OSError, KeyError):
        return False


def _make(directory: Path, trace: StoredTrace) -> None:
    aside = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}{PART}")
    n_bytes = trace.n_tokens * (12 + sum(layer.top_k * layer.id_dtype.itemsize for layer in trace.meta.layers))
    try:
        with storage_errors(directory, n_bytes):
            aside.mkdir(parents=True)
            _fill(aside, trace)
            files = {path.name: sha256_file(path) for path in sorted(aside.glob("*.npy"))}
            write_sealed(aside / SEAL, {"digest": trace.digest, "files": files})
            aside.rename(directory)
            sync_directory(directory.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _fill(aside: Path, trace: StoredTrace) -> None:
    """Write the columns with plain writes: a full disk is then an error, where a memory map would be a bus error."""
    plain = _plain(trace)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = dict.fromkeys(plain, (np.dtype(np.int32), (trace.n_tokens,)))
    for name, layer in zip(_names(trace)[len(plain):], trace.meta.layers):
        shapes[name] = (layer.id_dtype, (trace.n_tokens, layer.top_k))
    with ExitStack() as stack:
        files = [stack.enter_context((aside / f"{name}.npy").open("xb")) for name in shapes]
        for file, (dtype, shape) in zip(files, shapes.values()):
            np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
        for batch in trace.batches(columns=("ids",)):
            for file, values in zip(files, (*(getattr(batch, name) for name in plain), *batch.ids)):
                file.write(np.ascontiguousarray(values).data)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
