"""The same sections as Markdown, figures as links into figures/."""

from __future__ import annotations

import html
from collections.abc import Sequence

from experiments.report.blocks import Block, Link, Listing, Paragraph, Picture, Section, Table
from experiments.report.display import cell


def plain(text: str) -> str:
    """Text that Markdown shows as it stands: HTML escaped, special characters behind a backslash, one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in escaped)


def _table(table: Table) -> str:
    head = "| " + " | ".join(plain(column.title) for column in table.columns) + " |"
    rule = "|" + "|".join("---" if column.kind == "text" else "---:" for column in table.columns) + "|"
    body = [
        "| " + " | ".join(plain(cell(value, column)) for value, column in zip(row, table.columns, strict=True)) + " |" for row in table.printed
    ]
    return "\n".join([f"**{plain(table.heading)}**", "", head, rule, *body, *(["", plain(table.note)] if table.note else [])])


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"**{plain(block.text)}**" if block.role in ("lead", "warning") else plain(block.text)
    if isinstance(block, Listing):
        return "\n".join(f"    {line}" for line in block.text.splitlines())
    if isinstance(block, Link):
        return f"[{plain(block.text)}]({block.address})"
    if isinstance(block, Picture):
        return f"![{plain(block.alt)}](../figures/{block.name}.png)\n\n{plain(block.caption)}"
    return _table(block)


def as_markdown(title: str, subtitle: Sequence[str], sections: Sequence[Section]) -> str:
    """The report as one Markdown text; lone surrogates become '?'."""
    parts = [f"# {plain(title)}", "  \n".join(plain(line) for line in subtitle)]
    for section in sections:
        parts += [f"## {plain(section.title)}", *(_block(block) for block in section.blocks)]
    return ("\n\n".join(parts) + "\n").encode("utf-8", "replace").decode("utf-8")
