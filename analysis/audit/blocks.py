"""Loads of consecutive documents of one domain, so that a change on the way can be seen; a bounded number of blocks.

U block of documents, C expert of any layer (layers side by side).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from analysis.audit.hashing import Rows
from analysis.kernels import Float, Int
from analysis.trace import LayerMeta, TraceBatch

MOST = 400  # blocks of all domains together


@dataclass
class Series:
    """Blocks of one domain in the order of arrival. counts [U, C]: selections; rows [U]; arrival [U]: of the first document."""

    counts: list[Int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    arrival: list[int] = field(default_factory=list)

    def halve(self) -> None:
        """Join each pair of neighbours."""
        pairs = range(0, len(self.rows), 2)
        self.counts = [self.counts[i] + self.counts[i + 1] if i + 1 < len(self.rows) else self.counts[i] for i in pairs]
        self.rows = [sum(self.rows[i:i + 2]) for i in pairs]
        self.arrival = [self.arrival[i] for i in pairs]


class BlockTally:
    """Selections by block of documents. A document counts where its first row was."""

    def __init__(self, layers: tuple[LayerMeta, ...], domain: Int) -> None:
        """domain: number of each document's domain [D]."""
        sizes = [layer.n_experts for layer in layers]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._experts = sizes
        self._domain = domain
        self.series = [Series() for _ in range(int(domain.max(initial=-1)) + 1)]
        self._place = np.full(len(domain), -1, np.int64)  # of a document among those of its domain
        self._arrived: list[list[int]] = [[] for _ in self.series]  # when each document of a domain came, among all
        self._n_arrived = 0
        self.size = 1  # documents in a block

    def add(self, rows: Rows, batch: TraceBatch) -> None:
        """Count a batch."""
        if not len(rows):
            return
        for document in rows.document.tolist():
            if self._place[document] < 0:
                of = int(self._domain[document])
                self._place[document] = len(self._arrived[of])
                self._arrived[of].append(self._n_arrived)
                self._n_arrived += 1
        while sum(-(-len(one) // self.size) for one in self._arrived) > MOST and self.size < len(self._domain):
            self.size *= 2
            for one in self.series:
                one.halve()
        targets = [(int(self._domain[d]), int(self._place[d]) // self.size) for d in rows.document.tolist()]
        distinct = {pair: number for number, pair in enumerate(dict.fromkeys(targets))}
        number = np.repeat([distinct[pair] for pair in targets], rows.lengths)
        counts = self._counts(batch, number, len(distinct))
        n_rows = np.bincount(number, minlength=len(distinct))
        for (of, block), i in distinct.items():
            one = self.series[of]
            while len(one.rows) <= block:
                one.rows.append(0)
                one.arrival.append(self._arrived[of][len(one.arrival) * self.size])
                one.counts.append(np.zeros(int(self.offsets[-1]), np.int64))
            one.counts[block] = one.counts[block] + counts[i]
            one.rows[block] += int(n_rows[i])

    def _counts(self, batch: TraceBatch, number: Int, n: int) -> Int:
        width = int(self.offsets[-1])
        out = np.zeros((n, width), np.int64)
        for index, ids in enumerate(batch.ids):
            size = self._experts[index]
            for slot in range(ids.shape[1]):
                one = ids[:, slot].astype(np.int64)
                sound = (one >= 0) & (one < size)
                cells = (number * size + one)[sound]
                out[:, self.offsets[index]:self.offsets[index + 1]] += np.bincount(cells, minlength=n * size).reshape(n, size)
        return out

    def shares(self) -> tuple[Float, Int, Int]:
        """Shares of selections within each layer [U, C] of blocks that have rows, in the order of arrival; their rows and domains [U]."""
        every = [(one.arrival[i], number, one.rows[i], one.counts[i]) for number, one in enumerate(self.series) for i in range(len(one.rows))
                 if one.rows[i]]
        every.sort(key=lambda block: block[:2])
        rows = np.array([block[2] for block in every], np.int64)
        domain = np.array([block[1] for block in every], np.int64)
        counts = np.array([block[3] for block in every], np.float64).reshape(len(every), int(self.offsets[-1]))
        for start, end in zip(self.offsets[:-1], self.offsets[1:]):
            total = counts[:, start:end].sum(axis=1, keepdims=True)
            counts[:, start:end] /= np.maximum(total, 1)
        return counts, rows, domain
