"""What the parts of an atlas' pages share: names of layers, rows of one layer, and what a reader has to know first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.estimate import Estimate
from experiments.report.blocks import Block, Paragraph, Section
from experiments.report.topology_columns import View, estimate_of

UNTESTABLE_SHOWN = 1


def depth_names(view: View) -> list[str]:
    """Block index of every MoE layer; with the stack where there are several."""
    layers = view.content.trace.meta.layers
    several = len({layer.stack for layer in layers}) > 1
    return [f"{layer.stack} {layer.depth}" if several else str(layer.depth) for layer in layers]


def depths(view: View) -> list[int]:
    """Numbers for an axis of layers: block indices, or places where stacks share them."""
    found = [layer.depth for layer in view.content.trace.meta.layers]
    return found if len(set(found)) == len(found) else list(range(len(found)))


def layer_words(view: View, number: int) -> str:
    """A layer by its block index."""
    return f"layer {depth_names(view)[number]}"


def of_layer(view: View, table: str, number: int) -> list[dict[str, Any]]:
    """Rows of a table of one layer."""
    return [row for row in view.rows(table) if row["layer"] == number]


def statistic(view: View, name: str) -> list[Estimate]:
    """A usage statistic of every layer, with its uniform null."""
    return list(view.content.evaluation.by_layer.get(name, ()))


def picked(rows: Sequence[dict[str, Any]], key: str, value: Any) -> dict[str, Any] | None:
    """The first row whose column has a value."""
    return next((row for row in rows if row[key] == value), None)


def cell(row: dict[str, Any] | None, value: str, unit: str = "") -> Estimate:
    """The estimate of a column and its interval columns."""
    return estimate_of(row, value, f"{value}_low", f"{value}_high", unit)


def read_first(view: View) -> Section:
    """Caveats of the trace, and what the numbers are of."""
    said = [str(one) for one in view.facts.get("caveats", ())]
    blocks: list[Block] = [Paragraph(f"{one[0].upper()}{one[1:]}.", "warning") for one in said if one]
    blocks += [Paragraph(f"{one['code']}: {one['words']}. It spoils {', '.join(one['invalidates']).replace('_', ' ')}: no number below that rests on "
                         "these is fit for a claim.", "warning")
               for one in (view.content.audit or {}).get("findings", ()) if one["invalidates"] and not one["accepted"]]
    blocks += [Paragraph(f"{one['code']} ({one['share']:.1%} of {one['unit']}): {one['words']}. {one['consequence'][:1].upper()}"
                         f"{one['consequence'][1:]}.", "warning")
               for one in (view.content.audit or {}).get("findings", ()) if one["severity"] == "warning" and not one["accepted"]]
    counts = {name: n for name, n in view.facts.get("n_documents_per_domain", {}).items() if n}
    if counts:
        shown = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:12]) + (f" and {len(counts) - 12} more" if len(counts) > 12 else "")
        blocks.append(Paragraph(f"Described on {view.facts['n_documents']:,} test documents ({shown}), {view.facts['n_tokens']:,} tokens. Intervals "
                                "resample whole documents, never tokens."))
    blocks.append(Paragraph("Columns marked “seed” hold the number that seeds 001 and 002 would print, by their formulas; ours stand beside them: "
                            "bias-corrected, with an interval over documents, or with the reason why there is none.", "note"))
    return Section("caveats", "Read first", blocks, "caveats")
