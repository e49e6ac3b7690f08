"""Megatron's router trace: rows and entropies by hand, several ranks, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, megatron
from tests.experiments.readers import foreign_files

FOUR = ReadOptions(n_experts=4)


def test_rows_by_hand(tmp_path: Path) -> None:
    trace = megatron.read(foreign_files.megatron(tmp_path), ReadOptions())
    ((_, batch),) = trace.batches()
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(1, 4, 2), (4, 4, 2)]
    assert [row.id for row in trace.documents] == ["rank0/step0", "rank0/step1"]
    assert {row.domain for row in trace.documents} == {"routing"}
    assert batch.document.tolist() == [0, 0, 1]
    assert batch.position.tolist() == [0, 1, 0]
    assert batch.ids[0].tolist() == [[2, 1], [0, 3], [3, 2]]
    assert batch.ids[1].tolist() == [[3, 0], [2, 3], [2, 0]]  # the last by falling logit
    assert batch.weights is None
    assert batch.token_id is None
    assert batch.entropy_nats is not None
    assert batch.simpson is not None
    assert batch.top1_prob is not None
    # softmax of (0, 1, 2, -1): 1, e, e^2, 1/e over their sum
    p = np.array([1, math.e, math.e**2, 1 / math.e]) / (1 + math.e + math.e**2 + 1 / math.e)
    assert batch.entropy_nats[0, 0] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
    assert batch.simpson[0, 0] == pytest.approx((p**2).sum(), abs=1e-6)
    assert batch.top1_prob[0, 0] == pytest.approx(p[2], abs=1e-6)
    assert {remark.code: remark.count for remark in trace.remarks} == {
        "steps_not_documents": 2, "mtp_left_out": 2, "softmax_assumed": None, "sorted_by_weight": 1}


def test_without_logits_there_are_no_entropies_and_the_order_stays(tmp_path: Path) -> None:
    path = foreign_files.megatron(tmp_path, logits=False)
    trace = megatron.read(path, FOUR)
    ((_, batch),) = trace.batches()
    assert batch.ids[1].tolist() == [[3, 0], [2, 3], [0, 2]]
    assert batch.entropy_nats is None
    assert trace.meta.entropy_of == "absent"
    with pytest.raises(ReadError, match="give --n-experts"):
        megatron.read(path, ReadOptions())


def test_ranks_side_by_side_and_a_copy_left_out(tmp_path: Path) -> None:
    path = foreign_files.megatron(tmp_path, (3, 10))
    trace = megatron.read(path, ReadOptions())
    assert [row.id for row in trace.documents] == ["rank3/step0", "rank3/step1", "rank10/step0", "rank10/step1"]
    same = foreign_files.megatron(tmp_path, (0, 1), logits=False, edit=lambda record: record | {
        "top_indices": foreign_files.MEGATRON_IDS[record["layer"], record["step"]]})
    for rank in (3, 10):
        (path / f"router_trace_rank{rank}.jsonl").unlink()
    trace = megatron.read(same, FOUR)
    assert [row.id for row in trace.documents] == ["rank0/step0", "rank0/step1"]
    assert [remark.count for remark in trace.remarks if remark.code == "ranks_alike"] == [1]


def test_a_router_with_a_bias_is_remarked(tmp_path: Path) -> None:
    def other(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"top_indices": [[0, 1]]} if (record["layer"], record["step"]) == (1, 1) else record

    trace = megatron.read(foreign_files.megatron(tmp_path, edit=other), ReadOptions())
    list(trace.batches())
    assert {remark.code: (remark.count, remark.share) for remark in trace.remarks}["ids_not_of_logits"] == (1, 1 / 6)


def at(*place: int, **changes: Any) -> Any:
    """An edit of the record of (layer, step)."""
    return lambda record: record | changes if (record["layer"], record["step"]) == place else record


@pytest.mark.parametrize(("edit", "words"), [
    (at(4, 1, top_indices=[[4, 0]]), "field top_indices: document 'rank0/step1', token 0, layer 4: expert id 4, .*off by one"),
    (at(1, 0, top_indices=[[1, 1], [0, 3]]), "document 'rank0/step0', token 0, layer 1: one expert twice"),
    (at(1, 0, top_indices=[[1, 2]]), "line 1: field top_indices: int64 \\[1, 2\\], expected whole numbers \\[2 tokens"),
    (at(1, 0, top_indices=[[1, 2], [0]]), "line 1: field top_indices"),
    (at(4, 1, topk=1, top_indices=[[0]]), "line 5: field topk: 1, the first record has 2"),
    (at(4, 0, step=2), "layers \\[4\\] are absent, which other passes have"),
    (at(4, 1, num_tokens=2, top_indices=[[0, 1]] * 2, logit_offset=0, logit_bytes=16, logit_shape=[2, 4]), "field num_tokens: \\[1, 2\\] by layer"),
    (at(4, 1, logit_shape=[1, 2**62]), "line 5: field logit_shape"),
    (at(4, 1, logit_shape=[-1, -4]), "line 5: field logit_shape"),
    (at(4, 1, logit_shape=[1, 2], logit_bytes=4), "field logit_shape: \\[2, 4\\] experts by record"),
    (at(4, 1, logit_offset=1000), "field logit_offset: bytes 1000 to 1008"),
    (at(4, 1, step="x"), "line 5: field step: str 'x', expected int"),
    (at(4, 1, layer=-1), "layer -1"),
])
def test_damage_is_named_with_its_place(edit: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        list(megatron.read(foreign_files.megatron(tmp_path, edit=edit), ReadOptions()).batches())


def test_damaged_logits(tmp_path: Path) -> None:
    path = foreign_files.megatron(tmp_path)
    sidecar = path / "logits_rank0.bin"
    whole = sidecar.read_bytes()
    sidecar.write_bytes(whole[:8] + b"\xc0\x7f" + whole[10:])
    with pytest.raises(ReadError, match="field logits: document 'rank0/step0', token 1, layer 1"):
        list(megatron.read(path, ReadOptions()).batches())
    sidecar.write_bytes(whole[:-1])
    with pytest.raises(ReadError, match="it was cut"):
        megatron.read(path, ReadOptions())
    sidecar.unlink()
    with pytest.raises(ReadError, match="which is not beside it"):
        megatron.read(path, ReadOptions())
