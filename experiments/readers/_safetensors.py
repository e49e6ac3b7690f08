"""Safetensors files: the header is checked against the file's size, tensors are mapped and not copied; bfloat16 comes as its bit patterns."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers import _json
from experiments.readers.contract import ReadError

HEADER_LIMIT = 100_000_000  # bytes, as the format's own library has it
DTYPES = {"U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2",
          "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class Tensor:
    """dtype: as the format names it; shape; the bytes from `start` on, to `end`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Tensors:
    """The tensors of one file, by name. metadata: the file's own text."""

    def __init__(self, path: Path) -> None:
        """Read and check the header. ReadError names file, field and place."""
        self.path = path
        size = _size(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                raise ReadError(f"{path}: byte 0: a header of {length:,} bytes in a file of {size:,}; not safetensors, or cut: copy it again")
            header = _json.parse(file.read(length), f"{path}: header", HEADER_LIMIT)
        if not isinstance(header, dict):
            raise ReadError(f"{path}: header: no object; not safetensors")
        self.metadata: Mapping[str, Any] = header.pop("__metadata__", {})
        self.tensors = {name: _entry(path, name, one, 8 + length) for name, one in header.items()}
        _check_cover(path, self.tensors, 8 + length, size)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def array(self, name: str) -> NDArray[Any]:
        """One tensor; bfloat16 as uint16. ReadError where there is none of that name."""
        if name not in self.tensors:
            raise ReadError(f"{self.path}: tensor {name!r}: absent; the file has {', '.join(sorted(self.tensors)[:20]) or 'none'}")
        one = self.tensors[name]
        with self.path.open("rb") as file:
            if one.start == one.end:
                return np.empty(one.shape, DTYPES[one.dtype])
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, DTYPES[one.dtype], math.prod(one.shape), one.start).reshape(one.shape)


def looks_so(path: Path) -> bool:
    """Whether a file begins as safetensors do. Never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
        return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8
    except OSError:
        return False


def names(path: Path) -> frozenset[str]:
    """Names of the tensors of a file; empty for anything else. Never raises."""
    if not looks_so(path):
        return frozenset()
    try:
        return frozenset(Tensors(path).tensors)
    except (ReadError, OSError):
        return frozenset()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error


def _entry(path: Path, name: str, entry: Any, begin: int) -> Tensor:
    where = f"{path}: tensor {name!r}"
    dtype, shape, offsets = (_json.field(entry, one, kind, where) for one, kind in (("dtype", str), ("shape", list), ("data_offsets", list)))
    if dtype not in DTYPES:
        raise ReadError(f"{where}: field dtype: {dtype[:20]!r}; one of {', '.join(DTYPES)} is read")
    if any(type(one) is not int or one < 0 for one in [*shape, *offsets]) or len(offsets) != 2:
        raise ReadError(f"{where}: fields shape and data_offsets: whole numbers from 0 are needed; write the file again")
    claimed, there = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize, offsets[1] - offsets[0]
    if claimed != there:
        raise ReadError(f"{where}: field shape: {list(shape)} of {dtype} are {claimed:,} bytes, but {there:,} are set aside for it; "
                        "write the file again")
    return Tensor(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _check_cover(path: Path, tensors: Mapping[str, Tensor], begin: int, size: int) -> None:
    """Tensors must follow each other without a gap, and fill the file."""
    end = begin
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if one.start != end:
            raise ReadError(f"{path}: tensor {name!r}: field data_offsets: begins at byte {one.start}, expected {end}; write the file again")
        end = one.end
    if end != size:
        raise ReadError(f"{path}: the tensors end at byte {end:,}, the file at {size:,}; it was cut or added to: copy it again")
