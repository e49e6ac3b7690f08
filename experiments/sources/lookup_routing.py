"""Routing some tokens from a table instead of the router, and what that does to the loss.

V vocabulary, K slot, T row of a forward pass, D document.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.progress import Progress
from experiments.sources import TokenDocument
from experiments.sources.decoding import SPECIAL
from experiments.sources.errors import SourceError
from experiments.sources.huggingface import HuggingFaceSource, is_out_of_memory
from experiments.sources.inputs import model_batch
from experiments.sources.opening import probe_documents, run_model
from experiments.sources.routers import RouterSite


@dataclass(frozen=True)
class LayerTable:
    """Routing of one layer by token id: ids int [V, K]; weights float [V, K], used as they are given."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def from_rows(cls, token_id: NDArray[Any], slot: NDArray[Any], expert: NDArray[Any], weight: NDArray[Any],
                  vocabulary_size: int) -> LayerTable:
        """The table of one layer from long rows (token, slot, expert, weight); a token without rows must not be eligible."""
        k = int(np.max(slot)) + 1
        ids, weights = np.zeros((vocabulary_size, k), dtype=np.int64), np.zeros((vocabulary_size, k), dtype=np.float32)
        ids[token_id, slot], weights[token_id, slot] = expert, weight
        return cls(ids, weights)


@dataclass
class RouterCalls:
    """Rows per layer index, pads excluded, of the last `measure_losses`.

    received: by the router itself, counted by a hook on it; looked_up: in the table.
    """

    received: dict[int, int] = field(default_factory=dict)
    looked_up: dict[int, int] = field(default_factory=dict)

    def clear(self) -> None:
        """Start counting anew."""
        for counts in (self.received, self.looked_up):
            counts.update(dict.fromkeys(counts, 0))

    @property
    def share_saved(self) -> float:
        """Share of router rows that were not evaluated; 0 before any forward pass."""
        total = sum(self.received.values()) + sum(self.looked_up.values())
        return sum(self.looked_up.values()) / total if total else 0.0


class _Tokens:
    """Token ids and mask of the forward pass under way, flattened as routers see them."""

    def __init__(self) -> None:
        self.ids = self.real = torch.zeros(0, dtype=torch.long)

    def read(self, _model: nn.Module, _args: Any, kwargs: Mapping[str, Any]) -> None:
        self.ids = kwargs["input_ids"].reshape(-1)
        self.real = kwargs["attention_mask"].reshape(-1).bool()


class _LookupRouter(nn.Module):
    """Stands where the router stood: eligible rows (and pads) come from the table, the router is called with the others only."""

    def __init__(self, router: nn.Module, table: LayerTable, eligible: NDArray[np.bool_], tokens: _Tokens, count: Any) -> None:
        super().__init__()
        self.router = router
        first = next(router.parameters())
        self._ids = torch.as_tensor(table.ids, dtype=torch.long, device=first.device)
        self._weights = torch.as_tensor(table.weights, dtype=torch.float32, device=first.device)
        self._eligible = torch.as_tensor(eligible, dtype=torch.bool, device=first.device)
        self._tokens, self._count = tokens, count

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("router"), name)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = hidden_states.reshape(-1, hidden_states.shape[-1])
        token = self._tokens.ids.to(flat.device)
        looked_up = self._eligible[token]
        rest = torch.nonzero(~looked_up & self._tokens.real.to(flat.device)).squeeze(-1)
        ids, weights = self._ids[token], self._weights[token]
        if len(rest):
            _, rest_weights, rest_ids = self.router(flat[rest])[:3]
            ids[rest], weights = rest_ids, weights.to(rest_weights.dtype)
            weights[rest] = rest_weights
        else:
            weights = weights.to(self.weight_dtype)
        self._count(int((looked_up & self._tokens.real.to(flat.device)).sum()))
        # No logits were computed for looked-up rows; whoever reads them must see that.
        return flat.new_full((), float("nan")).expand(len(flat), 1), weights, ids

    weight_dtype: torch.dtype = torch.float32


