"""VAR in a run: the threshold sweep, evidence with type frequencies, controls with a planted correlation, and the lookup table's effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hypotheses
from experiments.evaluation_files import plain
from experiments.stages import lookup, sweep
from experiments.stages.context import Context
from experiments.stages.evidence import var_evidence as evidence
from experiments.stages.stage import StageOf

if TYPE_CHECKING:
    from analysis.controls import ControlPlan, Kind

__all__ = ["AFTER", "BEFORE", "control_trace", "evidence", "plant"]

NAME = "var"
RESTS_ON = ("router_entropy", "types", "intervals")
KINDS: tuple[Kind, ...] = ("positive", "negative")
NEEDS = ("token_id", "entropy_nats", "top1_prob", "weights")  # columns of a trace that was recorded elsewhere
COLLECTOR = "planted control"
BEFORE = (StageOf("sweep", sweep.run, ("sweep/sweep.json", "sweep/grid.npz"), ("collect",)),)
AFTER = (StageOf("confirm", sweep.confirm, ("sweep/confirmed.json",), ("sweep", "analyse")),
         StageOf("lookup", lookup.run, ("fastpath/*",), ("analyse",)))


def control_trace(kind: str) -> Path:
    """Directory of a control's trace inside the run directory."""
    return Path("controls") / kind


def plant(context: Context) -> dict[str, Any]:
    """Store both control traces; returns the planted numbers, and what the documents are too few to show."""
    plan = _plan(context)
    for kind in KINDS:
        _store(context, plan, kind)
    return {"planted": plan.facts, "unreachable": plan.unreachable}


def _plan(context: Context) -> ControlPlan:
    from analysis.controls import ControlAim, plan_controls

    of, layers = evidence(context, context.trace), context.trace.meta.layers
    settings = of.settings
    bound = next(one.bound for one in hypotheses.find(NAME).criteria if one.metric == "freq_entropy_rho")
    aim = ControlAim(np.array([settings.entropy_threshold.nats(layer.n_experts) for layer in layers]), bound, settings.min_type_count,
                     settings.frequency_threshold, settings.seed)
    return plan_controls(context.trace, np.asarray(of.frequency.sum(axis=0)).ravel().astype(np.int64), aim)


def _store(context: Context, plan: ControlPlan, kind: Kind) -> None:
    """Write the planted trace shard by shard; a second call goes on where the first one died."""
    from analysis.controls import plant as planted
    from tracking.traces import TraceWriter

    trace = context.trace
    meta = replace(trace.meta, model=f"{kind} control", collector=COLLECTOR, weights_mean="renormalised over k", entropy_of="softmax_logits",
                   score_function="softmax", details={"planted": plain(plan.facts), "of": trace.digest})
    writer = TraceWriter.create_or_resume(context.directory / control_trace(kind), meta, trace.documents)
    for number, batch in enumerate(planted(trace.batches(columns=()), plan, kind)):
        if number not in writer.finished:
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
    writer.finish()
