"""VAR: frequent tokens route with low entropy, so that a lookup table can route them (seed 003)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypotheses.claim import Criterion, Gate, Hypothesis
from hypotheses.seed_rules import SEED_003_COVERAGE, SEED_003_RHO, SEED_003_SHARE

if TYPE_CHECKING:
    from hypotheses.claim import Evaluation
    from hypotheses.var_evaluation import VarEvidence

SOURCE = 'seed 003, "Success Criteria"'
POPULATION = "mean over all MoE layers, test documents"

VAR = Hypothesis(
    name="var",
    title="Frequent tokens route with low entropy",
    claim="Frequent tokens are routed with low entropy, often enough and steadily enough that a lookup table can route most occurrences.",
    source=SOURCE,
    criteria=(
        Criterion("rank_correlation", metric="freq_entropy_rho", unit="rho", population=f"{POPULATION}; types with 50 occurrences or more",
                  source=SOURCE, below=-0.4, gate=Gate(min_types=200)),
        Criterion("low_entropy_share", metric="entropy_share_below", unit="share of occurrences", population=POPULATION,
                  source=SOURCE, at_least=0.30),
        Criterion("fastpath_coverage", metric="fastpath_coverage", unit="share of occurrences",
                  population=f"{POPULATION}; eligibility decided on calibration documents", source=SOURCE, above=0.40),
    ),
    null="matched sampling: entropies permuted over types inside document and position band",
    controls=("positive", "negative"),
    bands={"rank_correlation": SEED_003_RHO, "low_entropy_share": SEED_003_SHARE, "fastpath_coverage": SEED_003_COVERAGE},
    settings={"analysis.frequency_threshold": 50, "analysis.entropy_threshold": "0.5 nats at 8 experts", "analysis.min_type_count": 50,
              "uncertainty.n_bootstrap": 999, "uncertainty.level": 0.95, "source.layers": None},
    seed_rule="seed_003",
)


def evaluate(evidence: VarEvidence) -> Evaluation:
    """Every estimate that the criteria, tables and figures need, from a routing trace and the frequencies of token types."""
    from hypotheses import var_evaluation

    return var_evaluation.evaluate(evidence)
