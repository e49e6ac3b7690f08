"""Where the loads of the domains change on the way by more than its documents do among each other: mixed runs, and traffic before the run.

U block of documents, C expert of any layer, R shuffle of the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.kernels import Float, Int

SHUFFLES = 199
FEWEST = 12  # blocks below which no change can be seen
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


def largest_change(shares: Float, rows: Int, domain: Int, experts: Int, shuffles: int = SHUFFLES) -> Change | None:
    """The largest change of a trace, its domains' own loads taken off; None below FEWEST blocks.

    shares: of selections within each layer [U, C]; rows, domain: of each block [U]; experts: of each layer [L]. The statistic of a cut is
    the weighted sum of squares between what is before and after it; in the shuffles blocks of one domain trade places, with their rows.
    """
    n = len(shares)
    if n < FEWEST:
        return None
    rng = np.random.default_rng(SEED)
    weights = rows.astype(np.float64)
    centred = shares.copy()
    for one in np.unique(domain):
        inside = domain == one
        centred[inside] -= (weights[inside] @ shares[inside]) / weights[inside].sum()
    gram = centred @ centred.T
    observed = _between(gram, weights, np.arange(n)[None])[0]
    orders = np.array([_within(domain, rng) for _ in range(shuffles)])
    shuffled = _between(gram, weights, orders)
    mean_of, spread = shuffled.mean(axis=0), np.maximum(shuffled.std(axis=0), 1e-12)
    scores, null = (observed - mean_of) / spread, (shuffled - mean_of) / spread
    cut = int(np.argmax(scores))
    first, last = float(weights[:cut + 1].sum()), float(weights[cut + 1:].sum())
    noise = float(mean_of[cut])
    scale = first * last / (first + last)
    mean = (weights @ shares) / weights.sum()
    renamed = 2 * (float((mean**2).sum()) - float((1.0 / experts).sum()))
    effect = max(0.0, float(observed[cut]) - noise) / scale / renamed if renamed > 0 else 0.0
    return Change(cut + 1, n, int(first), int(weights.sum()), float(scores[cut]), float(null.max()), effect)


def _within(domain: Int, rng: np.random.Generator) -> Int:
    """An order of the blocks in which those of one domain traded places."""
    order = np.arange(len(domain))
    for one in np.unique(domain):
        places = np.flatnonzero(domain == one)
        order[places] = rng.permutation(places)
    return order


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
