"""The ESFT reader: the published scores of DeepSeek-V2-Lite from the real files, and what it refuses of damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.metrics.relevance import gate_score, relevant_experts, token_score
from analysis.trace import TraceError
from experiments.readers.esft import EsftTrace, recognises

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "deepseek-ai__ESFT"
TASKS = ("law", "intent")
PUBLISHED_SHARE = 0.2  # threshold p of the published configurations


def real(task: str) -> EsftTrace:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there: real traces live beside the clone, not in it")
    return EsftTrace(DATA / f"{task}.npz")


def sums(trace: EsftTrace) -> tuple[np.ndarray, np.ndarray, int]:
    counts, weights, tokens = np.zeros((len(trace.meta.layers), 64)), np.zeros((len(trace.meta.layers), 64)), 0
    for _, batch in trace.batches():
        tokens += len(batch)
        assert batch.weights is not None
        for layer, (ids, weight) in enumerate(zip(batch.ids, batch.weights)):
            np.add.at(counts[layer], ids, 1)
            np.add.at(weights[layer], ids, weight.astype(np.float64))
    return counts, weights, tokens


@pytest.mark.parametrize("task", TASKS)
def test_the_published_scores_to_four_decimals(task: str) -> None:
    trace = real(task)
    counts, weights, tokens = sums(trace)
    published = json.loads((DATA / f"published_scores_{task}.json").read_text())
    for layer, meta in enumerate(trace.meta.layers):
        expected = {kind: np.array([published[kind][str(meta.depth)][str(e)] for e in range(64)]) for kind in published}
        np.testing.assert_array_equal(np.round(token_score(counts[layer]), 4), expected["token_scores"])
        # the file holds four decimals and the trace float16: half a unit in the last printed place either way
        np.testing.assert_allclose(gate_score(weights[layer], tokens), expected["gate_scores"], atol=0.5e-4 + 1e-6, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_all_published_selections(task: str) -> None:
    trace = real(task)
    counts, _, _ = sums(trace)
    published = json.loads((DATA / f"published_config_{task}.json").read_text())["experts"]
    chosen = {str(meta.depth): relevant_experts(token_score(counts[layer]), PUBLISHED_SHARE).tolist() for layer, meta in enumerate(trace.meta.layers)}
    assert chosen == published


@pytest.mark.parametrize("task", TASKS)
def test_the_same_rows_as_the_original_text(task: str) -> None:
    """The first sequences of three layers in the form that was published: ids, two tabs, weights."""
    trace = real(task)
    for path in DATA.glob(f"raw_{task}_first5_expert_weights_*.txt"):
        block = int(path.stem.rsplit("_", 1)[1])
        layer = next(index for index, meta in enumerate(trace.meta.layers) if meta.depth == block)
        _, batch = next(iter(trace.batches()))
        assert batch.weights is not None
        for number, line in enumerate(path.read_text().splitlines()):
            ids, weights = (np.array(part.split("\t"), float).reshape(-1, 6) for part in line.split("\t\t"))
            rows = batch.document == number
            assert np.array_equal(np.sort(ids, axis=1), np.sort(batch.ids[layer][rows], axis=1))
            np.testing.assert_allclose(-np.sort(-weights, axis=1), batch.weights[layer][rows].astype(float), atol=2**-11)


def arrays(**changes: Any) -> dict[str, Any]:
    """Three layers, two sequences of 3 and 2 tokens, top-2 of 64."""
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((3, 5, 64)), axis=2)[:, :, :2].astype(np.uint8)
    weights = rng.integers(1, 5000, (3, 5, 2)).astype(np.uint16)
    return {"expert_ids": ids, "weight_e4": weights, "doc_len": np.array([3, 2], np.int32), "layers": np.arange(1, 4)} | changes


def written(directory: Path, **changes: Any) -> Path:
    columns = {name: column for name, column in arrays(**changes).items() if column is not None}
    np.savez(directory / "task.npz", **columns)
    return directory / "task.npz"


def test_slots_are_by_weight_then_id_and_documents_whole(tmp_path: Path) -> None:
    ids = np.tile(np.array([[9, 4], [7, 3]] * 2 + [[1, 2]], np.uint8), (3, 1, 1))
    weights = np.tile(np.array([[100, 100], [10, 20]] * 2 + [[5, 1]], np.uint16), (3, 1, 1))
    trace = EsftTrace(written(tmp_path, expert_ids=ids, weight_e4=weights))
    ((number, batch),) = trace.batches()
    assert number == 0
    assert batch.ids[0].tolist() == [[4, 9], [3, 7], [4, 9], [3, 7], [1, 2]]
    assert batch.document.tolist() == [0, 0, 0, 1, 1] and batch.position.tolist() == [0, 1, 2, 0, 1]
    assert batch.token_id is None
    with pytest.raises(TraceError, match="token_id: absent"):
        _ = batch.types


def test_batches_are_cut_between_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.readers.esft.ROWS_PER_BATCH", 2)
    trace = EsftTrace(written(tmp_path))
    assert [(number, part.document.tolist()) for number, part in trace.batches()] == [(0, [0, 0, 0]), (1, [1, 1])]
    assert [number for number, _ in trace.batches(after=0)] == [1]


def test_the_format_is_recognised_by_content_alone(tmp_path: Path) -> None:
    path = written(tmp_path).rename(tmp_path / "anything")
    other = tmp_path / "other.npz"
    np.savez(other, ids=np.zeros(3))
    assert recognises(path) and not recognises(other) and not recognises(tmp_path)


def bad_ids(row: int, values: tuple[int, int]) -> np.ndarray:
    ids = arrays()["expert_ids"]
    ids[1, row] = values
    return ids


@pytest.mark.parametrize(("changes", "words"), [
    ({"doc_len": np.array([3, 3], np.int32)}, "field doc_len: .* sum to 5 tokens"),
    ({"doc_len": np.array([5, 0], np.int32)}, "field doc_len: .*least 0"),
    ({"layers": np.arange(2)}, "field layers: 2 entries for 3"),
    ({"layers": None}, "field layers: absent"),
    ({"weight_e4": np.zeros((3, 5, 3), np.uint16)}, "field weight_e4: .*expert_ids is"),
    ({"weight_e4": np.zeros((3, 5, 2))}, "field weight_e4: float64"),
    ({"weight_e4": np.full((3, 5, 2), 6000, np.uint16)}, "field weight_e4: layer 1, sequence 0, token 0: .*more than 1"),
    ({"expert_ids": bad_ids(4, (64, 1))}, "field expert_ids: layer 2, sequence 1, token 1: .*outside 0..63"),
    ({"expert_ids": bad_ids(2, (5, 5))}, "layer 2, sequence 0, token 2: one expert twice"),
])
def test_damage_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(TraceError, match=words) as refusal:
        EsftTrace(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip"])
def test_files_that_are_no_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "task.npz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match="download or export the file again"):
        EsftTrace(path)
    with pytest.raises(TraceError, match="no such file"):
        EsftTrace(tmp_path / "other.npz")


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "task.npz"
    np.savez(path, **arrays(layers=np.array([1, "x", None], dtype=object)))
    with pytest.raises(TraceError, match="plain arrays"):
        EsftTrace(path)
