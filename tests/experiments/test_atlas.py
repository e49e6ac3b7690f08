"""Seed 001's three functions: its printed row, keys, files; traces of every kind that they take."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis.trace import CountsTrace, DocumentRow, LayerMeta, TraceBatch, TraceMeta
from experiments import atlas
from experiments.report import figure_files
from tests.references.memory_trace import MemoryTrace
from tests.synthetic_trace import make_trace
from tracking import count_tables

PRINTED_1 = {0: 33, 1: 30, 2: 34, 3: 22, 4: 5, 5: 3, 6: 1}  # metrics specification 9: the only histogram that prints as the seed's layer-1 row
KEYS = {"layer_id", "mean", "std", "coefficient_of_variation", "median", "min_usage", "max_usage", "skewness", "kurtosis", "q25", "q75", "iqr",
        "entropy_bits", "active_experts", "expert_diversity"}


def single_layer(loads, depth=1):
    """One document of top-1 tokens that give these loads."""
    ids = np.repeat(np.arange(len(loads)), loads).astype(np.uint8)[:, None]
    layer = LayerMeta(f"block.{depth}", depth, "decoder", len(loads), 1)
    meta = TraceMeta("seed 001", "0", (layer,), "softmax", "absent", "absent", "absent", 0, "tests")
    rows = np.arange(len(ids), dtype=np.int32)
    return MemoryTrace(meta, [DocumentRow(0, "d", "all", "test")], [TraceBatch(np.zeros(len(ids), np.int32), rows, None, (ids,))])


def test_the_seeds_printed_layer_1_comes_back():
    loads = np.repeat(list(PRINTED_1), list(PRINTED_1.values()))
    stats, usage = atlas.analyze_layer_statistics(single_layer(loads))
    row = stats["1"]
    assert (round(row["mean"], 2), round(row["std"], 2), round(row["coefficient_of_variation"], 3)) == (1.60, 1.33, 0.831)
    assert (round(row["entropy_bits"], 2), row["active_experts"], round(row["expert_diversity"], 3)) == (6.40, 95, 0.742)
    assert (round(row["skewness"], 3), round(row["kurtosis"], 3), row["layer_id"]) == (0.637, 0.104, 1)
    assert set(row) == KEYS | {"uniform_null"} and usage["1"].tolist() == loads.tolist()
    null = row["uniform_null"]  # metrics specification 2.2: uniform routing of 205 selections over 128 experts
    assert null["active_experts"]["mean"] == pytest.approx(102.4, abs=0.1) and null["entropy_bits"]["mean"] == pytest.approx(6.48, abs=0.01)
    assert null["coefficient_of_variation"]["mean"] == pytest.approx(0.79, abs=0.01)
    assert null["coefficient_of_variation"]["low"] < row["coefficient_of_variation"] < null["coefficient_of_variation"]["high"]


def test_statistics_are_numpys_and_scipys(tmp_path):
    trace = make_trace(tmp_path / "trace", np.random.default_rng(0))
    stats, usage = atlas.analyze_layer_statistics(atlas.load_traces(tmp_path / "trace"))
    assert list(stats) == ["0", "1"]
    n = np.zeros(16)
    for batch in trace.batches():
        for slot in batch.ids[1].T:
            np.add.at(n, slot, 1)
    row = stats["1"]
    assert usage["1"].tolist() == n.tolist()
    q25, median, q75 = np.quantile(n, [0.25, 0.5, 0.75])
    want = {"mean": n.mean(), "std": n.std(), "coefficient_of_variation": n.std() / n.mean(), "median": median, "min_usage": n.min(),
            "max_usage": n.max(), "skewness": scipy_stats.skew(n), "kurtosis": scipy_stats.kurtosis(n), "q25": q25, "q75": q75, "iqr": q75 - q25,
            "entropy_bits": scipy_stats.entropy(n, base=2), "active_experts": (n > 0).sum(), "expert_diversity": (n > 0).mean()}
    assert {key: row[key] for key in want} == pytest.approx(want)


def test_a_run_directory_and_counts_are_traces(tmp_path):
    make_trace(tmp_path / "run" / "trace", np.random.default_rng(1))
    assert len(atlas.load_traces(tmp_path / "run").documents) == 20
    meta = single_layer([1, 2]).meta
    count_tables.save(CountsTrace(meta, ("a", "b"), (np.array([[3, 1], [0, 2]]),)), tmp_path / "counts")
    stats, usage = atlas.analyze_layer_statistics(atlas.load_traces(str(tmp_path / "counts")))
    assert usage["1"].tolist() == [3, 3] and stats["1"]["coefficient_of_variation"] == 0 and stats["1"]["skewness"] is None


def test_plots_are_written_by_the_seeds_names(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    stats, usage = atlas.analyze_layer_statistics(single_layer([5, 0, 3]))
    paths = atlas.create_expert_frequency_plots(usage, stats, tmp_path / "plots")
    assert [path.name for path in paths] == ["layer_1_expert_frequency.png"] and paths[0].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="layer 1: loads without statistics"):
        atlas.create_expert_frequency_plots(usage, {}, tmp_path)


def test_a_path_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        atlas.load_traces(tmp_path / "nothing.pkl")
