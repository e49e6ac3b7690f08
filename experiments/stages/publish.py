"""Publish: the run directory as MLflow shows it; nothing that happens to MLflow changes the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import evaluation_files, projection
from experiments.stages import describe
from experiments.stages.audit import AUDIT
from experiments.stages.audit_arms import ARMS_AUDIT
from experiments.stages.context import Context
from hypotheses.findings import findings_from_json
from hypotheses.wording import sentence
from tracking.projection import Projection

if TYPE_CHECKING:
    from tracking.mlflow_publisher import PublishReport
    from tracking.run import Run

STAGE_PATIENCE_S, ASKED_PATIENCE_S = 0.4, 20.0  # a silent server is waited for: by a run under way, by a person who asked
ARTIFACTS = (("report", "report"), ("figures", "figures"), ("findings.json", ""), (AUDIT, ""), (ARMS_AUDIT, "arms"), ("routing_stats.csv", "tables"),
             ("protocol.json", ""), ("declaration.json", ""), ("sweep/sweep.json", "sweep"), ("fastpath/effect.json", "fastpath"),
             ("fastpath/lookup_table.npz", "fastpath"), ("corpus/manifest.json", "corpus"), ("controls/controls.json", "controls"),
             ("mi_clustering_results", "mi_clustering_results"), ("atlas", "atlas"), ("expert_analysis", "expert_analysis"))


def publish(context: Context, run: Run, *, final: bool = False, patience_s: float = STAGE_PATIENCE_S) -> list[PublishReport]:
    """Bring MLflow up to what the run directory holds; a store that is away leaves one notice."""
    from tracking import mlflow_publisher

    reports = []
    for name in context.experiment.hypotheses:
        reports.append(mlflow_publisher.publish(context.directory, project(context, run, name, final=final), patience_s=patience_s))
        if reports[-1].notice:
            print(reports[-1].notice, file=sys.stderr)
    return reports


def project(context: Context, run: Run, name: str, *, final: bool) -> Projection:
    """The run as far as it has come, for one hypothesis."""
    experiment = context.experiment
    protocol = context.read_json("protocol.json")
    base = projection.Begun(run.run_id, run.started_ms, run.name, protocol.get("fingerprint", ""), protocol.get("logged", ""))
    judged = run.state.stages.get("analyse")
    commit, _, changes = ((judged.code if judged else None) or "unknown").partition(" ")  # the code that made the numbers
    tags: dict[str, object] = {"git.commit": commit, "git.dirty": bool(changes)}
    findings = context.directory / "findings.json"
    if not findings.exists():
        return projection.begun(experiment, name, base, tags)
    finding = next(one for one in findings_from_json(findings.read_text(encoding="utf-8")) if one.hypothesis == name)
    evaluation = evaluation_files.load(context.directory / "analysis" / name)
    audit = context.read_json(AUDIT)
    metrics = projection.metrics_of(finding, evaluation) + projection.audit_metrics(audit) \
        + projection.sweep_metrics(context.read_json("sweep/sweep.json")) + _speed(context)
    if (context.directory / describe.DIRECTORY / "evaluation.json").exists():
        metrics += projection.described(evaluation_files.load(context.directory / describe.DIRECTORY), {one for one, _, _ in metrics})
    collected = run.state.stages["collect"].remarks
    tags |= {"verdict": finding.verdict or "none", "limiting": finding.limiting, "trace.digest": collected["digest"],
             "checkpoint": str(run.state.stages["model"].remarks["model"]),
             **projection.audit_tags(audit), "seed_verdict": finding.seed_verdict.get("supported"), "registration": finding.registration.get("note")}
    ended, own = run.state.ended if final else None, f"hypotheses/{name}"  # its own pages, where a run has several hypotheses
    return projection.judged(experiment, finding, base, projection.Judged(
        params=projection.params_of(experiment, evaluation.facts), metrics=metrics,
        tags=tags, note=projection.note(finding, sentence(finding), "report/report.html"), datasets=_datasets(run),
        artifacts=[(path, folder) for relative, folder in (*ARTIFACTS, (own, own)) if (path := Path(context.directory / relative)).exists()],
        ended=ended))


def _datasets(run: Run) -> list[tuple[str, str, str, str]]:
    corpus, trace = run.state.stages["corpus"].remarks, run.state.stages["collect"].remarks
    return [("corpus", str(corpus["sha256"]), "corpus/manifest.json", "corpus"), ("trace", str(trace["digest"]), "trace/manifest.json", "routing")]


def _speed(context: Context) -> list[tuple[str, float | None, int]]:
    collection: dict[str, Any] = context.read_json("trace/collection.json")
    seconds, rows = collection.get("seconds"), collection.get("rows")
    return [("speed/collect_s", seconds, 0), ("speed/tokens_per_s", rows / seconds if seconds and rows else None, 0)]
