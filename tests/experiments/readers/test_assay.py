"""Our own traces as foreign ones: nothing is lost on the way round, splits stay, counts are known from rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.trace import CountsTrace
from experiments.imported_trace import Draw, ImportedTrace, joined, opened
from experiments.importing import whole
from experiments.progress import Silent
from experiments.readers import recognise
from experiments.readers.contract import ReadError, ReadOptions
from experiments.stages.imported import store
from tests.synthetic_trace import make_meta, make_trace
from tracking import count_tables
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