def _refuse_unless_rowwise(source: HuggingFaceSource, site: RouterSite) -> torch.dtype:
    """Raise SourceError unless the router decides every row by itself; returns the dtype of its weights."""
    opened = source.opened
    if opened.framing.decoder_start is not None:
        raise SourceError(f"fast path: {type(opened.model).__name__} is an encoder-decoder; a token's route would need two tables, "
                          "and expert capacity depends on the whole sequence")
    if site.class_name in SPECIAL or "Hash" in site.class_name:
        raise SourceError(f"fast path: router {site.class_name} does not return (logits, weights, ids) that its block uses as they are")
    calls: list[tuple[Any, Any, Any]] = []
    handle = site.module.register_forward_hook(lambda _m, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True)
    try:
        documents = probe_documents(source.meta.vocabulary_size, opened.framing.dropped, opened.limit)
        run_model(opened.model, model_batch(documents, opened.framing, opened.device))
    finally:
        handle.remove()
    args, kwargs, output = calls[0]
    if len(args) != 1 or kwargs:
        raise SourceError(f"fast path: router {site.class_name} is called with more than the hidden states; single rows cannot be run")
    flat = args[0].reshape(-1, args[0].shape[-1])
    odd = torch.arange(1, len(flat), 2, device=flat.device)
    with torch.no_grad():
        alone = site.module(flat[odd])
    if not torch.equal(alone[2], output[2][odd]) or not torch.allclose(alone[1], output[1][odd], rtol=1e-2):
        raise SourceError(f"fast path: router {site.class_name} routes a row otherwise without its neighbours; it needs the sequence")
    dtype: torch.dtype = alone[1].dtype
    return dtype


@contextmanager
def replace_routers(source: HuggingFaceSource, table: Mapping[int, LayerTable],
                    eligible: Mapping[int, NDArray[np.bool_]]) -> Iterator[RouterCalls]:
    """Route eligible token ids of the layers in `table` (indices into `source.meta.layers`) by lookup, inside the `with` block.

    eligible: bool [V] per layer. The original router is called with the other rows only, and a hook on it counts them.
    Special tokens are never eligible. Raises SourceError for an architecture where this cannot be done.
    """
    opened = source.opened
    tokens, calls = _Tokens(), RouterCalls()
    handles, replaced = [], []
    special = sorted(opened.framing.dropped)
    for number, layer in table.items():
        _check_table(source, number, layer, eligible[number])
    dtypes = {number: _refuse_unless_rowwise(source, opened.sites[number]) for number in table}
    try:
        handles.append(opened.model.register_forward_pre_hook(tokens.read, with_kwargs=True))
        for number, layer in table.items():
            site = opened.sites[number]
            calls.received[number] = calls.looked_up[number] = 0
            allowed = np.array(eligible[number], dtype=bool)
            allowed[[token for token in special if token < len(allowed)]] = False
            parent_path, _, name = site.key.rpartition(".")
            lookup = _LookupRouter(site.module, layer, allowed, tokens, _counter(calls.looked_up, number))
            lookup.weight_dtype = dtypes[number]
            handles.append(site.module.register_forward_pre_hook(_row_counter(calls.received, number)))
            parent = opened.model.get_submodule(parent_path)
            setattr(parent, name, lookup)
            replaced.append((parent, name, site.module))
        source.router_calls = calls
        yield calls
    finally:
        source.router_calls = None
        for parent, name, router in replaced:
            setattr(parent, name, router)
        for handle in handles:
            handle.remove()


def _counter(counts: dict[int, int], number: int) -> Any:
    def count(n: int) -> None:
        counts[number] += n
    return count


def _row_counter(counts: dict[int, int], number: int) -> Any:
    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        counts[number] += args[0].shape[:-1].numel()
    return hook


