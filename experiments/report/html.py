"""One self-contained HTML page: no script, no outside address, figures inside, every text escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.blocks import Block, Link, Listing, Paragraph, Picture, Section
from experiments.report.display import cell

HERE = Path(__file__).parent
NO_BREAK = "\u00a0"
BRACKETED = re.compile(r"\[[^\[\]]{1,60}\]|[<>\u2264\u2265] [\u2212\d]")


def unbroken(text: str) -> str:
    """Text in which no line breaks inside an interval in brackets or between a sign and its bound."""
    return BRACKETED.sub(lambda found: found[0].replace(" ", NO_BREAK), text)


def _viewed(block: Block, png: Mapping[str, bytes]) -> dict[str, Any]:
    if isinstance(block, Paragraph):
        return {"kind": "paragraph", "text": block.text, "role": block.role}
    if isinstance(block, Listing):
        return {"kind": "listing", "text": block.text}
    if isinstance(block, Link):
        return {"kind": "link", "text": block.text, "address": block.address}
    if isinstance(block, Picture):
        return {
            "kind": "picture",
            "name": block.name,
            "alt": block.alt,
            "caption": block.caption,
            "png": base64.b64encode(png[block.name]).decode("ascii"),
        }
    rows = [[unbroken(cell(value, column)) for value, column in zip(row, block.columns, strict=True)] for row in block.printed]
    return {"kind": "table", "name": block.name, "caption": block.heading, "columns": block.columns, "rows": rows, "note": block.note}


def page(title: str, subtitle: Sequence[str], verdict: str, sections: Sequence[Section], png: Mapping[str, bytes]) -> str:
    """The page. verdict: CSS class of the body; png: picture name -> bytes. Lone surrogates in any text become '?'."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    css = (HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    viewed = [{"id": s.id, "title": s.title, "blocks": [_viewed(block, png) for block in s.blocks]} for s in sections]
    text = environment.get_template("report.html.jinja").render(  # the style sheet is ours and its hash is in the policy
        title=title, subtitle=list(subtitle), verdict=verdict, sections=viewed, css=Markup(css), css_hash=Markup(f"sha256-{digest}")
    )
    return text.encode("utf-8", "replace").decode("utf-8")
