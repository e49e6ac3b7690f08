"""llama.cpp's traces: one row per decision, what was collapsed, cut or left out counted, and two models never read as one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import readers
from experiments.readers import ForeignCounts, ReadError, ReadOptions, _json
from tests.experiments.readers import foreign_engines as made

EIGHT = ReadOptions(n_experts=8)


def rows_of(path: Path, options: ReadOptions = EIGHT) -> tuple[Any, Any, dict[str, Any]]:
    """(trace, batch, remarks by code) of a file that fits one batch."""
    trace: Any = readers.recognise(path).read(path, options)
    ((number, batch),) = trace.batches()
    assert number == 0 and list(trace.batches(after=0)) == []
    return trace, batch, {one.code: one for one in trace.remarks}


def test_a_folder_of_domains(tmp_path: Path) -> None:
    trace, batch, remarks = rows_of(made.llamacpp(tmp_path))
    assert [(row.id, row.domain) for row in trace.documents] == [(name, name) for name in made.LLAMACPP]
    expected = [[[6, 2], [7, 3]], *made.LLAMACPP["domain-1-code"], [[6, 2], [7, 3]], *made.LLAMACPP["domain-2-math"]]
    assert np.stack(batch.ids, axis=1).tolist() == expected
    assert batch.document.tolist() == [0, 0, 0, 0, 1, 1, 1] and batch.position.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.token_id is None and batch.weights is None and batch.ids[0].dtype == np.uint8
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(0, 8, 2), (1, 8, 2)]
    # 7 rows of 2 layers: three records each, two of them repeat the first
    assert remarks["components_collapsed"].count == 2 * 7 * 2
    # one PROMPT pass per domain: 2 layers x 3 components with four ids
    assert remarks["truncated_top_k"].count == 2 * 2 * 3 and "PROMPT" in remarks["truncated_top_k"].words
    assert remarks["prompt_rows"].count == 2 and remarks["prompt_rows"].share == pytest.approx(2 / 7)
    assert "recorded_order" in remarks and "components_differ" not in remarks
    assert trace.meta.details["components"] == {"recorded": ["down", "gate", "up"], "kept": "the first of gate_up, gate, up, down", "differences": []}


def test_the_counts_that_the_notebook_prints(tmp_path: Path) -> None:
    """Its loop over the same files: 3 components x rows x layers x top-2 selections, per domain and expert, are 3 x ours."""
    path = made.llamacpp(tmp_path)
    tally: Counter[tuple[str, int, int]] = Counter()
    for file in sorted(path.rglob("token-*.json")):
        for one in json.loads(file.read_text())["entries"]:
            if one["operation_type"] == "MUL_MAT_ID" and one["expert_ids"]:
                tally.update((file.parts[-3], one["layer_id"], expert) for expert in one["expert_ids"][:2])
    trace, batch, _ = rows_of(path)
    ours = Counter((trace.documents[document].domain, layer, int(expert)) for layer in range(2)
                   for document, ids in zip(batch.document, batch.ids[layer]) for expert in ids)
    assert {key: 3 * n for key, n in ours.items()} == dict(tally)


def test_the_numbers_that_seed_002_prints_of_a_domain(tmp_path: Path) -> None:
    """100 files, 24 layers, top-4 of 32, a PROMPT pass in the first: 29,088 activations with three components, 6,060 / 5 in each layer."""
    rng = np.random.default_rng(0)
    for number in range(100):
        phases = ["PROMPT", "GENERATE"] if number == 0 else ["GENERATE"]
        entries = [made.entry(layer, component, ids if phase == "GENERATE" else [*ids, *ids], phase) for phase in phases for layer in range(24)
                   for ids in [rng.permutation(32)[:4].tolist()] for component in ("gate", "up", "down")]
        made.token_file(tmp_path / "domain-1-code" / "traces", number, entries)
    trace, batch, remarks = rows_of(tmp_path, ReadOptions(n_experts=32))
    assert [(row.domain, len(batch)) for row in trace.documents] == [("domain-1-code", 101)]
    assert sum(ids.size for ids in batch.ids) + 4 * remarks["components_collapsed"].count == 29_088
    assert [3 * ids.size for ids in batch.ids] == [1_212] * 24


def test_the_binary_trace_gives_what_the_json_of_its_parser_gives(tmp_path: Path) -> None:
    trace, batch, remarks = rows_of(made.llamacpp(tmp_path))
    other, binary, others = rows_of(made.llamacpp_binary(tmp_path))
    assert other.meta.collector == "assay-llamacpp-binary 1"
    assert [(row.id, row.domain) for row in other.documents] == [(row.id, row.domain) for row in trace.documents]
    assert np.array_equal(np.stack(binary.ids), np.stack(batch.ids)) and np.array_equal(binary.position, batch.position)
    assert others == remarks and other.meta.details == trace.meta.details


def test_one_binary_file_is_one_document(tmp_path: Path) -> None:
    file = made.llamacpp_binary(tmp_path, prompt=False) / "domain-2-math" / "tensor_trace.bin"
    trace, batch, _ = rows_of(file, ReadOptions(n_experts=8, domain="math"))
    assert [row.domain for row in trace.documents] == ["math"] and np.stack(batch.ids, axis=1).tolist() == made.LLAMACPP["domain-2-math"]


@pytest.mark.parametrize(("place", "value", "words"), [
    (1024 + 856, 17, "record 1: 2 sources, 17 expert ids"), (1024 + 17, 2, "phase 2"), (1024 + 18, 5, "5 sources"),
    (1024 + 792, 200, "expert id 200, but the layer has 8"), (1024 + 12, 9, "layer_id: 9, but dst_name is 'ffn_moe_gate-0'"),
])
def test_a_damaged_record_is_named(place: int, value: int, words: str, tmp_path: Path) -> None:
    file = made.llamacpp_binary(tmp_path, prompt=False) / "domain-2-math" / "tensor_trace.bin"
    content = bytearray(file.read_bytes())
    content[place] = value
    file.write_bytes(content)
    with pytest.raises(ReadError, match=words):
        readers.find("llamacpp-binary").read(file, EIGHT)


def test_a_binary_file_that_ends_within_a_record_is_refused(tmp_path: Path) -> None:
    file = made.llamacpp_binary(tmp_path, prompt=False) / "domain-2-math" / "tensor_trace.bin"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ReadError, match="no whole number of records"):
        readers.recognise(file).read(file, EIGHT)


@pytest.mark.parametrize("below", ["domain-1-code", "domain-1-code/traces"])
def test_one_domain_alone(below: str, tmp_path: Path) -> None:
    trace, batch, _ = rows_of(made.llamacpp(tmp_path) / below)
    assert [row.domain for row in trace.documents] == ["domain-1-code"] and len(batch) == 4
    trace, _, _ = rows_of(tmp_path / "run" / below, ReadOptions(n_experts=8, domain="code"))
    assert [row.domain for row in trace.documents] == ["code"]


def test_components_that_differ_are_kept_as_differences(tmp_path: Path) -> None:
    entries = [made.entry(0, "gate", [1, 2]), made.entry(0, "up", [1, 3]), made.entry(0, "down", [2, 1]),
               made.entry(1, "gate", [4, 5]), made.entry(1, "up", [4, 5]), made.entry(1, "down", [4, 5])]
    made.token_file(tmp_path / "d", 0, entries)
    trace, batch, remarks = rows_of(tmp_path / "d")
    assert batch.ids[0].tolist() == [[1, 2]]
    assert remarks["components_differ"].count == 1
    assert trace.meta.details["components"]["differences"] == [["d", 0, "up", 2, -1], ["d", 0, "up", 3, 1]]


def test_a_component_without_a_record_is_missing_from_its_counts(tmp_path: Path) -> None:
    made.token_file(tmp_path / "d", 0, made.operations(0, [1, 2]))
    made.token_file(tmp_path / "d", 1, [made.entry(0, "gate", [3, 4]), made.entry(0, "up", [3, 4]), made.entry(0, "down", [])])
    trace, batch, remarks = rows_of(tmp_path / "d")
    assert batch.ids[0].tolist() == [[1, 2], [3, 4]]
    assert (remarks["components_missing"].count, remarks["records_without_ids"].count) == (1, 1)
    assert trace.meta.details["components"]["differences"] == [["d", 0, "down", 3, -1], ["d", 0, "down", 4, -1]]


def test_missing_files_and_layers_leave_room_in_positions(tmp_path: Path) -> None:
    for number in (0, 3, 4):
        made.token_file(tmp_path / "d", number, made.operations(0, [1, 2]) + (made.operations(1, [3, 4]) if number != 3 else []))
    _, batch, remarks = rows_of(tmp_path / "d")
    assert batch.position.tolist() == [0, 4]
    assert (remarks["missing_token_files"].count, remarks["incomplete_tokens"].count) == (2, 1)


@pytest.mark.parametrize(("change", "words"), [
    ({"layer_id": 1}, "field layer_id: 1, but dst_name is 'ffn_moe_gate-0'"), ({"layer_id": "0"}, "field layer_id: str"),
    ({"phase": "WARMUP"}, "field phase: 'WARMUP'"), ({"expert_ids": [1, 2.5]}, "field expert_ids"), ({"expert_ids": [1, -2]}, "field expert_ids"),
    ({"expert_ids": "12"}, "field expert_ids"), ({"expert_ids": [1, 8]}, "expert id 8, but the layer has 8 experts; off by one"),
    ({"expert_ids": [1, 1]}, "one expert twice"), ({"dst_name": None}, "field dst_name: absent"), ({"operation_type": 30}, "field operation_type"),
])
def test_a_wrong_field_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    made.token_file(tmp_path / "d", 0, [made.entry(0, "gate", [1, 2], **change), made.entry(0, "up", [1, 2])])
    with pytest.raises(ReadError, match=words) as met:
        readers.find("llamacpp").read(tmp_path / "d", ReadOptions(n_experts=8, top_k=2))
    assert str(tmp_path) in str(met.value)


def test_what_the_trace_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path = made.llamacpp(tmp_path)
    with pytest.raises(ReadError, match=r"how many experts a layer has \(highest id 7\); give --n-experts"):
        readers.find("llamacpp").read(path, ReadOptions())
    made.token_file(tmp_path / "odd", 0, [made.entry(0, "gate", [1, 2]), made.entry(0, "up", [1, 2, 3])])
    with pytest.raises(ReadError, match="give --top-k"):
        readers.find("llamacpp").read(tmp_path / "odd", EIGHT)
    _, batch, remarks = rows_of(tmp_path / "odd", ReadOptions(n_experts=8, top_k=2))
    assert batch.ids[0].tolist() == [[1, 2]] and remarks["truncated_top_k"].count == 1
    with pytest.raises(ReadError, match="2 ids where 3 are chosen"):
        readers.find("llamacpp").read(tmp_path / "odd", ReadOptions(n_experts=8, top_k=3))


def test_two_models_are_not_one_trace(tmp_path: Path) -> None:
    path = made.llamacpp(tmp_path)
    made.token_file(path / "domain-2-math" / "traces", 2, [one for layer in range(3) for one in made.operations(layer, [1, 2])])
    with pytest.raises(ReadError, match=r"token-00002.json: layers 2 are not in the first file \(0, 1\)"):
        readers.find("llamacpp").read(path, EIGHT)
    with pytest.raises(ReadError, match="--layers says 0, 1, 2"):
        readers.find("llamacpp").read(path, ReadOptions(n_experts=8, layers=(0, 1, 2)))


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    file = made.token_file(tmp_path / "d", 0, made.operations(0, [1, 2]))
    file.rename(file.with_name("token-00001.json"))
    with pytest.raises(ReadError, match="field token_id: 0, but the file is named after token 1"):
        readers.find("llamacpp").read(tmp_path / "d", EIGHT)


@pytest.mark.parametrize(("content", "words"), [
    ('{"token_id": 0, "token_id": 1}', "occurs twice"), ('{"token_id": 0, "entries": [NaN]}', "NaN"),
    ('{"token_id": 0, "entries": ' + "[" * 100_000, "nested deeper"), ('{"token_id": 0, "entries": [{"operation_type": "MUL', "byte"), ("", "byte 0"),
    ('{"token_id": 0, "entries": {}}', "field entries: dict"), ("[]", "field token_id"), ('{"token_id": true}', "field token_id"),
])
def test_json_that_is_no_trace(content: str, words: str, tmp_path: Path) -> None:
    file = made.token_file(tmp_path / "d", 0, made.operations(0, [1, 2]))
    file.write_text(content)
    with pytest.raises(ReadError, match=words) as met:
        readers.find("llamacpp").read(tmp_path / "d", EIGHT)
    assert str(file) in str(met.value)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.readers.llamacpp.FILE_LIMIT", 100)
    made.token_file(tmp_path / "d", 0, made.operations(0, [1, 2]))
    with pytest.raises(ReadError, match="more than 100 for one JSON document"):
        readers.find("llamacpp").read(tmp_path / "d", EIGHT)
    assert _json.FILE_LIMIT > 100


@pytest.mark.parametrize("write", [made.mbolt, made.expert_log])
def test_passes_are_rows_where_every_layer_routed_the_token(write: Any, tmp_path: Path) -> None:
    trace, batch, remarks = rows_of(write(tmp_path))
    assert np.stack(batch.ids, axis=1).tolist() == made.PASS_ROWS and batch.position.tolist() == made.PASS_POSITIONS
    assert [layer.n_experts for layer in trace.meta.layers] == [8] * 3
    assert remarks["tokens_without_last_layer"].count == 2 and remarks["one_document"].count is None


def test_a_log_that_lists_fewer_tokens_than_it_counts(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("EXPERT|L0|T4: [1,2] [3,4] ...\nEXPERT|L1|T4: [2,1] [4,3] ...\nEXPERT|L0|T1: [5,6]\nEXPERT|L1|T1: [6,5]\n")
    _, batch, remarks = rows_of(tmp_path / "a.log")
    assert batch.ids[1].tolist() == [[2, 1], [4, 3], [6, 5]] and batch.position.tolist() == [0, 1, 4]
    assert remarks["tokens_not_logged"].count == 4


@pytest.mark.parametrize(("text", "words"), [
    ("EXPERT|L0|T1: [1,2] [3,4]\n", "line 1: 2 lists"), ("EXPERT|L0|T2: [1,2] [3]\n", "line 1: 2 lists"), ("EXPERT|L0|T1: [1,2\n", "was it cut"),
    ("EXPERT|L0|T1: [1,2]\nEXPERT|L1|T1: [1,2,3]\n", "2, 3 experts of one token"), ("EXPERT|L0|T1: [1,1]\n", "one expert twice"),
    ("EXPERT|L0|T1: [1,8]\n", "off by one"), ("EXPERT|L0|T1: [1,99999]\n", "no layer has so many"),
    ("EXPERT|L0|T1: [1,2]\nEXPERT|L1|T1: [1,2]\nEXPERT|L0|T1: [1,2]\nEXPERT|L2|T1: [1,2]\n", "layer 2 is not among 0, 1"),
    ("EXPERT|L0|T3: [1,2] [3,4] [5,6]\nEXPERT|L1|T2: [1,2] [3,4]\n", "routed 2, 3 tokens"),
])
def test_a_log_that_no_model_writes(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(text)
    with pytest.raises(ReadError, match=words):
        readers.find("llamacpp-log").read(tmp_path / "a.log", EIGHT)


@pytest.mark.parametrize("name", ["moe_trace", "colibri", "llama_prefetch"])
def test_counts_by_hand(name: str, tmp_path: Path) -> None:
    path = made.EXAMPLES[name][1](tmp_path)
    found = readers.recognise(path).read(path, ReadOptions(n_experts=4, top_k=2))
    assert isinstance(found, ForeignCounts)
    assert [table.tolist() for table in found.counts] == [[made.TABLE[0]], [made.TABLE[2]]]
    assert [layer.depth for layer in found.meta.layers] == [0, 2] and found.domains == (path.stem,)
    assert found.tokens is not None and found.tokens.tolist() == [4] and found.first is None
    with pytest.raises(ReadError, match="highest id 3"):
        readers.find(found.meta.collector.split()[0].removeprefix("assay-")).read(path, ReadOptions(top_k=2))
    with pytest.raises(ReadError, match="give --top-k"):
        readers.find(found.meta.collector.split()[0].removeprefix("assay-")).read(path, ReadOptions(n_experts=4))


def test_layers_that_disagree_on_the_number_of_tokens_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("layer,expert\n0,1\n0,2\n1,1\n1,2\n1,1\n1,3\n")
    found: Any = readers.find("moe-trace").read(tmp_path / "a.csv", ReadOptions(n_experts=4, top_k=2))
    assert found.tokens is None and [one.code for one in found.remarks] == ["layers_differ_in_total"]


@pytest.mark.parametrize(("reader", "text", "words"), [
    ("moe-trace", "layer,expert\n0,1\n0\n", "line 3"), ("moe-trace", "layer,expert\n0,-1\n", "line 2.*expert -1"), ("moe-trace", "0,1\n", "header"),
    ("moe-trace", "layer,expert\n0,4\n", "off by one"), ("moe-trace", "layer,expert\n", "counts nothing"),
    ("colibri", "0 1 5\n0 1 6\n", "line 2.*twice"), ("colibri", "0 1 5\n0 2 6", "line 2.*no end"), ("moe-trace", "layer,expert\n0,1", "no end"),
    ("colibri", "0 1 -5\n", "count -5"), ("colibri", "0 1 nan\n", "line 1"), ("colibri", "0 1 99999999999999999999\n", "line 1"),
    ("llama-prefetch", '{"layers": [{"layer_id": 0, "total_tokens": 3, "experts": [{"expert_id": 0, "activations": 2}]}]}', "sum to 2"),
    ("llama-prefetch", '{"layers": [{"layer_id": 0, "total_tokens": 0, "experts": []}, {"layer_id": 0, "total_tokens": 0, "experts": []}]}', "twice"),
    ("llama-prefetch", '{"layers": [{"layer_id": 0, "total_tokens": 4, "experts": [{"expert_id": 0, "activations": 2},'
                       '{"expert_id": 0, "activations": 2}]}]}', "expert_id: 0 is there twice"),
])
def test_tables_that_are_wrong(reader: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ReadError, match=words):
        readers.find(reader).read(tmp_path / "file", ReadOptions(n_experts=4, top_k=2))


def test_one_label_for_several_domains_is_refused(tmp_path: Path) -> None:
    path = made.llamacpp(tmp_path)
    with pytest.raises(ReadError, match=r"holds 2 domains \(domain-1-code, domain-2-math\), for which --domain 'law' is no label"):
        rows_of(path, ReadOptions(n_experts=8, domain="law"))
    trace, _, remarks = rows_of(path / "domain-1-code", ReadOptions(n_experts=8, domain="law"))
    assert trace.documents[0].domain == "law" and "one false pair" in remarks["prompt_rows"].words
