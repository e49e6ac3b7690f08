"""Bits flipped, files cut, swapped, taken away and added: always an error that names the file, never another number."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.trace import TraceBatch, TraceError
from tests.faults import working
from tests.synthetic_trace import make_meta, make_trace
from tracking.shards import FAMILIES, column_of, columns_of, read_batches
from tracking.traces import StoredTrace, TraceWriter, faults_of

SEED = 20261122


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> StoredTrace:
    return make_trace(tmp_path_factory.mktemp("pristine") / "var-quick" / "trace", np.random.default_rng(0), 12, working.LAYERS,
                      dropping=(1,), per_shard=4)


@pytest.fixture
def trace(pristine: StoredTrace, tmp_path: Path) -> StoredTrace:
    shutil.copytree(pristine.directory, tmp_path / "var-quick" / "trace")
    return StoredTrace.open(tmp_path / "var-quick" / "trace")


def refusal(directory: Path) -> str:
    """What opening and reading everything says."""
    with pytest.raises(TraceError) as caught:
        for _ in StoredTrace.open(directory).batches():
            pass
    return str(caught.value)


def test_no_flipped_bit_of_a_shard_is_read(trace: StoredTrace) -> None:
    chance, path = random.Random(SEED), trace.directory / "shard-00001.parquet"
    content = path.read_bytes()
    for _ in range(300):
        flipped = bytearray(content)
        bit = chance.randrange(len(content) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        message = refusal(trace.directory)
        assert "shard-00001.parquet" in message and "expected" in message and "re-collect it with: assay resume var-quick" in message
    path.write_bytes(content)
    assert StoredTrace.open(trace.directory).verify() == trace.digest


def same(one: TraceBatch, other: TraceBatch, columns: list[str]) -> bool:
    return all(np.array_equal(column_of(one, name), column_of(other, name)) for name in columns) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("document", "position", "token_id"))


def test_a_bit_that_flips_after_the_shard_was_verified_is_not_read_either(trace: StoredTrace) -> None:
    """The second guard: page checksums and the footer's own. Page checksums alone let 6 of 3,000 flips through, all in the footer."""
    chance, path, layers = random.Random(SEED + 1), trace.directory / "shard-00001.parquet", trace.meta.layers
    shard = trace.manifest.shards[1]
    (expected,) = trace._read(shard, range(len(layers)), FAMILIES)
    columns, content, refused, silent, unguarded = columns_of(expected, layers), path.read_bytes(), 0, 0, 0
    whole = pq.read_table(path)
    for _ in range(300):
        flipped = bytearray(content)
        bit = chance.randrange(len(content) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = list(trace._read(shard, range(len(layers)), FAMILIES))
            silent += not (len(found) == 1 and same(found[0], expected, columns))
        except TraceError:
            refused += 1
        with contextlib.suppress(pa.ArrowException, OSError, UnicodeDecodeError):
            unguarded += not pq.read_table(path).equals(whole)
    print(f"seed {SEED + 1}: 300 flips, {refused} refused, {silent} silent; {unguarded} silent where nothing checks")
    assert silent == 0
    assert unguarded > 100, "the flips bite where nothing checks"


def test_every_cut_is_refused(trace: StoredTrace) -> None:
    path = trace.directory / "shard-00002.parquet"
    content = path.read_bytes()
    for length in {0, 1, 4, 12, *range(20, len(content), len(content) // 55), len(content) - 8, len(content) - 1}:
        path.write_bytes(content[:length])
        message = refusal(trace.directory)
        assert f"shard-00002.parquet: expected {len(content):,} bytes, found {length:,} bytes" in message


def test_a_missing_an_extra_and_a_swapped_shard_are_each_named(trace: StoredTrace) -> None:
    directory = trace.directory
    first, second = directory / "shard-00000.parquet", directory / "shard-00001.parquet"
    shutil.copy(first, directory / "shard-00009.parquet")
    assert "shard-00009.parquet: not listed in manifest.json; expected 3 shards" in refusal(directory)
    (directory / "shard-00009.parquet").unlink()

    first.rename(directory / "aside")
    assert "shard-00000.parquet: expected " in refusal(directory) and "found no such file" in refusal(directory)
    for batch in _shard_only(directory, 1):
        assert len(batch)  # the other shards are usable
    second.rename(first)
    (directory / "aside").rename(second)
    assert "were the two swapped?" in "\n".join(StoredTrace(directory, trace.manifest).faults())
    assert "shard-00000.parquet: expected" in refusal(directory)


def _shard_only(directory: Path, number: int) -> list[TraceBatch]:
    return list(read_batches(directory / f"shard-{number:05d}.parquet", make_meta(working.LAYERS).layers, [0, 2], ("ids",)))


def test_a_swap_of_equally_long_shards_is_named_as_one(trace: StoredTrace) -> None:
    paths = [trace.directory / f"shard-0000{number}.parquet" for number in (0, 1)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents)):
        path.write_bytes(content)
    with pytest.raises(TraceError, match="shard-00000.parquet.*which is shard-00001.parquet: were the two swapped"):
        for _ in StoredTrace(trace.directory, trace.manifest).batches():
            pass


def test_a_shard_of_another_model_is_refused_by_both_fingerprints(trace: StoredTrace, tmp_path: Path) -> None:
    foreign = make_trace(tmp_path / "other", np.random.default_rng(1), 12, working.LAYERS, dropping=(1,), per_shard=4, vocabulary_size=99)
    shutil.copy(foreign.directory / "shard-00001.parquet", trace.directory / "shard-00001.parquet")
    (fault,) = StoredTrace(trace.directory, trace.manifest).faults()
    assert "belongs to another trace (meta " in fault and "one trace has one model" in fault


@pytest.mark.parametrize("name", ["manifest.json", "documents.parquet"])
def test_no_flipped_bit_of_the_lists_is_read(trace: StoredTrace, name: str) -> None:
    chance, path = random.Random(SEED + 2), trace.directory / name
    content = path.read_bytes()
    for _ in range(100):
        flipped = bytearray(content)
        bit = chance.randrange(len(content) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            opened = StoredTrace.open(trace.directory)
        except TraceError as error:
            assert name in str(error)
        else:
            assert opened.manifest == trace.manifest and opened.documents == trace.documents, "only a space between tokens may differ"


def test_resuming_collects_a_damaged_shard_again(trace: StoredTrace) -> None:
    """The remedy that the error names works: the damaged file is kept aside, the digest is that of the undamaged trace."""
    path = trace.directory / "shard-00001.parquet"
    content = path.read_bytes()
    assert faults_of(trace.directory) == ()
    path.write_bytes(content[:-20])
    assert "shard-00001.parquet: expected" in faults_of(trace.directory)[0]
    batch = next(iter(read_batches_of(content, trace, path.with_name("copy"))))
    every = tuple(trace._every_document.values())
    writer = TraceWriter.create_or_resume(trace.directory, trace.meta, every)
    assert writer.finished == {0, 2} and writer.orphans == ("shard-00001.parquet",)
    writer.write_shard(1, batch, sorted(set(batch.document.tolist())))
    assert writer.finish() == trace.digest
    assert StoredTrace.open(trace.directory).verify() == trace.digest
    assert {event["event"] for event in StoredTrace.open(trace.directory).manifest.events} == {"damaged", "orphans"}


def read_batches_of(content: bytes, trace: StoredTrace, path: Path) -> list[TraceBatch]:
    path.write_bytes(content)
    return list(read_batches(path, trace.meta.layers, range(len(trace.meta.layers)), FAMILIES))
