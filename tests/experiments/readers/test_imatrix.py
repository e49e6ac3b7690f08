"""Counts of an importance matrix, and GGUF headers that claim more than the file holds."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from experiments import readers
from experiments.readers import ReadError, ReadOptions
from tests.experiments.readers import foreign_engines as made


def read(path: Path, **options: Any) -> Any:
    return readers.recognise(path).read(path, ReadOptions(**options))


def test_counts_by_hand(tmp_path: Path) -> None:
    """Two chunks of two tokens: eight selections of a layer are the top-2 of four."""
    found = read(made.imatrix(tmp_path))
    assert [table.tolist() for table in found.counts] == [[made.IMATRIX[0]], [made.IMATRIX[5]]]
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in found.meta.layers] == [(0, 4, 2), (5, 4, 2)]
    assert found.tokens.tolist() == [4] and found.domains == ("wiki.train",)
    assert {one.code: one.count for one in found.remarks} == {"components_collapsed": 4}
    assert found.meta.details["imatrix.chunk_count"] == 2 and found.meta.details["components"]["differences"] == []


def test_components_that_differ(tmp_path: Path) -> None:
    path = made.gguf(tmp_path / "a.gguf", made.imatrix_keys(), made.imatrix_tensors({0: {"gate": [3, 0, 1, 4], "down": [3, 1, 1, 3]}}))
    found = read(path, domain="d")
    assert found.counts[0].tolist() == [[3, 0, 1, 4]]
    assert found.meta.details["components"]["differences"] == [["d", 0, "down", 1, 1], ["d", 0, "down", 3, -1]]
    assert {one.code: one.count for one in found.remarks} == {"components_collapsed": 1, "components_differ": 1}


def test_a_wrong_denominator_is_seen(tmp_path: Path) -> None:
    tensors = made.imatrix_tensors({0: {"gate": [3, 0, 1, 4]}})
    path = made.gguf(tmp_path / "a.gguf", made.imatrix_keys(chunk_size=5), tensors)
    with pytest.raises(ReadError, match=r"10 tokens, \[8\] selections.*--top-k"):
        read(path)
    found = read(path, top_k=2)
    assert {one.code: one.count for one in found.remarks} == {"chunks_disagree": 1}
    assert read(made.gguf(tmp_path / "b.gguf", {}, tensors, version=2), top_k=2).counts[0].tolist() == [[3, 0, 1, 4]]


def test_counts_that_float32_cannot_hold_are_said_to_be_inexact(tmp_path: Path) -> None:
    path = made.gguf(tmp_path / "a.gguf", {}, made.imatrix_tensors({0: {"gate": [2.0**24, 2.0**24]}}))
    assert {one.code: one.count for one in read(path, top_k=1).remarks} == {"inexact_counts": 2}


@pytest.mark.parametrize(("tensors", "words"), [
    ({0: {"gate": [1.5, 2]}}, "expert 0: 1.5"), ({0: {"gate": [-1, 2]}}, "expert 0: -1"), ({0: {"gate": [1, float("nan")]}}, "expert 1: nan"),
    ({0: {"gate": [1, 2]}, 1: {"gate": [1, 1, 1]}}, r"layers of \[2, 3\] experts"),
])
def test_what_is_no_count(tensors: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        read(made.gguf(tmp_path / "a.gguf", {}, made.imatrix_tensors(tensors)), top_k=1)


NAME = "blk.0.ffn_gate_exps.weight.counts"


@pytest.mark.parametrize(("shape", "kind", "words"), [
    ((1, 2**40), 0, "a tensor of shape"), ((2**62, 4), 0, "a tensor of shape"), ((1, 40), 0, "was it cut"), ((1, 2), 2, "type 2, expected float32"),
    ((2, 2, 1, 1), 0, "expected"), ((1, 1, 1, 1, 1), 0, "5 dimensions"),
])
def test_claimed_shapes(shape: tuple[int, ...], kind: int, words: str, tmp_path: Path) -> None:
    path = made.gguf(tmp_path / "a.gguf", {}, {NAME: (shape, kind, struct.pack("<4f", 1, 1, 1, 1))})
    tracemalloc.start()
    with pytest.raises(ReadError, match=words):
        readers.find("imatrix").read(path, ReadOptions(top_k=1))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("head", [
    b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), b"GGUF" + struct.pack("<IQQ", 99, 0, 0), b"GGUF",
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + b"x" * 100,
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + made.gguf_text("k") + struct.pack("<IIQ", 9, 0, 2**50) + b"x" * 100,
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + made.gguf_text("k") + struct.pack("<IIQ", 9, 9, 4) + b"x" * 100,
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + made.gguf_text("k") + struct.pack("<I", 77) + b"x" * 100,
    b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (made.gguf_text("k") + struct.pack("<IB", 0, 1)) + b"x" * 100,
    b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + made.gguf_text("general.alignment") + struct.pack("<II", 4, 0) + made.gguf_text("t")
    + struct.pack("<IQIQ", 1, 1, 0, 0) + b"x" * 100,
])
def test_headers_that_claim_more_than_is_there(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(head)
    assert not readers.find("imatrix").recognises(tmp_path / "a.gguf")
    with pytest.raises(ReadError, match="GGUF"):
        readers.find("imatrix").read(tmp_path / "a.gguf", ReadOptions())


def test_the_older_format_is_known_and_has_no_counts(tmp_path: Path) -> None:
    """llama-imatrix --output-format dat: entries, each a name, calls, and activations over the expert's count; chunks; the text's name."""
    name, values = b"blk.0.ffn_gate_exps.weight", [1.0] * 8
    path = tmp_path / "imatrix.dat"
    path.write_bytes(struct.pack(f"<ii{len(name)}sii8f", 1, len(name), name, 2, 8, *values) + struct.pack("<ii5s", 2, 5, b"a.txt"))
    assert readers.recognise(path).NAME == "imatrix"
    with pytest.raises(ReadError, match="not the counts; write it again with --output-format gguf"):
        readers.recognise(path).read(path, ReadOptions())
    path.write_bytes(struct.pack("<ii5s", 1, 5, b"other"))
    with pytest.raises(ReadError, match="of none of the formats"):
        readers.recognise(path)


def test_an_empty_tensor_of_a_vast_shape_is_refused_by_name(tmp_path: Path) -> None:
    path = made.gguf(tmp_path / "a.gguf", {}, {NAME: ((0, 2**63), 0, b"")})
    with pytest.raises(ReadError, match=r"a\.gguf: byte \d+: a tensor of shape"):
        readers.find("imatrix").read(path, ReadOptions(top_k=1))
