"""What the experts of each layer have to do with the domains: information, usage per domain, specialisation of every expert.

L MoE layer, E expert, D domain.
"""

from __future__ import annotations

import numpy as np

from analysis.domain_labels import DomainDocuments, domain_estimates
from analysis.estimate import Estimate
from analysis.kernels import Float
from analysis.label_permutation import label_null
from analysis.loads import Loads
from analysis.metrics.specialization import affinity, freq_matrix, specialisation_e, specialisation_seed
from analysis.resampling import generator
from hypotheses.topology_domains import ONE_DOMAIN
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_parts import Part, Row, cells, columns, mean_of

DOMAIN_COLUMNS = ("layer", "expert", "domain", "p_e_given_d", "affinity")
NULL_COLUMNS = ("draw", "layer", "value")
NULL_VALUES, NULL_DRAWS = 4_000, (5, 50)  # values of a histogram, and draws of the labels: fewest and most
EXPERT_COLUMNS = ("layer", "expert", "load", "top_domain", "seed_entropy", *cells(Estimate.undefined(ONE_DOMAIN)))


def specialisation_part(counts: TopologyCounts) -> Part:
    """I(E;D) per layer, P(e|d) and affinity of every expert and domain, specialisation of every expert with its interval."""
    loads, level = counts.loads, counts.settings.level
    part, cell_rows, expert_rows = Part(), [], []
    if len(loads.domains) < 2:
        missing = Estimate.undefined(ONE_DOMAIN, unit="bits", n_units=counts.n_documents)
        part.by_layer["mi_E_D"] = tuple(missing for _ in counts.layers)
        part.estimates["mi_E_D"] = missing
    documents = DomainDocuments(loads.selected, loads.domain, len(loads.domains))
    if len(loads.domains) > 1:
        part.by_layer["mi_E_D"] = tuple(domain_estimates("mi_E_D", documents, layer, level=level).item() for layer in range(len(counts.layers)))
        part.estimates["mi_E_D"] = mean_of(part.by_layer["mi_E_D"])
    for layer in range(len(counts.layers)):
        cell_rows += usage_of(counts.loads, layer)
        expert_rows += _experts(counts, documents, layer)
    part.tables["domain_specialization"] = columns(cell_rows, DOMAIN_COLUMNS)
    part.tables["expert_specialization"] = columns(expert_rows, EXPERT_COLUMNS)
    part.tables["specialization_null"] = columns(_null(counts, documents), NULL_COLUMNS)
    return part


def _null(counts: TopologyCounts, documents: DomainDocuments) -> list[Row]:
    """Specialisation of every expert where the domain labels of documents are permuted: what a few documents make of no specialisation."""
    sizes = [layer.shape[1] for layer in documents.layers]
    if len(counts.domains) < 2:
        return []
    ends = np.cumsum(sizes)[:-1]

    def specialisation(tables_BDC: Float) -> Float:
        return np.concatenate([specialisation_e(one) for one in np.split(tables_BDC, ends, axis=-1)], axis=-1)

    n_draws = int(np.clip(NULL_VALUES // sum(sizes), *NULL_DRAWS))
    rng = generator(counts.settings.seed, "specialisation_e", "labels permuted")
    drawn = label_null(documents, specialisation, rng, n_draws=n_draws, exact_limit=0, keep=True).null
    layer = np.repeat(np.arange(len(sizes)), sizes).tolist()
    return [] if drawn is None else [{"draw": number, "layer": layer[place], "value": float(value)}
                                     for number, values in enumerate(drawn) for place, value in enumerate(values) if np.isfinite(value)]


def usage_of(loads: Loads, layer: int) -> list[Row]:
    """P(e|d) and affinity of every expert and domain of a layer, domains of equal weight."""
    table = loads.by_domain(layer)
    share, ratio = freq_matrix(table), affinity(table)
    return [{"layer": layer, "expert": e, "domain": name, "p_e_given_d": float(share[d, e]), "affinity": float(ratio[e, d])}
            for e in range(table.shape[1]) for d, name in enumerate(loads.domains)]


def _experts(counts: TopologyCounts, documents: DomainDocuments, layer: int) -> list[Row]:
    table = counts.loads.by_domain(layer)
    found = [Estimate.undefined(ONE_DOMAIN, unit="share of log2 D", n_units=counts.n_documents)] * table.shape[1]
    if len(counts.domains) > 1:
        found = list(domain_estimates("specialisation_e", documents, layer, level=counts.settings.level))
    load, share, entropy = table.sum(axis=0) / max(table.sum(), 1), freq_matrix(table), specialisation_seed(table)
    top = [counts.domains[place] for place in np.nan_to_num(share).argmax(axis=0).tolist()]
    return [{"layer": layer, "expert": e, "load": float(load[e]), "top_domain": top[e] if load[e] else "",
             "seed_entropy": float(entropy[e]), **cells(found[e])} for e in range(table.shape[1])]
