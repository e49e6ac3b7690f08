"""TensorRT-LLM's statistics: ranks and iterations summed by hand, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, tensorrt
from tests.experiments.readers import foreign_files


def test_ranks_and_iterations_are_summed(tmp_path: Path) -> None:
    one = tensorrt.read(foreign_files.tensorrt(tmp_path), ReadOptions())
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in one.meta.layers] == [(3, 3, 2)]
    assert [table.tolist() for table in one.counts] == [[[7, 3, 2]]]
    assert one.tokens is not None
    assert one.tokens.tolist() == [6]
    assert (one.first, dict(one.pairs), one.types, one.domains) == (None, {}, None, ("statistics",))
    assert {remark.code: remark.count for remark in one.remarks} == {"ranks_summed": 2, "dense_layers_left_out": 1}


def test_the_safetensors_library_writes_what_is_read(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = foreign_files.tensorrt(tmp_path)
    for rank, counts in foreign_files.TENSORRT.items():
        save_file({key: np.array(row, np.int64) for key, row in counts.items()}, path / f"rank{rank}.safetensors", metadata={"a": "b"})
    assert [table.tolist() for table in tensorrt.read(path, ReadOptions()).counts] == [[[7, 3, 2]]]


def counts(*row: int, dtype: str = "I64") -> tuple[str, tuple[int, ...], bytes]:
    return dtype, (len(row),), np.array(row, "<i8" if dtype == "I64" else "<f8").tobytes()


@pytest.mark.parametrize(("changes", "words"), [
    ({"t6_3": None}, "rank1.safetensors: rank 1 and the first differ in 6_3"),
    ({"t6_3": counts(1, 0, 2)}, "layer 3: counts sum to 13, which is no multiple of k=2"),
    ({"t6_3": counts(1, -1, 2)}, "tensor '6_3': expert 1: -1 to 2 are no counts"),
    ({"t6_3": counts(1, 2)}, "tensor '6_3': I64 \\[2\\], expected whole numbers \\[3\\]"),
    ({"t6_3": counts(1, 0, 1, dtype="F64")}, "tensor '6_3': F64"),
    ({"tother": counts(1, 0, 1)}, "tensor 'other': expected ITERATION_LAYER"),
    ({"info": {"num_experts": 3}}, "meta_info.json: field num_experts_per_token: absent"),
    ({"info": {"num_experts": True, "num_experts_per_token": 2}}, "field num_experts: bool"),
    ({"info": {"num_experts": 3, "num_experts_per_token": 4}}, "top 4 of 3 experts"),
    ({"info": {"num_experts": 2**40, "num_experts_per_token": 4}}, "top 4 of"),
])
def test_damage_is_named_with_its_place(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        tensorrt.read(foreign_files.tensorrt(tmp_path, **changes), ReadOptions())


@pytest.mark.parametrize(("header", "words"), [
    ({"1_1": {"dtype": "I64", "shape": [2**61], "data_offsets": [0, 24]}}, "tensor '1_1': field shape"),
    ({"1_1": {"dtype": "I64", "shape": [-3], "data_offsets": [0, 24]}}, "whole numbers from 0"),
    ({"1_1": {"dtype": "I64", "shape": [3], "data_offsets": [8, 32]}}, "begins at byte"),
    ({"1_1": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}, "the tensors end at byte"),
    ({"1_1": {"dtype": "I64", "shape": [3]}}, "field data_offsets: absent"),
    ({"1_1": {"dtype": "O", "shape": [3], "data_offsets": [0, 24]}}, "field dtype: 'O'"),
    ([], "no object"),
])
def test_a_header_that_lies(header: Any, words: str, tmp_path: Path) -> None:
    path = foreign_files.tensorrt(tmp_path)
    text = json.dumps(header).encode()
    (path / "rank0.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 24)
    with pytest.raises(ReadError, match=words):
        tensorrt.read(path, ReadOptions())
    (path / "rank0.safetensors").write_bytes(struct.pack("<Q", 2**63) + text)
    with pytest.raises(ReadError, match="a header of 9,223,372,036,854,775,808 bytes"):
        tensorrt.read(path, ReadOptions())
