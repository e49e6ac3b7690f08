"""SGLang's responses and recorder: shapes that bytes do not have, places that are no experts, ranks, padding and unnamed requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import readers
from experiments.readers import ReadError, ReadOptions
from tests.attacks.pickles import archive, by_global
from tests.experiments.readers import foreign_captures as made


def read(path: Path, **options: Any) -> Any:
    return readers.recognise(path).read(path, ReadOptions(**options))


def only(trace: Any) -> Any:
    ((_, batch),) = trace.batches()
    return batch


def responses(folder: Path, *found: dict[str, Any]) -> Path:
    (folder / "r.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
    return folder / "r.jsonl"


def test_a_start_leaves_room_in_positions(tmp_path: Path) -> None:
    response = made.sglang_response("cmpl-a", start=1)
    response["meta_info"]["routed_experts_start_len"] = 1
    batch = only(read(responses(tmp_path, response), n_experts=300, top_k=2))
    assert batch.position.tolist() == [1, 2] and batch.ids[1].tolist() == [[0, 4], [9, 8]]


def test_token_ids_where_the_response_has_them(tmp_path: Path) -> None:
    response = {**made.sglang_response("cmpl-a"), "input_ids": [10, 11]}
    assert only(read(responses(tmp_path, response), n_experts=300, top_k=2)).token_id.tolist() == [10, 11, 12]


def test_a_chat_response_says_how_many_tokens_it_has_only_for_one_choice(tmp_path: Path) -> None:
    about = made.sglang_response("cmpl-a")["meta_info"]
    choice = {"index": 0, "sglext": {"routed_experts": about["routed_experts"]}}
    response = {"id": "chat-1", "choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    trace = read(responses(tmp_path, response), n_experts=300, top_k=2)
    assert [row.id for row in trace.documents] == ["chat-1"] and only(trace).ids[0].tolist() == [[5, 299], [7, 3], [0, 1]]
    two = response | {"choices": [choice, choice | {"index": 1}]}
    with pytest.raises(ReadError, match=r"choices\[0\].*how many tokens"):
        read(responses(tmp_path, two), n_experts=300, top_k=2)


@pytest.mark.parametrize(("change", "options", "words"), [
    ({}, {"n_experts": 300}, "bytes without a shape.*--top-k"),
    ({}, {"n_experts": 300, "top_k": 4}, "not 3 tokens x hidden layers x top-4"),
    ({"prompt_tokens": 9}, {"n_experts": 300, "top_k": 2}, "not 10 tokens"),
    ({"prompt_tokens": None}, {"n_experts": 300, "top_k": 2}, "how many tokens"),
    ({"routed_experts": "AAA="}, {"n_experts": 300, "top_k": 2}, "2 bytes are no int32"),
    ({"routed_experts": "@"}, {"n_experts": 300, "top_k": 2}, "base64"),
    ({"routed_experts": [1]}, {"n_experts": 300, "top_k": 2}, "list, expected base64"),
    ({}, {"n_experts": 5, "top_k": 2}, "expert id 5.*|expert id 299"),
    ({"routed_experts_start_len": -1}, {"n_experts": 300, "top_k": 2}, "start_len"),
])
def test_responses_that_do_not_fit(change: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path) -> None:
    response = made.sglang_response("cmpl-a")
    response["meta_info"] |= change
    with pytest.raises(ReadError, match=words):
        readers.find("sglang").read(responses(tmp_path, response), ReadOptions(**options))


def test_responses_of_two_models_are_refused(tmp_path: Path) -> None:
    other = made.sglang_response("cmpl-b")
    other["meta_info"]["completion_tokens"] = 3  # three rows of one layer for the same bytes
    with pytest.raises(ReadError, match=r"\[1, 3\] hidden layers"):
        read(responses(tmp_path, made.sglang_response("cmpl-a"), other), n_experts=300, top_k=2)


def test_logical_counts_of_steps_are_summed(tmp_path: Path) -> None:
    found = read(made.recorder_stat(tmp_path), top_k=2)
    assert [layer.depth for layer in found.meta.layers] == [1, 2]
    assert [table.tolist() for table in found.counts] == [[[1, 2, 2, 3]], [[5, 1, 1, 1]]] and found.tokens.tolist() == [4]
    assert {one.code: one.count for one in found.remarks} == {"steps_counted": 2, "layers_without_routing": 1}
    with pytest.raises(ReadError, match="give --top-k"):
        read(made.recorder_stat(tmp_path))


def test_places_become_experts_and_ranks_are_summed(tmp_path: Path) -> None:
    """Layer 0: experts 0, 1, 2, 3, 0, 2 count 1, 0, 2, 0, 3, pass; two passes of two ranks: 4 x (4, 0, 2, 0) and 0 + 1 twice at expert 2."""
    found = read(made.recorder_passes(tmp_path), top_k=2)
    assert found.counts[0].tolist() == [[16, 0, 10, 0]]
    # layer 1: experts 3, 2, 1, 0, 1, 1 count 0, 1, 1, 2, 2, rank; twice: rank 0 gives 2, 3, 1, 0 and rank 1 gives 2, 4, 1, 0
    assert found.counts[1].tolist() == [[8, 14, 4, 0]]
    assert {one.code for one in found.remarks} >= {"last_map_only", "steps_counted"}


def test_ranks_that_counted_alike_are_counted_once(tmp_path: Path) -> None:
    found = read(made.recorder_passes(tmp_path, alike=True), top_k=2)
    assert found.counts[0].tolist() == [[8, 0, 5, 0]] and {one.code: one.count for one in found.remarks}["copied_ranks"] == 1


def test_tokens_of_prompts_and_of_decoding(tmp_path: Path) -> None:
    trace = read(made.recorder_tokens(tmp_path))
    batch = only(trace)
    assert batch.document.tolist() == [0, 0, 0, 0, 1, 1] and batch.position.tolist() == [0, 1, 2, 3, 0, 1]
    assert batch.token_id.tolist() == [10, 11, 12, 13, 20, 21]
    # layer 0: places 4, 1 are experts 0, 1; 5, 3: 2, 3; 1, 2: 1, 2; 3, 4: 3, 0; 0, 2: 0, 2; 2, 0: 2, 0
    assert batch.ids[0].tolist() == [[0, 1], [2, 3], [1, 2], [3, 0], [0, 2], [2, 0]]
    # layer 1: 0, 1: 3, 2; 4, 3: 1, 0; 1, 0: 2, 3; 2, 3: 1, 0; 5, 0: 1, 3; 3, 2: 0, 1
    assert batch.ids[1].tolist() == [[3, 2], [1, 0], [2, 3], [1, 0], [1, 3], [0, 1]]
    assert [(layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(4, 2), (4, 2)]


def dump(path: Path, records: list[Any], places: Any = None) -> Path:
    torch.save({"records": records, "last_physical_to_logical_map": torch.tensor(places or made.PLACES)}, path)
    return path


def test_decoded_tokens_that_could_be_of_two_sequences_are_left_out(tmp_path: Path) -> None:
    pair: list[list[list[int]]] = [[[0, 1], [1, 2]], [[0, 1], [1, 2]]]
    records = [made.token_record(1, [1, 2], [0, 0], [1, 1], pair), made.token_record(2, [3, 4], [1, 1], None, pair),
               made.token_record(3, [5], [2], None, [[[0, 1]], [[0, 1]]])]
    trace = read(dump(tmp_path / "a.pt", records))
    assert only(trace).token_id.tolist() == [1, 2]
    found = {one.code: one.count for one in trace.remarks}
    assert found["decoded_tokens_left_out"] == 2 and found["other_passes_left_out"] == 1


def test_layers_without_places_are_dense_and_rows_of_padding_are_none(tmp_path: Path) -> None:
    record = made.token_record(1, [1, 2], [0, 1], [2], [[[0, 1], [1, 2]], [[0, 1], [1, 2]]])
    record["topk_ids_of_layer"][0] = -1
    record["topk_ids_of_layer"][1, 1] = -1
    trace = read(dump(tmp_path / "a.pt", [record]))
    assert [layer.depth for layer in trace.meta.layers] == [1] and only(trace).ids[0].tolist() == [[3, 2]]
    assert {one.code: one.count for one in trace.remarks}["tokens_not_captured"] == 1


def record_with(**changes: Any) -> dict[str, Any]:
    return made.token_record(1, [1], [0], [1], [[[0, 1]], [[0, 1]]]) | changes


@pytest.mark.parametrize(("record", "places", "words"), [
    (record_with(topk_ids_of_layer=torch.full((2, 1, 8), 6)), None, "place 6, but the map has 6"),
    (record_with(topk_ids_of_layer=torch.full((2, 1, 8), -2)), None, "field topk_ids_of_layer"),
    (record_with(topk_ids_of_layer=torch.zeros(3, 1, 8, dtype=torch.int32)), None, r"expected integers \[2 layers, 1 tokens"),
    (record_with(extend_seq_lens=[2]), None, "sum to 2 for 1 tokens"), (record_with(positions=[-1]), None, "field positions"),
    (record_with(input_ids=["x"]), None, "field input_ids"), ({"forward_pass_id": 1}, None, "field input_ids, positions"),
    (record_with(), [[0, 1, 5, 3, 0, 2], [3, 2, 1, 0, 1, 1]], "layer 0: 5 experts have places, ids reach 5"),
    (record_with(topk_ids_of_layer=torch.tensor([[[0, 4]], [[0, 1]]])), None, "one expert twice"),
])
def test_dumps_that_are_wrong(record: Any, places: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        readers.find("sglang-tokens").read(dump(tmp_path / "a.pt", [record], places), ReadOptions())


def test_older_counts(tmp_path: Path) -> None:
    found = read(made.sglang_csv(tmp_path), n_experts=4, top_k=2)
    assert [table.tolist() for table in found.counts] == [[[3, 0, 5, 0]], [[0, 8, 0, 0]]]


@pytest.mark.parametrize("name", ["sglang-recorder", "sglang-tokens"])
def test_a_pt_file_that_attacks(name: str, tmp_path: Path) -> None:
    content = by_global("os", "system", tmp_path / "canary")
    (tmp_path / "expert_distribution_recorder_1.pt").write_bytes(archive(content, records=b"last_physical_to_logical_map topk_ids_of_layer"))
    with pytest.raises(ReadError, match=r"'os\.system'"):
        readers.find(name).read(tmp_path, ReadOptions(top_k=2))
    assert not (tmp_path / "canary").exists()
    assert np.float32(0) == 0


@pytest.mark.parametrize("counts", [[2**62, 2**62], [2**63 - 1, 1], [2**53, 0]])
def test_counts_that_wrap_round_are_refused(counts: list[int], tmp_path: Path) -> None:
    path = tmp_path / "expert_distribution_recorder_1.pt"
    torch.save({"rank": 0, "logical_count": torch.tensor(counts).reshape(2, 1, 1).repeat(1, 1, 3)}, path)
    with pytest.raises(ReadError, match="logical_count: .*which no recording holds"):
        readers.find("sglang-recorder").read(path, ReadOptions(top_k=1))


def test_sums_of_several_dumps_are_refused_beyond_what_is_exact(tmp_path: Path) -> None:
    for number in range(3):
        torch.save({"rank": 0, "logical_count": torch.full((1, 1, 2), 2**51)}, tmp_path / f"expert_distribution_recorder_{number}.pt")
    with pytest.raises(ReadError, match="together sum to"):
        readers.find("sglang-recorder").read(tmp_path, ReadOptions(top_k=1))
