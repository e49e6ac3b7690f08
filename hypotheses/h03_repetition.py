"""Repetition (Mixtral, Table 5): at the higher layers neighbouring tokens repeat their expert more often than chance, at the first one hardly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypotheses.claim import Criterion, Gate, Hypothesis, Outcome

if TYPE_CHECKING:
    from hypotheses.atlas_evidence import AtlasEvidence
    from hypotheses.claim import Evaluation

PAPER = "Jiang et al. 2024 (Mixtral of Experts, arXiv 2401.04088), section 5, Table 5"
SCALE = "what the paper calls close to random at its first layer reaches {} (kappa of its largest cell)"
FIRST_BOUND, ANY_BOUND = 0.03, 0.07  # 14.9 % against 12.5 %: 0.027; 49.9 % against 46.4 %: 0.065 (hypotheses.repetition_published)
HIGHER = "neighbouring tokens of a document, mean over the MoE layers above the first and over domains, test documents"
LOWEST = "neighbouring tokens of a document, first MoE layer, mean over domains, test documents"
GATE = Gate()
SUPPORTED: tuple[Outcome, ...] = ("supported",)
REFUTED: tuple[Outcome, ...] = ("refuted",)

REPETITION = Hypothesis(
    name="repetition",
    title="Neighbouring tokens repeat their experts",
    claim="A token is sent to an expert of the token before it more often than chance at the higher MoE layers, by its first choice and by its first "
          "or second, and at the first MoE layer hardly more often: expert choice has temporal locality.",
    source=PAPER,
    criteria=(
        Criterion("higher_layers.first_choice", metric="repetition_first_higher", unit="kappa", population=HIGHER,
                  source=f"{PAPER}; {SCALE.format(0.027)}", above=FIRST_BOUND, gate=GATE),
        Criterion("higher_layers.first_or_second", metric="repetition_any_higher", unit="kappa", population=HIGHER,
                  source=f"{PAPER}; {SCALE.format(0.065)}", above=ANY_BOUND, gate=GATE),
        Criterion("higher_layers.order", metric="repetition_order_higher", unit="kappa", population=HIGHER,
                  source="metrics specification 2.1, 2D: beyond the composition of documents, by shuffling their tokens", above=FIRST_BOUND,
                  gate=GATE),
        Criterion("first_layer.close_to_chance", metric="repetition_first_lowest", unit="kappa", population=LOWEST,
                  source=f"{PAPER}; {SCALE.format(0.027)}", at_most=FIRST_BOUND, gate=GATE),
    ),
    null="independent tokens with the same loads, within each domain; all orders of a document's tokens",
    controls=("positive", "negative", "composition"),
    settings={"uncertainty.level": 0.95, "source.layers": None},
    expects={
        "positive": {"higher_layers.first_choice": SUPPORTED, "higher_layers.first_or_second": SUPPORTED, "higher_layers.order": SUPPORTED,
                     "first_layer.close_to_chance": SUPPORTED},
        "negative": {"higher_layers.first_choice": REFUTED, "higher_layers.first_or_second": REFUTED, "higher_layers.order": REFUTED},
        "composition": {"higher_layers.order": REFUTED},
    },
)


def evaluate(evidence: AtlasEvidence) -> Evaluation:
    """Repetition of every layer and domain, its chance levels, and the means that the criteria ask for."""
    from hypotheses import repetition_evaluation

    return repetition_evaluation.evaluate(evidence)
