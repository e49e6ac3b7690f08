"""Token strings, widths, and table cells as text, CSV, TeX and Markdown."""

from __future__ import annotations

import csv
import io

import pytest

from analysis.estimate import Estimate
from analysis.figures.words import p_value
from experiments.report.blocks import Column, Table
from experiments.report.display import cell, columns_of, pad, token
from experiments.report.markdown import plain
from experiments.report.table_files import as_csv, as_tex
from experiments.report.var_validation import aligned

MEASURED = Estimate(-0.182, -0.253, -0.111, "rho", "document x type", 672, "two-way")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the", "'the'"),
        (" the", "' the'"),
        ("\n", "'\\n'"),
        ("\x00", "'\\x00'"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ("\\", "'\\\\'"),
        ("\u4e2d", "'\u4e2d'"),
        ("\u202eabc", "'\\u202eabc'"),
        ("\u05d0", "'\\u05d0'"),
        ("e\u0301", "'e\\u0301'"),
        ("\ud83d", "'\\ud83d'"),
        ("\ufffd", "'\ufffd'"),
        ("x" * 10_000, "'" + "x" * 21 + "\u2026'"),
        ("\u4e2d" * 50, "'" + "\u4e2d" * 10 + "\u2026'"),
    ],
)
def test_tokens_are_escaped_and_cut(text, shown):
    assert token(text) == shown
    assert columns_of(token(text)) <= 24
    token(text).encode("utf-8")


def test_plain_tables_line_up_by_terminal_width():
    lines = aligned(["token", "n"], [[token("\u4e2d\u6587"), "1"], [token("a"), "20"]], [False, True])
    assert len({columns_of(line) for line in lines}) == 1
    assert pad("\u4e2d", 4) == "\u4e2d  "


@pytest.mark.parametrize(
    ("value", "column", "shown"),
    [
        (MEASURED, Column("", "estimate"), "\u22120.182 [\u22120.253, \u22120.111]"),
        (Estimate.undefined("k=1"), Column("", "estimate"), "undefined: k=1"),
        (0.123, Column("", "number", 1, True), "12.3%"),
        (12_345, Column("", "number"), "12,345"),
        (None, Column(""), "\u2014"),
        (True, Column(""), "yes"),
    ],
)
def test_cells(value, column, shown):
    assert cell(value, column) == shown


def test_p_never_reads_zero():
    assert p_value(0.0) == "p < 1e\u2212300"
    assert p_value(1.23e-145) == "p = 1.2e\u2212145"


def table(*rows):
    return Table("t", "A & B_c", [Column("name"), Column("value", "estimate")], rows)


def test_csv_has_full_numbers_and_a_reason():
    rows = list(csv.DictReader(io.StringIO(as_csv(table(["=1+1", MEASURED], ["b", Estimate.undefined("too few types")])))))
    assert rows[0] == {"name": "'=1+1", "value": "-0.182", "value_low": "-0.253", "value_high": "-0.111", "value_undefined": ""}
    assert rows[1]["value"] == "" and rows[1]["value_undefined"] == "too few types"


def test_tex_is_escaped():
    text = as_tex(table(["50% of $x_1$ \\input{/etc/passwd}", MEASURED]))
    assert r"50\% of \$x\_1\$ \textbackslash{}input\{/etc/passwd\}" in text
    assert r"A \& B\_c" in text
    assert r"$-$0.182" in text


def test_markdown_is_escaped():
    assert plain("a|b *c* <b>\n[x](y)") == r"a\|b \*c\* &lt;b&gt; \[x\](y)"
