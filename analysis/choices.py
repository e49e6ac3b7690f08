"""Expert choices of chosen token types by group of documents, and a pool of rows for the sampling null of consistency.

G group of documents, L MoE layer, m chosen type, E expert, K slot, P pooled row, R null draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.counts import RoutingCounts
from analysis.kernels import Float, Int, mix
from analysis.trace import TraceBatch

GROUP_CELLS = 2**26  # cells of the largest [G, m, E] table
MIN_GROUPS, MAX_GROUPS = 20, 100
POOL_ROWS = 65_536
REDRAWN_AT_MOST = 2_000  # occurrences redrawn for one type; beyond it the modal share has no sampling bias left to show


def group_number(counts: RoutingCounts, n_types: int) -> int:
    """Jackknife groups such that a layer's table stays below GROUP_CELLS, between 20 and 100."""
    widest = max((layer.n_experts for layer in counts.layers), default=1)
    return min(max(MIN_GROUPS, min(MAX_GROUPS, GROUP_CELLS // max(n_types * widest, 1))), max(counts.units.n, 1))


class GroupChoices:
    """Occurrences n [G, m] and occurrences with the expert in the set, per layer [G, m, E]."""

    def __init__(self, counts: RoutingCounts, types: Int) -> None:
        self.n_groups = group_number(counts, len(types))
        self.types, self.layers = types, counts.layers
        self._column = np.full(counts.n_types, -1, np.int64)
        self._column[types] = np.arange(len(types))
        self.n = np.zeros((self.n_groups, len(types)), np.int32)
        self.chosen = [np.zeros((self.n_groups, len(types), layer.n_experts), np.int32) for layer in counts.layers]

    def add(self, batch: TraceBatch, unit: Int) -> None:
        """Count the rows of a batch; unit: resampling unit of each row [T]."""
        column = self._column[batch.types]
        kept = np.flatnonzero(column >= 0)
        cell = (unit[kept] % self.n_groups) * len(self.types) + column[kept]
        np.add.at(self.n.reshape(-1), cell, 1)
        for table, ids in zip(self.chosen, batch.ids):
            flat = (cell[:, None] * table.shape[2] + ids[kept].astype(np.int64)).ravel()
            np.add.at(table.reshape(-1), flat, 1)


class RowPool:
    """About POOL_ROWS rows of expert ids, chosen by a hash of document and position, the same rows for every layer."""

    def __init__(self, counts: RoutingCounts, keys: NDArray[np.uint64]) -> None:
        self._keys = keys
        share = min(1.0, POOL_ROWS / max(counts.n_tokens, 1))
        self._below = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
        self._parts: list[tuple[NDArray[np.uint64], tuple[NDArray[np.generic], ...]]] = []

    def add(self, batch: TraceBatch) -> None:
        """Take the rows of a batch whose hash is small enough."""
        with np.errstate(over="ignore"):
            hashed = mix(mix(self._keys[batch.document]) + batch.position.astype(np.uint64))
        kept = np.flatnonzero(hashed <= self._below)
        self._parts.append((hashed[kept], tuple(ids[kept] for ids in batch.ids)))

    def ids(self) -> list[Int]:
        """Per layer expert ids [P, K] in the order of the hash, which depends on no file order."""
        if not self._parts:
            return []
        order = np.argsort(np.concatenate([hashed for hashed, _ in self._parts]), kind="stable")
        return [np.concatenate(parts)[order].astype(np.int64) for parts in zip(*(ids for _, ids in self._parts))]


@dataclass(frozen=True)
class RedrawnCounts:
    """One null draw: occurrences n [m] (at most REDRAWN_AT_MOST each) and, per layer, occurrences with the expert in the set [m, E]."""

    n: Int
    chosen: list[Int]


def redraw(pool: list[Int], n_experts: list[int], n: Int, rng: np.random.Generator) -> RedrawnCounts:
    """Give each type its own number of occurrences from the whole layer, the same rows in every layer."""
    capped = np.minimum(n, REDRAWN_AT_MOST)
    rows = rng.integers(0, len(pool[0]), int(capped.sum()))
    owner = np.repeat(np.arange(len(n)), capped)
    chosen = []
    for ids, experts in zip(pool, n_experts):
        flat = np.zeros(len(n) * experts, np.int64)
        for slot in range(ids.shape[1]):
            flat += np.bincount(owner * experts + ids[rows, slot], minlength=len(flat))
        chosen.append(flat.reshape(len(n), experts))
    return RedrawnCounts(capped, chosen)


def weighted_groups(table: NDArray[np.generic], weights: Float) -> Float:
    """weights [B, G] @ table [G, ...] as float64 [B, ...]."""
    flat = np.asarray(table, np.float64).reshape(len(table), -1)
    product: Float = weights @ flat
    return product.reshape(len(weights), *table.shape[1:])
