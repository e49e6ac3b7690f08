"""Samples of a trace: shares by hand, whole documents with the same rows, the same choice whatever else is there, and provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.trace import DocumentRow, TraceError
from experiments import sampling
from experiments.cli import main
from tests.synthetic_trace import make_batch, make_meta
from tracking.traces import StoredTrace, TraceWriter

DOCUMENTS = tuple(DocumentRow(n, f"d{n}", "law" if n % 3 else "code", "test" if n % 2 else "calibration") for n in range(30))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredTrace:
    """Thirty documents in three shards."""
    directory = tmp_path_factory.mktemp("sampling") / "trace"
    meta = make_meta(((8, 2), (8, 2)))
    writer = TraceWriter.create_or_resume(directory, meta, DOCUMENTS)
    for shard in range(3):
        mine = DOCUMENTS[10 * shard:10 * shard + 10]
        writer.write_shard(shard, make_batch(np.random.default_rng(shard), meta, mine, tokens=(4, 8)), [row.document for row in mine])
    writer.finish()
    return StoredTrace.open(directory)


@pytest.mark.parametrize(("sizes", "n", "expected"), [
    ({("a", "t"): 10, ("b", "t"): 20}, 9, {("a", "t"): 3, ("b", "t"): 6}),
    ({("a", "t"): 1, ("b", "t"): 98, ("c", "t"): 1}, 10, {("a", "t"): 1, ("b", "t"): 8, ("c", "t"): 1}),  # none is lost
    ({("a", "t"): 5, ("b", "t"): 5, ("c", "t"): 5}, 2, {("a", "t"): 1, ("b", "t"): 1, ("c", "t"): 0}),  # fewer than strata: by name
    ({("a", "t"): 2, ("b", "t"): 3}, 5, {("a", "t"): 2, ("b", "t"): 3}),
])
def test_shares_by_hand(sizes: dict, n: int, expected: dict) -> None:
    assert sampling.shares(sizes, n) == expected


def test_shares_add_up_and_never_exceed() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = {(str(i), "t"): int(n) for i, n in enumerate(rng.integers(1, 40, rng.integers(1, 8)))}
        n = int(rng.integers(1, sum(sizes.values()) + 1))
        found = sampling.shares(sizes, n)
        assert sum(found.values()) == n
        assert all(0 <= found[one] <= sizes[one] for one in sizes)


def test_a_choice_depends_on_no_other_domain() -> None:
    chosen = {row.id for row in sampling.choose(DOCUMENTS, 12, "s") if row.domain == "law" and row.split == "test"}
    alone = [row for row in DOCUMENTS if row.domain == "law" and row.split == "test"]
    assert chosen == {row.id for row in sampling.choose(alone, len(chosen), "s")}
    assert chosen != {row.id for row in sampling.choose(alone, len(chosen), "other")}


def test_whole_documents_with_the_same_rows(stored: StoredTrace, tmp_path: Path) -> None:
    sample = sampling.write(stored, tmp_path / "small", 9, "s", "big")
    assert len(sample.documents) == 9
    assert [row.document for row in sample.documents] == list(range(9))
    assert {(row.domain, row.split) for row in sample.documents} == {(row.domain, row.split) for row in DOCUMENTS}
    whole = {row.id: rows_of(stored, row.document) for row in stored.documents}
    for row in sample.documents:
        assert rows_of(sample, row.document) == whole[row.id]
    told = sample.meta.details["sampled"]
    assert (told["documents"], told["of"], told["digest"], told["trace"]) == (9, 30, stored.digest, "big")
    assert sum(one["documents"] for one in told["strata"]) == 9
    assert sampling.write(stored, tmp_path / "again", 9, "s", "big").digest == sample.digest


def rows_of(trace: StoredTrace, document: int) -> list:
    """Position, token, ids and weights of a document."""
    found = []
    for batch in trace.batches():
        mine = batch.document == document
        found += [batch.position[mine].tolist(), batch.types[mine].tolist(), *(ids[mine].tolist() for ids in batch.ids),
                  *(weights[mine].tolist() for weights in batch.weights or ())] if mine.any() else []
    return found


def test_the_command_goes_on_and_refuses(stored: StoredTrace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sample", str(stored.directory), str(tmp_path / "small"), "--documents", "6"]
    assert main(arguments) == 0
    assert "6 documents in 2 domains, of 30 documents" in capsys.readouterr().out
    assert main(arguments) == 0
    assert main([*arguments[:-1], "7"]) == 1  # another sample in the same folder
    assert main([*arguments[:-1], "31"]) == 1
    assert "the trace has 30 documents" in capsys.readouterr().err


def test_none_are_refused() -> None:
    with pytest.raises(TraceError, match="choose from 1"):
        sampling.choose(DOCUMENTS, 0, "s")
