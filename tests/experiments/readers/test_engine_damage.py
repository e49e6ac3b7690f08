"""Every engine's format, cut and with changed bits: a refusal that names the file, or a file of the format, and never a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.trace import TraceError
from experiments import readers
from experiments.readers import ReadOptions
from tests.experiments.readers import foreign_captures, foreign_engines
from tests.experiments.readers.test_damage import columns, hashed

EXAMPLES, OPTIONS = foreign_engines.EXAMPLES | foreign_captures.EXAMPLES, foreign_engines.OPTIONS | foreign_captures.OPTIONS
CUT_UNSEEN = (*foreign_engines.CUT_UNSEEN, *foreign_captures.CUT_UNSEEN)
NAMES = sorted(EXAMPLES)
CUTS, FLIPS = 20, 60
IN_A_CHILD = ("pickle", "recorder")  # these take a process for each reading
FEW = 4


def content(name: str, path: Path) -> tuple[object, ...]:
    """Everything a reader gives, in a form that can be compared."""
    found = readers.find(EXAMPLES[name][0]).read(path, ReadOptions(**OPTIONS.get(name, {})))
    if isinstance(found, readers.ForeignCounts):
        return tuple(hashed(table) for table in found.counts)
    return tuple((number, *columns(batch)) for number, batch in found.batches())


def target(path: Path) -> Path:
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: (file.stat().st_size, file)) if path.is_dir() else path


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_recognised_by_one_reader_and_read_twice_alike(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "dir \u202e\u65e5\u672c \U0001f600'\""
    folder.mkdir()
    path = EXAMPLES[name][1](folder)
    assert readers.recognise(path) is readers.find(EXAMPLES[name][0])
    assert content(name, path) == content(name, path)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_file(name: str, tmp_path: Path) -> None:
    path = EXAMPLES[name][1](tmp_path)
    file, before = target(path), content(name, path)
    whole = file.read_bytes()
    for size in sorted({int(n) for n in np.linspace(0, len(whole) - 1, FEW if any(word in name for word in IN_A_CHILD) else CUTS)}):
        file.write_bytes(whole[:size])
        if not whole[size:].strip():
            continue
        try:
            found = content(name, path)
        except TraceError as error:
            assert tmp_path.name in str(error)
        else:
            assert name in CUT_UNSEEN and found != before, f"{file.name} cut to {size} of {len(whole)} bytes was read"


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_bit(name: str, tmp_path: Path) -> None:
    path = EXAMPLES[name][1](tmp_path)
    file = target(path)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    flips = FEW if any(word in name for word in IN_A_CHILD) else FLIPS
    for place, bit in zip(rng.integers(0, len(whole), flips), rng.integers(0, 8, flips)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1:])
        readers.find(EXAMPLES[name][0]).recognises(path)
        try:
            content(name, path)
        except TraceError as error:
            assert tmp_path.name in str(error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rubbish", [b"", b"\x00" * 100, b"PK\x03\x04", b"{}", b"[]", b"null\n", b"\xff\xfe" * 50, b"[" * 100_000,
                                     b"\x93NUMPY\x01\x00", b"GGUF", b"\x80\x04."])
def test_other_content_is_not_recognised_and_refused(name: str, rubbish: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(rubbish)
    reader = readers.find(EXAMPLES[name][0])
    assert not reader.recognises(path)
    if any(word in name for word in IN_A_CHILD) and rubbish not in (b"", b"GGUF"):
        return
    with pytest.raises(TraceError):
        reader.read(path, ReadOptions(**OPTIONS.get(name, {})))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    reader = readers.find(EXAMPLES[name][0])
    assert not reader.recognises(tmp_path / "none")
    with pytest.raises(TraceError, match="none"):
        reader.read(tmp_path / "none", ReadOptions(**OPTIONS.get(name, {})))
