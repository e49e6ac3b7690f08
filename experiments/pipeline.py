"""A run from declaration to report: stages in order, a finished one is skipped, and MLflow follows as a projection."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypotheses
from experiments import claims, registration
from experiments.declaration import Experiment, SourceSpec, resolved
from experiments.predictor import declared
from experiments.progress import Progress
from experiments.stages import analyse, audit, collect, controls, corpus, describe, imported, judge, model, publish, report
from experiments.stages.context import Context
from experiments.stages.stage import StageOf
from hypotheses.claim import canonical_json, fingerprint
from tracking.atomic import write_json
from tracking.run import Run

if TYPE_CHECKING:
    from experiments.corpora import Corpus
    from hypotheses.claim import Finding


FIRST = (
    StageOf("corpus", corpus.run, ("corpus/manifest.json",), ()),
    StageOf("model", model.run, ("training.json",), ("corpus",)),
    StageOf("collect", collect.run, ("trace/collection.json", "frequency/*"), ("corpus", "model"), publishes=True, defers=True),
)
IMPORTED = tuple(replace(stage, work=work) for stage, work in zip(FIRST, (imported.documents, imported.model, imported.collect)))
DESCRIBE = StageOf("describe", describe.run, ("description/evaluation.json", "description/tables/*"), ("collect",), opens_test=True)
AUDIT = StageOf("audit", audit.run, (audit.AUDIT,), ("collect",), opens_test=True)
JUDGE = StageOf("judge", judge.run, ("findings.json",), ("audit", "analyse", "controls"), publishes=True)


def stages_of(experiment: Experiment) -> tuple[StageOf, ...]:
    """The stages of a run in their order: what all runs do, and what each hypothesis does beside it (experiments.claims)."""
    own = [claims.of(name) for name in experiment.hypotheses]
    before, after = [stage for claim in own for stage in claim.BEFORE], [stage for claim in own for stage in claim.AFTER]
    feeding = tuple(stage.name for stage in before if stage.feeds)
    needed = ("collect", *feeding)
    analysis = StageOf("analyse", analyse.run, ("analysis/*/evaluation.json", "analysis/*/tables/*", "routing_stats.*"), needed, opens_test=True)
    controlled = StageOf("controls", controls.run, ("controls/*/*/evaluation.json",), ("collect", "analyse"))
    described = (DESCRIBE,) if experiment.atlas.describe else ()
    shown = StageOf("report", report.run, ("report/report.html", "report/report.md"), ("judge", *(stage.name for stage in (*described, *after))))
    judged = replace(JUDGE, after=(*JUDGE.after, *feeding))
    return (*(IMPORTED if experiment.trace.given else FIRST), AUDIT, *before, analysis, *described, *after, controlled, judged, shown)


DECLARED_IN = "declared_in.json"  # what `assay resume` reads again
DIRECTORIES = ("corpus", "frequency", "trace", "sweep", "analysis", "controls", "fastpath", "arms")


def declaration_of(experiment: Experiment) -> dict[str, Any]:
    """What a run is bound to: the resolved experiment and the protocol; a change of either is another run."""
    claims = [hypotheses.find(name) for name in experiment.hypotheses]
    found = {"experiment": resolved(experiment), "protocol": registration.protocol(experiment, claims)}
    return dict(json.loads(canonical_json(found)))  # lists, as a run's directory gives them back


def run_name(experiment: Experiment) -> str:
    """Experiment, profile, and the first digits of the declaration's fingerprint."""
    return f"{experiment.name}-{experiment.profile}-{fingerprint(declaration_of(experiment))[:8]}"


def execute(experiment: Experiment, root: Path, progress: Progress, *, name: str | None = None, new: bool = False) -> tuple[Path, list[Finding]]:
    """Do every stage that is not done; return the run directory and its findings.

    Raises whatever a stage refuses with; what was finished before stays, and the same call goes on from there.
    """
    from hypotheses.findings import findings_from_json

    root = root.resolve()
    name = name or run_name(experiment)
    corpus = _before_anything(experiment, root, progress, begun=(root / name).exists())
    with Run.open(root, name, declaration_of(experiment), new=new) as run:
        context = Context(experiment, run.directory, root, progress)
        if corpus is not None:
            context.hand(corpus)
        for directory in DIRECTORIES:
            (run.directory / directory).mkdir(exist_ok=True)
        write_json(run.directory / DECLARED_IN, {"file": experiment.file, "profile": experiment.profile,
                                                 "overrides": list(experiment.overrides)})
        _notice_code(run)
        _log_protocol(context, run)
        for stage in stages_of(experiment):
            _do(stage, context, run)
        run.finish()
        publish.publish(context, run, final=True)
        return run.directory, list(findings_from_json((run.directory / "findings.json").read_text(encoding="utf-8")))


