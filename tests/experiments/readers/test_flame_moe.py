"""FLAME-MoE's recordings: rows by hand, and what is refused, torch's pickles first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.readers import ReadError, ReadOptions, flame_moe
from tests.experiments.readers import foreign_files

EIGHT = ReadOptions(n_experts=8)


@pytest.mark.parametrize("below", ["", "actives", "actives/1080"])
def test_rows_by_hand(below: str, tmp_path: Path) -> None:
    trace = flame_moe.read(foreign_files.flame_moe(tmp_path) / below, EIGHT)
    ((_, batch),) = trace.batches()
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(2, 8, 2), (5, 8, 2)]
    assert [(row.id, row.domain) for row in trace.documents] == [("0-0", "train"), ("0-1", "train")]
    assert batch.document.tolist() == [0, 0, 1]
    assert batch.ids[0].tolist() == [[7, 3], [2, 1], [5, 6]]
    assert batch.ids[1].tolist() == [[0, 1], [4, 3], [2, 7]]
    assert batch.weights is not None
    assert batch.weights[0].tolist() == [[0.5, 0.25], [0.5, 0.125], [0.25, 0.25]]
    assert batch.token_id is not None
    assert batch.token_id.tolist() == [11, 12, 50_300]
    assert trace.meta.vocabulary_size == 50_301
    assert {remark.code: remark.count for remark in trace.remarks} == {"batches_not_documents": 2, "sorted_by_weight": 1, "ties": 1}


def test_without_samples_there_are_no_token_ids(tmp_path: Path) -> None:
    trace = flame_moe.read(foreign_files.flame_moe(tmp_path, samples=False), EIGHT)
    ((_, batch),) = trace.batches()
    assert batch.token_id is None
    assert trace.meta.vocabulary_size == 0


def edited(layer: int, name: str, column: int, value: Any) -> Any:
    def edit(at: int, batch: str, columns: list[Any]) -> list[Any]:
        return [value if (at, batch, index) == (layer, name, column) else one for index, one in enumerate(columns)]

    return edit


@pytest.mark.parametrize(("edit", "words"), [
    (edited(5, "0-1", 1, [[2, 8]]), "field indices: document '0-1', token 0, layer 5: expert id 8, .*off by one"),
    (edited(2, "0-0", 1, [[7, 3], [1, 1]]), "document '0-0', token 1, layer 2: one expert twice"),
    (edited(2, "0-0", 0, [[0.5, 0.25], [0.9, 0.5]]), "field scores: .*sum to more than 1"),
    (edited(2, "0-0", 0, [[0.5, 0.25], [np.nan, 0.5]]), "negative, not finite"),
    (edited(5, "0-1", 1, [[2]]), "expected scores and indices, both \\[tokens, k\\]"),
    (lambda layer, name, columns: [[row[:1] for row in one] for one in columns] if name == "0-1" else columns, "top-\\[1, 2\\] in one step"),
    (lambda layer, name, columns: [one[:1] for one in columns] if layer == 5 else columns, "batch 0-0: \\[1, 2\\] rows by layer"),
])
def test_damage_is_named_with_its_place(edit: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        list(flame_moe.read(foreign_files.flame_moe(tmp_path, edit), EIGHT).batches())


def test_recordings_that_are_not_one_step(tmp_path: Path) -> None:
    root = foreign_files.flame_moe(tmp_path)
    foreign_files.safetensors(root / "samples" / "0-0.safetensors", {"tokens": ("I64", (2, 2), np.zeros(4, "<i8").tobytes())})
    with pytest.raises(ReadError, match="expected one list of 2 token ids"):
        flame_moe.read(root, EIGHT)
    shutil.copytree(root / "actives" / "1080", root / "actives" / "2160")
    with pytest.raises(ReadError, match="2 training steps"):
        flame_moe.read(root, EIGHT)
    (root / "actives" / "1080" / "5" / "0-1.safetensors").unlink()
    with pytest.raises(ReadError, match="0-1: in some layers only"):
        flame_moe.read(root / "actives" / "1080", EIGHT)


def test_a_pickle_that_attacks_is_recognised_and_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "actives" / "1080" / "2"
    folder.mkdir(parents=True)
    foreign_files.torch_pickle(folder / "0-0.pt")
    assert flame_moe.recognises(tmp_path)
    with pytest.raises(ReadError, match=r"0-0\.pt: refused: global 'os\.system'"):
        flame_moe.read(tmp_path, EIGHT)
    assert not (tmp_path / "canary").exists()


def test_torch_s_own_files_are_the_same_rows(tmp_path: Path) -> None:
    """A tuple of scores and indices, and a tensor of token ids, as the runs were recorded."""
    import torch

    root = foreign_files.flame_moe(tmp_path)
    (_, expected), = flame_moe.read(root, EIGHT).batches()
    for file in list(root.rglob("*.safetensors")):
        name, layer = file.stem, file.parent.name
        if layer == "samples":
            torch.save(torch.tensor(foreign_files.FLAME_TOKENS[name]), file.with_suffix(".pt"))
        else:
            scores, indices = foreign_files.FLAME[int(layer)][name]
            torch.save((torch.tensor(scores), torch.tensor(indices)), file.with_suffix(".pt"))
        file.unlink()
    (_, found), = flame_moe.read(root, EIGHT).batches()
    assert found.token_id is not None and expected.token_id is not None and found.weights is not None and expected.weights is not None
    for one, other in zip((*found.ids, *found.weights, found.token_id), (*expected.ids, *expected.weights, expected.token_id), strict=True):
        np.testing.assert_array_equal(one, other)
    torch.save([torch.zeros(1)], root / "actives" / "1080" / "2" / "0-0.pt")
    with pytest.raises(ReadError, match="list of 1: expected scores and indices"):
        flame_moe.read(root, EIGHT)
