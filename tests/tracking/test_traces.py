"""The store gives back what it was given, whatever the shards; and refuses what is no routing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.trace import DocumentRow, TraceBatch, TraceError, TraceMeta
from tests.synthetic_trace import make_batch, make_documents, make_meta, make_shards, make_trace
from tracking import shards
from tracking.shards import chosen_rows, column_of, columns_of
from tracking.traces import StoredTrace, TraceWriter

LAYERS = ((16, 2), (300, 3), (8, 1), (257, 9))  # k that are no powers of two, k beyond a byte of mask, ids beyond uint8


def joined(batches: list[TraceBatch], name: str) -> np.ndarray:
    return np.concatenate([column_of(batch, name) if "/" in name else getattr(batch, name) for batch in batches])


def store(directory: Path, meta: TraceMeta, documents: tuple[DocumentRow, ...], batches: list[TraceBatch]) -> StoredTrace:
    writer = TraceWriter.create_or_resume(directory, meta, documents)
    for number, batch in enumerate(batches):
        writer.write_shard(number, batch, sorted(set(batch.document.tolist())))
    writer.finish()
    return StoredTrace.open(directory)


def test_every_column_comes_back_bit_for_bit(tmp_path: Path) -> None:
    meta, documents = make_meta(LAYERS), make_documents(9)
    given_batches = [batch for _, batch, _ in make_shards(np.random.default_rng(1), meta, documents, 4, dropping=(1, 3))]
    trace = store(tmp_path / "trace", meta, documents, given_batches)
    found = list(trace.batches())
    names = columns_of(given_batches[0], meta.layers)
    assert len(names) == 1 + 4 * 5 + 2
    for name in ("document", "position", "token_id", *names):
        expected = joined(given_batches, name)
        assert joined(found, name).tobytes() == expected.tobytes() and joined(found, name).dtype == expected.dtype, name
    assert trace.meta == meta and trace.documents == documents
    assert trace.n_tokens == sum(len(batch) for batch in given_batches)
    assert trace.n_tokens_of("test") + trace.n_tokens_of("calibration") == trace.n_tokens


def test_any_tool_reads_the_schema(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", np.random.default_rng(0), 4, ((16, 2), (300, 3)), dropping=(1,))
    table = pq.read_table(trace.directory / "shard-00000.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types["ids/00"] == "fixed_size_binary[2]" and types["ids/01"] == "fixed_size_binary[6]"
    assert types["weights/01"] == "fixed_size_binary[6]" and types["entropy_nats/00"] == "float"
    assert types["dropped/01"] == "uint8" and "dropped/00" not in types
    assert types["document"] == types["position"] == types["token_id"] == "int32"
    assert pa.types.is_dictionary(table.schema.field("split").type) and pa.types.is_dictionary(table.schema.field("domain").type)
    assert set(table["split"].to_pylist()) == {"calibration"} and set(table["domain"].to_pylist()) == {"code", "news"}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_digest_is_of_the_rows_not_of_the_files(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any dealing of documents to shards, any order of rows, any size of row groups: one digest."""
    meta, documents = make_meta(((16, 2), (300, 3))), make_documents(7)
    whole = make_batch(np.random.default_rng(3), meta, documents, tokens=(1, 9), dropping=(0,))
    dealt = data.draw(st.lists(st.integers(0, 3), min_size=7, max_size=7))
    before = shards.GROUP_ROWS
    shards.GROUP_ROWS = data.draw(st.integers(1, 40))
    try:
        parts = [chosen_rows(whole, np.isin(whole.document, [d for d in range(7) if dealt[d] == shard])) for shard in sorted(set(dealt))]
        shuffled = [_reordered(part, np.array(data.draw(st.permutations(range(len(part)))), dtype=int)) for part in parts]
        trace = store(tmp_path_factory.mktemp("dealt") / "trace", meta, documents, shuffled)
        assert trace.verify() == trace.digest == brute_force_digest(whole, documents)
        for batch in trace.batches():
            changes = np.flatnonzero(np.diff(batch.document)) + 1
            assert len(changes) + 1 == len(set(batch.document.tolist())), "a document's rows are together"
    finally:
        shards.GROUP_ROWS = before


