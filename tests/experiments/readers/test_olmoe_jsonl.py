"""OLMoE's JSON lines: rows by hand, batches that are skipped undecoded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, olmoe_jsonl
from tests.experiments.readers import foreign_files

TINY = ReadOptions(n_experts=4, model="tiny")


def test_rows_by_hand(tmp_path: Path) -> None:
    trace = olmoe_jsonl.read(foreign_files.olmoe_jsonl(tmp_path), TINY)
    ((_, batch),) = trace.batches()
    assert batch.document.tolist() == [0, 0, 0, 1]
    assert batch.position.tolist() == [0, 1, 2, 0]
    assert batch.token_id is not None
    assert batch.token_id.tolist() == [5, 9, 5, 40]
    assert batch.ids[0].tolist() == [[0, 3], [1, 2], [3, 1], [2, 0]]
    assert batch.ids[2].tolist() == [[2, 1], [0, 3], [1, 0], [3, 2]]
    assert batch.weights is None
    assert {row.domain for row in trace.documents} == {"c4"}
    assert trace.meta.vocabulary_size == 41
    assert [(layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(4, 2)] * 3
    assert [remark.code for remark in trace.remarks] == ["blocks_not_documents"]


def test_the_published_models_are_known_by_their_shape(tmp_path: Path) -> None:
    choices = np.argsort(np.random.default_rng(0).random((4, 16, 64)), axis=2)[:, :, :8].transpose(0, 2, 1)
    path = tmp_path / "c4_results_5000.jsonl"
    path.write_text(json.dumps({"input_ids": [1, 2, 3, 4], "exp_ids": choices.tolist()}))
    trace = olmoe_jsonl.read(path, ReadOptions())
    assert (trace.meta.model, trace.meta.vocabulary_size, trace.meta.layers[0].n_experts) == ("allenai/OLMoE-1B-7B-0924", 50_304, 64)
    assert [remark.code for remark in trace.remarks] == ["blocks_not_documents", "model_guessed"]
    ((_, batch),) = trace.batches()
    np.testing.assert_array_equal(np.stack(batch.ids, axis=2), choices)
    assert trace.documents[0].domain == "c4"


def test_batches_before_the_wanted_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.readers._rows.ROWS_PER_BATCH", 3)
    path = foreign_files.olmoe_jsonl(tmp_path)
    first, second = path.read_text().splitlines()
    damaged = first.replace("[3, 2, 1]", "[9, 2, 1]")
    path.write_text(f"{damaged}\n{second}\n")
    trace = olmoe_jsonl.read(path, TINY)
    assert [(number, len(batch)) for number, batch in trace.batches(after=0)] == [(1, 1)]
    with pytest.raises(ReadError, match="document 'c4_results/000001', token 2, layer 0: expert id 9"):
        list(trace.batches())


@pytest.mark.parametrize(("changes", "words"), [
    ({"exp_ids": [[[2, 2, 3], [4, 1, 2]]]}, "document 'c4_results/000002', token 0, layer 0: expert id 4, .*off by one"),
    ({"exp_ids": [[[2, 2, 3], [2, 1, 2]]]}, "layer 0: one expert twice"),
    ({"exp_ids": [[[2, 2, -1], [0, 1, 2]]]}, "layer 2: expert id -1"),
    ({"exp_ids": [[[2, 2], [0, 1]]]}, "line 2: field exp_ids: top-2 in 2 layers, but .*two models"),
    ({"exp_ids": [[[2, 2, 3], [0, 1]]]}, "line 2: field exp_ids"),
    ({"exp_ids": [[[2, 2, 3.5], [0, 1, 1]]]}, "line 2: field exp_ids: float64"),
    ({"exp_ids": [[[2, 2, 3], [0, 1, 2]]] * 2}, "expected expert ids \\[1 tokens"),
    ({"exp_ids": "x"}, "field exp_ids: str"),
    ({"input_ids": []}, "line 2: field input_ids: empty"),
    ({"input_ids": [2**31]}, "no token id"),
    ({"input_ids": ["a"]}, "line 2: field input_ids"),
])
def test_damage_is_named_with_its_place(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = foreign_files.olmoe_jsonl(tmp_path, **changes)
    with pytest.raises(ReadError, match=words) as refusal:
        list(olmoe_jsonl.read(path, TINY).batches())
    assert str(path) in str(refusal.value)


def test_a_line_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.readers._json.LINE_LIMIT", 100)
    with pytest.raises(ReadError, match="line 1, byte 0: longer than 100 bytes"):
        olmoe_jsonl.read(foreign_files.olmoe_jsonl(tmp_path), TINY)


def test_an_unknown_shape_asks_for_the_model(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="give --model and --n-experts"):
        olmoe_jsonl.read(foreign_files.olmoe_jsonl(tmp_path), ReadOptions())


@pytest.mark.parametrize("nested", [b'"m": {"input_ids": [1]}, ', b'"m": "\\"input_ids\\": [1]", '])
def test_token_ids_are_those_of_the_record_and_of_nothing_in_it(nested: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c4_results.jsonl"
    path.write_bytes(b"{" + nested + b'"input_ids": [7, 8], "exp_ids": [[[1]], [[2]]]}\n{"input_ids": [9], "exp_ids": [[[3]]]}')
    ((_, batch),) = olmoe_jsonl.read(path, TINY).batches()
    assert batch.token_id is not None
    assert batch.token_id.tolist() == [7, 8, 9] and batch.document.tolist() == [0, 0, 1] and batch.ids[0].ravel().tolist() == [1, 2, 3]


def test_a_name_that_is_escaped_is_refused_where_another_was_counted(tmp_path: Path) -> None:
    path = tmp_path / "c4_results.jsonl"
    path.write_bytes(b'{"input\\u005fids": [7, 8], "n": {"input_ids": [1, 2]}, "exp_ids": [[[1]], [[2]]]}')
    with pytest.raises(ReadError, match="line 1: field input_ids: .*is the field's name escaped"):
        list(olmoe_jsonl.read(path, TINY).batches())


@pytest.mark.parametrize(("ids", "words"), [
    (b"[99999999999999999999]", "line 2: field input_ids: '99999999999999999999' is no token id"), (b"[1 2]", "line 2: byte 17: no JSON"),
    (b"[1, , 2]", "line 2: byte"), (b"[true]", "line 2: field input_ids: 'True' is no token id"), (b"[1.0]", "'1.0' is no token id"),
    (b"[-1]", "'-1' is no token id"), (b"3", "line 2: field input_ids: int '3', expected list"),
])
def test_what_is_no_list_of_token_ids_has_its_place(ids: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c4_results.jsonl"
    path.write_bytes(b'{"input_ids": [1], "exp_ids": [[[1]]]}\n{"input_ids": ' + ids + b', "exp_ids": [[[1]]]}')
    with pytest.raises(ReadError, match=words) as met:
        list(olmoe_jsonl.read(path, TINY).batches())
    assert str(path) in str(met.value)
