"""Our own traces as foreign ones: nothing is lost on the way round, splits stay, counts are known from rows."""

from __future__ import annotations

import io
import resource
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.trace import CountsTrace, TraceError
from experiments import inspecting, measuring
from experiments.imported_trace import Draw, ImportedTrace, joined, opened
from experiments.importing import whole
from experiments.progress import Silent
from experiments.readers import recognise
from experiments.readers.contract import ReadError, ReadOptions
from experiments.stages.imported import store
from tests.synthetic_trace import make_meta, make_trace
from tracking import count_tables
from tracking.atomic import read_sealed, sha256_file, write_sealed
from tracking.traces import StoredTrace


def test_a_trace_comes_round_with_its_splits_and_rows(tmp_path: Path) -> None:
    first = make_trace(tmp_path / "run" / "trace", np.random.default_rng(0), 30)
    trace = joined(opened([tmp_path / "run"], [ReadOptions()]), Draw(0.5, "another"))
    assert isinstance(trace, ImportedTrace)
    store(trace, tmp_path / "again", Silent())
    second = StoredTrace.open(tmp_path / "again")
    assert second.documents == first.documents and second.digest == first.digest
    assert second.meta == replace(first.meta, details=second.meta.details) and second.meta.details["batch_plan"] == {"batch_size": 4}


def test_a_damaged_trace_is_refused_by_its_reader(tmp_path: Path) -> None:
    make_trace(tmp_path, np.random.default_rng(0), 10)
    next(tmp_path.glob("shard-*.parquet")).unlink()
    assert recognise(tmp_path).NAME == "assay"
    with pytest.raises(ReadError, match="no such file"):
        whole(tmp_path)


def test_kept_counts_are_read_again(tmp_path: Path) -> None:
    meta = make_meta(((4, 2),))
    count_tables.save(CountsTrace(meta, ("code",), (np.array([[3, 2, 1, 0]]),)), tmp_path)
    again = whole(tmp_path)
    assert isinstance(again, CountsTrace) and again.counts[0].tolist() == [[3, 2, 1, 0]] and again.tokens is None


def test_own_counts_that_unpack_without_bound_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """Everybody can seal a file."""
    count_tables.save(CountsTrace(make_meta(((4, 2),)), ("code",), (np.array([[3, 2, 1, 0]]),)), tmp_path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (25_000_000,)})
    with zipfile.ZipFile(tmp_path / "counts.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("counts/00.npy", "w") as file:
        file.write(header.getvalue())
        for _ in range(200):
            file.write(bytes(1_000_000))
    fields = read_sealed(tmp_path / "counts.json", "")
    write_sealed(tmp_path / "counts.json", {**fields, "sha256": sha256_file(tmp_path / "counts.npz")})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for reading in (whole, inspecting.opened):
        with pytest.raises(ReadError, match="its members claim 200,000,128 bytes unpacked"):
            reading(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # kilobytes


@pytest.mark.parametrize("without", ["meta", "domains", "pairs_first"])
def test_sealed_counts_without_a_field(without: str, tmp_path: Path) -> None:
    count_tables.save(CountsTrace(make_meta(((4, 2),)), ("code",), (np.array([[3, 2, 1, 0]]),)), tmp_path)
    fields = read_sealed(tmp_path / "counts.json", "")
    write_sealed(tmp_path / "counts.json", {name: value for name, value in fields.items() if name not in (without, "seal")})
    with pytest.raises(ReadError, match=f"KeyError: '{without}'.*import the file again"):
        whole(tmp_path)


@pytest.mark.parametrize("arrays", [{"pairs/0-x": np.zeros(1)}, {"pairs/0-9": np.zeros((1, 4, 4), np.int64)}, {"types/00": np.zeros(3, np.int64)},
                                    {"tokens": np.zeros(2, np.int64)}, {"counts/x": np.zeros(3)}])
def test_sealed_tables_of_other_shapes(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    count_tables.save(CountsTrace(make_meta(((4, 2),)), ("code",), (np.array([[3, 2, 1, 0]]),)), tmp_path)
    np.savez(tmp_path / "counts.npz", **{**dict(np.load(tmp_path / "counts.npz")), **arrays})
    fields = read_sealed(tmp_path / "counts.json", "")
    write_sealed(tmp_path / "counts.json", {**fields, "sha256": sha256_file(tmp_path / "counts.npz")})
    with pytest.raises(ReadError, match="import the file again"):
        whole(tmp_path)


@pytest.mark.parametrize("change", [{"shards": None}, {"shards": [{"name": "x"}]}, {"documents": {}}, {"meta": {}}, {"meta": []}, {"more": 1},
                                    {"documents": {"name": "../documents.parquet", "bytes": 1, "sha256": ""}}])
def test_a_sealed_manifest_that_is_none(change: dict[str, object], tmp_path: Path) -> None:
    make_trace(tmp_path, np.random.default_rng(0), 10)
    write_sealed(tmp_path / "manifest.json", {**read_sealed(tmp_path / "manifest.json", ""), **change})
    for reading in (whole, inspecting.opened):
        with pytest.raises(TraceError, match=r"manifest\.json: not a whole manifest"):
            reading(tmp_path)


@pytest.mark.parametrize("kept", ["[]", '{"remarks": 1}', '{"remarks": [{"code": 1}]}',
                                  '{"remarks": [{"code": "a", "words": "b", "count": "c"}]}', "{"])
def test_kept_remarks_that_are_none(kept: str, tmp_path: Path) -> None:
    make_trace(tmp_path, np.random.default_rng(0), 10)
    (tmp_path / "collection.json").write_text(kept)
    with pytest.raises(ReadError, match=r"collection\.json"):
        whole(tmp_path)


def test_a_parquet_of_values_without_bound_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    make_trace(tmp_path, np.random.default_rng(0), 10)
    pq.write_table(pa.table({"document": pa.array(["x" * 1_000_000] * 100).dictionary_encode()}), tmp_path / "documents.parquet")
    for reading in (whole, inspecting.opened, measuring.open_trace):
        with pytest.raises(ReadError, match=r"documents\.parquet: not read \(.*limit for a file of its size"):
            reading(tmp_path)
