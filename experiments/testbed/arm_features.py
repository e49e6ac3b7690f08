"""What is kept of an arm beside its routing: loss of each document, router inputs of a sample, vectors of experts; streamed batch by batch.

D document, T sampled token, L MoE layer, E expert, P probe document, d width of the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.progress import Task
from experiments.sources import TokenDocument
from experiments.sources.huggingface import HuggingFaceSource
from experiments.sources.inputs import model_batch
from experiments.sources.opening import run_model
from experiments.sources.recording import Recorder

if TYPE_CHECKING:
    import torch

    from experiments.sources.inputs import ModelBatch
    from experiments.sources.reduction import LayerColumns

SPLIT = "test"  # whose tokens are sampled, probed and averaged; losses are of every document
PLACE = 2**32  # document x PLACE + position is a token's key
LEAST_WAITING = 4_096  # tokens that are looked at before the smallest hashes are chosen among them


@dataclass(frozen=True)
class Asked:
    """What is to be kept: tokens by key (ascending), probe documents cut to their first tokens, and every document cut as it is routed."""

    keys_T: NDArray[np.int64]
    probes: tuple[TokenDocument, ...]
    documents: tuple[TokenDocument, ...]

    @property
    def digest(self) -> str:
        """Equal digests, equal evaluation documents."""
        return digest_of(self.documents)


def digest_of(documents: Sequence[TokenDocument]) -> str:
    """SHA-256 of ids, domains, splits and token ids, in the order of the documents' numbers."""
    digest = hashlib.sha256()
    for one in sorted(documents, key=lambda document: document.document):
        digest.update(f"{one.id}\0{one.domain}\0{one.split}\0{','.join(map(str, one.token_ids))}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def asked_of(source: HuggingFaceSource, documents: Sequence[TokenDocument], *, tokens: int, probes: int, probe_tokens: int) -> Asked:
    """At most `tokens` tokens of test documents, those of smallest hash of (document id, position); `probes` documents of each domain.

    A function of the documents and the tokenizer, so that arms with one tokenizer are asked about the same.
    """
    cut = tuple(document for shard in source.plan(documents).shards for document in shard.documents)
    test = [document for document in cut if document.split == SPLIT]
    rank = {document.document: hashlib.sha256(document.id.encode()).digest() for document in test}
    chosen = []
    for domain in dict.fromkeys(document.domain for document in sorted(test, key=lambda one: one.document)):
        of_domain = sorted((document for document in test if document.domain == domain), key=lambda one: rank[one.document])
        chosen += of_domain[:probes]
    short = tuple(TokenDocument(one.document, one.id, one.domain, one.split, one.token_ids[:probe_tokens]) for one in chosen)
    return Asked(_sample(test, rank, source.opened.framing.dropped, tokens), short, cut)


def _sample(documents: Sequence[TokenDocument], rank: dict[int, bytes], dropped: frozenset[int], n: int) -> NDArray[np.int64]:
    """Keys of the n tokens of smallest hash; no more than a few n are held at a time."""
    keys, hashes = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    waiting: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []
    for number, one in enumerate(documents, 1):
        place = np.flatnonzero(~np.isin(np.asarray(one.token_ids), list(dropped)))
        start = np.frombuffer(rank[one.document][:8], np.uint64)[0]
        waiting.append((one.document * PLACE + place, _mixed(place.astype(np.uint64) + start)))
        if number == len(documents) or sum(len(part) for part, _ in waiting) > max(n, LEAST_WAITING):
            keys, hashes = (np.concatenate([have, *parts]) for have, parts in zip((keys, hashes), zip(*waiting), strict=True))
            order = np.argsort(hashes, kind="stable")[:n]
            keys, hashes, waiting = keys[order], hashes[order], []
    return np.sort(keys)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): neighbours get unrelated values."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Features:
    """What is summed and kept while documents pass by.

    loss_D, tokens_D: by document number; vectors_LTd (one [T, d] a layer, float16) and first_LT in the order of the keys; centroid_LEd,
    count_LE. scratch: a directory for the vectors, which are then files mapped into memory; without it they are held.
    """

    def __init__(self, source: HuggingFaceSource, asked: Asked, scratch: Path | None = None) -> None:
        self.source, self.asked = source, asked
        layers = source.meta.layers
        n, width = 1 + max(document.document for document in asked.documents), int(source.opened.model.config.hidden_size)
        most = max(layer.n_experts for layer in layers)
        self.test = np.zeros(n, bool)
        self.test[[document.document for document in asked.documents if document.split == SPLIT]] = True
        self.loss_D, self.tokens_D = np.zeros(n), np.zeros(n, np.int64)
        self.vectors_LTd = [_zeros((len(asked.keys_T), width), None if scratch is None else scratch / f"inputs_{layer}.npy")
                            for layer in range(len(layers))]
        self.first_LT = np.full((len(layers), len(asked.keys_T)), -1, np.int32)
        self.centroid_LEd, self.count_LE = np.zeros((len(layers), most, width)), np.zeros((len(layers), most), np.int64)

    def read(self, task: Task) -> None:
        """Run every document through the model."""
        opened = self.source.opened
        recorder = Recorder(opened.sites, opened.conformance.readings)
        try:
            with router_inputs(self.source) as inputs:
                for documents in _batched(self.asked.documents, opened.batch_size):
                    batch = model_batch(documents, opened.framing, opened.device)
                    recorder.start(batch.rows, batch.n_rows)
                    logits = run_model(opened.model, batch, logits_to_keep=0).logits
                    self._add_loss(documents, batch, logits)
                    for layer, columns in enumerate(recorder.finish()):
                        self._add(layer, batch, columns, inputs[layer])
                    task.advance(len(batch.document))
        finally:
            recorder.close()

    def _add_loss(self, documents: Sequence[TokenDocument], batch: ModelBatch, logits_BSV: torch.Tensor) -> None:
        import torch

        ids, mask = batch.tensors["input_ids"][:, 1:], batch.tensors["attention_mask"][:, 1:]
        nats = torch.nn.functional.cross_entropy(logits_BSV[:, :-1].float().transpose(1, 2), ids, reduction="none") * mask
        numbers = [document.document for document in documents]
        self.loss_D[numbers] = nats.double().sum(dim=1).cpu().numpy()
        self.tokens_D[numbers] = mask.sum(dim=1).cpu().numpy()

    def _add(self, layer: int, batch: ModelBatch, columns: LayerColumns, hidden_Nd: torch.Tensor) -> None:
        vectors = hidden_Nd[batch.rows["decoder"].to(hidden_Nd.device)].float().cpu().numpy()
        first = columns.ids[:, 0].astype(np.int64)
        if columns.dropped is not None:
            first = np.where(columns.dropped & 1, -1, first)
        counted = self.test[batch.document] & (first >= 0)
        np.add.at(self.centroid_LEd[layer], first[counted], vectors[counted].astype(np.float64))
        self.count_LE[layer] += np.bincount(first[counted], minlength=self.count_LE.shape[1])
        keys = batch.document.astype(np.int64) * PLACE + batch.position
        place = np.searchsorted(self.asked.keys_T, keys)
        hit = np.isin(keys, self.asked.keys_T)
        self.vectors_LTd[layer][place[hit]], self.first_LT[layer, place[hit]] = vectors[hit], first[hit]


