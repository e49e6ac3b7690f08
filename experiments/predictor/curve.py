"""The learning curve: after each epoch, losses and what the predictor says of held-out documents."""
# T token (row), L layer, D held-out document, P, Y predicted and actual first choice

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.kernels import Int
from analysis.metrics.prediction import prediction_counts
from analysis.planes import Planes

MAX_GROUPS = 20  # of held-out documents; a curve is looked at, never judged
NONE_HELD_OUT = "no_data: the source has one document, so that none is held out"
FIELDS = ("mi", "mi_low", "mi_high", "mi_plug_in", "accuracy")


@dataclass(frozen=True)
class Epoch:
    """One epoch. nats: mean loss while learning; held_out_nats: on held-out documents, NaN without any; by_layer: FIELDS of each layer.

    mi: information of predicted about actual first choices in bits, jackknife-corrected over documents, with interval and plug-in.
    """

    nats: float
    held_out_nats: float
    by_layer: tuple[tuple[float, ...], ...]

    @property
    def numbers(self) -> list[float]:
        """All of it as one row, for a checkpoint."""
        return [self.nats, self.held_out_nats, *(number for layer in self.by_layer for number in layer)]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Epoch:
        """Inverse of `numbers`."""
        rest, width = numbers[2:], len(FIELDS)
        return cls(numbers[0], numbers[1], tuple(tuple(rest[i : i + width]) for i in range(0, len(rest), width)))


def by_layer(planes: Planes, first_LT: Sequence[Int], rows: Int) -> tuple[tuple[float, ...], ...]:
    """FIELDS of each layer on the given rows; first_LT: predicted first choices of these rows. NaN where undefined."""
    document = np.searchsorted(planes.starts, rows, side="right") - 1
    numbers = np.unique(document, return_inverse=True)[1]
    n_documents = int(numbers.max(initial=-1)) + 1
    group = numbers % max(min(n_documents, MAX_GROUPS), 1)
    out = []
    for layer, ids, first in zip(planes.layers, planes.ids, first_LT):
        joint_GPY = prediction_counts(first, ids[0][rows].astype(np.int64), layer.n_experts, group, min(n_documents, MAX_GROUPS))
        groups = Groups((joint_GPY,), n_documents)
        mi = cast(Estimate, estimates("predictor_mi", groups)[()])
        accuracy = cast(Estimate, estimates("top1_accuracy", groups)[()])
        out.append(tuple(math.nan if x is None else x for x in (mi.value, mi.low, mi.high, mi.plug_in, accuracy.plug_in)))
    return tuple(out)


def table(curve: Sequence[Epoch], keys: Sequence[str]) -> dict[str, list[Any]]:
    """One row per epoch and layer: epoch from 1, layer key, both losses, and FIELDS; None where undefined."""
    rows = [(number, key, epoch.nats, epoch.held_out_nats, *layer)
            for number, epoch in enumerate(curve, 1) for key, layer in zip(keys, epoch.by_layer)]
    names = ("epoch", "layer", "nats", "held_out_nats", *FIELDS)
    plain = [[None if isinstance(x, float) and math.isnan(x) else x for x in row] for row in rows]
    return {name: [row[i] for row in plain] for i, name in enumerate(names)}
