"""Topology in a run: a predictor per source domain, evidence from the trace and the predictors, and planted structures as controls."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.evaluation_files import plain
from experiments.stages import knobs
from experiments.stages.context import Context
from experiments.stages.stage import StageOf

if TYPE_CHECKING:
    from analysis.topology_controls import TopologyPlan
    from analysis.trace import RoutingTrace
    from experiments.predictor.families import Sources
    from experiments.predictor.spec import PredictorSpec
    from hypotheses.topology_evidence import PredictorEvidence, TopologyEvidence, TopologySettings

RESTS_ON = ("loads", "slots", "layers", "domains", "intervals")
KINDS = ("positive", "misleading", "independent")
COLLECTOR = "planted control"
UNSEEN = ("learnt from: nothing shows that the imported predictions were not learnt from the judged documents; if they were not, say so with "
          "topology.predictions_unseen = true")
THREADS = 2


def train_predictors(context: Context) -> dict[str, Any]:
    """Train Prophet and its ablation on the calibration documents of each domain, and let them predict every test document.

    Where the declaration names predictions or a retention table made elsewhere, these are read instead.
    """
    from experiments.predictor import declared, families

    topology = context.experiment.topology
    directory = context.directory / "predictor"
    directory.mkdir(exist_ok=True)
    told: dict[str, Any] = {}
    if not topology.predictor and not topology.predictions and not topology.retention:
        return {"predictor": "not asked for: topology.predictor = false"}
    if not _judged(context):
        return {"predictor": "no test document to predict"}
    sources = families.Sources.of(context.trace, _spec(context))
    if topology.predictions or topology.retention:
        told = declared.bring_in(topology, sources, directory)
    if topology.predictor and not topology.predictions:
        families.train_all(sources, _spec(context), directory, context.progress)
    return {"sources": {domain: len(planes) for domain, planes in sources.by_domain.items()}, "missing": dict(sources.missing), **told}


BEFORE = (StageOf("sweep", knobs.run, ("sweep/sweep.json",), ("collect",)),
          StageOf("predictor", train_predictors, ("predictor/*/*/predictions.parquet", "predictor/*.json"), ("collect",), opens_test=True,
                  feeds=True))
AFTER = (StageOf("confirm", knobs.confirm, ("sweep/confirmed.json",), ("sweep", "analyse")),)


def evidence(context: Context, trace: RoutingTrace) -> TopologyEvidence:
    """What the topology is judged from: for the run's own trace with its predictors and topics, for a control the trace alone."""
    from hypotheses.topology_evidence import TopologyEvidence

    own = trace is context.trace
    corpus = context.read_json("corpus/manifest.json")
    domains = tuple(corpus.get("documents", {})) + tuple(corpus.get("empty_domains", ()))
    topics = context.topics if own else {}
    return TopologyEvidence(trace, settings(context, judged_only=not own), domains, _predicted(context) if own else None,
                            tuple(context.experiment.topology.pairs), topics=topics, tell=context.tell,
                            retention=_retention(context) if own else {})


def settings(context: Context, *, judged_only: bool = False) -> TopologySettings:
    """The declared knobs, as the evaluation takes them; judged_only: what no criterion rests on is left out."""
    from hypotheses.topology_evidence import TopologySettings

    declared, experiment = context.experiment.topology, context.experiment
    return TopologySettings(
        seed=experiment.seed, level=experiment.uncertainty.level, n_shifts=declared.n_shifts, n_map_shifts=declared.n_map_shifts,
        n_decomposition=declared.n_decomposition, n_edge_shifts=declared.n_edge_shifts, n_null_clusters=declared.n_null_clusters,
        lags=declared.lags, edge_cut=declared.edge_cut, max_rows=declared.max_rows, threads=THREADS, judged_only=judged_only,
        smoothing=None if isinstance(declared.smoothing, str) else declared.smoothing,
        n_clusters=None if isinstance(declared.n_clusters, str) else declared.n_clusters)


def _judged(context: Context) -> bool:
    """Whether there is a test document."""
    return any(row.split == "test" for row in context.trace.documents)


def _spec(context: Context) -> PredictorSpec:
    spec = context.experiment.predictor
    return spec.model_copy(update={"processes": THREADS}) if spec.processes == 1 else spec


def _predicted(context: Context) -> PredictorEvidence | None:
    from experiments.predictor import declared, families

    topology = context.experiment.topology
    if not topology.predictor and not topology.predictions or not _judged(context):
        return None
    sources: Sources = families.Sources.of(context.trace, _spec(context))
    directory = context.directory / "predictor"
    if topology.predictions:
        learnt = declared.predictions_of(topology, sources, directory)
        files = declared.files_of(topology)
        found = families.evidence(sources, learnt, context.experiment.seed, home_only="" in files,
                                  origin=f"imported from {', '.join(files.values())}")
        return found if topology.predictions_unseen else replace(found, caveat=UNSEEN)
    learnt = families.train_all(sources, _spec(context), directory, context.progress)
    return families.evidence(sources, learnt, context.experiment.seed, learning=families.learning_curves(sources, directory),
                             origin="trained on the calibration documents of each domain")


def _retention(context: Context) -> dict[tuple[str, str], float | None]:
    from experiments.predictor import declared

    return declared.retention_of(context.directory / "predictor") if context.experiment.topology.retention else {}


def control_trace(kind: str) -> Path:
    """Directory of a control's trace inside the run directory."""
    return Path("controls") / kind / "topology" / "trace"


def plant(context: Context) -> dict[str, Any]:
    """Store the control traces; returns what was planted, and why the positive one cannot be supported where it cannot."""
    from analysis.threads import each
    from analysis.topology_controls import TopologyAim, plan_topology_controls

    plan = plan_topology_controls(context.trace, TopologyAim(seed=context.experiment.seed))
    each(partial(_store, context, plan), KINDS, THREADS)
    return {"planted": plan.facts, "unreachable": plan.unreachable}


def _store(context: Context, plan: TopologyPlan, kind: str) -> None:
    """Write the planted trace shard by shard; a second call goes on where the first one died."""
    from analysis.topology_controls import plant_topology
    from tracking.traces import TraceWriter

    trace = context.trace
    meta = replace(trace.meta, model=f"{kind} control", collector=COLLECTOR, weights_mean="absent", entropy_of="absent",
                   details={"planted": plain(plan.facts), "of": trace.digest})
    (context.directory / control_trace(kind)).parent.mkdir(parents=True, exist_ok=True)
    writer = TraceWriter.create_or_resume(context.directory / control_trace(kind), meta, trace.documents)
    rows = partial(plant_topology, plan=plan, kind=kind)  # type: ignore[arg-type]
    for number, batch in enumerate(rows(trace.batches(columns=()))):
        if number not in writer.finished:
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
    writer.finish()
