"""VAR evaluated: every metric of seed 003 on held-out documents, per MoE layer and averaged over layers, with nulls and tables."""

from __future__ import annotations

from hypotheses.claim import Evaluation
from hypotheses.var_evidence import VarCounts, VarEvidence, VarSettings
from hypotheses.var_facts import facts
from hypotheses.var_families import SecondPass, band_ranks, consistency, occurrences, ranks, zipf_family
from hypotheses.var_fastpath import FastPath
from hypotheses.var_tables import Measured, tables

__all__ = ["VarEvidence", "VarSettings", "evaluate"]


def evaluate(evidence: VarEvidence) -> Evaluation:
    """Every VAR metric, table and fact of a trace; estimates are means over layers, by_layer has one per layer.

    The test split is read for its verdict, the calibration split for the fast path's table; frequencies are the evidence's own.
    Raises TraceError where rows cannot be counted. What cannot be estimated is an Estimate with its reason.
    """
    counts = VarCounts(evidence)
    fast_path = FastPath.of(counts)
    second = SecondPass.of(counts, fast_path)
    rank_family = ranks(counts)
    consistent, measured_consistency = consistency(counts, second)
    families = rank_family.estimates | band_ranks(counts) | occurrences(counts) | fast_path.families(counts, second.effect) | consistent
    measured = Measured(counts, fast_path, rank_family, measured_consistency, families)
    return Evaluation(
        estimates={name: family[-1] for name, family in families.items()} | zipf_family(counts),
        by_layer={name: family[:-1] for name, family in families.items()},
        tables=tables(measured),
        facts=facts(measured),
    )
