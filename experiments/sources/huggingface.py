"""Routing of any transformers mixture-of-experts model, document by document, through hooks on its routers."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from analysis.trace import TraceBatch, TraceMeta
from experiments.declaration import SourceSpec
from experiments.progress import Progress, Task
from experiments.sources import TokenDocument
from experiments.sources.batching import Plan, Shard, plan_shards
from experiments.sources.decoding import is_limited
from experiments.sources.errors import SourceError
from experiments.sources.events import SHARD_COUNTS
from experiments.sources.faults import raise_on_fault
from experiments.sources.inputs import Side, model_batch
from experiments.sources.opening import OpenedModel, open_model, run_model, trace_meta
from experiments.sources.recording import Recorder
from experiments.sources.reduction import LayerColumns

if TYPE_CHECKING:
    from analysis.trace import LayerMeta
    from experiments.sources.lookup_routing import RouterCalls


ALLOCATOR_SAYS = ("can't allocate memory", "not enough memory", "CUDA out of memory")


class Store(Protocol):
    """Where finished shards go; `tracking.traces.TraceWriter` is one."""

    @property
    def finished(self) -> frozenset[int]:
        """Numbers of shards that are whole already."""

    def write_shard(self, number: int, batch: TraceBatch, documents: Sequence[int]) -> None:
        """Keep one shard for good, or nothing of it."""

    def record_event(self, event: Mapping[str, Any]) -> None:
        """Keep a remark in the manifest."""


@dataclass(frozen=True)
class CollectReport:
    """What a collection did: shares are over the rows written in this call; per-layer values are keyed by layer key."""

    documents: int
    rows: int
    shards_written: int
    shards_skipped: int
    n_pads: int
    n_special: int
    n_cut: int
    tokens_cut: int
    empty: tuple[int, ...]
    out_of_memory: int
    batch_size: int
    seconds: float
    first_choice_tied: Mapping[str, float]
    dropped: Mapping[str, float]


@dataclass
class _Tally:
    rows: int = 0
    pads: int = 0
    tied: Any = 0
    dropped: Any = 0
    out_of_memory: int = 0

    def add(self, other: _Tally) -> None:
        self.rows, self.pads, self.out_of_memory = self.rows + other.rows, self.pads + other.pads, self.out_of_memory + other.out_of_memory
        self.tied, self.dropped = self.tied + other.tied, self.dropped + other.dropped

    def plain(self) -> dict[str, Any]:
        return {"rows": self.rows, "pads": self.pads, "tied": np.atleast_1d(self.tied).tolist(), "dropped": np.atleast_1d(self.dropped).tolist()}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or the CPU's allocator, ran out of memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in ALLOCATOR_SAYS)


class HuggingFaceSource:
    """A model, by directory or Hugging Face id, whose routing is collected."""

    def __init__(self, opened: OpenedModel) -> None:
        self.opened = opened
        self.padding_side: Side = "right"
        self.router_calls: RouterCalls | None = None
        self._meta = trace_meta(opened)
        self._batch_size = opened.batch_size

    @classmethod
    def open(cls, spec: SourceSpec, progress: Progress) -> HuggingFaceSource:
        """Load and check the model of `spec`; `meta` is known afterwards. Raises SourceError before anything is created."""
        return cls(open_model(spec, progress))

    @property
    def meta(self) -> TraceMeta:
        """Provenance, layers and the conformance verdict; a function of spec and checkpoint, so that a collection can be resumed."""
        return self._meta

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without the special tokens that `collect` adds around it."""
        if not texts:
            return []
        found = self.opened.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [list(ids) for ids in found]

    def token_strings(self) -> list[str]:
        """The vocabulary, by id; an id that the tokenizer has no string for is `<id>`."""
        tokenizer, size = self.opened.tokenizer, self._meta.vocabulary_size
        strings = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
        strings += [None] * (size - len(strings))
        return [f"<{number}>" if string is None else str(string) for number, string in enumerate(strings)]

    def plan(self, documents: Sequence[TokenDocument]) -> Plan:
        """Which documents share a shard; the same for the same documents and spec."""
        return plan_shards(documents, self.opened.limit, self.opened.framing.dropped, self.opened.spec.documents_per_shard)

    def collect(self, documents: Sequence[TokenDocument], store: Store, progress: Progress) -> CollectReport:
        """Run every document whose shard is not finished through the model, and write its rows.

        Out of memory halves the batch, is recorded as an event, and goes on; with one document left it is a SourceError.
        """
        started = time.monotonic()
        plan, tally = self.plan(documents), _Tally()
        if not plan.shards:
            raise SourceError("no document with a countable token was given; nothing can be collected")
        todo = [shard for shard in plan.shards if shard.number not in store.finished]
        if todo and not store.finished:
            store.record_event({"event": "plan", "documents": sum(len(shard.documents) for shard in plan.shards), "rows": plan.n_rows,
                                "documents_cut": plan.n_cut, "tokens_cut": plan.tokens_cut, "documents_empty": list(plan.empty),
                                "special_tokens_without_rows": plan.n_special + self._n_framing(plan)})
        recorder = Recorder(self.opened.sites, self.opened.conformance.readings)
        try:
            with progress.stage("collect routing", sum(len(d.token_ids) for shard in todo for d in shard.documents), "tokens") as task:
                for shard in todo:
                    counted = _Tally()
                    batch = self._shard(shard, recorder, store, task, counted)
                    tally.add(counted)
                    store.record_event({"event": SHARD_COUNTS, "shard": shard.number, **counted.plain()})
                    store.write_shard(shard.number, batch, [*(document.document for document in shard.documents), *shard.without_rows])
        finally:
            recorder.close()
        return self._report(plan, todo, tally, time.monotonic() - started)

    def close(self) -> None:
        """Let the model go."""
        import torch

        del self.opened
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _n_framing(self, plan: Plan) -> int:
        framing = self.opened.framing
        return (len(framing.prefix) + len(framing.suffix)) * sum(len(shard.documents) for shard in plan.shards)

    def _shard(self, shard: Shard, recorder: Recorder, store: Store, task: Task, tally: _Tally) -> TraceBatch:
        waiting, done = list(shard.documents), []
        while waiting:
            size = self._batch_size
            try:
                done.append(self._batch(shard.number, waiting[:size], recorder, tally))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(shard.number, waiting[:size], error, store, task)
                tally.out_of_memory += 1
                continue
            task.advance(sum(len(document.token_ids) for document in waiting[:size]))
            waiting = waiting[size:]
        return _joined(done)

    def _halve(self, shard: int, documents: Sequence[TokenDocument], error: BaseException, store: Store, task: Task) -> None:
        import torch

        if len(documents) == 1:
            raise SourceError(f"shard {shard}: out of memory with one document ({documents[0].id!r}, {len(documents[0].token_ids)} tokens) "
                              "in the batch; lower max_length, choose fewer layers, or quantize") from error
        self._batch_size = max(1, min(self._batch_size, len(documents)) // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        store.record_event({"event": "out_of_memory", "shard": shard, "batch_size_from": len(documents), "batch_size_to": self._batch_size,
                            "documents": [document.document for document in documents],
                            "note": "another batch size changes the low bits of the logits"})
        task.note(f"out of memory: batch {self._batch_size}")

    def _batch(self, shard: int, documents: Sequence[TokenDocument], recorder: Recorder, tally: _Tally) -> TraceBatch:
        opened = self.opened
        batch = model_batch(documents, opened.framing, opened.device, self.padding_side)
        recorder.start(batch.rows, batch.n_rows)
        run_model(opened.model, batch)
        columns = recorder.finish()
        raise_on_fault(shard, documents, batch, columns, self._meta.layers)
        tally.rows += len(batch.document)
        tally.pads += batch.n_pads
        tally.tied = tally.tied + np.array([layer.tied.sum() for layer in columns], dtype=np.int64)
        tally.dropped = tally.dropped + np.array([0 if layer.dropped is None else (layer.dropped > 0).sum() for layer in columns])
        return _trace_batch(batch.document, batch.position, batch.token_id, columns, self._meta.layers)

    def _report(self, plan: Plan, written: Sequence[Shard], tally: _Tally, seconds: float) -> CollectReport:
        keys, rows = [layer.key for layer in self._meta.layers], max(tally.rows, 1)
        shares = {name: {key: float(count) / rows for key, count in zip(keys, np.broadcast_to(counts, len(keys)))}
                  for name, counts in (("tied", tally.tied), ("dropped", tally.dropped))}
        return CollectReport(
            documents=sum(len(shard.documents) for shard in plan.shards), rows=tally.rows, shards_written=len(written),
            shards_skipped=len(plan.shards) - len(written), n_pads=tally.pads, n_special=plan.n_special + self._n_framing(plan),
            n_cut=plan.n_cut, tokens_cut=plan.tokens_cut, empty=plan.empty, out_of_memory=tally.out_of_memory,
            batch_size=self._batch_size, seconds=seconds, first_choice_tied=shares["tied"],
            dropped={key: shares["dropped"][key] for key, site in zip(keys, self.opened.sites) if is_limited(site.module)})


