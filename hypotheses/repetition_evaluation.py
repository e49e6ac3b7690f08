"""Repetition evaluated on held-out documents: every layer and domain with its chance levels, means over layers and domains.

L MoE layer, D domain, G jackknife group of documents of one domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.atlas_controls import is_lowest
from analysis.estimate import Estimate
from analysis.estimation import Groups
from analysis.gates import NO_DATA, SINGLE_CHOICE, few_per_domain, gated
from analysis.kernels import Int
from analysis.left_out import LeftOut, leave_out, stack
from analysis.metrics.repetition import even_chance, repeat_any_chance, repeat_any_kappa, repeat_order
from analysis.metrics.sequence import lag_overlap_chance, lag_overlap_kappa
from analysis.repetition_counts import Repeats, any_repeats, first_repeats
from analysis.resampling import stratified_groups
from hypotheses.atlas_evidence import NO_TOKENS, AtlasCounts, AtlasEvidence, facts
from hypotheses.claim import Evaluation
from hypotheses.topology_parts import Part, Row, columns, mean_of, status

FIRST, ANY, ORDER = "repetition_first", "repetition_any", "repetition_order"
METRIC = {FIRST: "lag_overlap_kappa", ANY: "repeat_any_kappa", ORDER: "repeat_order"}  # of whose unit and reason each is
ALL = "all documents"
MAY_BE = "may be dense or not recorded; say how many MoE layers the model has (trace.moe_layers)"
ONE_LAYER = f"{NO_DATA}: one MoE layer; there is none above the first"
NO_SECOND = f"{SINGLE_CHOICE}: there is no second choice"
TABLE_COLUMNS = ("layer", "depth", "domain", "form", "share", "chance", "even_chance", "shuffled", "kappa", "low", "high", "order", "order_low",
                 "order_high", "n_pairs", "n_documents", "status", "reason")


@dataclass(frozen=True)
class Domain:
    """One domain: places of its groups among all, and its documents."""

    name: str
    groups: Int
    n_documents: int


def evaluate(evidence: AtlasEvidence) -> Evaluation:
    """Every estimate and table of repetition; without tokens in order all of them are undefined, with the reason."""
    counts = AtlasCounts(evidence)
    part = _undefined(counts, NO_TOKENS) if counts.counts_only else repetition_part(counts)
    return Evaluation(part.estimates, part.by_layer, part.tables, facts(counts))


def _undefined(counts: AtlasCounts, reason: str) -> Part:
    missing = Estimate.undefined(reason, unit="kappa")
    part = Part(dict.fromkeys(_headlines(), missing), {name: tuple(missing for _ in counts.layers) for name in METRIC})
    part.tables["repetition"] = columns([], TABLE_COLUMNS)
    return part


def _headlines() -> tuple[str, ...]:
    return (f"{FIRST}_higher", f"{ANY}_higher", f"{ORDER}_higher", f"{FIRST}_lowest")


def repetition_part(counts: AtlasCounts) -> Part:
    """Repetition of neighbouring tokens by layer and domain; where each domain is one document, of all documents together."""
    labels = counts.domain_of_sample
    if len(set(labels)) == len(labels):
        labels = [ALL] * len(labels)
    group, stratum = stratified_groups(labels)
    domains = [Domain(name, np.flatnonzero(stratum == number), labels.count(name)) for number, name in enumerate(sorted(set(labels)))]
    found: dict[str, list[list[LeftOut | None]]] = {name: [[] for _ in domains] for name in METRIC}
    rows: list[Row] = []
    for number, layer in enumerate(counts.layers):
        ids = counts.sample.ids[number]
        first = first_repeats(ids, counts.sample.starts, layer.n_experts, group)
        any_ = any_repeats(ids, counts.sample.starts, layer.n_experts, group)
        for place, domain in enumerate(domains):
            for name, one in zip(METRIC, (_first(first, domain), _any(any_, domain), _order(first, domain))):
                found[name][place].append(one)
            rows.append(_row(counts, number, domain, 1, first, {FIRST: found[FIRST][place][-1], ORDER: found[ORDER][place][-1]}))
            if any_ is not None:
                rows.append(_row(counts, number, domain, 2, any_, {FIRST: found[ANY][place][-1], ORDER: _order(any_, domain)}))
    part = Part()
    part.tables["repetition"] = columns(rows, TABLE_COLUMNS)
    unknown_first, unknown_higher = unknown_layers(counts)
    lowest = [number for number in range(len(counts.layers)) if is_lowest(counts.layers, number)]
    higher = [number for number in range(len(counts.layers)) if number not in lowest]
    for name in METRIC:
        part.by_layer[name] = tuple(_over(counts, name, found[name], domains, [number]) for number in range(len(counts.layers)))
        part.estimates[f"{name}_higher"] = _gated(_over(counts, name, found[name], domains, higher), unknown_higher)
    part.estimates[f"{FIRST}_lowest"] = _gated(_over(counts, FIRST, found[FIRST], domains, lowest), unknown_first)
    return part


def unknown_layers(counts: AtlasCounts) -> tuple[str | None, str | None]:
    """Why the lowest layer may not be the model's first MoE layer, and why the others may be some of its layers; None where that is known.

    Known it is where the source says how many MoE layers there are (`moe_layers_of_model`; what is absent of them is a floor of its own). Else a
    trace from block 0 has the first layer, and blocks without a gap are all that there are below the last.
    """
    if "moe_layers_of_model" in counts.trace.meta.details:
        return None, None
    depths = [[layer.depth for layer in counts.layers if layer.stack == stack] for stack in dict.fromkeys(layer.stack for layer in counts.layers)]
    begins = [one[0] for one in depths if one[0] > 0]
    gaps = [f"{a} and {b}" for one in depths for a, b in zip(one, one[1:]) if b - a > 1]
    first = f"the trace begins at block {begins[0]}: those below {MAY_BE}" if begins else None
    higher = f"the trace has no block between {gaps[0]}: those {MAY_BE}" if gaps else None
    return first, higher or first


def _gated(estimate: Estimate, why: str | None) -> Estimate:
    return estimate if estimate.value is None else gated(estimate, why)


def _left_out(domain: Domain, value: Callable[..., Any], *tables: Any) -> LeftOut:
    return leave_out(Groups(tuple(np.asarray(table)[domain.groups] for table in tables), domain.n_documents), value)


def _first(one: Repeats, domain: Domain) -> LeftOut:
    return _left_out(domain, lag_overlap_kappa, one.repeats, one.sources, one.targets, one.pairs)


def _any(one: Repeats | None, domain: Domain) -> LeftOut | None:
    if one is None:
        return None
    return _left_out(domain, repeat_any_kappa, one.sizes, one.sources, one.targets, one.source_pairs, one.target_pairs)


def _order(one: Repeats, domain: Domain) -> LeftOut:
    return _left_out(domain, repeat_order, one.repeats, one.shuffled, one.pairs)


def _over(counts: AtlasCounts, name: str, found: Sequence[Sequence[LeftOut | None]], domains: Sequence[Domain], layers: Sequence[int]) -> Estimate:
    """Mean over layers inside each domain, over the same documents, then over domains, whose documents are disjoint."""
    if not layers:
        return Estimate.undefined(ONE_LAYER, unit="kappa", n_units=counts.n_documents)
    level, every = counts.settings.level, []
    for of_domain in found:
        parts = [of_domain[number] for number in layers]
        if any(one is None for one in parts):
            return Estimate.undefined(NO_SECOND, unit="kappa", n_units=counts.n_documents)
        together = stack([one for one in parts if one is not None]).mean([list(range(len(parts)))])
        every.append(together.estimates(METRIC[name], level=level)[0])
    mean = mean_of(every, df=sum(len(domain.groups) - 1 for domain in domains), independent=True)
    return mean if mean.value is None else gated(mean, few_per_domain([domain.n_documents for domain in domains]))


def _row(counts: AtlasCounts, number: int, domain: Domain, k: int, one: Repeats, left_out: dict[str, LeftOut | None]) -> Row:
    """A cell of the table in the form of Table 5, with its chance from the loads, from even loads and from shuffled documents."""
    layer, level = counts.layers[number], counts.settings.level
    kappa, order = (part.estimates(METRIC[ANY if k == 2 and name == FIRST else name], level=level).item() for name, part in left_out.items()
                    if part is not None)
    pairs, repeats, shuffled, sources, targets = (np.asarray(table)[domain.groups].sum(axis=0) for table in
                                                  (one.pairs, one.repeats, one.shuffled, one.sources, one.targets))
    if one.source_pairs is None or one.target_pairs is None:
        chance = float(lag_overlap_chance(sources, targets, pairs))
    else:
        chance = float(repeat_any_chance(sources, targets, *(table[domain.groups].sum(axis=0) for table in (one.source_pairs, one.target_pairs))))
    kappa = kappa if kappa.value is None else gated(kappa, few_per_domain([domain.n_documents]))
    return {"layer": number, "depth": layer.depth, "domain": domain.name, "form": "first choice" if k == 1 else "first or second",
            "share": repeats / pairs if pairs else None, "chance": None if np.isnan(chance) else chance,
            "even_chance": even_chance(layer.n_experts, k), "shuffled": shuffled / pairs if pairs else None, "kappa": kappa.value, "low": kappa.low,
            "high": kappa.high, "order": order.value, "order_low": order.low, "order_high": order.high, "n_pairs": int(pairs),
            "n_documents": domain.n_documents, "status": status(kappa), "reason": kappa.reason or kappa.gate or ""}
