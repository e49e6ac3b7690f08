"""MoE-Infinity's counts: sums by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, moe_infinity
from tests.experiments.readers import foreign_files

TWO = ReadOptions(top_k=2)


def test_sums_by_hand(tmp_path: Path) -> None:
    one = moe_infinity.read(foreign_files.moe_infinity(tmp_path), TWO)
    assert [table.tolist() for table in one.counts] == [[[4, 3, 3]], [[3, 3, 4]]]
    assert one.tokens is not None
    assert one.tokens.tolist() == [5]
    assert one.domains == ("sequences",)
    assert [(remark.code, remark.count) for remark in one.remarks] == [("sequences_summed", 3)]


def test_layers_that_saw_other_tokens_have_no_number_of_tokens(tmp_path: Path) -> None:
    one = moe_infinity.read(foreign_files.moe_infinity(tmp_path, [[[1, 1, 0], [2, 1, 1]]]), TWO)
    assert one.tokens is None
    assert "layers_of_unequal_sums" in {remark.code for remark in one.remarks}


@pytest.mark.parametrize(("counts", "words"), [
    ([[[1, 0.5, 0]]], "sequence 0, layer 0, expert 1: 0.5 is no count"), ([[[1, -1, 0]]], "-1 is no count"), ([[[1, np.nan, 0]]], "nan is no count"),
    ([[1, 2]], "expected counts .sequences, layers, experts."), (np.zeros((0, 2, 2)), "expected counts"),
])
def test_damage_is_named_with_its_place(counts: Any, words: str, tmp_path: Path) -> None:
    path = foreign_files.moe_infinity(tmp_path, counts)
    with pytest.raises(ReadError, match=words) as refusal:
        moe_infinity.read(path, TWO)
    assert str(path) in str(refusal.value)


def test_k_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="give --top-k"):
        moe_infinity.read(foreign_files.moe_infinity(tmp_path), ReadOptions())
