"""moe-lrc's router outputs: choices, weights and entropies by hand from probabilities, logits and ranks, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, moe_lrc
from tests.experiments.readers import foreign_files

TWO = ReadOptions(top_k=2)
CHOSEN = [[[0, 1], [3, 2], [0, 1], [2, 0]], [[1, 3], [0, 1], [0, 2], [1, 2]]]  # by falling probability, ties by the lower id


def test_probabilities_by_hand(tmp_path: Path) -> None:
    trace = moe_lrc.read(foreign_files.moe_lrc(tmp_path), TWO)
    ((_, batch),) = trace.batches()
    assert [(row.id, row.domain) for row in trace.documents] == [("c4/00000", "c4"), ("github/00000", "github"), ("github/00001", "github")]
    assert batch.document.tolist() == [0, 0, 1, 2]
    assert batch.position.tolist() == [0, 1, 0, 0]
    assert [ids.tolist() for ids in batch.ids] == CHOSEN
    assert batch.weights is not None
    assert batch.weights[1].tolist() == [[0.5, 0.25], [0.75, 0.125], [0.5, 0.5], [0.4375, 0.25]]
    assert batch.entropy_nats is not None
    assert batch.simpson is not None
    assert batch.top1_prob is not None
    # (1/2, 1/4, 1/8, 1/8): 7/4 bits; (1/4 x 4): ln 4; (0, 0, 1, 0): 0
    np.testing.assert_allclose(batch.entropy_nats[0], [1.75 * math.log(2), 1.75 * math.log(2), math.log(4), 0], atol=1e-6)
    np.testing.assert_allclose(batch.simpson[0], [0.34375, 0.34375, 0.25, 1], atol=1e-6)
    np.testing.assert_allclose(batch.top1_prob[0], [0.5, 0.5, 0.25, 1], atol=1e-6)
    assert batch.token_id is None
    assert {remark.code: remark.count for remark in trace.remarks} == {"ties": 2, "ties_at_k": 4}


def test_logits_are_told_from_probabilities(tmp_path: Path) -> None:
    trace = moe_lrc.read(foreign_files.moe_lrc(tmp_path, "logits"), TWO)
    ((_, batch),) = trace.batches()
    assert trace.meta.details["kept"] == "logits"
    assert [ids.tolist() for ids in batch.ids] == CHOSEN
    weights = np.exp([4, 2, 1, 1]) / np.exp([4, 2, 1, 1]).sum()  # eight times the probabilities of the first token
    assert batch.weights is not None
    assert batch.entropy_nats is not None
    np.testing.assert_allclose(batch.weights[0][0], weights[:2], atol=5e-4)
    assert batch.entropy_nats[0, 0] == pytest.approx(-(weights * np.log(weights)).sum(), abs=1e-5)
    assert "softmax_assumed" in {remark.code for remark in trace.remarks}


def test_ranks_give_choices_only(tmp_path: Path) -> None:
    trace = moe_lrc.read(foreign_files.moe_lrc(tmp_path, "ranks"), TWO)
    ((_, batch),) = trace.batches()
    assert batch.ids[1][[0, 1, 3]].tolist() == [[1, 3], [0, 2], [1, 3]]  # ties went to the higher id when the ranks were made
    assert (batch.weights, batch.entropy_nats) == (None, None)
    assert trace.meta.entropy_of == "absent"


def test_token_ids_of_the_same_run(tmp_path: Path) -> None:
    trace = moe_lrc.read(foreign_files.moe_lrc(tmp_path, tokens={"c4": [[5, 6]], "github": [[7], [8]]}), TWO)
    ((_, batch),) = trace.batches()
    assert batch.token_id is not None
    assert batch.token_id.tolist() == [5, 6, 7, 8]
    assert trace.meta.vocabulary_size == 9
    with pytest.raises(ReadError, match="tensor 'github': absent"):
        moe_lrc.read(foreign_files.moe_lrc(tmp_path, tokens={"c4": [[5, 6]]}), TWO)


def put(layer: str, corpus: str, value: Any) -> Any:
    return lambda layers: layers | {layer: layers[layer] | {corpus: value}}


@pytest.mark.parametrize(("edit", "words"), [
    (put("1", "c4", [[[0.125, 0.5, 0.125, 0.25], [0.75, 0.125, 0.5, 0.0]]]), "document 'c4/00000', token 1, layer 1: .*sums to 1.375"),
    (put("1", "c4", [[[0.125, 0.5, 0.125, 0.25], [0.75, 0.25, 0.25, -0.25]]]), "document 'c4/00000', token 1, layer 1"),
    (put("1", "github", [[[0.5, 0.5, 0, 0]], [[np.nan, 0, 1, 0]]]), "document 'github/00001', token 0, layer 1"),
    (put("1", "c4", [[[0.5, 0.5, 0, 0]]]), "layer 1 and the first differ"),
    (lambda layers: {**layers, "1": {"c4": layers["1"]["c4"]}}, "layer 1 and the first differ"),
    (lambda layers: {layer: corpora | {"github": [[[0.5, 0.5]]]} for layer, corpora in layers.items()}, "of one dtype and number of experts"),
])
def test_damage_is_named_with_its_place(edit: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        list(moe_lrc.read(foreign_files.moe_lrc(tmp_path, edit=edit), TWO).batches())


def test_what_is_asked_for_and_refused(tmp_path: Path) -> None:
    path = foreign_files.moe_lrc(tmp_path)
    with pytest.raises(ReadError, match="give --top-k"):
        moe_lrc.read(path, ReadOptions())
    with pytest.raises(ReadError, match="top 5 of 4 experts"):
        moe_lrc.read(path, ReadOptions(top_k=5))
    foreign_files.safetensors(path / "other_00.safetensors", {"c4": ("F32", (1, 1, 2), bytes(8))})
    with pytest.raises(ReadError, match="2 models .other, tiny.; name one with --model"):
        moe_lrc.read(path, TWO)
    assert moe_lrc.read(path, ReadOptions(top_k=2, model="tiny")).meta.layers[0].n_experts == 4


def test_raw_files_of_torch_are_the_same_rows(tmp_path: Path) -> None:
    """One file per layer and corpus, before moe-lrc merges them."""
    import torch

    ((_, expected),) = moe_lrc.read(foreign_files.moe_lrc(tmp_path), TWO).batches()
    raw = tmp_path / "raw"
    raw.mkdir()
    for layer, corpora in foreign_files.LRC.items():
        for corpus, values in corpora.items():
            torch.save(torch.tensor(values, dtype=torch.bfloat16), raw / f"tiny_{layer:02d}_{corpus}.pt")
    assert moe_lrc.recognises(raw)
    trace = moe_lrc.read(raw, TWO)
    ((_, found),) = trace.batches()
    assert [row.id for row in trace.documents] == ["c4/00000", "github/00000", "github/00001"]
    assert found.weights is not None and expected.weights is not None
    assert found.entropy_nats is not None and expected.entropy_nats is not None
    for one, other in zip((*found.ids, *found.weights, found.entropy_nats), (*expected.ids, *expected.weights, expected.entropy_nats), strict=True):
        np.testing.assert_array_equal(one, other)
    (raw / "tiny_01_github.pt").unlink()
    with pytest.raises(ReadError, match="layer 1 and the first differ in .*github"):
        moe_lrc.read(raw, TWO)


def test_a_pickle_that_attacks_is_recognised_and_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    foreign_files.torch_pickle(tmp_path / "tiny_00_c4.pt")
    assert moe_lrc.recognises(tmp_path)
    with pytest.raises(ReadError, match=r"tiny_00_c4\.pt: refused: global 'os\.system'"):
        moe_lrc.read(tmp_path, TWO)
    assert not (tmp_path / "canary").exists()
