"""Controls: traces with a known right answer, planted on the run's own documents and read through the same store, splits and estimators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hypotheses
from experiments import evaluation_files
from experiments.evaluation_files import plain
from experiments.stages.context import Context
from experiments.stages.evidence import var_evidence
from hypotheses.judge import CONTROL_EXPECTS
from tracking.atomic import write_json

if TYPE_CHECKING:
    from analysis.controls import ControlPlan, Kind

KINDS: tuple[Kind, ...] = ("positive", "negative")
COLLECTOR = "planted control"


def run(context: Context) -> dict[str, Any]:
    """Plant both controls, store them as traces, and evaluate each hypothesis on them exactly as on the run's own trace."""
    from tracking.traces import StoredTrace

    plan = _plan(context)
    for kind in KINDS:
        directory = context.directory / "controls" / kind
        _store(context, plan, kind, directory)
        for name in context.experiment.hypotheses:
            with context.progress.stage(f"control {kind}"):
                evaluation = hypotheses.evaluator(name)(var_evidence(context, StoredTrace.open(directory)))
            evaluation_files.save(evaluation, directory / name)
    write_json(context.directory / "controls" / "controls.json", plain({
        "planted": plan.facts, "unreachable": plan.unreachable, "expected": dict(CONTROL_EXPECTS)}))
    return {"planted_rho": plan.facts["planted_rho"], "unreachable": plan.unreachable}


def _plan(context: Context) -> ControlPlan:
    from analysis.controls import ControlAim, plan_controls

    evidence, layers = var_evidence(context, context.trace), context.trace.meta.layers
    settings = evidence.settings
    bound = next(one.bound for name in context.experiment.hypotheses for one in hypotheses.find(name).criteria
                 if one.metric == "freq_entropy_rho")
    aim = ControlAim(np.array([settings.entropy_threshold.nats(layer.n_experts) for layer in layers]), bound, settings.min_type_count,
                     settings.frequency_threshold, settings.seed)
    return plan_controls(context.trace, np.asarray(evidence.frequency.sum(axis=0)).ravel().astype(np.int64), aim)


def _store(context: Context, plan: ControlPlan, kind: Kind, directory: Path) -> None:
    """Write the planted trace shard by shard; a second call goes on where the first one died."""
    from analysis.controls import plant
    from tracking.traces import TraceWriter

    trace = context.trace
    meta = replace(trace.meta, model=f"{kind} control", collector=COLLECTOR, weights_mean="renormalised over k", entropy_of="softmax_logits",
                   score_function="softmax", details={"planted": plain(plan.facts), "of": trace.digest})
    writer = TraceWriter.create_or_resume(directory, meta, trace.documents)
    for number, batch in enumerate(plant(trace.batches(columns=()), plan, kind)):
        if number not in writer.finished:
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
    writer.finish()