def report_again(root: Path, directory: Path, progress: Progress) -> Path:
    """Write the report of a judged run again, under the declaration that the run began with; returns the path of the page."""
    with Run.resume(root, str(directory)) as run:
        experiment = recorded(run.declaration)
        _do(stages_of(experiment)[-1], Context(experiment, run.directory, root, progress), run, again=True)
        run.finish()
        return run.directory / "report" / "report.html"


def recorded(declaration: Mapping[str, Any]) -> Experiment:
    """The experiment that a run's directory keeps."""
    return Experiment.model_validate_json(json.dumps(declaration["experiment"]))


def _before_anything(experiment: Experiment, root: Path, progress: Progress, *, begun: bool) -> Corpus | None:
    """Refuse a model, a trace or documents of one's own that are not there, or not usable, before a run directory exists; the documents."""
    if not begun:
        declared.check(experiment.topology)
    if experiment.trace.given:
        if not begun:
            imported.require(experiment)
        return None
    if not begun:
        _refuse_unusable(experiment.source)
    if experiment.corpus.path is None:
        return None
    from experiments import corpora

    return corpora.load(experiment.corpus, root / "cache", progress)


def _refuse_unusable(source: SourceSpec) -> None:
    """Raise SourceError for a device, dtype, model or layer that this machine, or this model, does not have."""
    from experiments.sources.errors import SourceError
    from experiments.sources.loading import device_of, dtype_of, locate

    device_of(source.device)
    if source.is_testbed:
        return
    from experiments.sources.memory import meta_model
    from experiments.sources.routers import choose_layers, find_routers

    config = locate(source).config
    dtype_of(source.dtype, config)
    try:
        choose_layers(find_routers(meta_model(config))[0], source.layers)
    except SourceError as error:
        raise SourceError(f"model {source.model!r}: {error}") from error


def _notice_code(run: Run) -> None:
    """Say so where finished stages were computed by other code than this."""
    now = _code(run)
    others = [name for name, stage in run.state.stages.items() if stage.status == "FINISHED" and stage.code not in (None, now)]
    if others:
        print(f"{', '.join(others)}: computed by code other than {now}; their numbers are kept, --new computes them again", file=sys.stderr)


def _code(run: Run) -> str:
    """The commit of this attempt, marked where files differ from it."""
    source = run.state.attempts[-1].get("source", {})
    return f"{(source.get('commit') or 'unknown')[:12]}{' with changes' if source.get('dirty') else ''}"


def _log_protocol(context: Context, run: Run) -> None:
    """Keep and publish the protocol's fingerprint with its time, before any test document is read; a resumed run keeps the first."""
    path = context.directory / "protocol.json"
    protocol = run.declaration["protocol"]
    if not path.exists():
        write_json(path, {"fingerprint": fingerprint(protocol), "logged": datetime.now(UTC).isoformat(timespec="seconds"), "protocol": protocol})
    if not (context.directory / "publish.json").exists():
        publish.publish(context, run)


def _do(stage: StageOf, context: Context, run: Run, *, again: bool = False) -> None:
    before = {name: run.state.stages[name].remarks for name in stage.after}
    inputs = fingerprint({"declaration": run.declaration, "before": before})
    faults = _trace_faults(context) if stage.name == "collect" else ()
    if not again and not run.needs(stage.name, inputs, faults):
        return
    print(f"{stage.name} ...", file=sys.stderr)
    if stage.opens_test:
        _open_test_split(context, run)
    with run.stage(stage.name, inputs, defers=stage.defers) as under_way:
        run.state.stages[stage.name].code = _code(run)
        under_way.remarks = dict(stage.work(context))
        for pattern in stage.outputs:
            for path in sorted(context.directory.glob(pattern)):
                if path.is_file():
                    under_way.output(path.relative_to(context.directory))
    if stage.publishes:
        publish.publish(context, run)


def _trace_faults(context: Context) -> tuple[str, ...]:
    """What is wrong with the shards of a trace that an earlier attempt finished."""
    from tracking.traces import faults_of

    directory = context.directory / "trace"
    return faults_of(directory) if (directory / "manifest.json").exists() else ()


def _open_test_split(context: Context, run: Run) -> None:
    """Enter the look at the test documents into the ledger before it happens."""
    documents = str(run.state.stages["corpus"].remarks["sha256"])
    registration.open_test_split(context.experiment, run.name, context.root, documents, datetime.now(UTC))
