"""What the audit found in the trace of each arm, and which of it the claim does not survive."""

from __future__ import annotations

from experiments.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from experiments.report.topology_columns import View

TITLE = "Integrity of the arms' traces"


def arms_integrity(view: View) -> Section:
    """A row per arm, seed and finding; a warning for each that invalidates numbers of the judged pair and was not accepted."""
    arms = (view.content.audit or {}).get("arms")
    if arms is None:
        return Section("arms-integrity", TITLE, [Paragraph("The arms' traces were not audited: the run was made before they were, or has not come "
                                                           "to it.", "warning")], "extension")
    rows: list[list[Cell]] = []
    loud: dict[str, list[str]] = {}
    for arm in arms:
        for one in arm["findings"]:
            standing = "accepted" if one["accepted"] else one["severity"]
            rows.append([arm["arm"], arm["seed"], "yes" if arm["judged"] else "no", one["code"], standing, one["count"], one["of"], one["unit"],
                         one["share"], one["words"], one["consequence"]])
            if arm["judged"] and one["invalidates"] and not one["accepted"]:
                loud.setdefault(one["code"], []).append(f"{arm['arm']}, seed {arm['seed']}")
    blocks: list[Block] = [Paragraph(f"{code} in {'; '.join(where)}: numbers of the judged pair that rest on what it spoils decide nothing until it "
                                     "is mended, or accepted by --accept.", "warning") for code, where in loud.items()]
    clean = sum(not arm["findings"] for arm in arms)
    blocks.append(Paragraph(f"{len(arms)} traces were audited, every row of every split; nothing was found in {clean}. Findings in arms outside the "
                            "judged pair are shown and decide nothing."))
    if rows:
        blocks.append(Table("arms_integrity", "Findings of the audit by arm and seed, all splits",
                            [Column("arm"), Column("seed", "number"), Column("judged"), Column("finding"), Column("standing"),
                             Column("count", "number"), Column("of", "number"), Column("unit"), Column("share", "number", 2, True), Column("seen"),
                             Column("consequence")], rows))
    return Section("arms-integrity", TITLE, blocks, "extension")
