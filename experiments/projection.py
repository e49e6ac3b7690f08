"""A run as its MLflow page shows it: laid out so that the table and the comparison page of several runs say something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.estimate import Estimate
from experiments.declaration import Experiment
from hypotheses.claim import Evaluation, Finding
from tracking.projection import Projection

MODEL_NAME_LENGTH = 14  # of a run's name; about 20 characters are seen in the run table
FAMILIES = {"freq": "frequency", "entropy": "entropy", "confidence": "entropy", "fastpath": "fastpath", "collision": "routing_consistency",
            "consistency": "routing_consistency", "zipf": "frequency", "top": "frequency",
            "mi": "information", "u": "information", "transfer": "cross_domain", "type": "cross_domain", "jsd": "cross_domain",
            "cross": "cross_domain", "coact": "clusters", "phi": "clusters", "predictor": "predictor", "top1": "predictor", "recall": "predictor",
            "accuracy": "predictor", "ablation": "predictor", "random": "predictor", "retention": "predictor", "lag": "temporal",
            "transition": "temporal", "repetition": "temporal", "association": "domains"}
JUDGED_FIRST = "criteria/met"


def run_name(model: str, finding: Finding | None) -> str:
    """"<model> <VERDICT>", short enough to be read in the run table."""
    short = model[:MODEL_NAME_LENGTH]
    if finding is None:
        return short
    return f"{short} {(finding.verdict or 'no verdict').upper()}"


def metrics_of(finding: Finding, evaluation: Evaluation) -> list[tuple[str, float | None, int]]:
    """(name, value, step) in the order that the comparison page wants: criteria, then families, then layers (step = layer)."""
    rows: list[tuple[str, float | None, int]] = [(JUDGED_FIRST, float(sum(one.outcome == "supported" for one in finding.criteria)), 0)]
    for one in finding.criteria:
        rows += _with_interval(f"criteria/{one.criterion.name}", one.estimate)
    for name, estimate in evaluation.estimates.items():
        rows += _with_interval(f"{FAMILIES.get(name.split('_')[0], 'other')}/{name}", estimate)
    for name, layers in evaluation.by_layer.items():
        rows += [(f"layer/{name}", estimate.value, layer) for layer, estimate in enumerate(layers)]
    return rows


def described(description: Evaluation, taken: Set[str]) -> list[tuple[str, float | None, int]]:
    """What an atlas adds to the metrics: its means with intervals and its layers, less what is there under that name."""
    rows: list[tuple[str, float | None, int]] = []
    for name, estimate in description.estimates.items():
        rows += _with_interval(f"atlas/{name}", estimate)
    for name, layers in description.by_layer.items():
        rows += [(f"layer/{name}", estimate.value, layer) for layer, estimate in enumerate(layers)]
    return [row for row in rows if row[0] not in taken]


def _with_interval(name: str, estimate: Estimate) -> list[tuple[str, float | None, int]]:
    ends = [(f"{name}_low", estimate.low, 0), (f"{name}_high", estimate.high, 0)] if estimate.low is not None else []
    return [(name, estimate.value, 0), *ends]


def audit_metrics(audit: Mapping[str, Any]) -> list[tuple[str, float | None, int]]:
    """How many findings the audit of the trace has, how many withhold something, and the share of each; nothing where there was no audit."""
    if not audit:
        return []
    found = audit["findings"]
    spoiling = [one for one in found if one["invalidates"] and not one["accepted"]]
    return [("audit/findings", float(len(found)), 0), ("audit/withholding", float(len(spoiling)), 0),
            *((f"audit/{one['code']}", one["share"], 0) for one in found)]


def audit_tags(audit: Mapping[str, Any]) -> dict[str, object]:
    """Codes of the audit's findings, those that withhold something, and those accepted."""
    codes: dict[str, list[str]] = {"findings": [], "withholding": [], "accepted": []}
    for one in audit.get("findings", ()):
        codes["findings"].append(one["code"])
        codes["accepted" if one["accepted"] else "withholding"] += [one["code"]] if one["accepted"] or one["invalidates"] else []
    return {f"audit.{name}": ", ".join(one) or "none" for name, one in codes.items()} if audit else {}


