"""Every format, damaged and hostile: a refusal that names the file, never a crash, and never another number where the format has checksums."""

from __future__ import annotations

import hashlib
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.trace import TraceBatch, TraceError
from experiments import readers
from experiments.readers import ReadError, ReadOptions
from experiments.readers.contract import ForeignCounts
from tests.experiments.readers import foreign_files
from tests.experiments.readers.foreign_files import CHECKSUMMED, EXAMPLES, LINES, OPTIONS

NAMES = sorted(EXAMPLES)
CUTS, FLIPS = 20, 60


def content(name: str, path: Path) -> tuple[Any, ...]:
    """Everything a reader gives, in a form that can be compared."""
    found = readers.find(EXAMPLES[name][0]).read(path, ReadOptions(**OPTIONS.get(name, {})))
    layers = tuple((layer.depth, layer.n_experts, layer.top_k) for layer in found.meta.layers)
    if isinstance(found, ForeignCounts):
        tables = (*found.counts, *(found.first or ()), *found.pairs.values(), *(found.types or ()))
        return layers, found.domains, tuple(found.pairs), found.pairs_first, tuple(hashed(table) for table in tables)
    batches = tuple((number, *columns(batch)) for number, batch in found.batches())
    return layers, tuple((row.id, row.domain) for row in found.documents), batches


def columns(batch: TraceBatch) -> tuple[str, ...]:
    arrays = [batch.document, batch.position, batch.token_id, *batch.ids, *(batch.weights or ()), batch.entropy_nats, batch.simpson, batch.top1_prob]
    return tuple("absent" if array is None else hashed(array) for array in arrays)


def hashed(array: np.ndarray) -> str:
    return f"{array.dtype}{array.shape}{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def target(path: Path) -> Path:
    """The largest file of an example."""
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size) if path.is_dir() else path


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_recognised_and_read_twice_alike(name: str, tmp_path: Path) -> None:
    path = EXAMPLES[name][1](tmp_path)
    found = readers.recognise(path)
    assert found is readers.find(EXAMPLES[name][0])
    assert content(name, path) == content(name, path)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_file_is_refused(name: str, tmp_path: Path) -> None:
    path = EXAMPLES[name][1](tmp_path)
    file = target(path)
    whole = file.read_bytes()
    for size in sorted({int(n) for n in np.linspace(0, len(whole) - 1, CUTS)}):
        file.write_bytes(whole[:size])
        if not whole[size:].strip() or (name in LINES and b"\n" in (whole[size - 1:size], whole[size:size + 1])):
            continue  # whole lines are left
        try:
            content(name, path)
        except TraceError as error:
            assert tmp_path.name in str(error)
        else:
            pytest.fail(f"{file.name} cut to {size} of {len(whole)} bytes was read")


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_bit_never_crashes_a_reader(name: str, tmp_path: Path) -> None:
    path = EXAMPLES[name][1](tmp_path)
    file, before = target(path), content(name, path)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in zip(rng.integers(0, len(whole), FLIPS), rng.integers(0, 8, FLIPS)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1:])
        readers.find(EXAMPLES[name][0]).recognises(path)
        try:
            found = content(name, path)
        except TraceError:
            continue
        assert name not in CHECKSUMMED or found == before, f"byte {place}, bit {bit}: another number"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rubbish", [b"", b"\x00" * 100, b"PK\x03\x04", b"{}", b"[]", b"null\n",
                                     b"\xff\xfe" * 50, b"[" * 100_000, b"\x93NUMPY\x01\x00"])
