"""Report: figures, tables and the self-contained page of each finding, from what the other stages left in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.trace import CountsTrace
from experiments import evaluation_files
from experiments.sources.events import SHARD_COUNTS
from experiments.stages import describe
from experiments.stages.audit import AUDIT
from experiments.stages.audit_arms import ARMS_AUDIT
from experiments.stages.context import Context
from hypotheses.findings import findings_from_json

if TYPE_CHECKING:
    from experiments.report.content import ReportContent, TraceFacts


def run(context: Context) -> dict[str, Any]:
    """Write the report of every finding; the same findings give the same bytes."""
    return {"report": str(write_report(context).relative_to(context.directory))}


def write_report(context: Context) -> Path:
    """Figures, tables and pages of the run's findings; returns the path of report.html, which joins them where there are several."""
    from experiments.report.joint import Joint, write_joint
    from experiments.report.writer import write, write_files

    contents = contents_of(context)
    if len(contents) == 1 and not context.experiment.atlas.describe:
        return write(context.directory, contents[0])
    for content in contents:
        write(context.directory / "hypotheses" / content.finding.hypothesis, content)
    description = context.directory / describe.DIRECTORY
    if not context.experiment.atlas.describe:
        return write_joint(context.directory, Joint(context.experiment.title, contents))
    from experiments.report import atlas_folder, atlas_sections

    view = atlas_sections.view_of(contents[0], evaluation_files.load(description))
    sections = atlas_sections.sections(view, [content.finding for content in contents])
    path = write_joint(context.directory, Joint(context.experiment.title, contents, sections))
    write_files(context.directory, atlas_folder.folder(view, sections, context.directory / "figures"))
    return path


def contents_of(context: Context) -> list[ReportContent]:
    """What the report of each finding is written from."""
    from experiments.report.content import ReportContent

    findings = findings_from_json((context.directory / "findings.json").read_text(encoding="utf-8"))
    facts, collection = trace_facts(context), context.read_json("trace/collection.json")
    return [ReportContent(
        finding=finding, evaluation=evaluation_files.load(context.directory / "analysis" / finding.hypothesis), trace=facts,
        corpus=context.read_json("corpus/manifest.json"), provenance=provenance(context),
        training=context.read_json("training.json") or None,
        sweep={**context.read_json("sweep/sweep.json"), **context.read_json("sweep/confirmed.json")} or None,
        fastpath=context.read_json("fastpath/effect.json") or None,
        controls=context.read_json("controls/controls.json").get(finding.hypothesis, {}), quality=quality(collection),
        audit=audits(context)) for finding in findings]


def audits(context: Context) -> dict[str, Any] | None:
    """What the audits found: of the run's trace, and, under `arms`, of each arm's where there are any; None without an audit."""
    found, arms = context.read_json(AUDIT), context.read_json(ARMS_AUDIT).get("arms")
    return None if not found else found if arms is None else {**found, "arms": arms}


def trace_facts(context: Context) -> TraceFacts:
    """The trace, or the counts, in numbers."""
    from experiments.report.content import TraceFacts

    routing = context.routing
    meta, conformance = routing.meta, routing.meta.details.get("conformance", {})
    if isinstance(routing, CountsTrace):
        tokens = 0 if routing.tokens is None else int(routing.tokens.sum())
        return TraceFacts(meta, tokens, {}, conformance, (), str(context.read_json("state.json")["stages"]["collect"]["remarks"]["digest"]))
    events = [event for event in routing.manifest.events if event["event"] != SHARD_COUNTS]
    return TraceFacts(meta, routing.n_tokens, excluded_tokens(context.read_json("trace/collection.json")), conformance, events, routing.digest)


def excluded_tokens(collection: dict[str, Any]) -> dict[str, int]:
    """Tokens that have no row, by reason; empty where the routing was recorded elsewhere, and nobody says."""
    names = {"padding": "n_pads", "special tokens": "n_special", "beyond the length limit": "tokens_cut"}
    return {words: collection[name] for words, name in names.items() if name in collection}


def quality(collection: dict[str, Any]) -> list[dict[str, Any]]:
    """Remarks on the collected rows: what was cut or empty, ties, capacity, memory; of an imported trace, what its readers met."""
    if "n_pads" not in collection:
        return [{"check": f"import of {one.get('file', 'the files')}: {one['code'].replace('_', ' ')}",
                 "outcome": "noted" if one.get("count") is None else f"{one['count']:,}",
                 "detail": one["words"] if one.get("share") is None else f"{one['words']} ({one['share']:.2%})"}
                for one in collection.get("remarks", [])]
    rows = collection["rows"] or 1
    remarks = [
        {"check": "documents cut at the length limit", "outcome": f"{collection['n_cut']:,}",
         "detail": f"{collection['tokens_cut']:,} tokens left out"},
        {"check": "documents without a token", "outcome": f"{len(collection['empty']):,}", "detail": "left out"},
        {"check": "padding at capture", "outcome": f"{collection['n_pads']:,} of {collection['n_pads'] + rows:,} positions",
         "detail": "dropped by the attention mask"},
        {"check": "out of memory", "outcome": f"{collection['out_of_memory']} times",
         "detail": f"last batch size {collection['batch_size']}"},
    ]
    tied = collection["first_choice_tied"]
    if tied:
        worst = max(tied, key=tied.__getitem__)
        remarks.append({"check": "ties for the first choice", "outcome": f"at most {tied[worst]:.3%} of tokens",
                        "detail": f"in {worst}; lowest id taken"})
    for layer, share in collection["dropped"].items():
        outcome = "selection biased" if share > 0.05 else "warning" if share > 0.01 else "ok"
        remarks.append({"check": f"capacity, {layer}", "outcome": outcome, "detail": f"{share:.2%} of tokens dropped after the choice"})
    return remarks


def provenance(context: Context) -> dict[str, Any]:
    """Where the run came from, with the command that repeats it."""
    experiment = context.experiment
    state = context.read_json("state.json")
    attempts = state.get("attempts", [])
    last = attempts[-1] if attempts else {}
    code = {name: stage.get("code") for name, stage in state.get("stages", {}).items() if stage.get("status") == "FINISHED"}
    kept = {"attempts": len(attempts), "code of each stage": code, "machine": last.get("machine"), "versions": last.get("versions")}
    options = "".join(f" --set '{text}'" for text in experiment.overrides)
    declared_in = Path(str(context.read_json("declared_in.json").get("file", experiment.name)))
    named = experiment.name if declared_in.parent.name == "declared" else str(declared_in)
    command = f"assay run {named} --profile {experiment.profile}{options}"
    protocol = context.read_json("protocol.json")
    return {"command": command, "protocol": protocol.get("fingerprint"), "protocol logged": protocol.get("logged"),
            "declaration": str(context.directory.name), **kept}
