"""What each command of `assay` does; every function returns the exit status."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.declaration import Experiment, declared_names, load
from experiments.progress import Console

if TYPE_CHECKING:
    from hypotheses.claim import Finding


LONGEST_PATH = 4096  # bytes, of Linux


class CommandError(ValueError):
    """A command that cannot be carried out; the message says what to type instead."""


def run(root: Path, experiment: str, profile: str, overrides: Sequence[str], *, new: bool) -> int:
    """Run an experiment, or go on with it where it was."""
    from experiments.pipeline import execute

    directory, findings = execute(load(experiment, profile, overrides), root, Console(), new=new)
    _say(directory, findings)
    return 0


def resume(root: Path, name: str) -> int:
    """Go on with a run under the declaration files as they are now; refused with a table if they are not what it began with."""
    from experiments.pipeline import execute

    directory = run_directory(root, name)
    found, findings = execute(declared(directory), directory.parent, Console(), name=directory.name)
    _say(found, findings)
    return 0


def report(root: Path, name: str) -> int:
    """Write a run's figures and report again."""
    from experiments.pipeline import report_again

    directory = run_directory(root, name)
    if not (directory / "findings.json").exists():
        raise CommandError(f"{directory}: not judged yet, so there is nothing to report; go on with: assay resume {directory}")
    print(report_again(directory.parent, directory, Console()))
    return 0


def publish(root: Path, name: str) -> int:
    """Log a run to MLflow again; only what is missing is written."""
    from experiments.pipeline import recorded
    from experiments.stages import publish as stage
    from experiments.stages.context import Context
    from tracking.run import Run

    directory = run_directory(root, name)
    with Run.resume(root, str(directory)) as held:
        if (directory / "report" / "report.html").exists():
            held.finish()
        context = Context(recorded(held.declaration), directory, directory.parent, Console())
        reports = stage.publish(context, held, final=True, patience_s=stage.ASKED_PATIENCE_S)
    for one in reports:
        refused = f", {len(one.unpublished)} values that MLflow does not take" if one.unpublished else ""
        print(f"{one.state}: {one.tracking_uri}{f' ({one.reason})' if one.reason else f', {one.written} new metric points{refused}'}")
    return 0 if all(one.state == "published" for one in reports) else 1


def corpus(root: Path, experiment: str, profile: str, overrides: Sequence[str], splits: str | None) -> int:
    """Show documents per domain and split; write the splits as JSONL if asked."""
    from experiments import corpora

    found = corpora.load(load(experiment, profile, overrides).corpus, root / "cache", Console())
    counts = {(domain, split): 0 for domain in found.domains for split in corpora.SPLITS}
    for document in found.documents:
        counts[document.domain, document.split] += 1
    width = max(len(domain) for domain in found.domains)
    print(f"{'domain':<{width}}  {'train':>8} {'calibration':>12} {'test':>8}")
    for domain in found.domains:
        print(f"{domain:<{width}}  {counts[domain, 'train']:>8,} {counts[domain, 'calibration']:>12,} {counts[domain, 'test']:>8,}")
    if splits:
        corpora.write_splits(found, Path(splits))
        print(f"written to {splits}")
    return 0


def show(root: Path) -> int:
    """List experiments, hypotheses and runs."""
    import hypotheses

    print("experiments  " + ", ".join(declared_names()))
    print("hypotheses   " + "; ".join(f"{name} ({hypotheses.find(name).title})" for name in hypotheses.names()))
    directories = sorted(path.parent for path in root.glob("*/state.json"))
    print(f"runs in {root}" + ("" if directories else ": none"))
    for directory in directories:
        print(f"  {directory.name:<36} {_standing(directory)}")
    return 0


def _standing(directory: Path) -> str:
    """A run's status and verdicts, or what is wrong with its files: one damaged run does not hide the others."""
    from tracking.run_state import RunState

    try:
        return f"{RunState.read(directory).status:<12} {_verdicts(directory)}"
    except (ValueError, TypeError, KeyError, OSError) as error:
        return f"{'DAMAGED':<12} {error}"


def _verdicts(directory: Path) -> str:
    from hypotheses.findings import findings_from_json

    path = directory / "findings.json"
    if not path.exists():
        return "not judged"
    return ", ".join(f"{one.hypothesis} {(one.verdict or 'no verdict').upper()}" for one in findings_from_json(path.read_text(encoding="utf-8")))


