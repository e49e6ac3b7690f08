"""Claim 2 along a document: transitions from token to token, agreement at a lag, the strongest transitions as a chain.

E expert, M lag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.topology_temporal import Chain, lag_agreement, markov_chain, transition_map
from experiments.report.blocks import Block, Column, Paragraph, Picture, Table
from experiments.report.topology_columns import Drawn, View, bare, estimate_of, in_full, mean_over, not_drawn, number_column, reason_column

SINGLE_LAYERS = 6  # layers that get a line of their own
COMPACT_ROWS = 60


def _reason(view: View) -> str | None:
    return view.estimate("lag_kappa").reason


def _order(view: View) -> list[int] | None:
    rows = [row for row in view.rows("clusters") if row["layer"] == view.shown and row["leaf_order"] >= 0]
    return [row["expert"] for row in sorted(rows, key=lambda row: row["leaf_order"])] or None


def transition_picture(view: View) -> Drawn:
    """Transition matrix of the layer shown."""
    p = view.square("transition_matrix", "p", view.shown)
    if not np.isfinite(p).any():
        return not_drawn("The transition matrix", _reason(view))
    return Picture("transition_matrix", transition_map(p, order=_order(view)),
                   f"Expert of the next token given that of this token, {view.shown_words}.", "Heat map of transition probabilities.")


def lag_picture(view: View) -> Drawn:
    """Agreement and information at each lag, mean over layers, with single layers where they are few."""
    rows = view.rows("autocorrelation")
    if not any(row["kappa"] is not None for row in rows):
        return not_drawn("Agreement at a lag", _reason(view))
    lags = sorted({row["lag"] for row in rows})

    def line(value: str, low: str, high: str, layer: int | None = None) -> list[Estimate | None]:
        return [mean_over([estimate_of(row, value, low, high) for row in rows if row["lag"] == lag and layer in (None, row["layer"])]) for lag
            in lags]

    layers = [(f"layer {layer}", line("kappa", "low", "high", layer)) for layer in range(view.n_layers)] if 1 < view.n_layers <= SINGLE_LAYERS else []
    layers.append(("tokens shuffled", [_shuffled(rows, lag) for lag in lags]))
    shown = lag_agreement(lags, line("kappa", "low", "high"), line("mi", "mi_low", "mi_high"), layers)
    return Picture("autocorrelation", shown, "Agreement with the expert some tokens back, mean over layers; half-widths of the mean are upper "
                                             "bounds.",
                   "Lines against the lag.")


def _shuffled(rows: Sequence[Mapping[str, Any]], lag: int) -> Estimate:
    known = [row["shuffled_kappa"] for row in rows if row["lag"] == lag and row["shuffled_kappa"] is not None]
    return bare(float(np.mean(known)) if known else None)


def chain_picture(view: View) -> Drawn:
    """The strongest transitions of the layer shown."""
    p, n = view.square("transition_matrix", "p", view.shown, 0.0), view.square("transition_matrix", "n", view.shown, 0.0)
    loads = n.sum(axis=1)
    if not loads.sum():
        return not_drawn("The chain of transitions", _reason(view))
    return Picture("routing_chains", markov_chain(Chain(np.nan_to_num(p), loads / loads.sum(), layer=str(view.shown))),
                   f"The strongest transitions between different experts, {view.shown_words}.", "Experts on a ring with arrows.")


def lag_table(view: View, whole: str = "temporal/autocorrelation.csv") -> Table:
    """Every layer and lag, with the null of shuffled documents and the seed's correlation of ids."""
    rows = view.rows("autocorrelation")
    shown = [[row["layer"], row["lag"], estimate_of(row, "kappa"), row["shuffled_kappa"], estimate_of(row, "mi", "mi_low", "mi_high"),
              row["shuffled_mi"], row["pearson_ids_seed"], row["n_pairs"], row["reason"] or ""] for row in rows]
    words = f" ({COMPACT_ROWS} of {len(shown)} rows; all in {whole})" if len(shown) > COMPACT_ROWS else ""
    return Table("autocorrelation_layers", f"Agreement and information along a document, by layer and lag{words}",
                 [Column("layer", "number"), Column("lag", "number"), number_column("kappa [95% interval]"),
                  Column("shuffled", "number"), number_column("MI, bits [95% interval]"), Column("shuffled", "number"),
                  Column("seed: r of ids", "number"), Column("token pairs", "number"), reason_column()], shown[:COMPACT_ROWS],
                 in_full(shown, "Shuffled: the mean over shuffles of the tokens of each document. The seed's correlation of expert "
                         "ids changes with the numbering of the experts, which means nothing."))


def blocks(view: View) -> list[Block]:
    """Everything along a document, in order."""
    return [Paragraph("Along a document: does a token's expert tell of the next token's? What remains under shuffling is the composition of "
                      "documents."),
            transition_picture(view), lag_picture(view), lag_table(view), chain_picture(view)]
