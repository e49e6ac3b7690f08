"""Random valid arguments for each kind that a registered metric takes, for the contract tests of the register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
# A kind: rng, leading batch shape -> an argument. Sizes are drawn once a call, from a generator that the caller owns.
KINDS: dict[str, Callable[[Rng, tuple[int, ...]], Any]] = {
    "weights_E": lambda rng, batch: rng.random((*batch, 7)),
    "tokens": lambda rng, batch: 1 + rng.integers(0, 50, batch),
    "counts_E": lambda rng, batch: rng.poisson(3.0, (*batch, 7)),
    "joint_XY": lambda rng, batch: rng.poisson(2.0, (*batch, 5, 6)),
    "square_XX": lambda rng, batch: rng.poisson(2.0, (*batch, 5, 5)),
    "counts_DE": lambda rng, batch: 1 + rng.poisson(4.0, (*batch, 4, 6)),
    "halves_FXY": lambda rng, batch: rng.poisson(2.0, (*batch, 2, 5, 6)),
    "types_VE": lambda rng, batch: rng.poisson(5.0, (*batch, 9, 6)),
    "right": lambda rng, batch: rng.poisson(40.0, batch),
    "shuffles_REV": lambda rng, batch: rng.poisson(3.0, (*batch, 4, 6, 9)),
    "sets_TE": lambda rng, batch: rng.random((*batch, 30, 7)).argsort(axis=-1) < 2,
    "joint_VXY": lambda rng, batch: rng.poisson(rng.choice([0.5, 8.0], (4, 1, 1)), (*batch, 4, 3, 2)),
    "indicators_XY": lambda rng, batch: indicators(rng, batch),
    "counts_EV": lambda rng, batch: rng.poisson(3.0, (*batch, 6, 9)),
}


def indicators(rng: Rng, batch: tuple[int, ...], n_tokens: int = 30, n_experts: int = 5, k: int = 2) -> Any:
    """Tokens by pairs of indicators of two top-k sets, with the indicator that is always 1 last."""
    hot = (rng.random((2, *batch, n_tokens, n_experts)).argsort(axis=-1) < k).astype(np.int64)
    x, y = np.concatenate([hot, np.ones_like(hot[..., :1])], axis=-1)
    return np.swapaxes(x, -1, -2) @ y


def example(kinds: tuple[str, ...], rng: Rng, batch: tuple[int, ...] = ()) -> list[Any]:
    """One random argument of each kind."""
    return [KINDS[kind](rng, batch) for kind in kinds]
