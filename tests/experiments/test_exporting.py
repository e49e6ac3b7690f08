"""Exported counts against plain loops, read back by the tools' own rules and by our readers; and what is refused."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.trace import CountsTrace, DocumentRow, TraceError
from experiments import exporting
from experiments.cli import main
from experiments.readers import ReadOptions, moe_infinity
from tests.analysis.audit.flaws import planted, whole
from tests.references.memory_trace import MemoryTrace
from tests.synthetic_trace import make_batch, make_meta
from tracking.traces import TraceWriter

DOCUMENTS = tuple(DocumentRow(n, f"{domain}/{n}", domain, split) for n, (domain, split) in enumerate(
    [("law", "test"), ("=code", "test"), ("law", "calibration"), ("=code", "test"), ("law", "test")]))


@cache
def trace(experts: tuple[int, ...] = (8, 8)) -> MemoryTrace:
    meta = make_meta(tuple((n, 2) for n in experts))
    batch = make_batch(np.random.default_rng(3), meta, DOCUMENTS, tokens=(5, 9))
    return MemoryTrace(meta, DOCUMENTS, (batch,))


def loops(one: MemoryTrace) -> tuple[Counter, Counter]:
    """(document, layer, expert) -> selections, and first choices."""
    chosen, first = Counter(), Counter()
    for batch in one.shards:
        for layer, ids in enumerate(batch.ids):
            for document, row in zip(batch.document.tolist(), ids.tolist()):
                chosen.update((document, layer, expert) for expert in row)
                first[document, layer, row[0]] += 1
    return chosen, first


def test_the_load_matrix_counts_every_choice() -> None:
    chosen, _ = loops(trace())
    found = exporting.load_matrix(exporting.tally_of(trace(), None, by_document=False))
    assert found.dtype == np.int64
    assert found.tolist() == [[sum(chosen[d, layer, expert] for d in range(5)) for expert in range(8)] for layer in range(2)]
    test_only = exporting.load_matrix(exporting.tally_of(trace(), "test", by_document=False))
    assert test_only.tolist() == [[sum(chosen[d, layer, expert] for d in (0, 1, 3, 4)) for expert in range(8)] for layer in range(2)]


def test_activation_matrices_have_a_document_each_and_are_read_back(tmp_path: Path) -> None:
    chosen, _ = loops(trace())
    tally = exporting.tally_of(trace(), "test", by_document=True)
    found = exporting.activations(tally)
    assert (found.dtype, found.shape) == (np.float32, (4, 2, 8))
    assert tally.ids == ("law/0", "=code/1", "=code/3", "law/4")
    for row, document in enumerate((0, 1, 3, 4)):
        assert found[row].tolist() == [[chosen[document, layer, expert] for expert in range(8)] for layer in range(2)]
    (tmp_path / "a.npy").write_bytes(exporting.npy(found))
    back = moe_infinity.read(tmp_path / "a.npy", ReadOptions(top_k=2))
    matrix = exporting.load_matrix(exporting.tally_of(trace(), "test", by_document=False))
    assert [table[0].tolist() for table in back.counts] == matrix.tolist()


def test_tables_by_domain() -> None:
    chosen, first = loops(trace((8, 4)))
    columns = exporting.table(exporting.tally_of(trace((8, 4)), None, by_document=False))
    parquet = pq.read_table(io.BytesIO(exporting.parquet_bytes(columns))).to_pylist()
    rows = list(csv.DictReader(io.StringIO(exporting.csv_bytes(columns).decode())))
    assert len(rows) == len(parquet) == 2 * (8 + 4)
    members = {"law": (0, 2, 4), "=code": (1, 3)}
    for row, same in zip(parquet, rows):
        layer = row["depth"]
        assert row["selections"] == sum(chosen[d, layer, row["expert"]] for d in members[row["domain"]]) == int(same["selections"])
        assert row["first_choices"] == sum(first[d, layer, row["expert"]] for d in members[row["domain"]]) == int(same["first_choices"])
        assert same["domain"] in ("law", "'=code")  # no spreadsheet takes it for a formula


def test_counts_without_documents() -> None:
    counts = CountsTrace(trace().meta, ("a", "b"), tuple(np.arange(16).reshape(2, 8) for _ in range(2)))
    tally = exporting.tally_of(counts, None, by_document=False)
    assert exporting.load_matrix(tally)[1].tolist() == [8, 10, 12, 14, 16, 18, 20, 22]
    assert exporting.table(tally)["first_choices"][:2] == [None, None]
    assert exporting.csv_bytes(exporting.table(tally)).splitlines()[2] == b"a,0,model.layers.0.mlp.gate,1,1,,"
    with pytest.raises(TraceError, match="no documents"):
        exporting.tally_of(counts, None, by_document=True)
    with pytest.raises(TraceError, match="nor a split"):
        exporting.tally_of(counts, "test", by_document=False)


def test_what_a_form_cannot_say_is_refused() -> None:
    tally = exporting.tally_of(trace((8, 4)), None, by_document=True)
    for form in (exporting.load_matrix, exporting.activations):
        with pytest.raises(TraceError, match="layers of 4, 8 experts"):
            form(tally)
    large = exporting.tally_of(trace(), None, by_document=True)
    with pytest.raises(TraceError, match="float32 cannot hold"):
        exporting.activations(replace(large, counts=tuple(table + 2**24 for table in large.counts)))
    with pytest.raises(TraceError, match="split 'train': no documents; choose among test, calibration"):
        exporting.tally_of(trace(), "train", by_document=False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = TraceWriter.create_or_resume(tmp_path / "trace", trace().meta, DOCUMENTS)
    writer.write_shard(0, trace().shards[0], range(5))
    writer.finish()
    for form, name in (("eplb", "load.npy"), ("moe-infinity", "eams.npy"), ("csv", "c.csv"), ("parquet", "c.parquet")):
        assert main(["export", str(tmp_path / "trace"), str(tmp_path / name), "--form", form]) == 0
        told = json.loads((tmp_path / f"{name}.origin.json").read_text())
        assert (told["form"], len(told["layers"])) == (form, 2)
    assert [one["id"] for one in json.loads((tmp_path / "eams.npy.origin.json").read_text())["units"]] == [row.id for row in DOCUMENTS]
    assert np.load(tmp_path / "load.npy").sum() == 2 * 2 * len(trace().shards[0])
    assert main(["export", str(tmp_path / "trace"), str(tmp_path / "load.csv"), "--form", "eplb"]) == 1
    assert "is written as .npy" in capsys.readouterr().err


def test_counts_of_a_flawed_trace_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = planted("dense_layers", 0)
    writer = TraceWriter.create_or_resume(tmp_path / "trace", trace.meta, trace.documents)
    batch = whole(trace)
    writer.write_shard(0, batch, np.unique(batch.document).tolist())
    writer.finish()
    assert main(["export", str(tmp_path / "trace"), str(tmp_path / "load.npy"), "--form", "eplb"]) == 0
    assert "flawed: dense_layers: 1 layers choose expert 0" in capsys.readouterr().out
    (flaw,) = json.loads((tmp_path / "load.npy.origin.json").read_text())["flaws"]
    assert flaw["code"] == "dense_layers" and "loads" in flaw["invalidates"]
