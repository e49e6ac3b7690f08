"""What a collection left out and met, over every process that took part in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.sources.events import SHARD_COUNTS

if TYPE_CHECKING:
    from experiments.sources.huggingface import CollectReport


def whole_collection(report: CollectReport, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last process' report with its counts replaced by those of all shards, whoever wrote them."""
    counts = {event["shard"]: event for event in events if event["event"] == SHARD_COUNTS}
    rows = sum(one["rows"] for one in counts.values())

    def shares(name: str, keys: Sequence[str], every: Sequence[str]) -> dict[str, float]:
        total = np.sum([one[name] for one in counts.values()], axis=0)
        return {key: float(total[every.index(key)]) / max(rows, 1) for key in keys}

    layers = list(report.first_choice_tied)
    return {**asdict(report), "rows": rows, "n_pads": sum(one["pads"] for one in counts.values()),
            "out_of_memory": sum(event["event"] == "out_of_memory" for event in events),
            "first_choice_tied": shares("tied", layers, layers), "dropped": shares("dropped", list(report.dropped), layers)}
