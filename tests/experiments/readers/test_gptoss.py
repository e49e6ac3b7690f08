"""gpt-oss routing: rows by hand from both forms, the published file against its own columns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, gptoss
from tests.experiments.readers import foreign_files
from tests.experiments.readers.foreign_files import SHARED, bfloat16

REAL = SHARED / "gpt-oss-20b" / "gptoss20b_traces_0.npz"
FOUR = ReadOptions(n_experts=4)


@pytest.mark.parametrize("write", [foreign_files.gptoss_json, foreign_files.gptoss_npz])
def test_rows_by_hand(write: Any, tmp_path: Path) -> None:
    trace = gptoss.read(write(tmp_path), FOUR)
    ((number, batch),) = trace.batches()
    assert number == 0
    assert batch.document.tolist() == [0, 0, 1]
    assert batch.position.tolist() == [5, 6, 0]
    assert batch.token_id is None
    assert batch.ids[0].tolist() == [[3, 1], [1, 2], [0, 3]]
    assert batch.ids[1].tolist() == [[0, 2], [2, 3], [1, 0]]
    assert batch.weights is not None
    assert batch.weights[1].tolist() == [[0.5, 0.5], [0.75, 0.25], [0.875, 0.125]]
    assert [(row.id, row.domain) for row in trace.documents] == [("mmlu/law/False_False", "law"), (f"mmlu/law/False_True{suffix(write)}", "law")]
    assert trace.meta.details["row_index"] == [7, 8]
    remarks = {remark.code: (remark.count, remark.share) for remark in trace.remarks}
    assert remarks == {"first_tokens_missing": (1, 0.5), "ties": (2, 2 / 6)}


def suffix(write: Any) -> str:
    """Examples of one file after the first carry their number."""
    return "#1" if write is foreign_files.gptoss_json else ""


def test_the_published_rows_are_kept_and_only_ties_reordered() -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not there: real traces live beside the clone, not in it")
    with np.load(REAL) as file:
        ids, probabilities = file["expert_ids"], (file["prob_bf16"].astype(np.uint32) << 16).view(np.float32)
        lengths, first = file["doc_len"], file["first_pos"]
    trace = gptoss.read(REAL, ReadOptions())
    ((_, batch),) = trace.batches()
    assert trace.meta.model == "openai/gpt-oss-20b"
    assert {layer.n_experts for layer in trace.meta.layers} == {32}
    assert len(trace.documents) == 20
    assert len({row.domain for row in trace.documents}) == 20
    np.testing.assert_array_equal(batch.position[np.cumsum(lengths) - lengths], first)
    got, weights = np.stack(batch.ids, axis=1), np.stack(batch.weights or (), axis=1)
    np.testing.assert_array_equal(np.sort(got, axis=2), np.sort(ids, axis=2))
    np.testing.assert_array_equal(weights, probabilities.astype(np.float16))  # descending already
    moved = (got != ids).any(axis=2)
    assert moved.any()
    assert (np.diff(probabilities[moved], axis=1) == 0).any(axis=1).all()


def test_a_folder_of_two_categories(tmp_path: Path) -> None:
    for category in ("law", "virology"):
        folder = tmp_path / "mmlu" / category
        folder.mkdir(parents=True)
        path = foreign_files.gptoss_json(folder)
        path.write_text(json.dumps([one | {"category": category} for one in json.loads(path.read_text())]))
    trace = gptoss.read(tmp_path, FOUR)
    assert [row.domain for row in trace.documents] == ["law", "law", "virology", "virology"]
    (folder / "other_examples.json").write_text(json.dumps({"dataset": "x", "category": "y", "router_data": [
        {"token_0": {"layer_0": {"selected_experts": [1, 2], "selected_probs": [0.5, 0.5]}}}]}))
    with pytest.raises(ReadError, match="two models are never one trace"):
        gptoss.read(tmp_path, FOUR)


def test_batches_are_cut_between_documents_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.readers._rows.ROWS_PER_BATCH", 2)
    trace = gptoss.read(foreign_files.gptoss_npz(tmp_path), FOUR)
    assert [(number, batch.document.tolist()) for number, batch in trace.batches()] == [(0, [0, 0]), (1, [1])]
    assert [number for number, _ in trace.batches(after=0)] == [1]


def ids(*row: int) -> np.ndarray:
    found = np.array(foreign_files.GPTOSS_IDS, np.uint8)
    found[2, 1] = row
    return found


@pytest.mark.parametrize(("changes", "words"), [
    ({"expert_ids": ids(1, 4)}, "field expert_ids: document 'mmlu/law/False_True', token 0, layer 1: expert id 4, .*4 experts; off by one"),
    ({"expert_ids": ids(1, 9)}, "expert id 9, but the layer has 4 experts; give --n-experts"),
    ({"expert_ids": ids(1, 1)}, "token 0, layer 1: one expert twice"),
    ({"prob_bf16": bfloat16([[[1.0, 0.25], [0.5, 0.5]]] * 3)}, "field probabilities: document .*token 0, layer 0: weights that sum to more than 1"),
    ({"prob_bf16": bfloat16([[[0.5, -0.25], [0.5, 0.5]]] * 3)}, "negative, not finite"),
    ({"prob_bf16": np.full((3, 2, 2), 0x7FC0, np.uint16)}, "negative, not finite"),
    ({"prob_bf16": np.ones((3, 2, 2), np.uint8)}, "field prob_bf16: uint8"),
    ({"prob_bf16": np.ones((3, 2, 3), np.uint16)}, "field prob_bf16: .*expert_ids is"),
    ({"doc_len": np.array([2, 2])}, "field doc_len: .*sum to 3 tokens"),
    ({"doc_len": np.array([3])}, "field doc_len: 1 entries for 2 documents"),
    ({"doc_id": np.array(["a/b/c", "a/b/c"])}, "field doc_id: one id twice"),
    ({"first_pos": np.array([-1, 0])}, "field first_pos"),
    ({"expert_ids": None}, "field expert_ids: absent"),
    ({"row_index": np.array([1])}, "field row_index: 1 entries"),
])
def test_damage_is_named_with_its_place(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = foreign_files.gptoss_npz(tmp_path, **changes)
    with pytest.raises(ReadError, match=words) as refusal:
        gptoss.read(path, FOUR)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(("router", "words"), [
    ([], "field router_data: empty"),
    ({}, "field router_data: dict"),
    ([{"token_0": {}}], "none of them 0|layers"),
    ([{"tok_0": {}}], "'tok_0': expected token_N"),
    ([{"token_0": {"layer_1": {}}}], "layers \\[1\\], expected every one from layer_0"),
    ([{"token_0": {"layer_0": {"selected_experts": [1.5, 2], "selected_probs": [0.5, 0.5]}}}], "no expert id"),
    ([{"token_0": {"layer_0": {"selected_experts": [1, 2]}}}], "field selected_probs: absent"),
    ([{"token_0": {"layer_0": {"selected_experts": [1, 2], "selected_probs": [0.5]}}}], "layers and slots|expert_ids is"),
])
def test_damaged_examples(router: Any, words: str, tmp_path: Path) -> None:
    path = foreign_files.gptoss_json(tmp_path, router_data=router)
    with pytest.raises(ReadError, match=words):
        gptoss.read(path, FOUR)


@pytest.mark.parametrize(("text", "words"), [
    ('{"router_data": NaN, "selected_experts": 1}', "NaN is no JSON number"),
    ('{"router_data": 1, "router_data": 2}', "'router_data' occurs twice"),
    ('{"router_data": ' + "[" * 100_000 + "]" * 100_000 + "}", "byte 79: nested deeper than 64"),
    ('{"router_data": ' + "1" * 5000 + "}", "limit .4300 digits."),
    ('{"router_data": [{"token_0": {"layer_0": {"selected_experts": [1, 2], "selected_probs": [1e999, 0.5]}}}]}', "no number|not finite"),
    ('{"router_data": [1, ', "byte 20: no JSON"),
])
def test_json_bombs(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a_examples.json"
    path.write_text(text)
    with pytest.raises(ReadError, match=words):
        gptoss.read(path, FOUR)


def test_the_number_of_experts_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="give --n-experts"):
        gptoss.read(foreign_files.gptoss_npz(tmp_path), ReadOptions())


def test_no_remark_on_first_tokens_where_they_are_there(tmp_path: Path) -> None:
    path = foreign_files.gptoss_npz(tmp_path)
    columns = dict(np.load(path))
    np.savez(path, **{**columns, "first_pos": np.zeros_like(columns["first_pos"])})
    assert "first_tokens_missing" not in {one.code for one in gptoss.read(path, FOUR).remarks}
