"""The panels of the repetition hypothesis: layers, the table in the form of Mixtral's Table 5, and the published one."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.atlas_claims import claim_panels, layer_series
from experiments.report.atlas_sequence import repetition_tables
from experiments.report.blocks import Cell, Column, Section, Table
from experiments.report.content import ReportContent
from experiments.report.topology_columns import View
from hypotheses.h03_repetition import ANY_BOUND, FIRST_BOUND
from hypotheses.repetition_published import LAYERS, TABLE_5, published_kappa

PLANTED = {"positive": "above the first layer a token repeats the whole set of the token before it three times in ten",
           "negative": "every token chooses anew by the loads of its domain: nothing but chance",
           "composition": "documents of few experts each, whose tokens come in no order: repetition that is composition"}


def published_tables() -> list[Table]:
    """Mixtral-8x7B's repetitions as published, and what they are beyond even chance."""
    columns = [Column(f"{form}, layer {layer}", "number", 1) for form in ("1st", "1st or 2nd") for layer in LAYERS]
    rows: list[list[Cell]] = [[name, *first, *both] for name, (first, both) in TABLE_5.items()]
    kappa: list[list[Cell]] = []
    for k, form in ((1, "first choice"), (2, "first or second")):
        found = [published_kappa(k, layer) for layer in range(len(LAYERS))]
        kappa.append([form, *(f"{sum(one) / len(one):.3f} ({min(one):.3f} to {max(one):.3f})".replace("-", "\u2212") for one in found)])
    return [Table("published_repetition", "Published: Mixtral-8x7B, per cent of neighbouring tokens (Jiang et al. 2024, Table 5)",
                  [Column("domain"), *columns], rows, "Even chance: 12.5% and 46.4%."),
            Table("published_kappa", "The same beyond even chance, kappa: mean and range over the domains",
                  [Column("form"), *(Column(f"layer {layer}") for layer in LAYERS)], kappa,
                  "The bounds are what the paper calls close to random: the largest of layer 0.")]


def panels(content: ReportContent) -> Sequence[Section]:
    """All panels of the repetition report."""
    view = View(content)
    series = [layer_series(view, "repetition_first", "First choice", "repetition_first_higher", FIRST_BOUND),
              layer_series(view, "repetition_any", "First or second choice", "repetition_any_higher", ANY_BOUND),
              layer_series(view, "repetition_order", "First choice, beyond composition", "repetition_order_higher", FIRST_BOUND)]
    tables = Section("table-5", "In the form of Mixtral's Table 5", [*repetition_tables(view), *published_tables()])
    return claim_panels(view, PLANTED, series, [tables])
