"""Foreign JSON and JSON lines: sizes and depth are bounded, keys are unique, numbers are finite, and errors give the byte."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from experiments.readers._bounds import at_hand
from experiments.readers.contract import ReadError

FILE_LIMIT = 1 << 30  # bytes of one JSON document
SMALL, GROWTH = 1 << 20, 32  # bytes that any document may have; what a list in a list takes in memory beside its three bytes of text
LINE_LIMIT = 64 << 20  # bytes of one line of JSON lines
DEPTH_LIMIT = 64
HEAD = 4096
SHORT = 80
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'  # one that never ends takes the rest: else each quote within would be tried again
_TEXT = re.compile(_STRING, re.DOTALL)
_OUTSIDE_STRINGS = re.compile(_STRING + rb"|[\[{]|[\]}]", re.DOTALL)
_KEYS = re.compile(_STRING + rb"|[\[{]|[\]}]|:", re.DOTALL)
_NO_NUMBER = re.compile(_STRING + rb"|-?Infinity|NaN|\d{4000,}", re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_AT_ONCE = 1 << 20
T = TypeVar("T")


class _RepeatedKey(ValueError):
    pass


def begins(path: Path, first: bytes) -> bool:
    """Whether the first character of a file that is no white space is one of `first`. Never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD).lstrip()
    except OSError:
        return False
    return head[:1] in [bytes([one]) for one in first] and bool(head)


def holds(path: Path, text: bytes) -> bool:
    """Whether the bytes occur in a file. Never raises."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0
    except (OSError, ValueError):
        return False


def first_record(path: Path) -> dict[str, Any]:
    """The object on the first line of JSON lines; empty for anything else. Never raises."""
    try:
        with path.open("rb") as file:
            line = file.readline(LINE_LIMIT + 1)
        found = parse(line, str(path), LINE_LIMIT)
    except (ReadError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def load(path: Path, limit: int = FILE_LIMIT) -> Any:
    """The value of a JSON file, which the memory at hand bounds, too. ReadError names file and byte."""
    try:
        size = path.stat().st_size
        limit = limit if size <= SMALL else min(limit, at_hand() // GROWTH)
        if size > limit:
            raise ReadError(f"{path}: {size:,} bytes, more than {limit:,} for one JSON document with the memory at hand; split it")
        return parse(path.read_bytes(), str(path), limit)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, byte offset, line) of every line that is not blank. ReadError for one that is too long."""
    try:
        with path.open("rb") as file:
            offset, number, limit = 0, 0, min(LINE_LIMIT, max(SMALL, at_hand() // GROWTH))
            while line := file.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    raise ReadError(f"{path}: line {number}, byte {offset}: longer than {limit:,} bytes; write one record a line")
                if line.strip():
                    yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error


def parse(content: bytes, where: str, limit: int = LINE_LIMIT) -> Any:
    """The value of a JSON text. ReadError for one that is too long or deep, a key twice, NaN, infinities, and what is no JSON."""
    if len(content) > limit:
        raise ReadError(f"{where}: {len(content):,} bytes, more than {limit:,}; split it")
    if _is_deep(content):
        raise ReadError(f"{where}: byte {_too_deep(content)}: nested deeper than {DEPTH_LIMIT}; no trace is so: export it again")
    try:
        return json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        raise ReadError(f"{where}: byte {offset}: no JSON ({error.msg}); was the file cut? export it again") from error
    except UnicodeDecodeError as error:
        raise ReadError(f"{where}: byte {error.start}: not UTF-8; export it again") from error
    except _RepeatedKey as error:
        raise ReadError(f"{where}: byte {_of_repeated_key(content)}: {error}; export it again") from error
    except ValueError as error:  # a constant, or a number of more digits than Python reads
        raise ReadError(f"{where}: byte {_of_no_number(content)}: {error}; export it again") from error


def field(record: Any, name: str, kind: type[T], where: str) -> T:
    """record[name], of the given type. ReadError names the place and the field."""
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = "absent" if value is None else f"{type(value).__name__} {str(value)[:SHORT]!r}"
        raise ReadError(f"{where}: field {name}: {found}, expected {kind.__name__}; export again")
    return value


def number(record: Any, name: str, where: str) -> float:
    """record[name], a finite number. ReadError names the place and the field."""
    value = record.get(name) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        found = "absent" if value is None else repr(str(value)[:SHORT])
        raise ReadError(f"{where}: field {name}: {found}, expected a finite number; export again")
    return float(value)


def index_after(name: str, prefix: str, where: str) -> int:
    """The number N of `prefixN`. ReadError for another name."""
    digits = name.removeprefix(prefix)
    if not name.startswith(prefix) or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise ReadError(f"{where}: {name[:SHORT]!r}: expected {prefix}N; export again")
    return int(digits)


def _is_deep(content: bytes) -> bool:
    """Whether brackets outside of text open deeper than DEPTH_LIMIT."""
    if content.count(b"[") + content.count(b"{") <= DEPTH_LIMIT:
        return False
    brackets = np.frombuffer(_TEXT.sub(b"", content).translate(_STEPS, _OTHERS), np.int8)
    depth = 0
    for start in range(0, len(brackets), _AT_ONCE):
        part = depth + np.cumsum(brackets[start:start + _AT_ONCE], dtype=np.int64)
        if part.max() > DEPTH_LIMIT:
            return True
        depth = int(part[-1])
    return False


def _too_deep(content: bytes) -> int:
    """Byte of the first bracket beyond DEPTH_LIMIT."""
    depth = 0
    for found in _OUTSIDE_STRINGS.finditer(content):
        one = content[found.start() : found.start() + 1]
        depth += 1 if one in b"[{" else -1 if one in b"]}" else 0
        if depth > DEPTH_LIMIT:
            return found.start()
    return 0


def _of_repeated_key(content: bytes) -> int:
    """Byte of the first key that its object has already."""
    opened: list[set[str]] = []
    text, start = b"", 0
    for found in _KEYS.finditer(content):
        one = found[0]
        if one in b"[{":
            opened.append(set())
        elif one in b"]}":
            opened.pop()
        elif one != b":":
            text, start = one, found.start()
        else:
            key = json.loads(text)
            if key in opened[-1]:
                return start
            opened[-1].add(key)
    return 0


def _of_no_number(content: bytes) -> int:
    """Byte of the first NaN, infinity or number of very many digits that stands outside of text."""
    return next((found.start() for found in _NO_NUMBER.finditer(content) if not found[0].startswith(b'"')), 0)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKey(f"key {twice[:SHORT]!r} occurs twice in one object")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
