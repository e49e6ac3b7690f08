"""Domain specialisation (OLMoE): experts serve domains, and more so than those of Mixtral-8x7B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypotheses.claim import Criterion, Gate, Hypothesis, Outcome

if TYPE_CHECKING:
    from hypotheses.atlas_evidence import AtlasEvidence
    from hypotheses.claim import Evaluation

PAPER = "Muennighoff et al. 2024 (OLMoE, arXiv 2409.02060), domain specialisation: OLMoE strong, Mixtral-8x7B weak"
MIXTRAL = 0.0039  # largest I(E;D) / log2 D of layers 0, 7 and 15 in the counts that the authors published (five domains, all choices)
POPULATION = "selections, domains of equal weight, mean over MoE layers, test documents"
GATE = Gate()
SUPPORTED: tuple[Outcome, ...] = ("supported",)
NOT_SUPPORTED: tuple[Outcome, ...] = ("refuted", "inconclusive")

DOMAIN_SPECIALISATION = Hypothesis(
    name="domain_specialisation",
    title="Experts specialise by domain, more than Mixtral's",
    claim="Which experts a token is sent to depends on the domain of its document, beyond what documents of one domain differ by, and "
          "by more than in Mixtral-8x7B.",
    source=PAPER,
    criteria=(
        Criterion("more_than_mixtral.information", metric="mi_E_D_share", unit="share of log2 D", population=POPULATION,
                  source=f"{PAPER}; bound: Mixtral's largest layer, by the same formula from the counts in allenai/OLMoE", above=MIXTRAL, gate=GATE),
        Criterion("beyond_documents.clustered_test", metric="association_p", unit="probability", population=POPULATION,
                  source="metrics specification 5.2: documents are permuted, not tokens; without significance the criterion stays open", below=0.05,
                  gate=GATE),
    ),
    null="permutations of the documents' domain labels; Rao-Scott where documents of one domain spread more than twice as much as another's",
    controls=("positive", "negative"),
    settings={"atlas.n_permutations": 9_999, "uncertainty.level": 0.95, "source.layers": None},
    expects={
        "positive": {"more_than_mixtral.information": SUPPORTED, "beyond_documents.clustered_test": SUPPORTED},
        "negative": {"more_than_mixtral.information": NOT_SUPPORTED, "beyond_documents.clustered_test": NOT_SUPPORTED},
    },
)


def evaluate(evidence: AtlasEvidence) -> Evaluation:
    """Information of expert and domain by layer and over layers, and the test of association over all layers."""
    from hypotheses import atlas_association

    return atlas_association.evaluate(evidence)