def test_other_content_is_not_recognised_and_refused(name: str, rubbish: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(rubbish)
    reader = readers.find(EXAMPLES[name][0])
    assert not reader.recognises(path)
    with pytest.raises(TraceError):
        for _ in reader.read(path, ReadOptions(**OPTIONS.get(name, {}))).batches():  # type: ignore[union-attr]
            pass


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_script_is_no_obstacle(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "dir \u202e\u65e5\u672c \U0001f600'\""
    folder.mkdir()
    assert content(name, EXAMPLES[name][1](folder))


@pytest.mark.parametrize("claim", ["(233, 1099511627776)", "(100000000, 1)", "(-1, 4)", "(9223372036854775807, 2)", "(4611686018427387905, 4)", "()"])
def test_a_claimed_shape_is_compared_with_the_size_before_anything_is_allocated(claim: str, tmp_path: Path) -> None:
    one = np.array([[[1, 2], [0, 3]]], np.uint8)
    path = foreign_files.npz(tmp_path / "huge.npz", {
        "doc_id": np.array(["a/b/c"]), "doc_len": np.array([1]), "first_pos": np.array([0]), "expert_ids": one,
        "prob_bf16": np.full((1, 2, 2), 16128, np.uint16)}, {"expert_ids": claim})
    tracemalloc.start()
    with pytest.raises(ReadError, match="field expert_ids"):
        readers.find("gptoss").read(path, ReadOptions(n_experts=4))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no objects"):
        readers.find("gptoss").read(foreign_files.object_npz(tmp_path / "a.npz"), ReadOptions())


def test_archives_that_are_bombs_or_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign_files.gptoss_npz(tmp_path)
    monkeypatch.setattr("experiments.readers._bounds.at_hand", lambda: 8_000)
    with pytest.raises(ReadError, match="bytes unpacked, the limit for a file of its size and the memory at hand is 1,000"):
        readers.find("gptoss").read(path, ReadOptions(n_experts=4))
    monkeypatch.undo()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("expert_ids.npy", foreign_files.npy(np.zeros((3, 2, 2), np.uint8)))
    with pytest.raises(ReadError, match="a member occurs twice"):
        readers.find("gptoss").read(path, ReadOptions(n_experts=4))


def test_zeros_that_become_a_thousand_times_their_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, **{name: np.zeros((1, 1, 80 << 20) if name == "expert_ids" else 1, np.uint8)
                                 for name in ("doc_id", "doc_len", "first_pos", "expert_ids", "prob_bf16")})
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ReadError, match="split it, or save it uncompressed"):
        readers.find("gptoss").read(path, ReadOptions(n_experts=4))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("nested", [False, True])
def test_one_long_text_that_stands_in_very_many_rows_is_refused_by_the_child(nested: bool, tmp_path: Path) -> None:
    """A dictionary page of 20 kB and runs of one index: a file of some kilobytes whose values would take 82 MB."""
    path, mapping = tmp_path / "bomb.parquet", tmp_path / "mapping.toml"
    rows = 4_096
    column: pa.Array = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 20_000]))
    if nested:
        column = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), column)
    pq.write_table(pa.table({"doc": column, "experts_0": pa.array(np.zeros(rows, np.int64))}), path)
    mapping.write_text('form = "token"\nn_experts = 4\n[columns]\ndocument = "doc"\nids = "experts_{layer}"\n')
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ReadError, match="the limit for a file of its size"):
        readers.find("mapped").read(path, ReadOptions(mapping=mapping))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    """The sizes in the archive's directory are lowered: what is read is neither cut in silence nor followed to its real length."""
    path = foreign_files.gptoss_npz(tmp_path)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("prob_bf16.npy")
    content = path.read_bytes()
    place = content.rindex(b"prob_bf16.npy") - 46  # its entry in the directory; the unpacked size is at 24
    assert int.from_bytes(content[place + 24:place + 28], "little") == member.file_size
    path.write_bytes(content[:place + 24] + (member.file_size - 8).to_bytes(4, "little") + content[place + 28:])
    with pytest.raises(ReadError, match="prob_bf16"):
        readers.find("gptoss").read(path, ReadOptions(n_experts=4))


def test_a_damaged_directory_never_hides_members(tmp_path: Path) -> None:
    """A length in an entry of the directory, enlarged, passes over the entries behind it, whose tables would be missing in silence."""
    path, before = foreign_files.olmoe_counts(tmp_path), content("olmoe_counts", foreign_files.olmoe_counts(tmp_path))
    whole = path.read_bytes()
    place = whole.find(b"PK\x01\x02")
    refused = 0
    while place >= 0:
        for byte in range(place + 28, place + 34):
            path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 4]) + whole[byte + 1:])
            try:
                assert content("olmoe_counts", path) == before
            except ReadError:
                refused += 1
        place = whole.find(b"PK\x01\x02", place + 4)
    assert refused
