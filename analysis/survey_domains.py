"""What the experts of each layer have to do with the domains, as rows: information, association, specialisation, purity.

L MoE layer, E expert, D domain, N document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from analysis.domain_labels import DomainDocuments, domain_estimates
from analysis.estimate import Estimate
from analysis.gates import NO_DATA, active
from analysis.loads import Loads
from analysis.metrics.association import AssociationTest, association_strength, association_tests
from analysis.metrics.specialists import purity_estimates
from analysis.registry import find
from analysis.resampling import generator
from analysis.survey_row import Row, SurveyPlan
from analysis.trace import RoutingTrace

SCALARS = ("mi_E_D", "mi_E_D_share", "mi_E_D_pooled", "avg_variance_seed", "avg_variance")
N_PERMUTATIONS, N_REPLICATES = 999, 999


def domain_rows(_: RoutingTrace, loads: Loads, plan: SurveyPlan) -> Iterator[Row]:
    """Every domain metric per layer; with one domain, one row per layer that says so."""
    documents = DomainDocuments(loads.selected, loads.domain, len(loads.domains))
    if len(loads.domains) < 2:
        reason = f"{NO_DATA}: one domain ({loads.domains[0]}); what is specific to a domain needs two"
        for number in range(len(loads.layers)):
            yield _row("mi_E_D", number, loads, plan, Estimate.undefined(reason, unit="bits", n_units=int(loads.n_documents.sum())))
        return
    tests = association_tests(documents, generator(plan.seed, "association"), n_draws=N_PERMUTATIONS)
    for number, test in enumerate(tests):
        yield from _layer_rows(number, documents.at(number), test, loads, plan)


def _layer_rows(number: int, one: DomainDocuments, test: AssociationTest, loads: Loads, plan: SurveyPlan) -> Iterator[Row]:
    key, n_experts = loads.layers[number].key, loads.layers[number].n_experts
    for name in SCALARS:
        yield _row(name, number, loads, plan, _with_p(domain_estimates(name, one, level=plan.level).item(), test if name == "mi_E_D" else None))
    for name in ("V", "V_bergsma"):
        yield _row(name, number, loads, plan, association_strength(one, bergsma=name == "V_bergsma", level=plan.level))
    for name, found in purity_estimates(one, generator(plan.seed, "purity", key), n_replicates=N_REPLICATES, level=plan.level).items():
        if found.ndim == 0:
            yield _row(name, number, loads, plan, found.item())
    for name, parts in (("specialisation_e", [f"expert {e}" for e in range(n_experts)]), ("domain_entropy", list(loads.domains))):
        for part, estimate in zip(parts, domain_estimates(name, one, level=plan.level)):
            yield _row(name, number, loads, plan, estimate, part)


def _with_p(estimate: Estimate, test: AssociationTest | None) -> Estimate:
    if test is None or estimate.value is None:
        return estimate
    p = test.rao_scott.p if test.preferred == "rao_scott" else test.p_permutation
    return replace(estimate, p=p)


def _row(name: str, number: int, loads: Loads, plan: SurveyPlan, estimate: Estimate, part: str = "") -> Row:
    layer, table = loads.layers[number], loads.selected[number]
    balanced = "pooled" if "pooled" in name or find(name).seed_form else "domain-balanced"
    return Row(name, f"{balanced}, selections", (layer.key,), f"{plan.split}, {len(loads.domains)} domains", int(loads.n_documents.sum()),
               int(loads.tokens.sum()), active(np.asarray(table.sum(axis=0))), layer.n_experts, estimate, part)