def _zeros(shape: tuple[int, int], path: Path | None) -> NDArray[np.float16]:
    if path is None or not all(shape):
        return np.zeros(shape, np.float16)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def _batched(documents: Sequence[TokenDocument], size: int) -> Iterator[Sequence[TokenDocument]]:
    for start in range(0, len(documents), size):
        yield documents[start:start + size]


@contextmanager
def router_inputs(source: HuggingFaceSource) -> Iterator[list[Any]]:
    """Hidden states [N, d] that each router was given in the last pass."""
    heard: list[Any] = [None] * len(source.opened.sites)

    def hear(number: int) -> Any:
        def hook(_module: Any, args: Any) -> None:
            heard[number] = args[0].detach().reshape(-1, args[0].shape[-1])
        return hook

    handles = [site.module.register_forward_pre_hook(hear(number)) for number, site in enumerate(source.opened.sites)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def probe(source: HuggingFaceSource, probes: Sequence[TokenDocument]) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[Any, ...]]:
    """Every expert on the same tokens: sums of E_i(x) [P, L, E, d], tokens [P], and the router's directions [E, r] a layer.

    x: what the expert's own router is given. Directions that change with the token are their mean over the probe tokens.
    """
    import torch

    opened, layers = source.opened, source.meta.layers
    blocks = [opened.model.get_submodule(site.key.rpartition(".")[0]) for site in opened.sites]
    width, most = int(opened.model.config.hidden_size), max(layer.n_experts for layer in layers)
    sums, tokens = np.zeros((len(probes), len(layers), most, width), np.float32), np.zeros(len(probes), np.int64)
    seen: list[list[Any]] = [[] for _ in layers]
    with router_inputs(source) as inputs, torch.no_grad():
        for start in range(0, len(probes), opened.batch_size):
            documents = probes[start:start + opened.batch_size]
            batch = model_batch(documents, opened.framing, opened.device)
            run_model(opened.model, batch)
            place = {document.document: start + number for number, document in enumerate(documents)}
            of = torch.from_numpy(np.array([place[number] for number in batch.document.tolist()]))
            tokens += np.bincount(of.numpy(), minlength=len(probes))
            for number, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
                x = inputs[number][batch.rows["decoder"].to(inputs[number].device)]
                seen[number].append(x)
                for expert in range(layer.n_experts):
                    sums[:, number, expert] += _expert_sums(block.experts, x, expert, of, len(probes))
    directions = tuple(_directions(site.module, torch.cat(vectors)) for site, vectors in zip(opened.sites, seen, strict=True))
    return sums, tokens, directions


