"""Topology (seed 000): routing follows a structure of the model that domains share, and a cross-layer predictor captures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypotheses.claim import Criterion, Gate, Hypothesis, Outcome

if TYPE_CHECKING:
    from hypotheses.claim import Evaluation
    from hypotheses.topology_evidence import TopologyEvidence

CLAIMS = 'seed 000, 3 "Main Claims"'
ADJACENT = "first choices, mean over adjacent MoE layers, test documents"
BETWEEN = "mean over adjacent MoE layers and ordered domain pairs, test documents"
AT_HOME = "mean over predicted layers and domains, each predictor tested in the domain it was fitted on, test documents"
DECIDES = "the pair of domains that decides, mean over MoE layers, test documents"
ACROSS = "mean over MoE layers and domain pairs, test documents"
GATE = Gate()
USEFUL_BITS = 0.05
SUPPORTED: tuple[Outcome, ...] = ("supported",)
REFUTED: tuple[Outcome, ...] = ("refuted",)
NOT_SUPPORTED: tuple[Outcome, ...] = ("refuted", "inconclusive")

TOPOLOGY = Hypothesis(
    name="topology",
    title="Routing has a topology that domains share",
    claim="Experts of consecutive layers and of one token go together in a structure that is the model's, not the data's: it is the same in "
          "every domain, a cross-layer predictor captures it, and it carries over to domains that the predictor has not seen.",
    source=CLAIMS,
    criteria=(
        Criterion("topology_not_data.cross_domain_mi", metric="transfer_info", unit="bits", population=BETWEEN,
                  source=f"{CLAIMS} 1; its MI across domains is ill-posed, transferred information takes its place", above=0.5, gate=GATE),
        Criterion("topology_not_data.cluster_invariance", metric="coact_consistency_min", unit="share of the split-half ceiling", population=DECIDES,
                  source=f"{CLAIMS} 1; every pair of domains (intersection-union); margin and level: metrics specification 6",
                  at_least=0.8, level=0.90, gate=GATE),
        Criterion("structured.cross_layer_mi", metric="mi_first_choice", unit="bits", population=ADJACENT, source=f"{CLAIMS} 2",
                  above=1.5, gate=GATE),
        Criterion("structured.cross_layer_excess", metric="mi_excess", unit="bits", population=f"{ADJACENT}, positions from 4 on",
                  source="metrics specification 2.1 A: beyond the composition of documents; less than 0.05 bits is of no use to a predictor; "
                         "3.3: without the first four positions, and of the same outcome inside bands of position",
                  above=USEFUL_BITS, gate=GATE),
        Criterion("structured.coactivation_clusters", metric="coact_clarity", unit="silhouette above its null",
                  population="mean over MoE layers; clusters found on calibration documents, judged on test documents",
                  source=f"{CLAIMS} 2; clear: metrics specification 2.1, 2A, and than documents of unlike loads give", above=0.0, gate=GATE),
        Criterion("captured.predictor_gain", metric="predictor_gain", unit="bits", population=AT_HOME,
                  source=f"{CLAIMS} 3; margin: metrics specification 2.1 C", above=0.1, gate=GATE),
        Criterion("captured.accuracy_gain", metric="accuracy_gain", unit="share of tokens", population=AT_HOME,
                  source="metrics specification 2.1 C: information is blind to labels, accuracy is not", above=0.0, gate=GATE),
        Criterion("generalises.all_pairs_positive", metric="transfer_info_min", unit="bits",
                  population="the ordered domain pair that decides, mean over adjacent MoE layers, test documents",
                  source=f"{CLAIMS} 4; every pair: intersection-union, metrics specification 5.3", above=0.0, gate=GATE),
        Criterion("generalises.cluster_consistency", metric="coact_mantel", unit="correlation", population=ACROSS, source=f"{CLAIMS} 4", above=0.0,
                  gate=GATE),
        Criterion("generalises.mi_vs_retention", metric="mi_vs_retention", unit="r", population="ordered domain pairs",
                  source="seed 000, 5.4; metrics specification 2.1 B", above=0.8, gate=GATE),
    ),
    null="circular shifts inside documents; conditional Bernoulli sets with the same loads; permutations of expert and of domain labels",
    controls=("positive", "independent", "misleading"),
    settings={"topology.n_shifts": 199, "topology.lags": [1, 2, 4, 8, 16], "topology.edge_cut": 0.1, "topology.smoothing": "chosen inside the source",
              "topology.n_clusters": "chosen on calibration documents", "uncertainty.level": 0.95, "source.layers": None},
    seed_rule="seed_000",
    expects={
        "positive": {
            "topology_not_data.cross_domain_mi": SUPPORTED, "topology_not_data.cluster_invariance": SUPPORTED, "structured.cross_layer_mi": SUPPORTED,
            "structured.cross_layer_excess": SUPPORTED, "structured.coactivation_clusters": SUPPORTED, "generalises.all_pairs_positive": SUPPORTED,
            "generalises.cluster_consistency": SUPPORTED},
        "independent": {
            "topology_not_data.cross_domain_mi": REFUTED, "topology_not_data.cluster_invariance": NOT_SUPPORTED, "structured.cross_layer_mi": REFUTED,
            "structured.cross_layer_excess": NOT_SUPPORTED, "structured.coactivation_clusters": NOT_SUPPORTED,
            "generalises.all_pairs_positive": NOT_SUPPORTED, "generalises.cluster_consistency": NOT_SUPPORTED},
        "misleading": {
            "topology_not_data.cross_domain_mi": REFUTED, "topology_not_data.cluster_invariance": NOT_SUPPORTED,
            "generalises.all_pairs_positive": REFUTED, "generalises.cluster_consistency": NOT_SUPPORTED},
    },
)


def evaluate(evidence: TopologyEvidence) -> Evaluation:
    """Every estimate that the criteria, tables and figures need, from a routing trace and the tables of its predictors."""
    from hypotheses import topology_evaluation

    return topology_evaluation.evaluate(evidence, TOPOLOGY.criteria)
