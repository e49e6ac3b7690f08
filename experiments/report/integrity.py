"""The section on the trace's integrity: what the audit found, what follows from it, and what was accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.report.blocks import Block, Column, Paragraph, Section, Table

TITLE = "Integrity of the trace"


def integrity_section(audit: Mapping[str, Any] | None) -> Section:
    """Findings with count, share, consequence and remedy; a warning for each that invalidates numbers and was not accepted."""
    if not audit:
        return Section("integrity", TITLE, [Paragraph("The trace was not audited: the run was made before there was an audit, or it has not come "
                                                      "to it. Inspect it with: assay inspect RUN", "warning")])
    found = audit["findings"]
    if not found and not audit.get("rows", True):
        return Section("integrity", TITLE, [Paragraph("Nothing was found in the tables: no negative count, sums that agree, no common factor, no "
                                                      "copied or dense layer, no copied domain. Only counts were kept: copies, padding, warm-up, "
                                                      "mixed traffic and dependent documents cannot be seen in them.")])
    if not found:
        return Section("integrity", TITLE, [Paragraph("Nothing was found: no row or document counted twice, no padding, warm-up or mixed "
                                                      "traffic, no layer, id, weight or entropy out of place, no documents that depend on others.")])
    blocks: list[Block] = [_loud(one) for one in found if one["invalidates"]]
    columns = [Column("finding"), Column("standing"), Column("count", "number"), Column("of", "number"), Column("unit"),
               Column("share", "number", 2, True), Column("seen"), Column("consequence"), Column("remedy")]
    rows = [[one["code"], "accepted" if one["accepted"] else one["severity"], one["count"], one["of"], one["unit"], one["share"], one["words"],
             one["consequence"], one["remedy"]] for one in found]
    blocks.append(Table("integrity", "Findings of the audit of the trace, all splits", columns, rows,
                        "An invalidating finding leaves the criteria that rest on what it spoils inconclusive until it is accepted by --accept."))
    places = [f"{one['code']}: {'; '.join(one['where'])}" for one in found if one["where"]]
    blocks += [Paragraph(text, "note") for text in places]
    return Section("integrity", TITLE, blocks)


def _loud(one: Mapping[str, Any]) -> Paragraph:
    standing = "It was accepted, and the numbers are judged as they are." if one["accepted"] else \
        f"It invalidates: {', '.join(str(name).replace('_', ' ') for name in one['invalidates'])}."
    return Paragraph(f"{one['code']}: {one['words']}. {standing}", "warning")