def _expert_sums(experts: Any, x_Nd: torch.Tensor, expert: int, of_N: torch.Tensor, n: int) -> NDArray[np.float32]:
    """Sum of one expert's outputs over the tokens of each probe document, [P, d]."""
    import torch

    ids = torch.full((len(x_Nd), 1), expert, device=x_Nd.device)
    outputs = experts(x_Nd, ids, torch.ones(len(x_Nd), 1, dtype=x_Nd.dtype, device=x_Nd.device)).float().cpu()
    found: NDArray[np.float32] = torch.zeros(n, outputs.shape[-1]).index_add_(0, of_N, outputs).numpy()
    return found


def _directions(router: Any, x_Nd: torch.Tensor) -> NDArray[np.float32]:
    import torch

    found = router.directions() if hasattr(router, "directions") else getattr(router, "weight", None)
    if found is None and hasattr(router, "offered"):
        with torch.no_grad():
            found = torch.nn.functional.normalize(router.offered(x_Nd[None]).mean(dim=0), dim=-1)
    return np.zeros((0, 0), np.float32) if found is None else found.detach().float().cpu().numpy()


def expert_norms(source: HuggingFaceSource) -> NDArray[np.float64]:
    """Frobenius norm of each expert's weights over all its matrices, [L, E]."""
    import torch

    found = []
    for site in source.opened.sites:
        experts = source.opened.model.get_submodule(site.key.rpartition(".")[0]).experts
        matrices = [parameter.detach() for parameter in experts.parameters() if parameter.dim() > 1]
        squares = [torch.linalg.vector_norm(matrix.double().flatten(1), dim=1) ** 2 for matrix in matrices]
        found.append(torch.stack(squares).sum(dim=0).sqrt().cpu().numpy())
    return np.stack(found)
