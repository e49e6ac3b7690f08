"""The seed's table of results (seed 004, F): each metric of both arms, the change at both levels, p over training seeds, Holm over the table.

S training seed. A change is a difference in the metric's unit with its interval; a percentage of a number near 0 says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.estimate import Estimate
from analysis.multiplicity import Family
from hypotheses.spectra_evidence import ArmRun, SpectraEvidence
from hypotheses.spectra_method import DrawsOf, Pair, checkpoint_change, mean_over_seeds, method_changes, p_of_t, values_of
from hypotheses.spectra_runs import ROUTING_GRAM
from hypotheses.topology_parts import Row, cells, status

REFUSED = "refused: not a metric; no rule that would make one of these rows was declared beforehand"


@dataclass(frozen=True)
class TableRow:
    """One row of the seed's table. expected: the seed's guesses for Switch and SPECTRA, shown and never used as thresholds."""

    metric: str
    label: str
    better: str
    expected: tuple[str, str] = ("", "")


SEED_ROWS = (
    TableRow("expert_affinity_avg", "Expert Affinity (avg)", "higher"),
    TableRow("purity_cross_fitted", "Domain Purity (avg)", "higher", ("0.3-0.4", "0.6-0.8")),
    TableRow("silhouette", "Silhouette Score", "higher", ("0.2-0.3", "0.5-0.7")),
    TableRow("diversity_jsd_excess", "Expert Diversity (NMI)", "higher", ("0.3-0.4", "0.7-0.9")),
    TableRow("confidence", "Routing Confidence", "higher", ("0.6-0.7", "0.7-0.8")),
    TableRow("repr_output", "Repr. Distance (avg)", "higher", ("0.3-0.4", "0.7-0.9")),
    TableRow("gram_rms", "Gram Orthogonality", "lower"),
    TableRow("collapse_rate", "Expert Collapse Rate", "lower", ("", "0")),
)
OUR_ROWS = (
    TableRow("mi_E_D", "I(domain; expert), headline", "higher"),
    TableRow("mi_E_D_weighted", "I(domain; expert), slots by weight", ""),
    TableRow("mi_E_V_excess", "I(token type; expert) beyond documents", ""),
    TableRow(ROUTING_GRAM, "Gram of routing directions", ""),
    TableRow("repr_output_centred", "Repr. distance, mean removed", "higher"),
    TableRow("purity_token_weighted", "Domain purity, token-weighted, in-sample", ""),
    TableRow("purity_seed", "Domain purity, in-sample: the seed's form", ""),
    TableRow("lambda", "Goodman-Kruskal lambda, in-sample", ""),
    TableRow("usage_entropy_bits", "Entropy of loads", ""),
    TableRow("least_load", "Least load", "higher"),
    TableRow("held_out_loss", "Held-out loss", "lower"),
)
FAMILY = Family("seed 004, F: rows of the results table", "fwer", tuple(row.metric for row in SEED_ROWS))
ARM = ("", "_low", "_high", "_reason")
COLUMNS = ("metric", "label", "better", "unit", *(f"baseline{end}" for end in ARM), *(f"treatment{end}" for end in ARM), "value", "low", "high",
           "status", "reason", "n_seeds", "p_t", "p_signflip", "p_holm", "checkpoint", "checkpoint_low", "checkpoint_high", "checkpoint_reason",
           "optimised_by_baseline", "optimised_by_treatment", "constrained_by_baseline", "constrained_by_treatment", "expected_baseline",
           "expected_treatment")


def comparison_rows(evidence: SpectraEvidence, pairs: Sequence[Pair], gate: str | None) -> list[Row]:
    """A row per metric of the seed's table, then of ours."""
    changes = {row.metric: method_changes(pairs, row.metric, gate=gate, level=evidence.settings.level)[-1] for row in (*SEED_ROWS, *OUR_ROWS)}
    p = {name: None if one.value is None or one.gate else p_of_t(pairs, name) for name, one in changes.items()}
    adjusted = FAMILY.adjust({name: p[name] for name in FAMILY.members}).p
    return [_row(evidence, pairs, row, changes[row.metric], (p[row.metric], adjusted.get(row.metric)), gate) for row in (*SEED_ROWS, *OUR_ROWS)]


def _row(evidence: SpectraEvidence, pairs: Sequence[Pair], row: TableRow, change: Estimate, p: tuple[float | None, float | None],
         gate: str | None) -> Row:
    level = evidence.settings.level
    undefined = Estimate.undefined("no training seed that both arms have")
    first = checkpoint_change(pairs[0], row.metric, gate=gate, level=level)[-1] if pairs else undefined
    arms = [_over_seeds([pair.baseline for pair in pairs], row.metric, level), _over_seeds([pair.treatment for pair in pairs], row.metric, level)]
    names = {"baseline": evidence.baseline, "treatment": evidence.treatment}
    out: dict[str, Any] = {"metric": row.metric, "label": row.label, "better": row.better, "unit": change.unit or arms[0].unit}
    for name, one in zip(("baseline", "treatment"), arms, strict=True):
        out |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_reason": one.reason or ""}
        runs = evidence.arms.get(names[name], ())
        out |= {f"optimised_by_{name}": int(any(is_among(row.metric, run.optimised) for run in runs)),
                f"constrained_by_{name}": int(any(is_among(row.metric, run.constrained) for run in runs))}
    out |= {"value": change.value, "low": change.low, "high": change.high, "status": status(change), "reason": change.reason or change.gate or "",
            "n_seeds": len(pairs), "p_t": p[0], "p_signflip": change.p, "p_holm": p[1], "checkpoint": first.value, "checkpoint_low": first.low,
            "checkpoint_high": first.high, "checkpoint_reason": first.reason or first.gate or "", "expected_baseline": row.expected[0],
            "expected_treatment": row.expected[1]}
    return {name: out[name] for name in COLUMNS}


def is_among(metric: str, marked: frozenset[str]) -> bool:
    """Whether a metric is among those that are marked; statistics of loads are named with or without `usage_`."""
    return metric in marked or metric.removeprefix("usage_").removesuffix("_bits") in {one.removesuffix("_bits") for one in marked}


def _over_seeds(runs: Sequence[DrawsOf], name: str, level: float) -> Estimate:
    unit = next((run[name].unit for run in runs if name in run), "")
    return mean_over_seeds([(values_of(run, name) or [None])[-1] for run in runs], unit=unit, level=level)


def pair_rows(pairs: Sequence[Pair], gate: str | None, level: float) -> list[Row]:
    """Level 1: the change of every metric between the two checkpoints of every seed, over documents, mean over layers."""
    rows: list[Row] = []
    for pair in pairs:
        for row in (*SEED_ROWS, *OUR_ROWS):
            rows.append({"metric": row.metric, "seed": pair.seed, **cells(checkpoint_change(pair, row.metric, gate=gate, level=level)[-1])})
    return rows


def run_rows(run: ArmRun, draws: DrawsOf, level: float) -> list[Row]:
    """Every metric of one run, per layer and their mean (layer -1), with interval and null; and how its training bears on it."""
    rows: list[Row] = []
    for name, one in draws.items():
        found = one.estimates(level)
        for place, estimate in enumerate(found):
            rows.append({"arm": run.arm, "seed": run.seed, "layer": -1 if place == len(found) - 1 else place, "metric": name, **cells(estimate),
                         "optimised": int(is_among(name, run.optimised)), "constrained": int(is_among(name, run.constrained))})
    return rows
