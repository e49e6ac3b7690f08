"""Files that are whole or not there: written aside, synced, renamed, and their directory synced."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracking.kill_points import announce, kill_point

PART = ".part"  # ending of a file that is being written; what a dead process leaves behind carries it
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CHUNK = 1 << 20

announce("file", "a file")

_UMASK = os.umask(0o077)
os.umask(_UMASK)


class StorageError(OSError):
    """The disk refused; the message names path, bytes needed and free, and the remedy. Nothing under a final name was touched."""


class ContentError(ValueError):
    """A file of ours is not what was written; the message names it and the remedy."""


@contextmanager
def storage_errors(path: Path, needed: int) -> Iterator[None]:
    """Turn an error of the file system into a StorageError about writing `needed` bytes to `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in FULL:
            limit = "larger than the limit of this process (ulimit -f) or file system" if error.errno == errno.EFBIG else "no space left"
            raise StorageError(f"{path}: {limit}: {needed:,} bytes needed, {_free(path):,} free; "
                               "make room there, then resume: what was finished is kept") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(f"{path}: cannot be written ({error.strerror}); make {path.parent} writable, or choose another root "
                               "with ASSAY_ROOT") from error
        raise StorageError(f"{path}: {error.strerror or error}; {needed:,} bytes were to be written; "
                           f"is {path.parent} still there?") from error


def _free(path: Path) -> int:
    for directory in (path.parent, *path.parent.parents):
        if directory.exists():
            return shutil.disk_usage(directory).free
    return 0


def write_bytes(path: Path, content: bytes | memoryview, family: str = "file") -> None:
    """Replace `path` by `content`, durably and at once; family: announced kill points to pass.

    Raises StorageError; `path` is then as before.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    with storage_errors(path, len(content)):
        try:
            _write_aside(aside, memoryview(content), family)
            kill_point(f"{family}.sync")
            os.replace(aside, path)
        except BaseException:  # an interrupt too leaves nothing half written
            aside.unlink(missing_ok=True)
            raise
        kill_point(f"{family}.rename")
        sync_directory(path.parent)
    kill_point(f"{family}.directory")


def _write_aside(aside: Path, content: memoryview, family: str) -> None:
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        half = len(content) // 2
        _write_all(descriptor, content[:half])
        kill_point(f"{family}.write")
        _write_all(descriptor, content[half:])
        os.fchmod(descriptor, 0o666 & ~_UMASK)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: memoryview) -> None:
    while content:
        content = content[os.write(descriptor, content):]


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, durably and at once; half a surrogate pair, which UTF-8 cannot hold, is escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON. Raises ValueError at NaN and infinities: undefined is null with a reason beside it."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Indented UTF-8 JSON ending with a newline; half a surrogate pair becomes its JSON escape."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_sealed(path: Path, fields: dict[str, Any], family: str = "file") -> None:
    """Write `fields` as JSON with a key `seal`, the SHA-256 of the others: a changed byte is noticed by `read_sealed`."""
    write_bytes(path, json_bytes(fields | {"seal": _seal(fields)}), family)


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """The fields of a file that `write_sealed` wrote. Raises ContentError, ending with `remedy`, where a byte of it is another."""
    try:
        fields = json.loads(path.read_bytes())
        seal = fields.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ContentError(f"{path}: not whole ({type(error).__name__}: {error}); {remedy}") from error
    if seal != _seal(fields):
        raise ContentError(f"{path}: seal: expected {seal}, found {_seal(fields)}: the file was damaged or edited; {remedy}")
    return dict(fields)


def _seal(fields: dict[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
