"""Training windows: pieces of single documents, drawn so that every domain counts the same, in an order fixed by the seed."""
# W windows, S tokens of a window, B windows of a batch

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.testbed.tokenizer import END_ID, PAD_ID

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows of one domain. ids_WS: token ids, PAD on the right; lengths_W: tokens that are real."""

    ids_WS: Ids
    lengths_W: Ids

    def __len__(self) -> int:
        return int(self.lengths_W.size)


def cut_into_windows(documents: Sequence[Sequence[int]], window: int) -> Windows:
    """Consecutive windows of each document, closed by the end token; no window holds tokens of two documents.

    A document's rest of less than half a window is left out: it would be mostly padding.
    """
    pieces = []
    for document in documents:
        tokens = [*document, END_ID]
        for start in range(0, len(tokens), window):
            piece = tokens[start : start + window]
            if start == 0 or len(piece) >= window // 2:
                pieces.append(piece)
    ids = np.full((len(pieces), window), PAD_ID, dtype=np.int64)
    for row, piece in zip(ids, pieces, strict=True):
        row[: len(piece)] = piece
    return Windows(ids, np.array([len(piece) for piece in pieces], dtype=np.int64))


def batch(by_domain: Mapping[str, Windows], step: int, size: int, seed: int) -> tuple[Ids, Ids]:
    """Window ids [B, S] and lengths [B] of one training step: a function of seed and step, so that no random state needs keeping.

    Domains take turns; within a domain every window is used once before any is used again.
    """
    names = list(by_domain)
    ids, lengths = [], []
    for number in range(step * size, (step + 1) * size):
        domain = number % len(names)
        windows = by_domain[names[domain]]
        epoch, place = divmod(number // len(names), len(windows))
        row = int(np.random.default_rng(np.random.SeedSequence([seed, domain, epoch])).permutation(len(windows))[place])
        ids.append(windows.ids_WS[row])
        lengths.append(windows.lengths_W[row])
    return np.stack(ids), np.array(lengths)


def spread(windows: Windows, n: int) -> Windows:
    """At most n windows, evenly spaced over all."""
    rows = np.linspace(0, len(windows) - 1, min(n, len(windows))).round().astype(np.int64)
    return Windows(windows.ids_WS[rows], windows.lengths_W[rows])
