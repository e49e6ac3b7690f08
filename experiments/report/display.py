"""Values from data made safe to read: token strings escaped and cut, widths of plain text, numbers and estimates as cells."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from analysis.estimate import Estimate
from analysis.figures.words import interval, number, percent
from experiments.report.blocks import Cell, Column

TOKEN_WIDTH = 24


def _escape(character: str) -> str:
    bidirectional = unicodedata.bidirectional(character) in ("R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "PDF", "PDI", "FSI")
    combining = unicodedata.category(character).startswith("M")
    plain = character.isprintable() and not bidirectional and not combining and character != "\\"
    return (
        character
        if plain
        else character.encode("unicode_escape").decode("ascii")
        if ord(character) < 0xD800 or ord(character) > 0xDFFF
        else (f"\\u{ord(character):04x}")
    )


def columns_of(text: str) -> int:
    """Terminal columns that a text takes: two for wide and full-width characters, one for others."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def token(text: str, width: int = TOKEN_WIDTH) -> str:
    """A token string in quotes, with control, right-to-left, combining and surrogate characters escaped, cut to `width` columns."""
    shown: list[str] = []
    used = 2
    for i, character in enumerate(text):
        piece = _escape(character)
        last = i == len(text) - 1
        if used + columns_of(piece) > width - (0 if last else 1):
            return "'" + "".join(shown) + "\u2026'"
        shown.append(piece)
        used += columns_of(piece)
    return "'" + "".join(shown) + "'"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled with spaces to `width` terminal columns; wider ones stay as they are."""
    gap = " " * max(0, width - columns_of(text))
    return gap + text if right else text + gap


def level_words(values: Iterable[Estimate]) -> str:
    """'95% interval', the level of the estimates' own intervals; 'interval' where they have none, or several levels."""
    levels = {one.level for one in values if one.low is not None}
    return f"{levels.pop():.0%} interval" if len(levels) == 1 else "interval"


def estimate(value: Estimate, column: Column) -> str:
    """'value [low, high]', or 'undefined: reason'."""
    if not column.percent or value.value is None:
        return interval(value, column.digits)
    ends = (
        "" if value.low is None or value.high is None else f" [{percent(value.low, column.digits)}, {percent(value.high, column.digits)}]"
    )
    return percent(value.value, column.digits) + ends


def cell(value: Cell, column: Column) -> str:
    """One table cell as a reader sees it."""
    if value is None:
        return "\u2014"
    if isinstance(value, Estimate):
        if column.brief and value.reason:
            return "undefined"
        return estimate(value, column)
    if isinstance(value, str):
        return value.partition(": ")[0] if column.brief else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column.percent:
        return percent(value, column.digits)
    return f"{value:,}".replace("-", "\u2212") if isinstance(value, int) else number(value, column.digits)
