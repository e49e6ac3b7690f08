"""Plain .npz and .npy files: every claimed shape is checked against the bytes that are there before an array is made of it."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from experiments.readers._bounds import unpacked_limit
from experiments.readers.contract import ReadError

MEMBERS_LIMIT = 10_000
KINDS = "biufU"  # no objects: those are pickles
DAMAGE = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, ValueError, TypeError, SyntaxError, LookupError, EOFError, OverflowError,
          RuntimeError, MemoryError)  # what zipfile and numpy raise at bytes that are not what they claim to be
LAST_RECORD = 22 + 65_535  # bytes of it with the longest comment
SHORT = 200  # characters of somebody else's message


class Archive:
    """The arrays of an .npz, by name. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Read names, sizes and headers only. ReadError for what is no archive of plain arrays."""
        self.path = path
        with damage(path, "not an .npz of plain arrays"):
            self._zip = zipfile.ZipFile(path)
            try:
                self.headers = {name: self._header(member) for name, member in self._members().items()}
            except BaseException:
                self._zip.close()
                raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _members(self) -> dict[str, zipfile.ZipInfo]:
        entries = self._zip.infolist()
        if len(entries) > MEMBERS_LIMIT:
            raise ReadError(f"{self.path}: {len(entries):,} members, more than {MEMBERS_LIMIT:,}; give an .npz of one trace")
        total = sum(entry.file_size for entry in entries)
        limit = unpacked_limit(self.path)
        if total > limit:
            raise ReadError(f"{self.path}: its members claim {total:,} bytes unpacked, the limit for a file of its size and the memory at hand is "
                            f"{limit:,}; split it, or save it uncompressed")
        stated = _stated_members(self.path)
        if stated != len(entries):
            raise ReadError(f"{self.path}: {len(entries)} members are listed where the archive ends with a count of {stated}; it is damaged: "
                            "download or export the file again")
        members = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(members) != len(entries):
            raise ReadError(f"{self.path}: a member occurs twice; export the archive again")
        return members

    def _header(self, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], zipfile.ZipInfo]:
        with self._zip.open(member) as file:
            shape, dtype = read_header(file, f"{self.path}: field {member.filename.removesuffix('.npy')}", member.file_size)
        return shape, dtype, member

    def array(self, name: str) -> NDArray[Any]:
        """One array; its checksum is compared as it is read. ReadError names the field."""
        if name not in self.headers:
            raise ReadError(f"{self.path}: field {name}: absent; the file has {', '.join(sorted(self.headers)[:20]) or 'no arrays'}")
        with damage(self.path, f"field {name}: damaged"), self._zip.open(self.headers[name][2]) as file:
            found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ReadError(f"{self.path}: field {name}: bytes after the array; export the archive again")
        return found

    def arrays(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Several arrays by name."""
        return {name: self.array(name) for name in names}


def _stated_members(path: Path) -> int:
    """Number of members that an archive's last record states; a damaged length in the directory makes zipfile pass over some of them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LAST_RECORD))
        tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[place + 10:place + 12], "little") if place >= 0 else -1


def is_archive(path: Path) -> bool:
    """Whether a file begins as an .npz does. Never raises."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False


def fields(path: Path) -> frozenset[str]:
    """Names of the arrays of an .npz; empty for anything else. Never raises."""
    if not is_archive(path):
        return frozenset()
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (*DAMAGE, OSError):
        return frozenset()


def load_npy(path: Path) -> NDArray[Any]:
    """The array of an .npy, mapped and not copied. ReadError where header and size disagree."""
    with damage(path, "not an .npy of a plain array"), path.open("rb") as file:
        read_header(file, str(path), path.stat().st_size)
        return cast(NDArray[Any], np.load(path, mmap_mode="r", allow_pickle=False))


def read_header(file: IO[bytes], where: str, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array at the start of `file`, which must fill `size` bytes. Its axes may be stored last first: let NumPy read it."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ReadError(f"{where}: array format {version}; save it with numpy.save")
    shape, _, dtype = readers[version](file)
    if dtype.kind not in KINDS:
        raise ReadError(f"{where}: dtype {dtype}; only plain numbers and text are read, no objects: save plain arrays")
    start = file.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or claimed != size - start:
        raise ReadError(f"{where}: the header claims shape {list(shape)} of {dtype} ({claimed:,} bytes), but {size - start:,} bytes are "
                        "there; export the array again")
    return shape, dtype


@contextmanager
def damage(path: Path, words: str) -> Iterator[None]:
    """Turn what a library raises at damaged bytes into a ReadError about `path`."""
    try:
        yield
    except ReadError:
        raise
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file") from None
    except (*DAMAGE, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ReadError(f"{path}: {words} ({first[:SHORT]}); download or export the file again") from error
