"""moe-atlas' captures: rows by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.readers import ReadError, ReadOptions, moe_atlas
from tests.experiments.readers import foreign_files


def test_rows_by_hand(tmp_path: Path) -> None:
    trace = moe_atlas.read(foreign_files.moe_atlas(tmp_path), ReadOptions())
    ((_, batch),) = trace.batches()
    assert [ids.tolist() for ids in batch.ids] == [[[0, 2], [2, 3]], [[1, 3], [0, 1]]]
    assert batch.weights is not None
    assert batch.weights[1].tolist() == [[0.5, 0.25], [0.625, 0.125]]
    assert batch.types.tolist() == [8, 9]
    assert [(row.id, row.domain) for row in trace.documents] == [("prompt", "law")]
    assert trace.meta.model == "tiny"
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(1, 4, 2), (3, 4, 2)]
    assert {remark.code: remark.count for remark in trace.remarks} == {"sorted_by_weight": 1, "ties": 1}


def test_a_folder_of_captures_of_one_model(tmp_path: Path) -> None:
    foreign_files.moe_atlas(tmp_path, "a")
    other = foreign_files.moe_atlas(tmp_path, "b", domain=None)
    trace = moe_atlas.read(tmp_path, ReadOptions())
    assert [(row.id, row.domain) for row in trace.documents] == [("a", "law"), ("b", "b")]
    other.write_text(json.dumps(json.loads(other.read_text()) | {"num_experts": 8}))
    with pytest.raises(ReadError, match="two models are never one trace"):
        moe_atlas.read(tmp_path, ReadOptions())


@pytest.fixture
def activations(tmp_path: Path) -> list[dict[str, Any]]:
    return list(json.loads(foreign_files.moe_atlas(tmp_path).read_text())["activations"])


@pytest.mark.parametrize(("number", "fields", "words"), [
    (0, {"expert_idx": 4}, "field ids: document 'prompt', token 0, layer 1: expert id 4, .*off by one"),
    (0, {"expert_idx": 0}, "one expert twice"), (0, {"expert_idx": 1.5}, "activations.0.: field expert_idx: 1.5"),
    (7, {"token_idx": 2}, "field token_idx: 2, but there are 2 token_ids"), (7, {"layer": 1}, "another number of choices|given twice"),
    (3, {"gate_weight": None}, "activations.3.: field gate_weight: absent"), (3, {"gate_weight": -1}, "negative, not finite"),
    (3, {"layer": "x"}, "field layer: 'x', expected a finite number"),
])
def test_damage_is_named_with_its_place(activations: list[dict[str, Any]], number: int, fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    activations[number] |= fields
    path = foreign_files.moe_atlas(tmp_path, activations=activations)
    with pytest.raises(ReadError, match=words) as refusal:
        moe_atlas.read(path, ReadOptions())
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(("changes", "words"), [
    ({"activations": []}, "field activations: empty"), ({"token_ids": [8, -1]}, "field token_ids"), ({"top_k": None}, "field top_k: absent"),
    ({"top_k": 3}, "top_k 2 in the table, but 3"), ({"model_id": 3}, "field model_id: int"),
])
def test_damaged_heads(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        moe_atlas.read(foreign_files.moe_atlas(tmp_path, **changes), ReadOptions())
