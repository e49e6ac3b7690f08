"""Which documents share a batch and a shard: a function of the documents and the batch size, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.sources import TokenDocument
from experiments.sources.errors import SourceError


@dataclass(frozen=True)
class Shard:
    """Documents written to one file, longest first; `without_rows` are finished with it too, but have no countable token."""

    number: int
    documents: tuple[TokenDocument, ...]
    without_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Every shard, and what was cut or left out.

    n_cut, tokens_cut: documents cut at the length limit, and tokens lost by it; empty: documents without a countable token;
    n_special: tokens inside documents that are special and give no row; n_rows: rows the finished trace will have.
    """

    shards: tuple[Shard, ...]
    n_cut: int
    tokens_cut: int
    empty: tuple[int, ...]
    n_special: int
    n_rows: int


def plan_shards(documents: Sequence[TokenDocument], limit: int, special: frozenset[int], documents_per_shard: int) -> Plan:
    """Cut documents at `limit` tokens, order them by length (longest first: memory runs out early or never), deal them into shards."""
    seen: set[int] = set()
    for document in documents:
        if document.document in seen:
            raise SourceError(f"document number {document.document} ({document.id!r}) occurs twice; numbers must be unique")
        seen.add(document.document)
    cut = [replace(document, token_ids=tuple(document.token_ids[:limit])) for document in documents]
    kept = {document.document: sum(token not in special for token in document.token_ids) for document in cut}
    order = sorted((document for document in cut if kept[document.document]),
                   key=lambda document: (-len(document.token_ids), document.document))
    empty = tuple(number for number, n in kept.items() if not n)
    shards = tuple(Shard(number, tuple(order[start:start + documents_per_shard]), () if number else empty)
                   for number, start in enumerate(range(0, len(order), documents_per_shard)))
    lost = [len(document.token_ids) - limit for document in documents if len(document.token_ids) > limit]
    return Plan(shards, len(lost), sum(lost), empty,
                sum(len(document.token_ids) for document in cut) - sum(kept.values()), sum(kept.values()))
