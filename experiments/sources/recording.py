"""Hooks that read every router once per forward pass and reduce what they see where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.sources.decoding import Decision, decoder_for
from experiments.sources.errors import SourceError
from experiments.sources.reduction import LayerColumns, Reading, reduce_decision, to_host
from experiments.sources.routers import RouterSite

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def decisions(sites: Sequence[RouterSite]) -> Iterator[list[list[tuple[Decision, Any]]]]:
    """Collect (decision, raw output) of every call of every site, unreduced; for probing, not for long runs."""
    seen: list[list[tuple[Decision, Any]]] = [[] for _ in sites]
    decoders = [decoder_for(site.module) for site in sites]

    def hook(number: int) -> Any:
        return lambda module, _args, output: seen[number].append((decoders[number](module, output), output))

    handles = [site.module.register_forward_hook(hook(number)) for number, site in enumerate(sites)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class Recorder:
    """Columns of each layer for one forward pass at a time.

    `start` is told which rows of each stack are kept; `finish` returns numpy columns per layer.
    Every site must be called exactly once in between, with as many rows as the batch has.
    """

    def __init__(self, sites: Sequence[RouterSite], readings: Sequence[Reading]) -> None:
        self._sites, self._readings = tuple(sites), tuple(readings)
        self._decoders = [decoder_for(site.module) for site in sites]
        self._columns: dict[int, LayerColumns] = {}
        self._rows: Mapping[str, torch.Tensor] = {}
        self._n_rows: Mapping[str, int] = {}
        self._handles = [site.module.register_forward_hook(self._hook(number)) for number, site in enumerate(sites)]

    def _hook(self, number: int) -> Any:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            site = self._sites[number]
            decision = self._decoders[number](module, output)
            if number in self._columns:
                raise SourceError(f"layer {site.key}: its router was called twice in one forward pass; which call decides is not known")
            if len(decision.scores) != self._n_rows[site.stack]:
                raise SourceError(f"layer {site.key}: its router saw {len(decision.scores)} rows, but the batch has "
                                  f"{self._n_rows[site.stack]}; tokens cannot be told apart")
            self._columns[number] = reduce_decision(decision, self._rows[site.stack], self._readings[number])
        return hook

    def start(self, rows: Mapping[str, torch.Tensor], n_rows: Mapping[str, int]) -> None:
        """Forget what an interrupted pass left, and expect a batch of `n_rows` rows per stack, of which `rows` are kept."""
        self._columns.clear()
        self._rows, self._n_rows = rows, n_rows

    def finish(self) -> list[LayerColumns]:
        """Columns per site, on the host."""
        missing = [site.key for number, site in enumerate(self._sites) if number not in self._columns]
        if missing:
            raise SourceError(f"routers never called in a forward pass: {', '.join(missing)}; "
                              "a fused kernel may bypass them (load without use_kernels)")
        columns = to_host([self._columns[number] for number in range(len(self._sites))])
        self._columns.clear()
        return columns

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
