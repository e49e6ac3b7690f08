"""Where traces come from: one file each, found by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenDocument:
    """A document as the tokenizer sees it, special tokens excluded.

    document: row number in the trace; token_ids: vocabulary ids in reading order.
    """

    document: int
    id: str
    domain: str
    split: str
    token_ids: tuple[int, ...]
