"""Seed 004's own forms of its metrics, shown beside the corrected ones and judged by the seed's own rule; and what slots by weight say.

G group of documents, L MoE layer, E expert, H domain, T token, K slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import divide
from analysis.counts import document_hash
from analysis.kernels import Int
from analysis.metrics.diversity import diversity_nmi_of_pairs
from analysis.metrics.entropy import confidence_seed, gini_simpson_seed
from analysis.metrics.specialization import expert_affinity_seed, mi_E_D, purity_seed
from analysis.paired_draws import Draws, layers_and_mean, left_out
from analysis.resampling import stratified_groups
from hypotheses.spectra_comparison import SEED_ROWS
from hypotheses.spectra_evidence import ArmRun, SpectraEvidence
from hypotheses.spectra_method import DrawsOf
from hypotheses.spectra_rows import layer_rows
from hypotheses.spectra_runs import SPLIT, RunCounts
from hypotheses.topology_parts import Row

WEIGHTED = "mi_E_D_weighted"
FLAGS = {True: "weights renormalised", False: "weights as the model used them"}
CONFIDENCE = f"confidence_seed, {FLAGS[True]}"
FORMS = {  # row of the results table -> the seed's own quantity, a reference's name or that of a metric, and what it is in words
    "expert_affinity_avg": ("expert_affinity_seed", "largest affinity of each expert, in-sample"),
    "purity_cross_fitted": ("purity_seed", "in-sample"),
    "silhouette": ("silhouette value", "as it is, cosine"),
    "diversity_jsd_excess": ("diversity_nmi_seed", "NMI of the indicators of two experts"),
    "confidence": (CONFIDENCE, "sum of squared weights of the chosen experts, renormalised, at least 1/k"),
    "repr_output": ("repr_output", "outputs, as its text says; its code averages inputs"),
    "gram_rms": ("gram_rms", "our form, for the seed gives no number"),
    "collapse_rate": ("collapse_rate", "our form, for the seed defines none"),
}


def weight_forms(counts: RunCounts) -> tuple[dict[str, Draws], list[Row]]:
    """I(E;D) with slots by their weight instead of alike (B.1), and the seed's forms by layer.

    No I(E;D) of weights where they are not recorded, and no confidence for a router without scores, whose weights are fixed.
    """
    group, of_document, domain_G = _domain_groups(counts)
    n_layers, n_experts = len(counts.layers), counts.n_experts
    table, rows, weighted = np.zeros((len(group), n_layers, len(counts.domains), n_experts)), list[Row](), True
    for layer in range(n_layers):
        found = _Layer(n_experts, len(group))
        for some in layer_rows(counts.run, SPLIT, layer, weights=True):
            found.add(some.experts, some.weights, of_document[some.document])
        weighted &= found.weighted
        table[np.arange(len(group)), layer, domain_G] = found.weights_GE
        selected = counts.by_domain(layer)
        values = {"expert_affinity_seed": float(expert_affinity_seed(selected)), "purity_seed": float(purity_seed(selected)),
                  "diversity_nmi_seed": diversity_nmi_of_pairs(found.pairs_EE, found.tokens),
                  **(found.confidences() if counts.run.scored else dict.fromkeys(_Layer(1, 1).confidences(), float("nan")))}
        rows += [{"arm": counts.run.arm, "seed": counts.run.seed, "layer": layer, "reference": name, "value": value} for name, value in
                 values.items()]
    if not weighted:
        return {}, rows
    return {WEIGHTED: left_out("mi_E_D", [table], lambda n: layers_and_mean(mi_E_D(n)), counts.documents, stratum=group, gate=counts.gate)}, rows


def _domain_groups(counts: RunCounts) -> tuple[Int, Int, Int]:
    """Stratum of each jackknife group [G], group of each document by its number, and domain of each group [G]; dealt as those of I(E;D)."""
    place = {name: number for number, name in enumerate(counts.domains)}
    rows = sorted((place[row.domain], document_hash(row.id, counts.settings.salt), row.document)
                  for row in counts.run.trace.documents if row.split == SPLIT)
    names = [counts.domains[number] for number, _, _ in rows]
    group, stratum = stratified_groups(names, counts.documents.max_groups)
    of_document = np.zeros(max((number for _, _, number in rows), default=-1) + 1, np.int64)
    of_document[[number for _, _, number in rows]] = group
    return stratum, of_document, np.array([place[sorted(set(names))[one]] for one in stratum.tolist()], np.int64)


class _Layer:
    """Sums over the tokens of a layer. pairs_EE: tokens whose set holds both; weights_GE: by group of documents."""

    def __init__(self, n_experts: int, n_groups: int) -> None:
        self.pairs_EE, self.tokens = np.zeros((n_experts, n_experts), np.int64), 0
        self.weights_GE, self.weighted = np.zeros((n_groups, n_experts)), True
        self.confidence = dict.fromkeys(FLAGS, 0.0)
        self.gini = dict.fromkeys(FLAGS, 0.0)
        self.known = 0

    def add(self, experts_TK: Int, weights_TK: NDArray[np.float64] | None, group_T: Int) -> None:
        """Take in some rows."""
        n, chosen = len(self.pairs_EE), experts_TK >= 0
        self.tokens += int(chosen.any(axis=1).sum())
        for one in range(experts_TK.shape[1]):
            for other in range(experts_TK.shape[1]):
                both = chosen[:, one] & chosen[:, other]
                self.pairs_EE += np.bincount(experts_TK[both, one] * n + experts_TK[both, other], minlength=n * n).reshape(n, n)
        if weights_TK is None:
            self.weighted = False
            return
        weights = np.where(chosen, weights_TK, 0.0)
        cells = (group_T[:, None] * n + experts_TK)[chosen]
        self.weights_GE += np.bincount(cells, weights[chosen], self.weights_GE.size).reshape(self.weights_GE.shape)
        known = weights[weights.sum(axis=1) > 0]
        self.known += len(known)
        for flag in FLAGS:
            self.confidence[flag] += float(confidence_seed(known, renormalise=flag).sum())
            self.gini[flag] += float(gini_simpson_seed(known, renormalise=flag).sum())

    def confidences(self) -> dict[str, float]:
        """Means over tokens by name, with the flag (B.5); NaN without weights."""
        n = self.known if self.weighted else 0
        return {f"{name}, {words}": float(divide(np.asarray(sums[flag]), np.asarray(n)))
                for name, sums in (("confidence_seed", self.confidence), ("gini_simpson_seed", self.gini)) for flag, words in FLAGS.items()}


def seed_rule(evidence: SpectraEvidence, draws: Mapping[tuple[str, int], DrawsOf], references: Sequence[Row]) -> dict[str, Any]:
    """What the seed's own rule is fed: its forms of its rows, plug-in, mean over layers and trainings, and p of its t test (D.4).

    The test is unpaired, as the seed's, over one value per training in the place of bootstrap replicates. None where undefined.
    """
    by: dict[tuple[str, int, str], list[float]] = {}
    for row in references:
        by.setdefault((row["arm"], row["seed"], row["reference"]), []).append(row["value"])
    rows = []
    for of in SEED_ROWS:
        name, form = FORMS[of.metric]
        arms = [[_value(run, name, draws, by) for run in evidence.arms.get(arm, ())] for arm in (evidence.baseline, evidence.treatment)]
        means = [float(np.mean(of_arm)) if of_arm and np.isfinite(of_arm).all() else None for of_arm in arms]
        rows.append({"label": of.label, "form": form, "baseline": means[0], "treatment": means[1], "better": of.better,
                     "expected": list(of.expected), "p": None if None in means else _p(*arms)})
    return {"rows": rows}


def _value(run: ArmRun, name: str, draws: Mapping[tuple[str, int], DrawsOf], by: Mapping[tuple[str, int, str], Sequence[float]]) -> float:
    given = by.get((run.arm, run.seed, name))
    if given is not None:
        return float(np.mean(given))
    found = draws.get((run.arm, run.seed), {}).get(name)
    return float("nan") if found is None else float(found.plug_in[-1])


def _p(a: Sequence[float], b: Sequence[float]) -> float | None:
    from scipy.stats import ttest_ind

    if min(len(a), len(b)) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return None
    return float(ttest_ind(a, b).pvalue)
