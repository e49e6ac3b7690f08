"""What a report is made of, before it is HTML, Markdown, CSV or TeX: sections of paragraphs, tables, pictures and listings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from analysis.estimate import Estimate

Cell: TypeAlias = str | int | float | Estimate | None
Kind = Literal["text", "number", "estimate"]
Place = Literal["caveats", "overview", "controls", "key", "figures", "sensitivity", "seed", "extension", "appendix"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Plain text; `role` sets how loud it is."""

    text: str
    role: Literal["body", "note", "warning", "lead"] = "body"


@dataclass(frozen=True, slots=True)
class Listing:
    """Text shown as it stands, in a fixed-width face: commands, file lists."""

    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a file of the run; `address` is relative to the report's page."""

    text: str
    address: str


@dataclass(frozen=True, slots=True)
class Column:
    """Head of a table column. digits: decimals shown; percent: shown as 100 times the value with a % sign.

    brief: of a reason such as "too_few_documents: 16 in ..." only the code is shown, of an undefined estimate only that it is; CSV has all.
    """

    title: str
    kind: Kind = "text"
    digits: int = 3
    percent: bool = False
    brief: bool = False


@dataclass(frozen=True)
class Table:
    """A table that is shown and also written as CSV and TeX under `name`. shown: rows on the page and in TeX, all where None; CSV has all."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    shown: int | None = None

    @property
    def printed(self) -> Sequence[Sequence[Cell]]:
        """The rows on the page and in TeX."""
        return self.rows[: self.shown]

    @property
    def heading(self) -> str:
        """The caption, saying how many rows are left to the CSV."""
        n_shown, n_rows = len(self.printed), len(self.rows)
        return self.caption if n_shown == n_rows else f"{self.caption} ({n_shown:,} of {n_rows:,} rows; all of them in {self.name}.csv)"


@dataclass(frozen=True)
class Picture:
    """A figure: drawn already, saved under `name` as PNG and PDF. alt: what a reader who cannot see it should know."""

    name: str
    figure: Any  # matplotlib.figure.Figure
    caption: str
    alt: str


Block: TypeAlias = Paragraph | Listing | Link | Table | Picture


@dataclass(frozen=True)
class Section:
    """One heading with its blocks. `place` is used for sections that a hypothesis adds."""

    id: str
    title: str
    blocks: Sequence[Block]
    place: Place = "figures"