def _trace_batch(document: Any, position: Any, token_id: Any, columns: Sequence[LayerColumns], layers: Sequence[LayerMeta]) -> TraceBatch:
    dropped = tuple(layer.dropped for layer in columns)
    return TraceBatch(
        document, position, token_id, ids=tuple(column.ids.astype(layer.id_dtype) for column, layer in zip(columns, layers)),
        weights=tuple(column.weights for column in columns),
        entropy_nats=np.stack([column.entropy_nats for column in columns]), simpson=np.stack([column.simpson for column in columns]),
        top1_prob=np.stack([column.top1_prob for column in columns]),
        dropped=dropped if any(mask is not None for mask in dropped) else None)


def _joined(batches: Sequence[TraceBatch]) -> TraceBatch:
    """Batches of a shard as one, rows by document and position, whatever the batch size was."""
    document = np.concatenate([batch.document for batch in batches])
    position = np.concatenate([batch.position for batch in batches])
    order = np.lexsort((position, document))

    def per_layer(parts: Sequence[Any]) -> Any:
        return tuple(None if layer[0] is None else np.concatenate(layer)[order] for layer in zip(*parts))

    def stacked(name: str) -> Any:
        return np.concatenate([getattr(batch, name) for batch in batches], axis=1)[:, order]

    return TraceBatch(
        document[order], position[order], np.concatenate([batch.token_id for batch in batches])[order],
        ids=per_layer([batch.ids for batch in batches]), weights=per_layer([batch.weights for batch in batches]),
        entropy_nats=stacked("entropy_nats"), simpson=stacked("simpson"), top1_prob=stacked("top1_prob"),
        dropped=None if batches[0].dropped is None else per_layer([batch.dropped for batch in batches]))
