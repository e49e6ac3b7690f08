"""What the audit found in the trace of each arm, and which of it the claim does not survive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from experiments.report.topology_columns import View

TITLE = "Integrity of the arms' traces"
Trace = Mapping[str, Any]
Found = list[tuple[Trace, Mapping[str, Any]]]  # the traces that have one finding, each with it


def arms_integrity(view: View) -> Section:
    """A row per finding with the traces that have it; a warning for each that invalidates numbers of the judged pair and was not accepted."""
    arms = (view.content.audit or {}).get("arms")
    if arms is None:
        return Section("arms-integrity", TITLE, [Paragraph("The arms' traces were not audited: the run was made before they were, or has not come "
                                                           "to it.", "warning")], "extension")
    alike: dict[tuple[str, str], Found] = {}
    for arm in arms:
        for one in arm["findings"]:
            alike.setdefault((one["code"], one["words"]), []).append((arm, one))
    blocks: list[Block] = [*_warnings(alike.values())]
    clean = sum(not arm["findings"] for arm in arms)
    blocks.append(Paragraph(f"{len(arms)} traces were audited, every row of every split; nothing was found in {clean}. Findings in arms outside the "
                            "judged pair are shown and decide nothing."))
    if alike:
        blocks.append(Table("arms_integrity", "Findings of the audit in the arms, all splits",
                            [Column("finding"), Column("standing"), Column("traces"), Column("judged"), Column("count", "number"),
                             Column("of", "number"), Column("unit"), Column("share", "number", 2, True), Column("seen"), Column("consequence")],
                            [_row(same) for same in alike.values()], "Traces: the arm and its training seeds. Arms see the same documents, and so "
                            "share what is found in those."))
    return Section("arms-integrity", TITLE, blocks, "extension")


def _warnings(alike: Iterable[Found]) -> list[Paragraph]:
    loud: dict[str, list[Trace]] = {}
    for same in alike:
        for arm, one in same:
            if arm["judged"] and one["invalidates"] and not one["accepted"]:
                loud.setdefault(one["code"], []).append(arm)
    return [Paragraph(f"{code} in {_traces(arms)}: numbers of the judged pair that rest on what it spoils decide nothing until it is mended, or "
                      "accepted by --accept.", "warning") for code, arms in loud.items()]


def _row(same: Found) -> list[Cell]:
    one = same[0][1]
    return [one["code"], "accepted" if one["accepted"] else one["severity"], _traces([arm for arm, _ in same]),
            "yes" if any(arm["judged"] for arm, _ in same) else "no", one["count"], one["of"], one["unit"], one["share"], one["words"],
            one["consequence"]]


def _traces(arms: Sequence[Trace]) -> str:
    """'spectra 0, 1; hash 0'."""
    seeds: dict[str, list[str]] = {}
    for arm in arms:
        seeds.setdefault(arm["arm"], []).append(str(arm["seed"]))
    return "; ".join(f"{name} {', '.join(of)}" for name, of in seeds.items())
