"""Documents laid out in blocks of consecutive tokens, so that a token finds all that it may see in its block and the one before."""
# T token (row), N block, S token of a block, K slot in the top-k, L layer

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int
from analysis.planes import Planes


@dataclass(frozen=True)
class Blocks:
    """row_NS: row of each place, -1 behind a document's end; previous_N: whether the block before is of the same document."""

    row_NS: Int
    previous_N: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.previous_N)

    def batches(self, size: int, warm: int = 0) -> Iterator[tuple[Blocks, int]]:
        """Consecutive blocks, `size` at a time after `warm` ones that are read for context only; and how many those are (fewer at the start)."""
        for start in range(0, len(self), size):
            first = max(0, start - warm)
            previous = self.previous_N[first : start + size].copy()
            previous[0] = False  # its block before is not in the batch
            yield Blocks(self.row_NS[first : start + size], previous), start - first


def lay_out(planes: Planes, documents: Sequence[int] | Int, size: int) -> Blocks:
    """Blocks of `size` tokens of the documents at these places of the planes, one document after the other, never two in one block."""
    rows, previous = [], []
    for place in documents:
        start, end = int(planes.starts[place]), int(planes.starts[place + 1])
        n_blocks = -(-(end - start) // size)
        row = np.full(n_blocks * size, -1, np.int64)
        row[: end - start] = np.arange(start, end)
        rows.append(row.reshape(n_blocks, size))
        previous.append(np.arange(n_blocks) > 0)
    if not rows:
        return Blocks(np.zeros((0, size), np.int64), np.zeros(0, bool))
    return Blocks(np.concatenate(rows), np.concatenate(previous))


def slots(planes: Planes) -> NDArray[Any]:
    """Expert ids of every slot [T, L, K] int64; places beyond a layer's k hold 0."""
    most = max(layer.top_k for layer in planes.layers)
    out = np.zeros((len(planes), len(planes.layers), most), np.int64)
    for index, ids in enumerate(planes.ids):
        out[:, index, : len(ids)] = ids.T
    return out
