"""vLLM's routed experts and statistics: dense layers absent, what was not captured left out, ranks summed once."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import readers
from experiments.readers import ReadError, ReadOptions
from tests.experiments.readers import foreign_captures as made
from tests.experiments.readers.foreign_files import npy

BY_ROW = [layers[1:] for tokens in made.CAPTURED.values() for layers in tokens]  # [token][layer][slot] without the dense layer


def read(path: Path, **options: Any) -> Any:
    return readers.recognise(path).read(path, ReadOptions(**options))


def only(trace: Any) -> Any:
    ((_, batch),) = trace.batches()
    return batch


@pytest.mark.parametrize("write", [made.vllm_arrays, made.vllm_lines, made.vllm_json, made.sglang])
def test_dense_layers_are_absent_and_ids_are_as_recorded(write: Any, tmp_path: Path) -> None:
    trace = read(write(tmp_path), n_experts=300, top_k=2)
    batch = only(trace)
    assert [row.id for row in trace.documents] == ["cmpl-a", "cmpl-b"]
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(1, 300, 2), (2, 300, 2)]
    assert np.stack(batch.ids, axis=1).tolist() == BY_ROW and batch.ids[0].dtype == np.uint16
    assert batch.document.tolist() == [0, 0, 0, 1] and batch.position.tolist() == [0, 1, 2, 0]
    remarks = {one.code: one.count for one in trace.remarks}
    assert remarks == {"recorded_order": None, "last_tokens_missing": 2, "layers_without_routing": 1}
    assert trace.meta.details["document_lengths"] == {"0": 4, "1": 2}  # the last token of each has no row
    assert trace.meta.details["hidden_layers"] == 3 and trace.meta.details["layers_without_routing"] == [0]


def test_token_ids_of_responses(tmp_path: Path) -> None:
    trace = read(made.vllm_lines(tmp_path), n_experts=300)
    assert only(trace).token_id.tolist() == [10, 11, 12, 20] and trace.meta.vocabulary_size == 21
    assert only(read(made.vllm_arrays(tmp_path), n_experts=300)).token_id is None


def test_choices_of_one_prompt_are_remarked(tmp_path: Path) -> None:
    response = made.vllm_response("cmpl-a", True)
    response["choices"].append({**response["choices"][0], "index": 1})
    (tmp_path / "a.json").write_text(json.dumps(response))
    trace = read(tmp_path / "a.json", n_experts=300, domain="d")
    assert [(row.id, row.domain) for row in trace.documents] == [("cmpl-a/0", "d"), ("cmpl-a/1", "d")]
    assert {one.code: one.count for one in trace.remarks}["shared_prompts"] == 1


def test_prompts_of_the_response_come_before_the_choice(tmp_path: Path) -> None:
    response = made.vllm_response("cmpl-a", True)
    array = np.array(made.CAPTURED["cmpl-a"])
    response["choices"][0]["routed_experts"] = array[2:].tolist()
    response["prompt_routed_experts"] = base64.b64encode(npy(array[:2])).decode()
    (tmp_path / "a.json").write_text(json.dumps(response))
    assert np.stack(only(read(tmp_path / "a.json", n_experts=300)).ids, axis=1).tolist() == BY_ROW[:3]
    response["choices"][0]["routed_experts"] = array.tolist()  # some versions repeat the prompt's rows there
    (tmp_path / "a.json").write_text(json.dumps(response))
    assert np.stack(only(read(tmp_path / "a.json", n_experts=300)).ids, axis=1).tolist() == BY_ROW[:3]


def test_tokens_that_were_not_captured_are_left_out(tmp_path: Path) -> None:
    tokens = np.array([[[0, 0], [1, 2]], [[0, 0], [0, 0]], [[0, 0], [3, 0]]], np.uint8)
    (tmp_path / "a.npy").write_bytes(npy(tokens))
    trace = read(tmp_path / "a.npy", n_experts=4)
    batch = only(trace)
    assert batch.ids[0].tolist() == [[1, 2], [3, 0]] and batch.position.tolist() == [0, 2]
    found = {one.code: (one.count, one.share) for one in trace.remarks}
    assert found["tokens_not_captured"] == (1, pytest.approx(1 / 3))


def test_expert_0_of_a_top_1_layer_is_routing(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy(np.array([[[0], [1], [0]], [[0], [0], [0]]], np.uint8)))
    trace = read(tmp_path / "a.npy", n_experts=2)
    assert [layer.depth for layer in trace.meta.layers] == [1] and only(trace).ids[0].tolist() == [[1], [0]]
    assert "if expert 0 was chosen throughout" in next(one.words for one in trace.remarks if one.code == "layers_without_routing")
    trace = read(tmp_path / "a.npy", n_experts=2, layers=(1, 2))
    assert [column.ravel().tolist() for column in only(trace).ids] == [[1, 0], [0, 0]]


@pytest.mark.parametrize(("options", "words"), [
    ({}, r"highest id 299\); give --n-experts"), ({"n_experts": 256}, r"token 0, layer 1: expert id 299"), ({"n_experts": 299}, "off by one"),
    ({"n_experts": 300, "top_k": 3}, "top_k is 2"), ({"n_experts": 300, "layers": (0, 1, 2)}, "those that captured something are 1, 2"),
    ({"n_experts": 300, "layers": (1,)}, "those that captured something are 1, 2"), ({"n_experts": 300, "layers": (1, 2, 3)}, "of 3 layers"),
])
def test_options_that_do_not_fit(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        read(made.vllm_arrays(tmp_path), **options)


def test_arrays_of_two_models_are_refused(tmp_path: Path) -> None:
    path = made.vllm_arrays(tmp_path)
    (path / "z.npy").write_bytes(npy(np.ones((2, 4, 2), np.uint16)))
    with pytest.raises(ReadError, match=r"\[3, 2\], \[4, 2\]"):
        read(path, n_experts=300)


@pytest.mark.parametrize(("content", "words"), [
    (npy(np.ones((1, 1, 2), np.uint8), "(233, 1099511627776, 4)"), "claims shape"), (npy(np.ones((1, 1, 2), np.uint8), "(-1, 1, 2)"), "claims shape"),
    (npy(np.ones((1, 1, 2), np.uint8), "(4611686018427387904, 4, 2)"), "claims shape"), (npy(np.ones((2, 2), np.uint8)), r"uint8 \[2, 2\]"),
    (npy(np.ones((1, 1, 2), np.float32)), r"float32 \[1, 1, 2\]"), (npy(np.ones((1, 1, 2), np.uint8))[:-1], "claims shape"),
])
def test_arrays_that_claim_too_much(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ReadError, match=words):
        readers.find("vllm").read(tmp_path / "a.npy", ReadOptions(n_experts=4))
    (tmp_path / "a.json").write_text(json.dumps({"choices": [{"routed_experts": base64.b64encode(content).decode()}]}))
    with pytest.raises(ReadError, match=words):
        readers.find("vllm").read(tmp_path / "a.json", ReadOptions(n_experts=4))


@pytest.mark.parametrize(("value", "words"), [
    ("!!!", "not base64"), ("AAAA", "not base64 of an .npy"), ([[[0, 1]], [[0]]], "unequal length"), ([[[0, 1.5]]], "no expert id"),
    ([], "no expert id|expected whole"),
    ([[[0, -1]]], "no expert id"), ({"a": 1}, "dict"), ([[0, 1]], "expected whole"), ([[[True, False]]], "no expert id"),
    (None, "no field routed_experts"),
])
def test_responses_that_hold_something_else(value: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"choices": [{"routed_experts": value}]}))
    with pytest.raises(ReadError, match=words):
        readers.find("vllm").read(tmp_path / "a.json", ReadOptions(n_experts=4))


def test_rows_that_do_not_fit_the_tokens(tmp_path: Path) -> None:
    response = made.vllm_response("cmpl-a", True, prompt_token_ids=[1, 2, 3, 4, 5])
    (tmp_path / "a.json").write_text(json.dumps(response))
    with pytest.raises(ReadError, match="3 rows for 7 tokens"):
        read(tmp_path / "a.json", n_experts=300)


def test_statistics_of_ranks_with_their_own_experts_are_summed(tmp_path: Path) -> None:
    found = read(made.vllm_stats(tmp_path))
    assert found.counts[0].tolist() == [[1, 3, 4, 0]] and found.meta.layers[0].depth == 3 and found.meta.layers[0].top_k == 2
    assert found.tokens.tolist() == [4]  # two steps of two tokens; padding is not counted
    assert {one.code: one.count for one in found.remarks} == {"decoding_only": 4}


def test_ranks_that_are_copies_are_counted_once(tmp_path: Path) -> None:
    for rank in (0, 1):
        made.vllm_stats_file(tmp_path, rank, [0, 1, 2, 3], [[1, 2, 1, 0]])
    found = read(tmp_path)
    assert found.counts[0].tolist() == [[1, 2, 1, 0]] and {one.code: one.count for one in found.remarks}["copied_ranks"] == 1
    made.vllm_stats_file(tmp_path, 1, [0, 1, 2, 3], [[0, 2, 2, 0]])  # other tokens
    assert read(tmp_path).counts[0].tolist() == [[1, 4, 3, 0]]


@pytest.mark.parametrize(("old", "new", "words"), [
    ('"schema_version": 2', '"schema_version": 1', "schema_version 2"),
    ('"local_expert_ids": [0, 1]', '"local_expert_ids": [0, 4]', "not those of a layer"),
    ('"useful_local_assignments_per_expert": [1, 2]', '"useful_local_assignments_per_expert": [1]', "1 entries for 2"),
    ('"useful_local_assignments_per_expert": [1, 2]', '"useful_local_assignments_per_expert": [1, -2]', "no counts"),
    ('"local_expert_ids": [0, 1]', '"local_expert_ids": [0, 2]', "share some local experts"),
    ('"top_k": 2', '"top_k": 4', "top_k; one trace is of one model"),
    ('"summary"', '"other"', "'other'"), ('"global_rank": 0', '"global_rank": 1', "is there twice"),
])
def test_statistics_that_are_wrong(old: str, new: str, words: str, tmp_path: Path) -> None:
    path = made.vllm_stats(tmp_path)
    file = path / "expert-routing-rank-0-iteration-0.jsonl"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ReadError, match=words):
        readers.find("vllm-stats").read(path, ReadOptions())


def test_an_array_whose_axes_are_stored_last_first_is_the_same_array(tmp_path: Path) -> None:
    ids = np.array([[[0], [1]], [[0], [4]], [[0], [6]]], np.uint8)
    for order in "CF":
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(ids, order=order))
        assert (b"'fortran_order': True" in buffer.getvalue()) == (order == "F")
        response = {"id": "r", "choices": [{"routed_experts": base64.b64encode(buffer.getvalue()).decode()}]}
        (tmp_path / "r.json").write_text(json.dumps(response))
        (tmp_path / "r.npy").write_bytes(buffer.getvalue())
        for name in ("r.json", "r.npy"):
            assert only(read(tmp_path / name, n_experts=8)).ids[0].tolist() == [[1], [4], [6]]
