"""What a stage of a run is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.stages.context import Context


@dataclass(frozen=True)
class StageOf:
    """One stage: `work` returns remarks; `outputs` are patterns of the files that must stay as they are; `after`: whose remarks it depends on.

    publishes: whether MLflow is brought up to date when it ends. defers: a signal waits for the end of the shard in hand. opens_test:
    whether it reads test documents, which the ledger is told first. feeds: whether the analysis depends on it (a claim's stage before it).
    """

    name: str
    work: Callable[[Context], Mapping[str, Any]]
    outputs: tuple[str, ...]
    after: tuple[str, ...]
    publishes: bool = False
    defers: bool = False
    opens_test: bool = False
    feeds: bool = False