def brute_force_digest(batch: TraceBatch, documents: tuple[DocumentRow, ...]) -> str:
    """The digest as its docstring says, row by row, for layers (16, 2) with `dropped` and (300, 3) without."""
    types = [f"{family}/0{layer}:{kind}" for family, kinds in (
        ("ids", ("uint8x2", "uint16x3")), ("weights", ("float16x2", "float16x3")), ("entropy_nats", ("float32",) * 2),
        ("simpson", ("float32",) * 2), ("top1_prob", ("float32",) * 2), ("dropped", ("uint8",))) for layer, kind in enumerate(kinds)]
    total = hashlib.sha256(json.dumps(["position:int32", "token_id:int32", *types]).encode())
    for row in documents:
        rows = [t for t in range(len(batch)) if batch.document[t] == row.document]
        one = hashlib.sha256()
        for t in rows:
            one.update(batch.position[t].tobytes() + batch.token_id[t].tobytes())
            for name in (name.partition(":")[0] for name in types):
                one.update(column_of(batch, name)[t].tobytes())
        total.update(json.dumps([row.document, row.id, row.domain, row.split, len(rows)]).encode() + one.digest())
    return total.hexdigest()


def _reordered(batch: TraceBatch, order: np.ndarray) -> TraceBatch:
    return chosen_rows(batch, order)


def test_the_digest_notices_every_column_and_every_document(tmp_path: Path) -> None:
    meta, documents = make_meta(((16, 2), (300, 3))), make_documents(3)
    batch = make_batch(np.random.default_rng(0), meta, documents, tokens=(5, 9), dropping=(0,))
    digests = {store(tmp_path / "same", meta, documents, [batch]).digest}
    for number, changed in enumerate(_changes(batch)):
        digests.add(store(tmp_path / f"changed-{number}", meta, documents, [changed]).digest)
    other = (*documents[:2], replace(documents[2], domain="poems"))
    digests.add(store(tmp_path / "domain", meta, other, [batch]).digest)
    assert len(digests) == 2 + len(_changes(batch))


def _changes(batch: TraceBatch) -> list[TraceBatch]:
    """The batch with one value changed, in each kind of column and layer."""
    changed = []
    for name in columns_of(replace(batch, token_id=None), make_meta(((16, 2), (300, 3))).layers):
        family, _, layer = name.partition("/")
        column = [None if part is None else part.copy() for part in getattr(batch, family)]
        last = column[int(layer)][-1:]
        last[...] = last[:, ::-1] if family == "ids" else last ^ 1 if family == "dropped" else last / 2
        changed.append(replace(batch, **{family: tuple(column) if family in ("ids", "weights", "dropped") else np.stack(column)}))
    for name in ("position", "token_id"):
        column = getattr(batch, name).copy()
        column[-1] += 1
        changed.append(replace(batch, **{name: column}))
    return changed


