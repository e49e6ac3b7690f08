"""What the claims of an atlas share in a run: evidence from a trace or from counts, and planted routing as controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.trace import CountsTrace
from experiments.evaluation_files import plain
from experiments.stages.context import Context

if TYPE_CHECKING:
    from analysis.atlas_controls import AtlasPlan
    from analysis.trace import RoutingTrace
    from hypotheses.atlas_evidence import AtlasEvidence, AtlasSettings

COLLECTOR = "planted control"
MOE_LAYERS = "moe_layers_of_model"  # what a control keeps of its run's meta
THREADS = 2


def settings(context: Context, *, judged_only: bool = False) -> AtlasSettings:
    """The declared knobs, as the evaluation takes them."""
    from hypotheses.atlas_evidence import AtlasSettings

    experiment = context.experiment
    return AtlasSettings(seed=experiment.seed, level=experiment.uncertainty.level, n_permutations=experiment.atlas.n_permutations,
                         lags=experiment.atlas.lags, max_rows=experiment.atlas.max_rows, threads=THREADS, judged_only=judged_only)


def evidence(context: Context, trace: RoutingTrace | CountsTrace) -> AtlasEvidence:
    """What an atlas and its claims are made from, for the run's own trace or for a control."""
    from hypotheses.atlas_evidence import AtlasEvidence

    corpus = context.read_json("corpus/manifest.json")
    domains = tuple(corpus.get("documents", {})) + tuple(corpus.get("empty_domains", ()))
    return AtlasEvidence(trace, settings(context, judged_only=trace is not context.routing), domains)


def control_trace(kind: str, name: str) -> Path:
    """Directory of a control's trace inside the run directory."""
    return Path("controls") / kind / name / "trace"


def plant(context: Context, name: str, plans: Mapping[str, AtlasPlan]) -> dict[str, Any]:
    """Store the control traces of a claim; a second call goes on where the first one died. Returns what was planted."""
    for kind, plan in plans.items():
        directory = context.directory / control_trace(kind, name)
        directory.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(context.routing, CountsTrace):
            _plant_counts(context.routing, plan, context.experiment.seed, directory)
        else:
            _plant_rows(context, kind, plan, directory)
    planted = {kind: {"domain_sd": plan.domain_sd, "document_sd": plan.document_sd, "sticky": plan.sticky} for kind, plan in plans.items()}
    return {"planted": planted, "unreachable": "only counts were kept: nothing can be judged" if isinstance(context.routing, CountsTrace) else None}


def _plant_rows(context: Context, kind: str, plan: AtlasPlan, directory: Path) -> None:
    from analysis.atlas_controls import Planting
    from tracking.traces import TraceWriter

    trace = context.trace
    planting = Planting.of(trace, plan, context.experiment.seed)
    meta = replace(trace.meta, model=f"{kind} control", collector=COLLECTOR, weights_mean="absent", entropy_of="absent",
                   details={"planted": plain(vars(plan)), "of": trace.digest,
                            **{name: trace.meta.details[name] for name in (MOE_LAYERS,) if name in trace.meta.details}})
    writer = TraceWriter.create_or_resume(directory, meta, trace.documents)
    for number, batch in enumerate(planting.rows(trace.batches(columns=()))):
        if number not in writer.finished:
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
    writer.finish()


def _plant_counts(trace: CountsTrace, plan: AtlasPlan, seed: int, directory: Path) -> None:
    from analysis.atlas_controls import planted_counts
    from tracking import count_tables

    count_tables.save(planted_counts(trace, plan, seed), directory)
