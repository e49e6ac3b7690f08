"""ESFT's text: rows by hand, the published text equal to the packed file, published scores and selections from text, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.metrics.relevance import gate_score, relevant_experts, token_score
from experiments.readers import ReadError, ReadOptions, esft, esft_text
from tests.experiments.readers import foreign_files
from tests.experiments.readers.foreign_files import SHARED

REAL = SHARED / "deepseek-ai__ESFT"
SMALL = ReadOptions(n_experts=8, top_k=3)
PUBLISHED_SHARE = 0.2  # threshold p of the published configurations


def test_rows_by_hand(tmp_path: Path) -> None:
    trace = esft_text.read(foreign_files.esft_text(tmp_path), SMALL)
    ((_, batch),) = trace.batches()
    assert [layer.depth for layer in trace.meta.layers] == [3, 12]
    assert batch.document.tolist() == [0, 0, 1]
    assert batch.position.tolist() == [0, 1, 0]
    assert batch.ids[0].tolist() == [[2, 5, 7], [0, 1, 6], [4, 3, 2]]
    assert batch.ids[1].tolist() == [[2, 1, 0], [7, 6, 5], [0, 2, 1]]
    assert batch.weights is not None
    assert batch.weights[0][2].tolist() == [0.5, 0.25, 0.125]
    assert [(row.id, row.domain) for row in trace.documents] == [("task/00000", "task"), ("task/00001", "task")]
    assert {remark.code: remark.count for remark in trace.remarks} == {"sorted_by_weight": 3, "ties": 1}


def test_ranks_one_after_another_in_order_of_number(tmp_path: Path) -> None:
    for rank in (10, 9):
        other = {layer: [sequences[0] if rank == 9 else sequences[1]] for layer, sequences in foreign_files.ESFT_LAYERS.items()}
        foreign_files.esft_text(tmp_path, other).rename(tmp_path / f"rank_{rank}")
    trace = esft_text.read(tmp_path, SMALL)
    ((_, batch),) = trace.batches()
    assert batch.ids[1].tolist() == [[2, 1, 0], [7, 6, 5], [0, 2, 1]]
    assert trace.meta.details["ranks"] == 2


def test_the_published_text_is_the_packed_file() -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not there: real traces live beside the clone, not in it")
    ((_, text),) = esft_text.read(REAL, ReadOptions()).batches()
    _, packed = next(esft.read(REAL / "law.npz", ReadOptions()).batches())
    rows = packed.document < 5
    np.testing.assert_array_equal(text.document, packed.document[rows])
    np.testing.assert_array_equal(text.position, packed.position[rows])
    assert text.weights is not None
    assert packed.weights is not None
    for index, layer in enumerate((0, 12, 25)):
        np.testing.assert_array_equal(text.ids[index], packed.ids[layer][rows])
        np.testing.assert_array_equal(text.weights[index], packed.weights[layer][rows])


def test_published_scores_and_selections_from_text(tmp_path: Path) -> None:
    """The packed file of a task, written out as text: three layers give the published scores, which are kept beside them."""
    if not REAL.exists():
        pytest.skip(f"{REAL} is not there: real traces live beside the clone, not in it")
    with np.load(REAL / "intent.npz") as file:
        ids, weights, lengths = file["expert_ids"], file["weight_e4"], file["doc_len"]
    for layer in (1, 13, 26):
        ends = np.cumsum(lengths)
        (tmp_path / f"expert_weights_{layer}.txt").write_text("".join(
            "\t".join(map(str, ids[layer - 1, end - n:end].ravel().tolist())) + "\t\t"
            + "\t".join(str(one / 1e4) for one in weights[layer - 1, end - n:end].ravel().tolist()) + "\n" for n, end in zip(lengths, ends)))
    published = json.loads((REAL / "published_scores_intent.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(published))
    trace = esft_text.read(tmp_path, ReadOptions())
    chosen = json.loads((REAL / "published_config_intent.json").read_text())["experts"]
    counts, sums, tokens = np.zeros((3, 64)), np.zeros((3, 64)), 0
    for _, batch in trace.batches():
        tokens += len(batch)
        assert batch.weights is not None
        for index in range(3):
            np.add.at(counts[index], batch.ids[index], 1)
            np.add.at(sums[index], batch.ids[index], batch.weights[index].astype(np.float64))
    for index, layer in enumerate((1, 13, 26)):
        kept = {kind: np.array(table[index]) for kind, table in trace.meta.details["published_scores"].items()}
        assert kept["token_scores"].tolist() == [published["token_scores"][str(layer)][str(expert)] for expert in range(64)]
        np.testing.assert_array_equal(np.round(token_score(counts[index]), 4), kept["token_scores"])
        np.testing.assert_allclose(gate_score(sums[index], tokens), kept["gate_scores"], atol=0.5e-4 + 1e-6, rtol=0)
        assert relevant_experts(token_score(counts[index]), PUBLISHED_SHARE).tolist() == chosen[str(layer)]


def changed(layer: int, sequence: int, token: int, slot: int, value: Any) -> dict[int, Any]:
    layers = json.loads(json.dumps(foreign_files.ESFT_LAYERS))
    layers[str(layer)][sequence][token][slot] = value
    return {int(one): sequences for one, sequences in layers.items()}


@pytest.mark.parametrize(("layers", "words"), [
    (changed(3, 0, 1, 0, (8, "0.2")), "field ids: document 'task/00000', token 1, layer 3: expert id 8, .*off by one"),
    (changed(12, 1, 0, 0, (2, "0.2")), "field ids: document 'task/00001', token 0, layer 12: one expert twice"),
    (changed(12, 1, 0, 0, (1, "0.7")), "field weights: .*sum to more than 1"),
    (changed(3, 1, 0, 0, (4, "nan")), "expert_weights_3.txt: line 2: a value that is no number"),
    (changed(3, 1, 0, 0, (4, "-0.5")), "negative, not finite"),
    (changed(3, 1, 0, 0, ("x", "0.5")), "line 2: a value that is no number"),
    (changed(3, 1, 0, 0, ("9" * 30, "0.5")), "line 2: .*export it again"),
    ({3: foreign_files.ESFT_LAYERS[3], 12: foreign_files.ESFT_LAYERS[12][:1]}, "expert_weights_12.txt: line 2: layer 12 has 0 ids, layer 3 has 3"),
    ({3: foreign_files.ESFT_LAYERS[3], 12: foreign_files.ESFT_LAYERS[12][::-1]}, "line 1: layer 12 has 3 ids, layer 3 has 6"),
])
def test_damage_is_named_with_its_place(layers: Any, words: str, tmp_path: Path) -> None:
    path = foreign_files.esft_text(tmp_path, layers)
    with pytest.raises(ReadError, match=words) as refusal:
        list(esft_text.read(path, SMALL).batches())
    assert str(path) in str(refusal.value)


def test_folders_that_are_no_task(tmp_path: Path) -> None:
    path = foreign_files.esft_text(tmp_path)
    with pytest.raises(ReadError, match="a multiple of k=6"):
        esft_text.read(path, ReadOptions())
    with pytest.raises(ReadError, match="field 5: absent"):
        esft_text.read(foreign_files.esft_text(tmp_path, None, token_scores={"3": {str(e): 0 for e in range(5)}, "12": {}}), SMALL)
    (path / "other_expert_weights_3.txt").write_text("1\t2\t3\t\t0.1\t0.2\t0.3\n")
    with pytest.raises(ReadError, match="several tasks"):
        esft_text.read(path, SMALL)
    with pytest.raises(ReadError, match="no expert_weights_N.txt"):
        esft_text.read(tmp_path, SMALL)
