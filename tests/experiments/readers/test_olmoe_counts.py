"""Counts of OLMoE and Mixtral: tables by hand, row and column sums of the published files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, olmoe_counts
from tests.experiments.readers import foreign_files
from tests.experiments.readers.foreign_files import SHARED

REAL = SHARED / "allenai__OLMoE"
PUBLISHED_TOKENS = 208_896  # 102 blocks of 2,048 tokens for each domain


def test_tables_by_hand(tmp_path: Path) -> None:
    one = olmoe_counts.read(foreign_files.olmoe_counts(tmp_path), ReadOptions())
    assert one.domains == ("a", "b")
    assert [layer.depth for layer in one.meta.layers] == [0, 4]
    assert {(layer.n_experts, layer.top_k) for layer in one.meta.layers} == {(3, 2)}
    assert one.tokens is not None
    assert one.tokens.tolist() == [4, 4]
    assert one.counts[0].tolist() == [[4, 3, 1], [2, 2, 4]]
    assert one.counts[1].tolist() == [[3, 3, 2], [4, 4, 0]]
    assert one.first is not None
    assert one.first[1].tolist() == [[1, 2, 1], [4, 0, 0]]
    assert one.pairs_first
    assert one.pairs[0, 1][0].tolist() == [[1, 2, 1], [0, 0, 0], [0, 0, 0]]
    assert one.types is not None
    assert one.types[0].tolist() == [[0, 0, 11, 4], [0, 1, 11, 3], [0, 2, 9, 1]]
    assert {remark.code for remark in one.remarks} == {"equal_rank_pairs", "other_models_left_out", "types_of_some_domains"}


def test_pairs_of_equal_ranks_are_marked_where_there_are_no_others(tmp_path: Path) -> None:
    changes: dict[str, Any] = {f"expert_counts_crosslayer_top1__{domain}": None for domain in "ab"}
    one = olmoe_counts.read(foreign_files.olmoe_counts(tmp_path, **changes), ReadOptions())
    assert not one.pairs_first
    assert one.pairs[0, 1][0].tolist() == foreign_files.OLMOE_EQUAL_PAIRS["a"][0]
    assert any(remark.code == "equal_rank_pairs" and "no joint counts" in remark.words for remark in one.remarks)


def test_a_table_of_another_model_is_read_when_it_is_named(tmp_path: Path) -> None:
    one = olmoe_counts.read(foreign_files.olmoe_counts(tmp_path), ReadOptions(model="other"))
    assert (one.domains, one.meta.model, one.first, dict(one.pairs)) == (("tulu",), "other", None, {})
    assert one.tokens is not None
    assert one.tokens.tolist() == [3]


@pytest.mark.parametrize(("stem", "n_experts", "top_k"), [("mistral", 8, 2), ("olmoe", 64, 8)])
def test_the_published_sums(stem: str, n_experts: int, top_k: int) -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not there: real traces live beside the clone, not in it")
    one = olmoe_counts.read(REAL / f"{stem}_counts.npz", ReadOptions())
    assert set(one.domains) == {"github", "arxiv", "c4", "book", "wikipedia"}
    assert one.first is not None
    assert {table.shape for table in one.counts} == {(5, n_experts)}
    for counts, first in zip(one.counts, one.first):
        assert (counts.sum(axis=1) == PUBLISHED_TOKENS * top_k).all()
        assert (first.sum(axis=1) == PUBLISHED_TOKENS).all()
    for (earlier, later), table in one.pairs.items():
        np.testing.assert_array_equal(table.sum(axis=2), one.first[earlier])
        np.testing.assert_array_equal(table.sum(axis=1), one.first[later])
    if one.types is not None:
        for rows in one.types:
            domains = np.unique(rows[:, 0])
            assert [int(rows[rows[:, 0] == d, 3].sum()) for d in domains] == [PUBLISHED_TOKENS * top_k] * len(domains)
        (remark,) = (remark for remark in one.remarks if remark.code == "types_of_another_run")
        assert remark.share is not None
        assert 0.003 < remark.share < 0.0035  # 31,808 selections of 10,027,008


def test_types_of_another_run_are_told(tmp_path: Path) -> None:
    path = foreign_files.olmoe_counts(tmp_path)
    rows = np.array(foreign_files.OLMOE_TYPES)
    rows[0, 1], rows[1, 1] = 1, 0
    foreign_files.npz(tmp_path / "olmoe_vocab_a.npz", {name: rows[:, i] for i, name in enumerate(("layer_idx", "expert", "token_id", "count"))})
    (remark,) = (one for one in olmoe_counts.read(path, ReadOptions()).remarks if one.code == "types_of_another_run")
    assert (remark.count, remark.share) == (1, 1 / 16)  # 4 and 3 exchanged: one selection of 16 moved


@pytest.mark.parametrize(("changes", "words"), [
    ({"expert_counts__a": np.array([[4, 3, 2], [3, 3, 2]])}, "domain 'a', layer 0: counts sum to 9, but tokens x top_k is 8"),
    ({"tokens": np.array(5)}, "counts sum to 8, but tokens x top_k is 10"),
    ({"tokens": np.array(0)}, "field tokens"),
    ({"top_k": np.array([2])}, "field top_k"),
    ({"layers": np.array([0, 4, 9])}, "expected \\[3 layers, experts\\]"),
    ({"layers": np.array([4, 4])}, "one occurs twice"),
    ({"expert_counts__b": np.array([[2, 6], [4, 4]])}, "field expert_counts__b: .*expected counts of shape \\[2, 3\\]"),
    ({"expert_counts__b": np.array([[2, -2, 8], [4, 4, 0]])}, "field expert_counts__b: .*least -2"),
    ({"expert_counts__b": np.array([[2.0, 2, 4], [4, 4, 0]])}, "field expert_counts__b: float64"),
    ({"expert_counts_crosslayer_top1__a": np.array([[[2, 1, 1], [0, 0, 0], [0, 0, 0]]])},
     "expert 0 of layer 1 sum to 2, but it was chosen 1 times"),
])
def test_damage_is_named_with_its_place(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = foreign_files.olmoe_counts(tmp_path, **changes)
    with pytest.raises(ReadError, match=words) as refusal:
        olmoe_counts.read(path, ReadOptions())
    assert str(path) in str(refusal.value) or "layers" in str(refusal.value)


@pytest.mark.parametrize(("row", "values", "words"), [
    (0, (0, 3, 11, 4), "row 0, field expert: 3, expected 0 to 2; off by one"), (1, (0, 0, 11, 3), "one \\(layer, expert, token id\\) twice"),
    (2, (0, 2, 9, 0), "row 2, field count: 0"), (2, (0, 2, 9, 2), "different runs or models"), (3, (2, 0, 11, 3), "field layer_idx: 2"),
])
def test_damaged_types(row: int, values: tuple[int, ...], words: str, tmp_path: Path) -> None:
    path = foreign_files.olmoe_counts(tmp_path)
    rows = np.array(foreign_files.OLMOE_TYPES)
    rows[row] = values
    foreign_files.npz(tmp_path / "olmoe_vocab_a.npz", {name: rows[:, i] for i, name in enumerate(("layer_idx", "expert", "token_id", "count"))})
    with pytest.raises(ReadError, match=words):
        olmoe_counts.read(path, ReadOptions())


def test_one_label_for_several_domains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="holds 2 domains"):
        olmoe_counts.read(foreign_files.olmoe_counts(tmp_path), ReadOptions(domain="law"))
