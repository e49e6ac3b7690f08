"""VAR evaluated: every metric of seed 003 on held-out documents, per MoE layer and averaged over layers, with nulls and tables."""

from __future__ import annotations

import numpy as np

from analysis.estimate import Estimate
from analysis.metrics.fastpath import FastPathEffect, eligible, lookup_tables
from analysis.rows import whole_documents
from hypotheses.claim import Evaluation
from hypotheses.var_evidence import VarCounts, VarEvidence, VarSettings
from hypotheses.var_rank import RankEstimates, RankSample, rank_replicates
from hypotheses.var_shares import Ratio, ratio_estimates

__all__ = ["VarEvidence", "VarSettings", "evaluate"]

Family = dict[str, tuple[Estimate, ...]]


def evaluate(evidence: VarEvidence) -> Evaluation:
    """Every VAR metric, table and fact of a trace; estimates are means over layers, by_layer has one per layer."""
    counts = VarCounts(evidence)
    family: Family = {}
    sample = RankSample.of(counts, counts.judged)
    from analysis.metrics.frequency import spearman

    everything = np.ones(len(counts.judged), bool)
    rho = spearman(counts.frequency_V[counts.judged].astype(float), sample.means())
    replicates = rank_replicates(counts, sample, [everything], counts.settings.n_bootstrap)[0]
    family["freq_entropy_rho"] = RankEstimates(counts, "two-way").make(rho, replicates, len(counts.judged))
    test = counts.test
    tokens = np.broadcast_to(test.tokens_D, test.below_HLD[0].shape)
    family["entropy_share_below"] = ratio_estimates(counts, Ratio(test.below_HLD[0], tokens, "share of occurrences"), empty="no_data")
    chosen = eligible(counts.calibration, counts.settings.frequency_threshold, counts.thresholds_HL[0])
    effect = FastPathEffect(lookup_tables(counts.calibration, chosen), test)
    for batch in whole_documents(evidence.trace.batches(split="test")):
        effect.add(batch, np.array([test.units.of_document[d] for d in batch.document.tolist()]))
    family["fastpath_coverage"] = ratio_estimates(counts, Ratio(effect.sums[:, 0], tokens, "share of occurrences"), empty="no_data")
    return Evaluation({name: e[-1] for name, e in family.items()}, {name: e[:-1] for name, e in family.items()})