def test_selection_by_split_layers_and_columns(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", np.random.default_rng(0), 40, LAYERS, dropping=(1,))
    full = list(trace.batches())
    for split in ("calibration", "test"):
        numbers = [row.document for row in trace.documents if row.split == split]
        found = list(trace.batches(split=split, layers=[3, 1]))
        rows = np.isin(joined(full, "document"), numbers)
        assert np.array_equal(joined(found, "ids/00"), joined(full, "ids/03")[rows])
        assert np.array_equal(joined(found, "entropy_nats/01"), joined(full, "entropy_nats/01")[rows])
        assert found[0].dropped is not None and found[0].dropped[0] is None and found[0].dropped[1] is not None
    assert list(trace.batches(split="train")) == []
    (batch, *_) = trace.batches(columns=("top1_prob",))
    assert batch.ids == () and batch.weights is None and batch.entropy_nats is None and batch.top1_prob is not None
    for wrong in ({"layers": [4]}, {"split": "tests"}, {"columns": ["logits"]}):
        with pytest.raises(TraceError):
            list(trace.batches(**wrong))  # type: ignore[arg-type]


def test_columns_that_a_source_cannot_fill_are_absent(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(2)
    batch = replace(make_batch(np.random.default_rng(0), meta, documents), weights=None, simpson=None)
    (found,) = store(tmp_path / "trace", meta, documents, [batch]).batches()
    assert found.weights is None and found.simpson is None and found.dropped is None and found.entropy_nats is not None


def test_memory_is_that_of_a_row_group_and_groups_hold_whole_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_ROWS", 100)
    trace = make_trace(tmp_path / "trace", np.random.default_rng(0), 30, per_shard=30, tokens=(20, 60))
    lengths = [len(batch) for batch in trace.batches()]
    assert len(lengths) > 8 and max(lengths) <= 100
    monkeypatch.setattr(shards, "GROUP_ROWS", 1)
    assert len(list(make_trace(tmp_path / "long", np.random.default_rng(0), 5, tokens=(20, 60)).batches())) == 5


def test_a_document_is_counted_once(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(6)
    writer = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    first = make_batch(np.random.default_rng(0), meta, documents[:2])
    writer.write_shard(0, first, [0, 1])
    with pytest.raises(TraceError, match=r"document 1 \('document-1'\) is in shard 0 already; a document is counted once"):
        writer.write_shard(1, make_batch(np.random.default_rng(1), meta, documents[1:3]), [1, 2])
    with pytest.raises(TraceError, match="finished already with documents"):
        writer.write_shard(0, first, [0, 1])
    with pytest.raises(TraceError, match="rows of document 4, which is not listed"):
        writer.write_shard(1, make_batch(np.random.default_rng(1), meta, documents[3:5]), [3])
    with pytest.raises(TraceError, match="listed twice"):
        writer.write_shard(1, make_batch(np.random.default_rng(1), meta, documents[3:4]), [3, 3])
    with pytest.raises(TraceError, match="document 99 is not one of the 6"):
        writer.write_shard(1, first, [99])
    resumed = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    with pytest.raises(TraceError, match="in shard 0 already"):
        resumed.write_shard(5, first, [0, 1])
    repeated = _reordered(make_batch(np.random.default_rng(1), meta, documents[2:3]), np.r_[0:5, 2])
    with pytest.raises(TraceError, match="document 2 has position 2 twice; a token is counted once"):
        resumed.write_shard(1, repeated, [2])
    assert resumed.finished == {0}


def test_a_second_writer_is_noticed_before_it_writes(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(4)
    one = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    other = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    one.write_shard(0, make_batch(np.random.default_rng(0), meta, documents[:2]), [0, 1])
    with pytest.raises(TraceError, match="another process has written it meanwhile"):
        other.write_shard(0, make_batch(np.random.default_rng(0), meta, documents[:2]), [0, 1])


def test_another_meta_or_other_documents_are_refused_with_a_table(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(4)
    TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    other = replace(meta, model="another", versions={"numpy": "3"}, layers=(replace(meta.layers[0], top_k=3), meta.layers[1]))
    with pytest.raises(TraceError, match="begun with another meta; restore what it was, or collect into a new run") as caught:
        TraceWriter.create_or_resume(tmp_path / "trace", other, documents)
    rows = [line.split() for line in str(caught.value).splitlines()[1:]]
    assert rows == [["field", "was", "is"], ["model", '"synthetic"', '"another"'], ["layers[0].top_k", "2", "3"], ["versions.numpy", '"2"', '"3"']]
    with pytest.raises(TraceError, match=r'(?s)other documents \(4 then, 3 now\).*document document-3\s+\[3, "news", "calibration"\]\s+absent'):
        TraceWriter.create_or_resume(tmp_path / "trace", meta, documents[:3])


def test_resuming_a_finished_trace_changes_nothing(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", np.random.default_rng(0), 6)
    before = (tmp_path / "trace" / "manifest.json").read_bytes()
    writer = TraceWriter.create_or_resume(tmp_path / "trace", trace.meta, make_documents(6))
    assert writer.finish() == trace.digest and writer.finished == {0}
    assert (tmp_path / "trace" / "manifest.json").read_bytes() == before
    with pytest.raises(TraceError, match="the trace is finished"):
        writer.write_shard(1, next(trace.batches()), [])


def test_documents_without_rows_are_finished_and_not_listed(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(3)
    writer = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    writer.write_shard(0, make_batch(np.random.default_rng(0), meta, documents[:2]), [1, 0, 2])
    writer.record_event({"event": "plan", "documents_cut": 0})
    writer.finish()
    trace = StoredTrace.open(tmp_path / "trace")
    assert trace.documents == documents[:2]
    assert [event["event"] for event in trace.manifest.events] == ["plan"] and trace.manifest.events[0]["sequence"] > 1


def test_an_unfinished_trace_is_not_read_as_a_whole_one(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(4)
    directory = tmp_path / "var-quick" / "trace"
    writer = TraceWriter.create_or_resume(directory, meta, documents)
    with pytest.raises(TraceError, match="no row was written"):
        writer.finish()
    writer.write_shard(0, make_batch(np.random.default_rng(0), meta, documents[:2]), [0, 1])
    with pytest.raises(TraceError, match="has not ended, 2 of 4 documents are there; go on with: assay resume var-quick"):
        StoredTrace.open(directory)
    assert len(StoredTrace.open(directory, finished=False).documents) == 2
    with pytest.raises(TraceError, match="holds no trace"):
        StoredTrace.open(tmp_path / "nothing")


def _set(family: str, layer: int, index: object, value: float) -> Callable[[TraceBatch], TraceBatch]:
    def change(batch: TraceBatch) -> TraceBatch:
        column = [part.copy() for part in getattr(batch, family)]
        column[layer][index] = value
        return replace(batch, **{family: tuple(column) if family in ("ids", "weights") else np.stack(column)})
    return change


def _plain(name: str, value: int) -> Callable[[TraceBatch], TraceBatch]:
    def change(batch: TraceBatch) -> TraceBatch:
        column = getattr(batch, name).copy()
        column[5] = value
        return replace(batch, **{name: column})
    return change


AT = r"shard-00000.parquet: document 0, position 5, layer model.layers.1.mlp.gate: "


@pytest.mark.parametrize(("change", "message"), [
    (_set("ids", 1, (5, 1), 300), AT + "expert id 300, but the layer has 300 experts; off by one"),
    (_set("ids", 1, (5, 1), 301), AT + "expert id 301, but the layer has 300 experts; correct n_experts"),
    (lambda batch: replace(batch, ids=(batch.ids[0], np.where(np.arange(len(batch))[:, None] == 5, -1, batch.ids[1].astype(np.int32)))),
     AT + "expert id -1"),
    (lambda batch: _set("ids", 1, (5, 0), batch.ids[1][5, 2])(batch), AT + "the same expert twice in one top-3"),
    (_set("weights", 1, (5, 0), np.inf), AT + "weights .* are not finite"),
    (_set("entropy_nats", 1, 5, np.nan), AT + "entropy_nats nan: not finite; the router's logits were NaN or infinite"),
    (_set("simpson", 1, 5, -np.inf), AT + "simpson -inf: not finite"),
    (_set("top1_prob", 1, 5, 1.5), AT + r"top1_prob 1.5: outside \[0, 1\]"),
    (_set("entropy_nats", 1, 5, 8.0), AT + r"entropy_nats 8.0: outside \[0, 5.704\]; entropies are in nats"),
    (_plain("token_id", 256), "document 0, position 5: token_id 256, but the vocabulary has 256 types"),
    (_plain("position", -1), "document 0: position -1; positions count from 0"),
    (lambda batch: replace(batch, position=batch.position.astype(np.int64)), r"column position: int64 \[\d+\], expected int32"),
    (lambda batch: replace(batch, ids=batch.ids[:1]), "column ids: 1 layers, the meta has 2"),
    (lambda batch: replace(batch, ids=(batch.ids[0], batch.ids[1][:, :2])), r"ids are uint16 \[\d+, 2\], expected integers \[\d+, 3\]"),
    (lambda batch: replace(batch, weights=(batch.weights[0], batch.weights[1].astype(np.float32))), "weights are float32 .* expected float16"),
    (lambda batch: replace(batch, entropy_nats=batch.entropy_nats[:1]), r"column entropy_nats: float32 \[1, \d+\], expected float32 \[2, "),
    (lambda batch: replace(batch, dropped=(None, np.full(len(batch), 8, np.uint8))), "dropped mask 8 has bits beyond slot 2"),
])
def test_what_is_no_routing_is_refused_at_the_door(change: Callable[[TraceBatch], TraceBatch], message: str, tmp_path: Path) -> None:
    meta, documents = make_meta(((16, 2), (300, 3))), make_documents(2)
    writer = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    with pytest.raises(TraceError, match=message):
        writer.write_shard(0, change(make_batch(np.random.default_rng(0), meta, documents)), [0, 1])
    assert writer.finished == frozenset() and not list((tmp_path / "trace").glob("shard-*"))


def test_one_trace_has_one_schema(tmp_path: Path) -> None:
    meta, documents = make_meta(), make_documents(4)
    writer = TraceWriter.create_or_resume(tmp_path / "trace", meta, documents)
    writer.write_shard(0, make_batch(np.random.default_rng(0), meta, documents[:2]), [0, 1])
    with pytest.raises(TraceError, match=r"columns \['weights/00', 'weights/01'\] are in some shards only"):
        writer.write_shard(1, replace(make_batch(np.random.default_rng(0), meta, documents[2:]), weights=None), [2, 3])


@pytest.mark.parametrize(("documents", "message"), [
    ((), "no documents"), ((DocumentRow(0, "a", "x", "test"), DocumentRow(0, "b", "x", "test")), "occurs twice"),
    ((DocumentRow(0, "a", "x", "test"), DocumentRow(1, "a", "x", "test")), "occurs twice"),
    ((DocumentRow(0, "a", "x", "validation"),), "use one of train, calibration, test"),
    ((DocumentRow(-1, "a", "x", "test"),), "outside int32"), ((DocumentRow(0, "a", "\ud83d", "test"),), "half a surrogate pair")])
def test_documents_are_checked_before_anything_is_written(documents: tuple[DocumentRow, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=message):
        TraceWriter.create_or_resume(tmp_path / "trace", make_meta(), documents)
    assert not (tmp_path / "trace").exists()


def test_a_meta_that_is_no_json_or_no_moe_is_refused(tmp_path: Path) -> None:
    for meta in (make_meta(details={"x": float("nan")}), make_meta(((16, 17),)), make_meta(())):
        with pytest.raises(TraceError):
            TraceWriter.create_or_resume(tmp_path / "trace", meta, make_documents(1))
