"""Experts and domains (seed 002, Parts 3, 5 and 8): use by domain, specialists and generalists by interval, entropy of each domain.

L MoE layer, E expert, D domain.
"""

from __future__ import annotations

import numpy as np

from analysis.domain_labels import basic_estimates, domain_estimates
from analysis.estimate import Estimate
from analysis.metrics.specialists import ExpertClass, classify_experts, entropy_differences, quantile_specialists
from analysis.metrics.specialization import cv_domains_seed, top5_share_seed
from analysis.resampling import generator
from hypotheses.atlas_evidence import AtlasCounts
from hypotheses.topology_domains import ONE_DOMAIN
from hypotheses.topology_parts import Part, Row, columns, status
from hypotheses.topology_specialisation import DOMAIN_COLUMNS, usage_of

TOP, N_REPLICATES = 5, 999
EXPERTS = ("layer", "expert", "label", "value", "low", "high", "p", "q", "domain", "p_e_given_d", "p_d_given_e", "load", "cv_seed", "label_seed",
           "status", "reason")
ENTROPY = ("layer", "domain", "value", "low", "high", "seed", "status", "reason")
DIFFERENCES = ("layer", "first", "second", "value", "low", "high", "p_adjusted", "reason")
TOPS = ("layer", "domain", "experts", "share_seed", "share", "low", "high", "reason")
COMPONENTS = ("layer", "depth", "domain", "component", "expert", "n")


def domains_part(counts: AtlasCounts) -> Part:
    """Every table of experts and domains; with one domain only the use of the experts is left."""
    part, several = Part(), len(counts.domains) > 1
    layers = range(len(counts.layers))
    part.tables["domain_specialization"] = columns([row for layer in layers for row in usage_of(counts.loads, layer)], DOMAIN_COLUMNS)
    part.tables["experts"] = columns([row for layer in layers for row in _experts(counts, layer)] if several else [], EXPERTS)
    part.tables["domain_entropy"] = columns([row for layer in layers for row in _entropies(counts, layer)], ENTROPY)
    part.tables["entropy_differences"] = columns([row for layer in layers for row in _differences(counts, layer)] if several else [], DIFFERENCES)
    part.tables["top_experts"] = columns([row for layer in layers for row in _tops(counts, layer)], TOPS)
    part.tables["components"] = columns(_components(counts), COMPONENTS)
    part.facts["components_reason"] = counts.untold_components
    if not several:
        part.facts["experts_reason"] = ONE_DOMAIN
    return part


def _experts(counts: AtlasCounts, layer: int) -> list[Row]:
    settings = counts.settings
    found = classify_experts(counts.documents, generator(settings.seed, "specialists", layer), layer, n_draws=settings.n_permutations)
    table = counts.loads.by_domain(layer)
    cv = cv_domains_seed(table)
    split = quantile_specialists(cv) if np.isfinite(cv).any() else None
    load = table.sum(axis=0) / max(int(table.sum()), 1)
    return [_expert(counts, layer, one, float(cv[one.expert]), "" if split is None else "specialist" if one.expert in split.specialists else
                    "generalist" if one.expert in split.generalists else "", float(load[one.expert])) for one in found]


def _expert(counts: AtlasCounts, layer: int, one: ExpertClass, cv: float, seed_label: str, load: float) -> Row:
    estimate = counts.honest(one.specialisation)
    return {"layer": layer, "expert": one.expert, "label": one.label, "value": estimate.value, "low": estimate.low, "high": estimate.high, "p": one.p,
            "q": one.q, "domain": "" if one.domain is None else counts.domains[one.domain], "p_e_given_d": one.p_expert_given_domain,
            "p_d_given_e": one.p_domain_given_expert, "load": load, "cv_seed": cv, "label_seed": seed_label, "status": status(estimate),
            "reason": counts.untestable or one.reason or ""}


def _entropies(counts: AtlasCounts, layer: int) -> list[Row]:
    found = domain_estimates("domain_entropy", counts.documents, layer, level=counts.settings.level)
    rows: list[Row] = []
    for name, one in zip(counts.domains, counts.honestly(list(found))):
        rows.append({"layer": layer, "domain": name, "value": one.value, "low": one.low, "high": one.high, "seed": one.plug_in, "status": status(one),
                     "reason": one.reason or one.gate or ""})
    return rows


def _differences(counts: AtlasCounts, layer: int) -> list[Row]:
    rows: list[Row] = []
    for one in entropy_differences(counts.documents, layer, level=counts.settings.level):
        value = counts.honest(one.difference)
        rows.append({"layer": layer, "first": counts.domains[one.first], "second": counts.domains[one.second], "value": value.value,
                     "low": value.low, "high": value.high, "p_adjusted": None if counts.untestable else one.p_adjusted,
                     "reason": value.reason or value.gate or ""})
    return rows


def _tops(counts: AtlasCounts, layer: int) -> list[Row]:
    """The five most used experts of each domain: the seed's share of them, and one that is counted on other documents than they are picked on."""
    table = counts.loads.by_domain(layer)
    share = top5_share_seed(table)
    undefined = Estimate.undefined(counts.untestable or "no_data: the domain is empty in a fold")
    found = [undefined] * len(counts.domains)
    if not counts.untestable:
        rng = generator(counts.settings.seed, "top5", layer)
        found = list(basic_estimates("top5_share", counts.documents, rng, layer, level=counts.settings.level, n_replicates=N_REPLICATES))
    rows: list[Row] = []
    for d, (name, one) in enumerate(zip(counts.domains, found)):
        ids = np.argsort(-table[d], kind="stable")[:TOP].tolist()
        rows.append({"layer": layer, "domain": name, "experts": ", ".join(map(str, ids)), "share_seed": float(share[d]), "share": one.value,
                     "low": one.low, "high": one.high, "reason": one.reason or one.gate or ""})
    return rows


def _components(counts: AtlasCounts) -> list[Row]:
    """Selections by component where a source recorded components that differ: the kept one's, and those that it says differ from it."""
    details = counts.trace.meta.details
    told = [details] if details.get("components") else list(details.get("imported", ()))  # one file says it itself, of several each does
    recorded = [one for one in told if one.get("components", {}).get("differences")]
    if not recorded or counts.untold_components:
        return []
    components = recorded[0]["components"]
    more: dict[tuple[str, int, str], list[tuple[int, int]]] = {}
    for domain, layer, component, expert, n in (change for one in recorded for change in one["components"]["differences"]):
        more.setdefault((domain, int(layer), component), []).append((int(expert), int(n)))
    rows: list[Row] = []
    for number, layer in enumerate(counts.layers):
        if not any(depth == layer.depth for _, depth, _ in more):
            continue
        table = counts.loads.by_domain(number)
        for component in components["recorded"]:
            for d, domain in enumerate(counts.domains):
                n = table[d].astype(np.int64)
                for expert, change in more.get((domain, layer.depth, component), ()):
                    n[expert] += change
                rows += [{"layer": number, "depth": layer.depth, "domain": domain, "component": component, "expert": e, "n": int(one)}
                         for e, one in enumerate(n.tolist())]
    return rows
