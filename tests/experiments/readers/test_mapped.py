"""Plain tables under a mapping: every form and kind gives the same rows by hand; mappings and tables that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import readers
from experiments.imported_trace import opened
from experiments.readers import ReadError, ReadOptions, mapped
from tests.experiments.readers import foreign_files
from tests.experiments.readers.foreign_files import PLAIN_TOML

CHOSEN = [[[0, 3], [2, 1], [1, 2]], [[1, 2], [3, 0], [0, 3]]]  # layers 2 and 9; tokens (b, 1), (b, 0), (a, 0)
WEIGHTS = [[[0.5, 0.25], [0.5, 0.25], [0.75, 0.125]], [[0.5, 0.25], [0.5, 0.25], [0.5, 0.375]]]


def read(path: Path, **options: Any) -> Any:
    return mapped.read(path, ReadOptions(mapping=path.parent / "mapping.toml", **options))


@pytest.mark.parametrize(("form", "kind"), [("token", "jsonl"), ("layer", "jsonl"), ("slot", "jsonl"), ("token", "parquet"), ("slot", "parquet")])
def test_rows_by_hand(form: str, kind: str, tmp_path: Path) -> None:
    trace = read(foreign_files.plain_table(tmp_path, form, kind))
    ((_, batch),) = trace.batches()
    assert [(row.id, row.domain) for row in trace.documents] == [("b", "law"), ("a", "code")]
    assert batch.document.tolist() == [0, 0, 1]
    assert batch.position.tolist() == [0, 1, 0]
    assert batch.token_id.tolist() == [32, 31, 30]
    order = [1, 0, 2]
    assert [ids.tolist() for ids in batch.ids] == [[layer[i] for i in order] for layer in CHOSEN]
    assert [weights.tolist() for weights in batch.weights] == [[layer[i] for i in order] for layer in WEIGHTS]
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(2, 4, 2), (9, 4, 2)]
    assert (trace.meta.model, trace.meta.vocabulary_size) == ("tiny", 33)
    assert {remark.code: remark.count for remark in trace.remarks} == {"sorted_by_weight": 1}


def test_npz_with_axes_and_lengths(tmp_path: Path) -> None:
    ids = np.array([[[3, 0], [2, 1], [1, 2]], [[1, 2], [3, 0], [0, 3]]], np.int16)  # layer, token, slot
    path = foreign_files.npz(tmp_path / "t.npz", {"e": ids, "n": np.array([2, 1]), "names": np.array(["x", "y"])})
    (tmp_path / "mapping.toml").write_text(
        'form = "token"\nn_experts = 4\nlayers = [5, 7]\naxes = ["layer", "token", "slot"]\n'
        '[columns]\ndocument = "names"\nlengths = "n"\nids = "e"\n')
    trace = read(path, domain="mine")
    ((_, batch),) = trace.batches()
    assert [(row.id, row.domain) for row in trace.documents] == [("x", "mine"), ("y", "mine")]
    assert batch.ids[0].tolist() == [[3, 0], [2, 1], [1, 2]]
    assert (batch.position.tolist(), batch.token_id, batch.weights) == ([0, 1, 0], None, None)
    assert [layer.depth for layer in trace.meta.layers] == [5, 7]
    assert [remark.code for remark in trace.remarks] == ["positions_counted"]


def test_a_column_for_each_slot(tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text('form = "token"\nn_experts = 4\n[columns]\ndocument = "d"\nids = "l{layer}_e{slot}"\n')
    (tmp_path / "t.jsonl").write_text('{"d": 4, "l3_e0": 2, "l3_e1": 1, "l10_e0": 0, "l10_e1": 3}\n'
                                      '{"d": 4, "l3_e0": 0, "l3_e1": 1, "l10_e0": 2, "l10_e1": 1}')
    trace = read(tmp_path / "t.jsonl")
    ((_, batch),) = trace.batches()
    assert [layer.depth for layer in trace.meta.layers] == [3, 10]
    assert [ids.tolist() for ids in batch.ids] == [[[2, 1], [0, 1]], [[0, 3], [2, 1]]]
    assert trace.documents[0].id == "4"


def test_speculative_moe_fits_a_mapping(tmp_path: Path) -> None:
    """Records of one token and layer: dataset, problem_id, layer, experts, gating_probs, token_idx."""
    (tmp_path / "mapping.toml").write_text('form = "layer"\nmodel = "mistralai/Mixtral-8x7B-v0.1"\nn_experts = 8\n'
                                           'weights_mean = "softmax over the k"\n[columns]\ndocument = "problem_id"\ndomain = "dataset"\n'
                                           'position = "token_idx"\nlayer = "layer"\n'
                                           'ids = "experts"\nweights = "gating_probs"\n')
    (tmp_path / "t.jsonl").write_text("".join(
        f'{{"dataset": "gsm8k", "problem_id": "p{i}", "layer": {layer}, "experts": [{i}, {i + 4}], "gating_probs": [0.25, 0.75], "token_idx": 0}}\n'
        for i in range(3) for layer in range(2)))
    ((_, batch),) = read(tmp_path / "t.jsonl").batches()
    assert batch.ids[1].tolist() == [[4, 0], [5, 1], [6, 2]]


def test_a_mapping_goes_before_recognition(tmp_path: Path) -> None:
    path = foreign_files.plain_table(tmp_path, "token", "jsonl")
    with pytest.raises(ReadError, match="--mapping FILE.toml"):
        readers.recognise(path)
    (part,) = opened([path], [ReadOptions(mapping=tmp_path / "mapping.toml")])
    assert part.format == "mapped"
    with pytest.raises(ReadError, match="with --mapping"):
        mapped.read(path, ReadOptions())


@pytest.mark.parametrize(("text", "words"), [
    ("form = ", "no TOML"), ("form = 'row'\n[columns]", "form: 'row', expected one of token, layer, slot"), ("form = 'token'", "columns: absent"),
    ("form = 'token'\nfoo = 1\n[columns]\nids = 'a'\nbar = 'b'", "foo: not known.*\n.*columns.bar: not known.*\n.*columns.document: absent"),
    ("form = 'slot'\n[columns]\ndocument = 'd'", "columns.position: absent; form 'slot' needs it"),
    ("form = 'token'\nn_experts = true\n[columns]\ndocument = 'd'\nids = 'x'", "n_experts: True, expected int"),
    ("form = 'token'\ntop_k = 0\n[columns]\ndocument = 'd'\nids = 'x'", "top_k: 0, expected 1 or more"),
    ("form = 'token'\naxes = ['token']\n[columns]\ndocument = 'd'\nids = 'x'", "axes: "),
    ("form = 'token'\nlayers = [-1]\n[columns]\ndocument = 'd'\nids = 'x'", "layers: "),
    (PLAIN_TOML["token"].replace('"ids_{layer}"', '"ids_2"'), "says no layer; write .layer."),
    (PLAIN_TOML["token"].replace('"tok"', '"token"'), "column 'token' .token_id.: absent; the table has 'doc', 'kind'"),
    (PLAIN_TOML["token"].replace("n_experts = 4", ""), "the largest id is 3, .*give n_experts"),
    (PLAIN_TOML["token"].replace("n_experts = 4", "n_experts = 3"), "field ids: document 'b', token 1, layer 2: expert id 3, .*off by one"),
    (PLAIN_TOML["token"].replace("n_experts = 4", "n_experts = 4\ntop_k = 3"), "top_k 2 in the table, but 3"),
    (PLAIN_TOML["token"].replace("n_experts = 4", "n_experts = 4\nvocabulary_size = 32"), "token id 32, but the vocabulary has 32"),
])
def test_mappings_that_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = foreign_files.plain_table(tmp_path, "token", "jsonl")
    (tmp_path / "mapping.toml").write_text(text)
    with pytest.raises(ReadError, match=words):
        read(path)


def changed(form: str, row: int, **fields: Any) -> list[dict[str, Any]]:
    records = foreign_files.plain_records(form)
    records[row] = records[row] | fields
    return records


@pytest.mark.parametrize(("form", "records", "words"), [
    ("token", changed("token", 0, pos=0), "row 2: document 'b' has position 0 twice"),
    ("token", changed("token", 0, pos=-1), "row 0, column 'pos': -1"),
    ("token", changed("token", 0, kind="code"), "row 2, column 'kind': document 'b' is of 'code' and of 'law'"),
    ("token", changed("token", 1, ids_2=[1, 1]), "field ids: document 'a', token 0, layer 2: one expert twice"),
    ("token", changed("token", 1, ids_2=[1]), "line 2: field ids_2: .*k is the same for all tokens"),
    ("token", changed("token", 1, ids_2=[1, 2.5]), "expected whole numbers"),
    ("token", changed("token", 1, ids_2="x"), "line 2: field ids_2"),
    ("token", changed("token", 1, ids_2=None), "line 2: field ids_2: 'None'"),
    ("token", changed("token", 1, tok=-7), "field token_id: document 'a', token 0, .*-7 is no token id"),
    ("token", changed("token", 1, w_2=[0.5, -0.5]), "field weights: document 'a', token 0, layer 2: a weight that is negative"),
    ("token", [], "neither Parquet nor JSON lines|no record"),
    ("layer", foreign_files.plain_records("layer")[:-1], "document 'b', position 0: 1 layers recorded, expected all 2 of"),
    ("layer", changed("layer", 1, layer=9), "document 'b', position 1, layer 9: given twice"),
    ("layer", changed("layer", 1, tok=99), "document 'b', position 1: token ids .* a token has one"),
    ("slot", foreign_files.plain_records("slot")[:-1], "some of its layers have another number of choices"),
    ("slot", changed("slot", 0, slot=0), "given twice; a choice is counted once"),
])
def test_tables_that_are_refused(form: str, records: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        read(foreign_files.plain_table(tmp_path, form, "jsonl", records))


def test_parquet_lists_of_unequal_lengths_and_missing_values(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="column 'ids_2': row 1: 1 entries"):
        read(foreign_files.plain_table(tmp_path, "token", "parquet", changed("token", 1, ids_2=[1])))
    with pytest.raises(ReadError, match="column 'tok': 1 rows have none"):
        read(foreign_files.plain_table(tmp_path, "token", "parquet", changed("token", 1, tok=None)))


def test_a_changed_bit_never_crashes_the_reader(tmp_path: Path) -> None:
    path = foreign_files.plain_table(tmp_path, "slot", "jsonl")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in zip(rng.integers(0, len(whole), 150), rng.integers(0, 8, 150)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1:])
        try:
            list(read(path).batches())
        except ReadError:
            continue
