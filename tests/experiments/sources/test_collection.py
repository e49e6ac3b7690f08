"""Collection: batches, shards, resuming, out of memory, faults; on a tiny Mixtral."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.trace import DocumentRow, TraceBatch
from experiments.progress import Silent
from experiments.sources import TokenDocument
from experiments.sources.errors import RoutingFault, SourceError
from experiments.sources.huggingface import HuggingFaceSource, is_out_of_memory
from tests.experiments.sources import tiny_checkpoints
from tests.experiments.sources.capturing import Shelf, documents, opened, rows_of
from tracking.trace_writer import TraceWriter
from tracking.traces import StoredTrace


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.save("mixtral", tmp_path_factory.mktemp("mixtral"))


def collected(source: HuggingFaceSource, shelf: Shelf | None = None) -> Shelf:
    shelf = shelf or Shelf()
    source.collect(documents(source), shelf, Silent())
    return shelf


def same(one: TraceBatch, other: TraceBatch, tolerance: float = 0.0) -> None:
    for name in ("document", "position", "token_id"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for layer in range(len(one.ids)):
        np.testing.assert_array_equal(one.ids[layer], other.ids[layer])
        assert one.weights is not None and other.weights is not None
        np.testing.assert_allclose(one.weights[layer], other.weights[layer], rtol=max(tolerance, 1e-9) * 100)
    assert one.entropy_nats is not None and other.entropy_nats is not None
    np.testing.assert_allclose(one.entropy_nats, other.entropy_nats, atol=tolerance, rtol=0)


def test_rows_are_the_documents_tokens_without_specials(mixtral: Path) -> None:
    source = opened(mixtral)
    shelf = collected(source)
    for document in documents(source):
        batch, rows = rows_of(shelf, document.document)
        kept = [(place, token) for place, token in enumerate(document.token_ids) if token not in (0, 1, 2)]
        assert list(zip(batch.position[rows].tolist(), batch.token_id[rows].tolist())) == kept
        assert (np.diff(rows) == 1).all()


def test_dtypes_and_shapes(mixtral: Path) -> None:
    batch = collected(opened(mixtral)).shards[0]
    n = len(batch)
    assert batch.ids[0].dtype == np.uint8 and batch.ids[0].shape == (n, 2)
    assert batch.weights is not None and batch.weights[0].dtype == np.float16
    for column in (batch.entropy_nats, batch.simpson, batch.top1_prob):
        assert column is not None and column.dtype == np.float32 and column.shape == (2, n)
    assert batch.dropped is None


def test_same_documents_same_bits(mixtral: Path) -> None:
    first, second = collected(opened(mixtral)), collected(opened(mixtral))
    assert list(first.shards) == list(second.shards)
    for number, batch in first.shards.items():
        same(batch, second.shards[number])


def test_order_of_documents_does_not_matter(mixtral: Path) -> None:
    source, shelf = opened(mixtral), Shelf()
    source.collect(list(reversed(documents(source))), shelf, Silent())
    for number, batch in collected(source).shards.items():
        same(batch, shelf.shards[number])


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batch_size_changes_low_bits_only(mixtral: Path, batch_size: int) -> None:
    alone, together = collected(opened(mixtral, batch_size=batch_size)), collected(opened(mixtral))
    for number, batch in alone.shards.items():
        same(batch, together.shards[number], tolerance=1e-5)


def test_finished_shards_are_skipped_and_no_document_counts_twice(mixtral: Path) -> None:
    source = opened(mixtral, documents_per_shard=3)
    whole, rest = collected(source), Shelf(finished=[0, 2])
    report = source.collect(documents(source), rest, Silent())
    assert set(rest.shards) == set(whole.shards) - {0, 2}
    assert (report.shards_written, report.shards_skipped) == (2, 2)
    for number, batch in rest.shards.items():
        same(batch, whole.shards[number])
    numbers = sorted(number for shard in whole.documents.values() for number in shard)
    assert numbers == [document.document for document in documents(source)]


def test_out_of_memory_halves_the_batch_goes_on_and_is_recorded(mixtral: Path) -> None:
    source, shelf = opened(mixtral, batch_size=6), Shelf()

    def too_big(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (in a test)")

    source.opened.model.register_forward_pre_hook(too_big, with_kwargs=True)
    report = source.collect(documents(source), shelf, Silent())
    halvings = [(event["batch_size_from"], event["batch_size_to"]) for event in shelf.events if event["event"] == "out_of_memory"]
    assert halvings == [(6, 3), (3, 1)] and report.out_of_memory == 2 and report.batch_size == 1
    for number, batch in collected(opened(mixtral)).shards.items():
        same(batch, shelf.shards[number], tolerance=1e-5)


def test_out_of_memory_inside_a_layer_leaves_nothing_of_the_failed_pass(mixtral: Path) -> None:
    source, shelf = opened(mixtral), Shelf()

    def too_big(_module: Any, args: Any) -> None:
        if args[0].shape[0] > 80:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")

    source.opened.sites[1].module.register_forward_pre_hook(too_big)  # the first layer has been recorded by then
    source.collect(documents(source), shelf, Silent())
    assert any(event["event"] == "out_of_memory" for event in shelf.events)
    for number, batch in collected(opened(mixtral)).shards.items():
        same(batch, shelf.shards[number], tolerance=1e-5)


def test_out_of_memory_with_one_document_says_what_to_do(mixtral: Path) -> None:
    source = opened(mixtral)

    def never(_module: Any, _args: Any) -> None:
        raise torch.OutOfMemoryError("no")

    source.opened.model.register_forward_pre_hook(never)
    with pytest.raises(SourceError, match="out of memory with one document.*lower max_length"):
        collected(source)


def test_other_errors_are_not_taken_for_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert is_out_of_memory(MemoryError())


@pytest.mark.parametrize(("position", "layer", "expert", "value"),
                         [(0, 0, 3, float("nan")), (2, 1, 0, float("inf")), (21, 1, 7, float("-inf"))])
def test_a_logit_that_is_not_finite_is_named(mixtral: Path, position: int, layer: int, expert: int, value: float) -> None:
    source, shelf = opened(mixtral, batch_size=1, documents_per_shard=1), Shelf()
    asked = next(document for document in documents(source) if document.id == "doc-0")
    shard = next(shard for shard in source.plan(documents(source)).shards if shard.documents[0].id == "doc-0")

    def inject(_module: Any, args: Any, output: Any) -> Any:
        logits = output[0].clone()
        if len(logits) == len(asked.token_ids) + 1:
            logits[1 + position, expert] = value  # <s> is row 0
        return (logits, *output[1:])

    source.opened.sites[layer].module.register_forward_hook(inject)
    key = source.meta.layers[layer].key
    text = (rf"shard {shard.number}: document 'doc-0' \(number 0\), token {position} .*"
            rf"layer {key}, expert {expert}: the router logit .* not finite")
    with pytest.raises(RoutingFault, match=text):
        source.collect(documents(source), shelf, Silent())
    assert shard.number not in shelf.shards


def _spoil(source: HuggingFaceSource, change: Any) -> None:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        logits, weights, ids = output
        ids = ids.clone()
        change(ids, logits)
        return logits, weights, ids

    source.opened.sites[0].module.register_forward_hook(hook)


def _swap_one(ids: torch.Tensor, logits: torch.Tensor) -> None:
    ids[1, 0] = logits[1].argmin()


def _beyond(ids: torch.Tensor, logits: torch.Tensor) -> None:
    ids[1, 0] = logits.shape[1]


def _twice(ids: torch.Tensor, _logits: torch.Tensor) -> None:
    ids[1, 1] = ids[1, 0]


@pytest.mark.parametrize(("change", "says"), [(_swap_one, "scores higher than a chosen one"),
                                              (_beyond, r"expert id 8, but the router scores 8 experts \(off by one\?\)"),
                                              (_twice, "is chosen twice")])
def test_ids_that_cannot_be_true_are_refused(mixtral: Path, change: Any, says: str) -> None:
    source = opened(mixtral)
    _spoil(source, change)
    with pytest.raises(RoutingFault, match=says):
        collected(source)


def test_a_router_that_is_bypassed_is_noticed(mixtral: Path) -> None:
    source = opened(mixtral)
    block = source.opened.model.model.layers[0].mlp
    router = block.gate
    block.gate = torch.nn.Module()
    block.gate.forward = lambda x: router.forward(x)  # a fused kernel would do as much
    with pytest.raises(SourceError, match=r"routers never called.*model\.layers\.0\.mlp\.gate"):
        collected(source)


def test_long_documents_are_cut_and_counted(mixtral: Path) -> None:
    source, shelf = opened(mixtral, max_length=11), Shelf()
    report = source.collect(documents(source), shelf, Silent())
    long = [len(document.token_ids) - 10 for document in documents(source) if len(document.token_ids) > 10]
    assert (report.n_cut, report.tokens_cut) == (len(long), sum(long))  # <s> takes one of eleven
    assert max(int(batch.position.max()) for batch in shelf.shards.values()) == 9
    plan = next(event for event in shelf.events if event["event"] == "plan")
    assert plan["documents_cut"] == len(long) and plan["special_tokens_without_rows"] == report.n_special


def test_documents_without_content_have_no_rows(mixtral: Path) -> None:
    source, shelf = opened(mixtral), Shelf()
    given = [TokenDocument(n, f"d{n}", "d", "test", tokens) for n, tokens in enumerate([(), (0, 1), (9, 8)])]
    report = source.collect(given, shelf, Silent())
    assert report.empty == (0, 1) and shelf.documents == {0: [2, 0, 1]} and report.rows == 2
    with pytest.raises(SourceError, match="no document with a countable token"):
        source.collect(given[:2], Shelf(), Silent())


def test_a_document_number_that_occurs_twice_is_refused(mixtral: Path) -> None:
    source = opened(mixtral)
    with pytest.raises(SourceError, match="occurs twice"):
        source.collect(documents(source)[:2] + documents(source)[:1], Shelf(), Silent())


def test_layers_can_be_chosen(mixtral: Path) -> None:
    source = opened(mixtral, layers=(1,))
    assert [layer.depth for layer in source.meta.layers] == [1]
    every = collected(opened(mixtral)).shards[0]
    np.testing.assert_array_equal(collected(source).shards[0].ids[0], every.ids[1])
    with pytest.raises(SourceError, match=r"layers: \[7\] have no router; the MoE layers of this model are \[0, 1\]"):
        opened(mixtral, layers=(1, 7))


def test_bfloat16_ties_pass_and_are_counted(mixtral: Path, tmp_path: Path) -> None:
    directory = tiny_checkpoints.save("olmoe", tmp_path, dtype=torch.bfloat16)
    source, shelf = opened(directory), Shelf()
    more = [TokenDocument(100 + n, f"more-{n}", "d", "test", tuple(range(3 + n, 200 + n))) for n in range(8)]
    report = source.collect(documents(source) + more, shelf, Silent())
    assert source.meta.details["dtype"] == "bfloat16"
    assert any(share > 0 for share in report.first_choice_tied.values())
    for batch in shelf.shards.values():
        assert batch.weights is not None
        for ids, weights in zip(batch.ids, batch.weights):
            tied = weights[:, 0] == weights[:, 1]
            assert (ids[tied, 0] < ids[tied, 1]).all()  # metrics.md §1: ties to the lowest id


def test_meta_is_a_function_of_spec_and_checkpoint(mixtral: Path) -> None:
    assert opened(mixtral).meta == opened(mixtral).meta


def test_into_a_real_store_and_on_after_an_interruption(mixtral: Path, tmp_path: Path) -> None:
    source = opened(mixtral, documents_per_shard=3)
    given = documents(source)
    rows = [DocumentRow(document.document, document.id, document.domain, document.split) for document in given]
    whole = TraceWriter.create_or_resume(tmp_path / "whole", source.meta, rows)
    source.collect(given, whole, Silent())

    class Stop(Exception):
        pass

    class Interrupting:
        def __init__(self, inner: TraceWriter) -> None:
            self.inner, self.finished = inner, inner.finished

        def write_shard(self, number: int, batch: TraceBatch, numbers: Any) -> None:
            if number == 2:
                raise Stop
            self.inner.write_shard(number, batch, numbers)

        def record_event(self, event: Any) -> None:
            self.inner.record_event(event)

    with pytest.raises(Stop):
        source.collect(given, Interrupting(TraceWriter.create_or_resume(tmp_path / "cut", source.meta, rows)), Silent())
    source.close()
    again = opened(mixtral, documents_per_shard=3)
    resumed = TraceWriter.create_or_resume(tmp_path / "cut", again.meta, rows)
    report = again.collect(given, resumed, Silent())
    assert (report.shards_skipped, report.shards_written) == (2, 2)
    assert whole.finish() == resumed.finish()
    assert StoredTrace.open(tmp_path / "cut").n_tokens == report.rows + sum(len(rows_of_shard(tmp_path / "cut", n)) for n in (0, 1))


def rows_of_shard(directory: Path, number: int) -> Any:
    import pyarrow.parquet as pq

    return range(pq.read_metadata(directory / f"shard-{number:05d}.parquet").num_rows)