def sweep_metrics(sweep: Mapping[str, Any]) -> list[tuple[str, float | None, int]]:
    """Objectives of every trial, with the trial as step; and, of a sweep of analysis knobs, the best and the declared value of each."""
    rows: list[tuple[str, float | None, int]] = []
    objectives = sweep.get("objectives", ("coverage", "agreement"))
    for step, trial in enumerate(sweep.get("trials", ())):
        rows += [(f"sweep/{name}", trial[name], step) for name in objectives if name in trial]
    for name, declared in sweep.get("declared", {}).items():
        if name in objectives:
            rows += [(f"sweep/{name}_preferred", sweep["chosen"][name]["value"], 0), (f"sweep/{name}_declared", declared["value"], 0)]
    return rows


def model_of(experiment: Experiment) -> str:
    """The model's name for people; of a trace that was recorded elsewhere, the one declared, else the names of its files."""
    trace = experiment.trace
    if trace.given:
        return Path(trace.model).name if trace.model else "+".join(Path(path).stem for path in trace.paths)
    return Path(experiment.source.model.removeprefix("testbed:")).name


def corpus_of(experiment: Experiment) -> str:
    """The corpus' name, or the names of the files whose documents were routed elsewhere."""
    return "+".join(Path(path).stem for path in experiment.trace.paths) or experiment.corpus.name


def params_of(experiment: Experiment, facts: Mapping[str, Any]) -> dict[str, object]:
    """What a person would filter or compare runs by."""
    layers = facts.get("layers", [])
    model = model_of(experiment)
    return {"model": model, "profile": experiment.profile, "seed": experiment.seed, "dtype": experiment.source.dtype,
            "quantize": experiment.source.quantize or "none", "corpus": corpus_of(experiment), "documents": facts.get("n_documents"),
            "tokens": facts.get("n_tokens"), "moe_layers": len(layers) or None,
            "n_experts": layers[0]["n_experts"] if layers else None, "top_k": layers[0]["top_k"] if layers else None,
            "overrides": " ".join(experiment.overrides) or "none"}


def note(finding: Finding, sentence: str, report: str) -> str:
    """Markdown: the verdict in words, and the criteria with their intervals."""
    lines = [f"**{(finding.verdict or 'no verdict').upper()}** {sentence}", "", "| criterion | bound | estimate | outcome |", "|---|---|---|---|"]
    for one in finding.criteria:
        estimate = one.estimate
        shown = f"undefined: {estimate.reason}" if estimate.value is None else f"{estimate.value:.4g}"
        if estimate.low is not None and estimate.high is not None:
            shown += f" [{estimate.low:.4g}, {estimate.high:.4g}]"
        lines.append(f"| {one.criterion.name} | {one.criterion.inequality} | {shown} | {one.outcome} |")
    return "\n".join([*lines, "", f"Report: artifact `{report}`"])


@dataclass(frozen=True)
class Begun:
    """What is known of a run when it begins. run_id: its own name, which stays; protocol, logged: fingerprint and UTC time."""

    run_id: str
    started_ms: int
    directory: str
    protocol: str
    logged: str


@dataclass(frozen=True)
class Judged:
    """What is known of a run when it has been judged. ended: UTC label of its end, None while it runs."""

    params: Mapping[str, object]
    metrics: Sequence[tuple[str, float | None, int]]
    tags: Mapping[str, object]
    note: str
    datasets: Sequence[tuple[str, str, str, str]]
    artifacts: Sequence[tuple[Path, str]]
    ended: str | None


def _tags(experiment: Experiment, name: str, run: Begun) -> dict[str, object]:
    return {"hypothesis": name, "profile": experiment.profile, "experiment": experiment.name, "directory": run.directory,
            "declaration.digest": run.protocol, "protocol.logged": run.logged}


def begun(experiment: Experiment, name: str, run: Begun, tags: Mapping[str, object]) -> Projection:
    """The projection of a run that has begun: what is declared, logged before a test document is read."""
    return Projection(experiment=name, run_name=run_name(model_of(experiment), None), run_id=f"{run.run_id}:{name}", status="RUNNING",
                      started_ms=run.started_ms, tags={**_tags(experiment, name, run), **tags})


def judged(experiment: Experiment, finding: Finding, run: Begun, content: Judged) -> Projection:
    """The projection of a run with its finding; FINISHED once the run has ended."""
    name, ended = finding.hypothesis, content.ended
    return Projection(
        experiment=name, run_name=run_name(model_of(experiment), finding), run_id=f"{run.run_id}:{name}",
        status="FINISHED" if ended else "RUNNING", started_ms=run.started_ms,
        ended_ms=int(datetime.fromisoformat(ended).timestamp() * 1000) if ended else None, params=content.params, metrics=content.metrics,
        tags={**_tags(experiment, name, run), **content.tags}, note=content.note, datasets=content.datasets, artifacts=content.artifacts)
