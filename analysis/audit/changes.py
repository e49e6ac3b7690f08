"""Where the loads of a domain change on the way by more than its documents do among each other: mixed runs, and traffic before the run.

U block of documents, C expert of any layer, R shuffle of the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.kernels import Float, Int

SHUFFLES = 99
FEWEST = 8  # blocks of a domain below which no change can be seen
BEYOND = 1.5  # times the largest statistic of the shuffles
SEED = 20_001  # of the shuffles: the same trace gives the same findings


@dataclass(frozen=True)
class Change:
    """The cut with the largest difference.

    before: blocks before it; rows_before, rows: weights of both parts; statistic, largest: of the trace and of its shuffles; effect:
    squared distance of the mean loads, noise taken off, over that of renamed experts.
    """

    before: int
    blocks: int
    rows_before: int
    rows: int
    statistic: float
    largest: float
    effect: float

    @property
    def beyond_documents(self) -> bool:
        """Whether the difference is far outside what shuffled documents show."""
        return self.statistic > BEYOND * self.largest


def largest_change(shares: Float, rows: Int, experts: Int, shuffles: int = SHUFFLES) -> Change | None:
    """The largest change of a domain; None below FEWEST blocks.

    shares: of selections within each layer [U, C]; rows: of each block [U]; experts: of each layer [L]. The statistic of a cut is the
    weighted sum of squares between what is before and after it; blocks trade places in the shuffles with their rows.
    """
    n = len(shares)
    if n < FEWEST:
        return None
    rng = np.random.default_rng(SEED)
    weights = rows.astype(np.float64)
    centred = shares - (weights @ shares) / weights.sum()
    gram = centred @ centred.T
    observed = _between(gram, weights, np.arange(n)[None])[0]
    orders = np.array([rng.permutation(n) for _ in range(shuffles)])
    shuffled = _between(gram, weights, orders)
    cut = int(np.argmax(observed))
    first, last = float(weights[:cut + 1].sum()), float(weights[cut + 1:].sum())
    noise = float(shuffled.mean())
    scale = first * last / (first + last)
    mean = (weights @ shares) / weights.sum()
    renamed = 2 * (float((mean**2).sum()) - float((1.0 / experts).sum()))
    effect = max(0.0, float(observed[cut]) - noise) / scale / renamed if renamed > 0 else 0.0
    return Change(cut + 1, n, int(first), int(weights.sum()), float(observed[cut]), float(shuffled.max()), effect)


def _between(gram: Float, weights: Float, orders: Int) -> Float:
    """Sum of squares between both sides of every cut [R, U - 1] of the blocks in the given orders [R, U]."""
    out = np.empty((len(orders), gram.shape[0] - 1))
    total = weights.sum()
    for row, order in enumerate(orders):
        w = weights[order]
        weighted = gram[np.ix_(order, order)] * w[:, None] * w
        square = np.cumsum(np.cumsum(weighted, axis=0), axis=1).diagonal()[:-1]  # |sum of the first blocks|^2, the total being 0
        before = np.cumsum(w)[:-1]
        out[row] = square * total / (before * (total - before))
    return out
