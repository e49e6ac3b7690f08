"""What the capture tests share: a store in memory, documents, and the independent reference beside a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.trace import TraceBatch
from experiments.declaration import SourceSpec
from experiments.progress import Silent
from experiments.sources import TokenDocument
from experiments.sources.huggingface import HuggingFaceSource
from tests.references.routing_reference import ROUTING, Reference

TEXTS = ("the cat sat on the mat", "e = mc^2, where c is the speed of light", "a", "def f(x):\n    return x + 1\n", "zzz " * 12,
         "Patients were randomised 1:1.", "<s> is special, so is </s>", "news: rates rise", "0123456789" * 4, "quick brown fox")


class Shelf:
    """Keeps shards and events in memory."""

    def __init__(self, finished: Sequence[int] = ()) -> None:
        self.finished = frozenset(finished)
        self.shards: dict[int, TraceBatch] = {}
        self.documents: dict[int, list[int]] = {}
        self.events: list[Mapping[str, Any]] = []

    def write_shard(self, number: int, batch: TraceBatch, documents: Sequence[int]) -> None:
        assert number not in self.shards
        self.shards[number], self.documents[number] = batch, list(documents)

    def record_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)


def opened(directory: Path, **spec: Any) -> HuggingFaceSource:
    asked = {"batch_size": 4, "documents_per_shard": 6, **spec}
    return HuggingFaceSource.open(SourceSpec(model=str(directory), device="cpu", **asked), Silent())


def documents(source: HuggingFaceSource, texts: Sequence[str] = TEXTS) -> list[TokenDocument]:
    return [TokenDocument(number, f"doc-{number}", "domain", "test", tuple(ids)) for number, ids in enumerate(source.tokenize(texts))]


def expected(source: HuggingFaceSource, architecture: str, document: TokenDocument, key: str) -> Reference:
    """The reference for one document alone and unpadded: the router's input is caught on its way in, its weights are read as arrays."""
    module = source.opened.model.get_submodule(key)
    framing, caught = source.opened.framing, []
    handle = module.register_forward_pre_hook(lambda _m, args: caught.append(args[0].detach().double().numpy()))
    ids = torch.tensor([[*framing.prefix, *document.token_ids, *framing.suffix]])
    inputs = {"input_ids": ids}
    encoder = key.startswith("encoder.")
    if framing.decoder_start is not None:
        inputs["decoder_input_ids"] = torch.tensor([[framing.decoder_start, *document.token_ids]])
    with torch.no_grad():
        source.opened.model(**inputs, use_cache=False)
    handle.remove()
    x = caught[0].reshape(-1, caught[0].shape[-1])
    parameters = {name: value.detach().double().numpy() for name, value in [*module.named_parameters(), *module.named_buffers()]}
    full = ROUTING[architecture](x, parameters, source.opened.model.config)
    start = len(framing.prefix) if framing.decoder_start is None or encoder else 1
    kept = start + np.array([place for place, token in enumerate(document.token_ids) if token not in (0, 1, 2)])
    return Reference(full.ids[kept], full.weights[kept], full.q[kept])


def rows_of(shelf: Shelf, document: int) -> tuple[TraceBatch, np.ndarray]:
    """The shard that holds a document, and its rows in reading order."""
    for batch in shelf.shards.values():
        if len(rows := np.flatnonzero(batch.document == document)):
            return batch, rows
    raise AssertionError(f"document {document} was not collected")
