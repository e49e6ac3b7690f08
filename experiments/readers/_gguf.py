"""Header of a GGUF file: keys, and where its tensors lie. Every length is compared with the file before it is believed."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from experiments.readers.contract import ReadError

MAGIC, VERSIONS = b"GGUF", (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32 = 0
LONGEST_STRING = 64 << 20
MOST_KEPT = 10_000  # elements of an array of keys that are kept; tokenizers have more, which nobody asks for here
DIMENSIONS = 4


@dataclass(frozen=True)
class Tensor:
    """Shape with the fastest dimension first, as the file has it; offset from the start of the file."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Gguf:
    """Keys and tensors of one file."""

    path: Path
    keys: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def floats(self, name: str) -> NDArray[np.float32]:
        """A float32 tensor, its dimensions in row-major order. ReadError where it is of another type or beyond the file."""
        tensor = self.tensors[name]
        where = f"{self.path}: tensor {name!r}"
        if tensor.kind != F32:
            raise ReadError(f"{where}: type {tensor.kind}, expected float32; write the file with llama-imatrix")
        count = math.prod(tensor.shape)
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            if tensor.offset + 4 * count > size:
                raise ReadError(f"{where}: shape {list(tensor.shape)} at byte {tensor.offset} ends beyond the file's "
                                f"{size:,} bytes; was it cut?")
            file.seek(tensor.offset)
            return np.frombuffer(file.read(4 * count), "<f4").reshape(tensor.shape[::-1])


def read_header(path: Path) -> Gguf:
    """Keys and tensors. ReadError names file and byte."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _Reader(path, file, size).header()
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error


class _Reader:
    def __init__(self, path: Path, file: IO[bytes], size: int) -> None:
        self._path, self._file, self._size = path, file, size

    def header(self) -> Gguf:
        if self._take(4) != MAGIC or self._number("<I") not in VERSIONS:
            raise ReadError(f"{self._path}: not a GGUF file of version {' or '.join(map(str, VERSIONS))}")
        n_tensors, n_keys = self._number("<Q"), self._number("<Q")
        if n_tensors * 24 + n_keys * 12 > self._size:  # the least that their names and types take
            raise self._wrong(f"{n_tensors:,} tensors and {n_keys:,} keys in {self._size:,} bytes")
        keys = self._unique((self._string(), self._value(self._number("<I"))) for _ in range(n_keys))
        tensors = self._unique((self._string(), self._tensor()) for _ in range(n_tensors))
        alignment = keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
            raise self._wrong(f"general.alignment {str(alignment)[:20]}")
        start = -(-self._file.tell() // alignment) * alignment
        return Gguf(self._path, keys, {name: Tensor(one.shape, one.kind, start + one.offset) for name, one in tensors.items()})

    def _wrong(self, words: str) -> ReadError:
        return ReadError(f"{self._path}: byte {self._file.tell()}: {words}: no GGUF header says so; was the file cut or changed?")

    def _take(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) != length:
            raise self._wrong("the file ends within the header")
        return found

    def _number(self, form: str) -> int:
        found: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return found

    def _string(self) -> str:
        length = self._number("<Q")
        if length > min(LONGEST_STRING, self._size - self._file.tell()):
            raise self._wrong(f"a string of {length:,} bytes")
        return self._take(length).decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return struct.unpack(SCALARS[kind], self._take(struct.calcsize(SCALARS[kind])))[0]
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            raise self._wrong(f"a key of type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        least = struct.calcsize(SCALARS[inner]) if inner in SCALARS else 8
        if inner == ARRAY or count * least > self._size - self._file.tell():
            raise self._wrong(f"an array of {count:,} values of type {inner}")
        found = []
        for index in range(count):
            value = self._value(inner)
            if index < MOST_KEPT:
                found.append(value)
        return found

    def _tensor(self) -> Tensor:
        n = self._number("<I")
        if not 1 <= n <= DIMENSIONS:
            raise self._wrong(f"a tensor of {n} dimensions")
        shape = tuple(self._number("<Q") for _ in range(n))
        kind, offset = self._number("<I"), self._number("<Q")
        if max(math.prod(shape), *shape) > 8 * self._size or offset > self._size:  # no type takes less than an eighth of a byte
            raise self._wrong(f"a tensor of shape {list(shape)} at {offset:,}")
        return Tensor(shape, kind, offset)

    def _unique(self, pairs: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise self._wrong(f"{name[:60]!r} twice")
            found[name] = value
        return found
