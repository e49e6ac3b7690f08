"""What the verdict rests on, whatever the hypothesis: controls, the seed's rule, data quality, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.blocks import Block, Cell, Column, Listing, Paragraph, Section, Table
from experiments.report.content import ReportContent
from experiments.report.origin import corpus_blocks, training_blocks
from experiments.report.verdict import pairs_table

PADDING = "padding"
SHOWN_ELSEWHERE = ("conformance", "imported", "remarks")  # details of a trace's meta that have tables of their own


def _blocks(panels: Sequence[Section]) -> list[Block]:
    return [block for panel in panels for block in panel.blocks]


def controls_section(content: ReportContent, panels: Sequence[Section]) -> Section:
    """Traces whose right verdict is known: what was expected of each, and what came out."""
    controls = content.controls or content.finding.controls
    if not controls:
        return Section(
            "controls",
            "Controls",
            [Paragraph("No controls were run, so nothing shows that this assay can tell a planted effect from none.", "warning")],
        )
    words = Paragraph(
        "A control is a trace made on the run's own documents with a known right answer, read through the same estimators and judge."
    )
    return Section("controls", "Controls", [words, *(_blocks(panels) or [pairs_table("controls", "Controls", controls)])])


def seed_section(content: ReportContent, panels: Sequence[Section]) -> Section | None:
    """The binary verdict by the seed's own rule, and how that rule differs from ours."""
    seed = content.finding.seed_verdict
    if not seed:
        return None
    blocks = _blocks(panels) or [pairs_table("seed_verdict", "The seed's rule on these data", seed)]
    return Section("seed", "The verdict by the seed's own rule", blocks)


def _excluded(content: ReportContent) -> Table:
    """Kept and left-out tokens; padding is no token, so it has a number and no share."""
    trace = content.trace
    total = trace.n_rows + sum(n for why, n in trace.excluded.items() if why != PADDING)
    rows: list[list[Cell]] = [["kept", trace.n_rows, trace.n_rows / total if total else None]]
    rows += [[f"left out: {why}", n, n / total if total and why != PADDING else None] for why, n in trace.excluded.items()]
    columns = [Column("tokens"), Column("number", "number"), Column("share of tokens", "number", 2, True)]
    return Table("tokens", "Tokens kept and left out", columns, rows, "Padding only fills batches; it holds no token and has no share.")


def _remarks(quality: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not quality:
        return [Paragraph("No data-quality checks were recorded.", "note")]
    keys = list(dict.fromkeys(key for remark in quality for key in remark))
    rows = [["" if remark.get(key) is None else str(remark[key]) for key in keys] for remark in quality]
    return [Table("quality", "Data-quality checks", [Column(key.replace("_", " ")) for key in keys], rows)]


def _events(events: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not events:
        return [Paragraph("Collection recorded no event: no batch was halved, nothing was resumed.")]
    rows = [
        [str(event.get("event", event.get("kind", "event"))), "; ".join(f"{k} {v}" for k, v in event.items() if k not in ("event", "kind"))]
        for event in events
    ]
    return [Table("events", "What happened while routing was collected", [Column("event"), Column("details")], rows)]


def conformance_blocks(conformance: Mapping[str, Any]) -> list[Block]:
    """What the capture's check found: one row for each kind of layer, and what holds for the whole model."""
    layers = conformance.get("layers")
    blocks: list[Block] = []
    if isinstance(layers, Mapping) and layers and all(isinstance(one, Mapping) for one in layers.values()):
        keys = list(dict.fromkeys(key for one in layers.values() for key in one))
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, one in layers.items():
            alike.setdefault(tuple("" if one.get(key) is None else str(one[key]) for key in keys), []).append(str(name))
        rows: list[list[Cell]] = [[names[0] if len(names) == 1 else f"{len(names)} layers, {names[0]} to {names[-1]}", *values]
                                  for values, names in alike.items()]
        blocks.append(Table("conformance_layers", "Conformance of the capture by layer, checked on a probe batch",
                            [Column("router"), *(Column(key.replace("_", " ")) for key in keys)], rows,
                            "Agreement: share of tokens whose chosen experts are the top-k of the recorded scores."))
    rest = {key: value for key, value in conformance.items() if not (blocks and key == "layers")}
    if not conformance:
        return [Paragraph("The capture was not checked against the model: routing was recorded elsewhere.", "note")]
    return [*blocks, pairs_table("conformance", "Conformance of the capture", rest)] if rest or not blocks else blocks


def quality_section(content: ReportContent) -> Section:
    """Tokens left out, checks of the trace, conformance of the capture, events, corpus and training."""
    trace, meta = content.trace, content.trace.meta
    blocks: list[Block] = [
        _excluded(content),
        *_remarks(content.quality),
        *conformance_blocks(trace.conformance),
        *_events(trace.events),
        pairs_table(
            "capture",
            "What the trace's columns mean",
            {"score function": meta.score_function, "entropy of": meta.entropy_of, "weights": meta.weights_mean,
             **{key: value for key, value in meta.details.items() if key not in SHOWN_ELSEWHERE}},
        ),
        *corpus_blocks(content.corpus),
    ]
    if content.training is not None:
        blocks += training_blocks(content.training)
    return Section("quality", "Data quality and conformance", blocks)


def provenance_section(content: ReportContent) -> Section:
    """Where everything comes from, and the command that makes it again."""
    provenance = dict(content.provenance)
    command = provenance.pop("command", None)
    meta = content.trace.meta
    blocks: list[Block] = (
        [Paragraph("To reproduce this report:"), Listing(str(command))]
        if command
        else [Paragraph("The command that made this run was not recorded.", "note")]
    )
    blocks.append(
        pairs_table(
            "provenance",
            "Provenance",
            {
                "model": meta.model,
                "revision": meta.revision,
                "tokenizer (SHA-256)": meta.tokenizer,
                "trace digest": content.trace.digest,
                "collector": meta.collector,
                "declaration (SHA-256)": content.finding.fingerprint,
                **provenance,
                "versions": meta.versions,
            },
        )
    )
    return Section("provenance", "Provenance", blocks)
