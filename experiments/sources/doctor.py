"""What a model is, whether it fits, and whether its routers can be read; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.declaration import SourceSpec
from experiments.progress import Progress, Silent
from experiments.sources.decoding import decoder_for
from experiments.sources.errors import SourceError
from experiments.sources.loading import device_of, dtype_of, locate
from experiments.sources.memory import MB, Footprint, footprint, free_bytes, meta_model
from experiments.sources.opening import open_model, trace_meta
from experiments.sources.routers import find_routers


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found; `problem` says why no forward pass was run, None if it was.

    routers: class -> how many; layers: (stack, block index, module path) each;
    layer_table and what follows it come from one forward pass.
    """

    model: str
    revision: str
    model_class: str
    model_type: str
    device: str
    dtype: str
    routers: Mapping[str, int]
    layers: tuple[tuple[str, int, str], ...]
    left_out: tuple[str, ...]
    need: Footprint
    free: int
    problem: str | None
    layer_table: tuple[Mapping[str, Any], ...] = ()
    score_function: str | None = None
    entropy_of: str | None = None
    weights: str | None = None
    quantisation: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether a collection could start now."""
        return self.problem is None

    def lines(self) -> list[str]:
        """The diagnosis in words, one line each."""
        stacks = {stack: [depth for where, depth, _ in self.layers if where == stack] for stack, _, _ in self.layers}
        found = [f"model      {self.model} ({self.model_class}, model_type {self.model_type})", f"revision   {self.revision}",
                 f"routers    {', '.join(f'{n} x {name}' for name, n in self.routers.items())}",
                 "layers     " + "; ".join(f"{len(depths)} {stack} MoE layers, blocks {_ranges(depths)}"
                                          for stack, depths in stacks.items())]
        if self.left_out:
            found.append(f"left out   {len(self.left_out)} routers outside the feed-forward experts, such as {self.left_out[0]}")
        need = self.need
        found.append(f"memory     needs {need.total / MB:,.1f} MB on {self.device} in {self.dtype}: experts {need.expert_bytes / MB:,.1f}, "
                     f"other weights {need.other_bytes / MB:,.1f}, one batch {need.working_bytes / MB:,.1f}; free {self.free / MB:,.0f} MB")
        for row in self.layer_table:
            found.append(f"  {row['layer']}: k {row['top_k']} of {row['n_experts']}, {row['returns']}, weights {row['weights']}, "
                         f"selection {row['selection']} (agreement with top-k {row['agreement']:.1%}), executed as selected: "
                         f"{'not visible' if row['executed_as_selected'] is None else row['executed_as_selected']}")
        if self.ok:
            found.append(f"scores     {self.score_function}; entropy of {self.entropy_of}; weights {self.weights}")
            if self.quantisation:
                share = self.quantisation["share_of_expert_weights"]
                found.append(f"quantised  {self.quantisation['method']}, {share:.1%} of expert weights")
        found.append("verdict    ready: one forward pass conformed" if self.ok else f"verdict    {self.problem}")
        return found


def _ranges(numbers: list[int]) -> str:
    """0-3, 5: runs of consecutive block indices."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def doctor(spec: SourceSpec, progress: Progress | None = None) -> Diagnosis:
    """Look at a model without collecting: structure and memory from its config, then one forward pass with the conformance check.

    Raises SourceError if there is no such model or it has no router; what comes after that is `problem`.
    """
    progress = progress or Silent()
    checkpoint = locate(spec, progress)
    device = device_of(spec.device)
    dtype = dtype_of(spec.dtype, checkpoint.config)
    shape = meta_model(checkpoint.config)
    sites, left_out = find_routers(shape)
    need = footprint(shape, dtype, spec.quantize, spec.batch_size, spec.max_length)
    known: dict[str, Any] = {
        "model": spec.model, "revision": checkpoint.revision, "model_class": type(shape).__name__,
        "model_type": checkpoint.config.model_type,
        "device": str(device), "dtype": str(dtype).removeprefix("torch."), "routers": dict(Counter(site.class_name for site in sites)),
        "layers": tuple((site.stack, site.depth, site.key) for site in sites), "left_out": tuple(left_out), "need": need,
        "free": free_bytes(device)}
    try:
        for site in sites:
            decoder_for(site.module)
        opened = open_model(spec, progress)
    except SourceError as error:
        return Diagnosis(**known, problem=str(error))
    meta, verdicts = trace_meta(opened), opened.conformance.verdict["layers"]
    return Diagnosis(**known, problem=None, layer_table=tuple({"layer": key, **verdict} for key, verdict in verdicts.items()),
                     score_function=meta.score_function, entropy_of=meta.entropy_of, weights=meta.weights_mean,
                     quantisation=meta.details["quantisation"])
