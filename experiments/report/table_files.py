"""Tables as CSV (numbers in full, one column per interval end) and as TeX (what the page shows)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from analysis.estimate import Estimate
from experiments.report.blocks import Cell, Table
from experiments.report.display import cell

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
TEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\u2212": "$-$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u03c1": r"$\rho$",
    "\u2014": "---",
    "\u2026": r"\ldots{}",
}


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before a leading = + - @ tab or return; lone surrogates escaped."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"'{safe}" if safe.startswith(FORMULA_STARTS) else safe


def csv_cells(value: Cell) -> Iterable[str]:
    """One cell as CSV fields: an estimate gives value, low, high and reason."""
    if isinstance(value, Estimate):
        return ["" if part is None else repr(part) for part in (value.value, value.low, value.high)] + [csv_text(value.reason or "")]
    if isinstance(value, str):
        return [csv_text(value)]
    return ["" if value is None else repr(value)]


def as_csv(table: Table) -> str:
    """The table as CSV with a header line; columns of estimates become four."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    wide = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    head: list[str] = []
    for column, estimates in zip(table.columns, wide, strict=True):
        head += [column.title] + ([f"{column.title}_low", f"{column.title}_high", f"{column.title}_undefined"] if estimates else [])
    writer.writerow([csv_text(title) for title in head])
    for row in table.rows:
        fields: list[str] = []
        for value, estimates in zip(row, wide, strict=True):
            cells = list(csv_cells(value))
            fields += cells + [""] * (4 - len(cells) if estimates else 0)
        writer.writerow(fields)
    return buffer.getvalue()


def tex_text(text: str) -> str:
    """Text with TeX's special characters escaped; control characters dropped."""
    safe = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(TEX_SPECIAL.get(c, c if c.isprintable() else " ") for c in safe)


def as_tex(table: Table) -> str:
    """A booktabs table environment, ready for \\input."""
    align = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = [
        r"\begin{table}",
        rf"\caption{{{tex_text(table.heading)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        " & ".join(tex_text(column.title) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    lines += [
        " & ".join(tex_text(cell(value, column)) for value, column in zip(row, table.columns, strict=True)) + r" \\" for row in table.printed
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])
