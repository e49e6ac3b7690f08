"""VAR on a table of token types (seed 003's `routing_stats`): the same criteria, and no interval, for a table has no documents to resample.

m token type, L layer of the table. Entropies in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate
from analysis.kernels import Float, Int
from analysis.metrics.frequency import spearman, spearman_p
from hypotheses.claim import Evaluation
from hypotheses.var_facts import seed_numbers

CUTS = (1, 10, 20, 50, 100, 200)
METHOD = "point value of a table of types"
NO_OCCURRENCES = "a table of types has mean entropies, not those of single occurrences"
SAME_TOKENS = "eligibility was decided on the tokens that are counted, which flatters coverage"


@dataclass(frozen=True)
class TypeRows:
    """Types of one layer, all [m]. frequency: occurrences; corpus_frequency: occurrences elsewhere, or None; mean_entropy: NaN where missing;

    consistency: modal share, or None; eligible: decided for the fast path on other tokens, or None; n_experts: of the layer, or None.
    """

    layer: int
    token_id: Int
    frequency: Int
    mean_entropy: Float
    corpus_frequency: Int | None = None
    consistency: Float | None = None
    eligible: NDArray[np.bool_] | None = None
    n_experts: int | None = None


@dataclass(frozen=True)
class TablePlan:
    """limit_nats: the entropy below which a type is low; the counts are seed 003's."""

    limit_nats: float
    frequency_threshold: int = 50
    min_type_count: int = 50
    top_types: int = 1000


def evaluate(layers: Sequence[TypeRows], plan: TablePlan) -> Evaluation:
    """Estimates of the VAR criteria, their values by layer, rho by cut-off, and the seed's own numbers; nothing of it has an interval."""
    families = {"freq_entropy_rho": tuple(rho(one, plan.min_type_count) for one in layers),
                "fastpath_coverage": tuple(_coverage(one, plan) for one in layers),
                "entropy_type_share_below": tuple(_share(one, plan) for one in layers)}
    estimates = {name: _mean(family) for name, family in families.items()}
    estimates["entropy_share_below"] = Estimate.undefined(NO_OCCURRENCES, unit="share of occurrences")
    numbers = [_seed(one, plan) for one in layers]
    missing = [~np.isfinite(one.mean_entropy) for one in layers]
    facts = {"n_documents": 0, "n_documents_per_domain": {}, "n_tokens": int(layers[0].frequency.sum()), "n_types": len(layers[0].token_id),
             "n_types_judged": min(estimate.n or 0 for estimate in families["freq_entropy_rho"]), "min_type_count": plan.min_type_count,
             "frequency_threshold": plan.frequency_threshold, "entropy_limit_nats": plan.limit_nats,
             "types_without_entropy": int(max(one.sum() for one in missing)),
             "tokens_without_entropy": int(max(one.frequency[lost].sum() for one, lost in zip(layers, missing))),
             "seed_rule": {**numbers[0], "layer": layers[0].layer, "by_layer": numbers}}
    return Evaluation(estimates, families, {"rho_sensitivity": sensitivity(layers)}, facts)


def rho(one: TypeRows, min_count: int) -> Estimate:
    """Spearman's rho of frequency and mean entropy over types with min_count occurrences or more; corpus frequency where the table has it."""
    chosen = (one.frequency >= min_count) & np.isfinite(one.mean_entropy)
    x = one.frequency if one.corpus_frequency is None else one.corpus_frequency
    m = int(chosen.sum())
    value = float(spearman(x[chosen].astype(np.float64), one.mean_entropy[chosen])) if m > 2 else float("nan")
    if not np.isfinite(value):
        reason = f"{m} types with {min_count} occurrences or more" if m < 3 else "frequency or entropy is the same for all types"
        return Estimate.undefined(reason, unit="rho", n=m, n_of="types")
    return Estimate(value, None, None, "rho", "nothing", 0, METHOD, plug_in=value, n=m, n_of="types", p=spearman_p(value, m))


def sensitivity(layers: Sequence[TypeRows], cuts: Sequence[int] = CUTS) -> Mapping[str, list[Any]]:
    """rho, its p and the number of types by layer and smallest count."""
    rows = [(one.layer, cut, rho(one, cut)) for one in layers for cut in cuts]
    return {"layer": [layer for layer, _, _ in rows], "min_count": [cut for _, cut, _ in rows], "rho": [e.value for *_, e in rows],
            "p": [e.p for *_, e in rows], "n_types": [e.n for *_, e in rows], "reason": [e.reason for *_, e in rows]}


def _coverage(one: TypeRows, plan: TablePlan) -> Estimate:
    low = np.less(one.mean_entropy, plan.limit_nats, where=np.isfinite(one.mean_entropy), out=np.zeros(len(one.token_id), bool))
    eligible = low & (one.frequency >= plan.frequency_threshold) if one.eligible is None else one.eligible
    value = float(one.frequency[eligible].sum() / one.frequency.sum())
    return Estimate(value, None, None, "share of occurrences", "nothing", 0, METHOD, plug_in=value, n=int(eligible.sum()), n_of="eligible types",
                    gate=SAME_TOKENS if one.eligible is None else None)


def _share(one: TypeRows, plan: TablePlan) -> Estimate:
    known = one.mean_entropy[np.isfinite(one.mean_entropy)]
    if not len(known):
        return Estimate.undefined("no type has a mean entropy", unit="share of types")
    value = float((known < plan.limit_nats).mean())
    return Estimate(value, None, None, "share of types", "nothing", 0, METHOD, plug_in=value, n=len(known), n_of="types")


def _mean(family: Sequence[Estimate]) -> Estimate:
    """Mean over layers; undefined where a layer is."""
    undefined = next((one for one in family if one.value is None), None)
    if undefined is not None or len(family) == 1:
        return undefined or family[0]
    value = float(np.mean([one.value for one in family if one.value is not None]))
    first = family[0]
    return Estimate(value, None, None, first.unit, "nothing", 0, f"{METHOD}, mean over {len(family)} layers", plug_in=value,
                    n=min(one.n or 0 for one in family), n_of=first.n_of, gate=first.gate)


def _seed(one: TypeRows, plan: TablePlan) -> dict[str, Any]:
    known = np.isfinite(one.mean_entropy)
    modal = np.full(len(known), np.nan) if one.consistency is None else one.consistency
    return seed_numbers(one.token_id[known], one.frequency[known], one.mean_entropy[known], modal[known], limit_nats=plan.limit_nats,
                        frequency_threshold=plan.frequency_threshold, top_types=plan.top_types)
