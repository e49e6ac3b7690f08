"""Random numbers of planted rows, by key and purpose: a row's draws depend on the seed, its document's id, its position and its layer alone.

T token (row), K slot, E expert.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Float, Int, mix

Keys = NDArray[np.uint64]
STEP = 0x9E3779B97F4A7C15


class Draws:
    """Random numbers of some rows at one layer, by purpose."""

    def __init__(self, key: Keys, layer: int) -> None:
        with np.errstate(over="ignore"):
            self.key = mix(key + np.uint64(layer + 1) * np.uint64(STEP))

    def uniform(self, purpose: int) -> Float:
        """In [0, 1)."""
        with np.errstate(over="ignore"):
            return np.asarray((mix(self.key + np.uint64(purpose)) >> np.uint64(11)) * 2.0**-53, np.float64)

    def below(self, purpose: int, n: int) -> Int:
        """Whole numbers from 0 to n - 1."""
        return np.asarray(self.uniform(purpose) * n, np.int64)


def another(before_TK: Int, place: Int) -> Int:
    """The expert at `place` [T] among those that are not in the row's `before_TK`, counted from 0."""
    one = place.copy()
    for taken in np.sort(before_TK, axis=1).T:
        one += one >= taken
    return one


def uniform_sets(n_experts: int, top_k: int, draws: Draws) -> Int:
    """k distinct experts [T, K], every set alike: the next one is uniform among those left."""
    out = np.empty((len(draws.key), top_k), np.int64)
    for slot in range(top_k):
        out[:, slot] = another(out[:, :slot], draws.below(16 + slot, n_experts - slot))
    return out