def check() -> int:
    """Compare declarations with the register; 1 if anything differs."""
    from experiments import registration

    problems = registration.check()
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("every declaration is what was registered")
    return 1 if problems else 0


def register(root: Path, name: str) -> int:
    """Record the present declaration of a hypothesis."""
    from experiments import registration
    from tracking import ledger

    print(f"{name}: {registration.register(name, datetime.now(UTC), ledger.counts(root).get(name, 0))}")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Show what capture makes of a model; 1 if a collection could not start."""
    from experiments.declaration import SourceSpec
    from experiments.sources.doctor import doctor as examine

    chosen = {name: value for name in ("revision", "dtype", "quantize", "device") if (value := getattr(arguments, name)) is not None}
    diagnosis = examine(SourceSpec(model=arguments.model, **chosen), Console())
    print("\n".join(diagnosis.lines()))
    return 0 if diagnosis.ok else 1


def measure(root: Path, arguments: argparse.Namespace) -> int:
    """Print every number that a trace gives, and write them if asked."""
    from analysis.survey import SECTIONS, SurveyPlan
    from experiments import measuring
    from experiments.importing import Reading
    from experiments.inspecting import known

    given = Path(arguments.trace)
    path = given if given.exists() else root / arguments.trace
    out = None if arguments.out is None else measuring.destination(Path(arguments.out))
    plan = SurveyPlan(split=arguments.split, seed=arguments.seed, n_shifts=arguments.shifts, sections=tuple(arguments.only or SECTIONS))
    rows = []
    for row in measuring.rows_of(measuring.open_trace(path, Reading.of(arguments)), plan, known(arguments.accept)):
        rows.append(row)
        print(measuring.line(row), flush=True)
    if out is not None:
        measuring.written(rows, out)
        print(f"{len(rows)} rows written to {out}")
    return 0


def metrics(name: str | None) -> int:
    """List the metrics, or tell one in full."""
    from analysis.registry import find
    from experiments.measuring import catalogue

    if name is None:
        for one in catalogue():
            print(f"{one['id']:<30} {one['unit']:<22} {one['definition']}")
        return 0
    try:
        metric = find(name)
    except KeyError as error:
        raise CommandError(str(error.args[0])) from None
    fields = next(one for one in catalogue() if one["id"] == name)
    print((metric.function.__doc__ or "").strip())
    for key in ("unit", "interval", "undefined", "seed", "source"):
        print(f"{key:<10} {fields[key]}")
    return 0


def ui(root: Path, port: int) -> int:
    """Open the MLflow page over the runs under `root`."""
    from experiments.interface import serve

    return serve(root, port)


def run_directory(root: Path, name: str) -> Path:
    """A run by its directory, or by its name under `root`."""
    for path in (Path(name), root / name) if len(name) < LONGEST_PATH else ():
        if (path / "state.json").is_file():
            return path.resolve()
    raise CommandError(f"{name[:80]!r}: no run there and none of that name under {root}; `assay list` shows them")


def declared(directory: Path) -> Experiment:
    """The experiment of a run, loaded again from its declaration file with the run's profile and overrides."""
    from experiments.pipeline import DECLARED_IN
    from tracking.run_state import RunState

    if (directory / DECLARED_IN).exists():
        began = json.loads((directory / DECLARED_IN).read_text(encoding="utf-8"))
        return load(began["file"], began["profile"], began["overrides"])
    kept = RunState.read(directory).declaration["experiment"]  # it died before it wrote where
    return load(kept["name"], kept["profile"], kept["overrides"])


def _say(directory: Path, findings: Sequence[Finding]) -> None:
    from hypotheses.wording import sentence

    for finding in findings:
        print(f"\nVERDICT   {(finding.verdict or 'none').upper()}: {finding.title}")
        print(f"          {sentence(finding)}")
        if finding.limiting:
            print(f"limiting  {finding.limiting}: {next(one.reason for one in finding.criteria if one.criterion.name == finding.limiting)}")
        print(f"register  {finding.registration.get('note', 'unknown')}")
    print(f"report    {directory / 'report' / 'report.html'}")
    print("compare   make ui")