def _check_table(source: HuggingFaceSource, number: int, table: LayerTable, eligible: NDArray[np.bool_]) -> None:
    layer, size = source.meta.layers[number], source.meta.vocabulary_size
    if table.ids.shape != (size, layer.top_k) or table.weights.shape != table.ids.shape or np.shape(eligible) != (size,):
        raise SourceError(f"fast path: layer {layer.key}: ids {table.ids.shape}, weights {table.weights.shape}, eligible "
                          f"{np.shape(eligible)} must be ({size}, {layer.top_k}) twice and ({size},)")
    ids = np.sort(table.ids[np.asarray(eligible, dtype=bool)], axis=1)
    if ids.size and (ids.min() < 0 or ids.max() >= layer.n_experts or (ids[:, 1:] == ids[:, :-1]).any()):
        raise SourceError(f"fast path: layer {layer.key}: expert ids of eligible tokens must be distinct and in 0..{layer.n_experts - 1}")


@dataclass(frozen=True)
class Losses:
    """Next-token loss per document, in the order given: loss_sum nats [D], n_tokens int [D] predicted tokens; seconds of forward passes."""

    loss_sum: NDArray[np.float64]
    n_tokens: NDArray[np.int64]
    seconds: float

    def __iter__(self) -> Iterator[Any]:
        return iter((self.loss_sum, self.n_tokens, self.seconds))


def measure_losses(source: HuggingFaceSource, documents: Sequence[TokenDocument], progress: Progress) -> Losses:
    """Cross-entropy of each document's tokens, each predicted from those before it (and the prefix the tokenizer adds).

    The first token is predicted only if there is a prefix. Documents are cut at the length limit, as in a collection. One batch is run
    first outside the clock and outside the counts of `replace_routers`.
    """
    opened = source.opened
    if opened.framing.decoder_start is not None:
        raise SourceError(f"losses: {type(opened.model).__name__} is an encoder-decoder; next-token loss needs a causal model")
    place = {document.document: row for row, document in enumerate(documents)}
    waiting = [document for shard in source.plan(documents).shards for document in shard.documents]
    loss_sum, n_tokens = np.zeros(len(documents)), np.zeros(len(documents), dtype=np.int64)
    size, seconds = opened.batch_size, 0.0
    with progress.stage("measure losses", sum(len(document.token_ids) for document in waiting), "tokens") as task:
        _document_losses(source, waiting[-size:])
        if source.router_calls is not None:
            source.router_calls.clear()
        while waiting:
            batch = waiting[:size]
            try:
                losses, took = _document_losses(source, batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                size = len(batch) // 2
                continue
            seconds += took
            for document, (loss, count) in zip(batch, losses):
                loss_sum[place[document.document]], n_tokens[place[document.document]] = loss, count
            task.advance(sum(len(document.token_ids) for document in batch))
            waiting = waiting[len(batch):]
    return Losses(loss_sum, n_tokens, seconds)


def _document_losses(source: HuggingFaceSource, documents: Sequence[TokenDocument]) -> tuple[list[tuple[float, int]], float]:
    opened = source.opened
    batch = model_batch(documents, opened.framing, opened.device)
    started = time.perf_counter()
    logits = run_model(opened.model, batch, logits_to_keep=0).logits
    if opened.device.type == "cuda":
        torch.cuda.synchronize(opened.device)
    took = time.perf_counter() - started
    offset = len(opened.framing.prefix)
    sums, counts = [], []
    for row, document in enumerate(documents):
        first, stop = max(offset, 1), offset + len(document.token_ids)
        target = batch.tensors["input_ids"][row, first:stop]
        sums.append(nn.functional.cross_entropy(logits[row, first - 1:stop - 1].float(), target, reduction="sum"))
        counts.append(stop - first)
    return list(zip(torch.stack(sums).double().tolist(), counts)), took
