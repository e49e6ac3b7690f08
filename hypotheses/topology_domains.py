"""What one domain's routing tables say of another's: transferred information, its ratio, alignment by token type, divergences.

D domain (A source, B target), P adjacent pair of layers, L MoE layer, G jackknife group of one domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np

from analysis.estimate import Estimate
from analysis.estimation import Groups
from analysis.gates import NO_DATA, few_per_domain, gated
from analysis.kernels import Int
from analysis.metrics.transfer import ill_posed_cross_domain_mi
from analysis.metrics.type_aligned import TypeRouting, type_aligned_estimate
from analysis.threads import each
from analysis.transfer_matrix import TransferMatrix, ratio_estimate, transfer_matrix
from analysis.two_sample import two_sample_estimates
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_layers import NO_TYPES, ONE_LAYER
from hypotheses.topology_parts import Part, Row, cells, columns, mean_of, status

ONE_DOMAIN = f"{NO_DATA}: one domain; what one domain says of another needs two"
DIVERGENCES = ("jsd_transition", "jsd_load")
RATIO_WORK = 4e8  # cells of smoothed tables beyond which the ratio is made for the declared pairs alone
TYPE_WORK = 2e10  # products beyond which type alignment is made for the declared pairs, at the first, middle and last layer
WIKI_TOPICS = "wiki"
WIDE = {"transfer_ratio": "ratio", "type_aligned_mi": "type_aligned", "jsd_transition": "jsd_transition", "jsd_load": "jsd_load"}
WIDE_COLUMNS = ("source", "target", "layer", "T", "low", "high", *WIDE.values(), "type_aligned_null", "unit", "status", "reason")
COLUMNS = ("metric", "source", "target", "layer", *cells(Estimate.undefined(ONE_DOMAIN)))


def domain_part(counts: TopologyCounts) -> Part:
    """Everything between domains; undefined with its reason where there is one domain or one layer."""
    reason = ONE_DOMAIN if len(counts.domains) < 2 else ONE_LAYER if not counts.adjacent else None
    part = Part(facts={"smoothing": None})
    undefined = Estimate.undefined(reason or "", unit="bits", n_units=counts.n_documents)
    names = ("transfer_info", "transfer_info_min", "transfer_info_within", "transfer_ratio", "type_aligned_mi", *DIVERGENCES)
    naive = ill_posed_cross_domain_mi(counts.n_documents)
    part.estimates = {name: replace(undefined, unit="ratio" if name == "transfer_ratio" else "bits") for name in names}
    part.estimates["cross_domain_naive_pairing"] = naive
    matrix: TransferMatrix | None = None
    rows: list[Row] = [_row("cross_domain_naive_pairing", "any", "any", "mean", naive)]
    if reason is None:
        matrix = transfer_matrix(counts.domain_joints, smoothing=counts.settings.smoothing, level=counts.settings.level,
                                 threads=counts.settings.threads)
        part.estimates |= {"transfer_info": matrix.overall, "transfer_info_min": decisive_pair(_off_diagonal(matrix)),
                           "transfer_info_within": mean_of(list(np.diag(matrix.mean)))}
        rows += _transfer_rows(counts, matrix)
    part.tables["cross_domain_mi"] = columns(_wide(rows), WIDE_COLUMNS)
    if counts.settings.judged_only:
        return part
    if matrix is not None:
        part.facts["smoothing"] = {name: sorted(set(matrix.smoothing[d].tolist())) for d, name in enumerate(matrix.names)}
        for name, more in (("transfer_ratio", _ratios(counts)), ("type_aligned_mi", _aligned(counts))):
            rows += more
            part.estimates[name] = _mean_row(more, name, part.estimates[name])
    if len(counts.domains) > 1:
        for name in DIVERGENCES:
            more = _divergences(counts, name) if name == "jsd_load" or counts.adjacent else []
            rows += more
            part.estimates[name] = _mean_row(more, name, part.estimates[name])
    part.tables["cross_domain_metrics"] = columns(list(map(_plain, rows)), COLUMNS)
    part.tables["cross_domain_mi"] = columns(_wide(rows), WIDE_COLUMNS)
    part.tables["domain_pairs"] = columns(_declared(counts, rows), ("source", "target", "layer", *cells(undefined)))
    return part


def decisive_pair(pairs: Sequence[tuple[str, Estimate]]) -> Estimate:
    """The pair that decides "all pairs > 0" (intersection-union): one refuted, else one that cannot be judged, else the least lower end."""
    judged = [(name, one) for name, one in pairs if one.value is not None and one.gate is None and one.low is not None]
    refuted = [(name, one) for name, one in judged if one.high is not None and one.high <= 0]
    others = [(name, one) for name, one in pairs if (name, one) not in judged]
    if refuted:
        name, chosen = min(refuted, key=lambda pair: pair[1].high or 0.0)
    elif others:
        name, chosen = others[0]
    else:
        name, chosen = min(judged, key=lambda pair: pair[1].low or 0.0)
    if chosen.value is None:
        return replace(chosen, reason=f"{chosen.reason} ({name})")
    return replace(chosen, method=f"{chosen.method}, of {name}, the pair that decides")


def _off_diagonal(matrix: TransferMatrix) -> list[tuple[str, Estimate]]:
    n = len(matrix.names)
    return [(f"{matrix.names[a]} to {matrix.names[b]}", matrix.mean[a, b]) for a, b in permutations(range(n), 2)]


def _row(metric: str, source: str, target: str, layer: int | str, estimate: Estimate) -> Row:
    return {"metric": metric, "source": source, "target": target, "layer": str(layer), "estimate": estimate}


def _plain(row: Row) -> Row:
    return {**{name: row[name] for name in ("metric", "source", "target", "layer")}, **cells(row["estimate"])}


def _mean_row(rows: Sequence[Row], metric: str, otherwise: Estimate) -> Estimate:
    """Mean over the pairs' own means; pairs that are undefined are left out and counted in the method."""
    means = [row["estimate"] for row in rows if row["metric"] == metric and row["layer"] == "mean"]
    known = [one for one in means if one.value is not None]
    if not known:
        return means[0] if means else otherwise
    mean = mean_of(known)
    return mean if len(known) == len(means) else replace(mean, method=f"{mean.method}; {len(means) - len(known)} of {len(means)} pairs are undefined")


def _transfer_rows(counts: TopologyCounts, matrix: TransferMatrix) -> list[Row]:
    rows = []
    for a, source in enumerate(matrix.names):
        for b, target in enumerate(matrix.names):
            rows += [_row("transfer_info", source, target, counts.adjacent[pair][0], one) for pair, one in enumerate(matrix.by_pair[a, b])]
            rows.append(_row("transfer_info", source, target, "mean", matrix.mean[a, b]))
    return rows


def _wide(rows: Sequence[Row]) -> list[Row]:
    """A row per ordered pair and layer, with what is known of it beside T; divergences and alignment are the same in both directions."""
    found: dict[tuple[str, str, str], dict[str, Estimate]] = {}
    for row in rows:
        place = (row["source"], row["target"], row["layer"])
        found.setdefault(place, {})[row["metric"]] = row["estimate"]
        if row["metric"] in ("type_aligned_mi", *DIVERGENCES):
            found.setdefault((place[1], place[0], place[2]), {})[row["metric"]] = row["estimate"]
    out: list[Row] = []
    for (source, target, layer), metrics in sorted(found.items()):
        one = metrics.get("transfer_info") or metrics.get("cross_domain_naive_pairing") or Estimate.undefined(ONE_LAYER, unit="bits")
        aligned = metrics.get("type_aligned_mi")
        beside = {name: metrics[metric].value if metric in metrics else None for metric, name in WIDE.items()}
        out.append({"source": source, "target": target, "layer": layer, "T": one.value, "low": one.low, "high": one.high, **beside,
                    "type_aligned_null": aligned and aligned.null, "unit": one.unit, "status": status(one), "reason": one.reason or one.gate or ""})
    return out


def _ratios(counts: TopologyCounts) -> list[Row]:
    """transfer_ratio of every ordered pair; of the declared ones alone where all would take minutes."""
    joints = {one.name: one for one in counts.domain_joints}
    cells_of_all = sum(len(table) * table[0].size for one in counts.domain_joints for table in one.joints_P) * 6 * (len(joints) - 1)
    pairs = list(permutations(joints, 2))
    chosen = pairs if cells_of_all <= RATIO_WORK else [pair for pair in pairs if pair in counts.evidence.pairs_of_interest] or pairs[:1]
    found = each(lambda pair: ratio_estimate(joints[pair[0]], joints[pair[1]], level=counts.settings.level), chosen, counts.settings.threads)
    return [_row("transfer_ratio", *pair, "mean", one) for pair, one in zip(chosen, found)]


def _divergences(counts: TopologyCounts, name: str) -> list[Row]:
    tables = {domain: _tables_of(counts, name, domain) for domain in counts.domains}
    places = [pair[0] for pair in counts.adjacent] if name == "jsd_transition" else range(len(counts.layers))

    def of_pair(pair: tuple[str, str]) -> list[Row]:
        gate = few_per_domain([counts.documents_of(domain) for domain in pair])
        found = [gated(one, gate) if one.value is not None else one
                 for one in (two_sample_estimates(name, a, b, level=counts.settings.level).item() for a, b in zip(*(tables[d] for d in pair)))]
        return [*(_row(name, *pair, layer, one) for layer, one in zip(places, found)), _row(name, *pair, "mean", mean_of(found))]

    return [row for rows in each(of_pair, list(combinations(counts.domains, 2)), counts.settings.threads) for row in rows]


def _tables_of(counts: TopologyCounts, name: str, domain: str) -> list[Groups]:
    if name == "jsd_transition":
        joints = next(one for one in counts.domain_joints if one.name == domain)
        return [Groups((table,), joints.n_documents) for table in joints.joints_P]
    number = counts.domains.index(domain)
    out = []
    for layer in range(len(counts.layers)):
        groups = counts.loads.domain_groups(layer)
        assert groups.stratum is not None
        out.append(Groups((groups.tables[0][groups.stratum == number, number],), counts.documents_of(domain)))
    return out


def _aligned(counts: TopologyCounts) -> list[Row]:
    """type_aligned_mi of every unordered pair and layer, on the nulls' sample of rows."""
    settings, sample = counts.settings, counts.sample
    pairs, layers = list(combinations(counts.domains, 2)), list(range(len(counts.layers)))
    if sample.token_id is None:
        missing = Estimate.undefined(NO_TYPES, unit="bits", n_units=counts.n_documents)
        return [_row("type_aligned_mi", *pair, "mean", missing) for pair in pairs]
    n_types = int((np.bincount(sample.token_id) >= 20).sum())
    draws = settings.n_type_replicates + settings.n_type_permutations
    work = sum(layer.n_experts**2 for layer in counts.layers) * float(n_types) * len(pairs) * draws
    if work > TYPE_WORK:
        wanted = {tuple(sorted(pair)) for pair in counts.evidence.pairs_of_interest}
        pairs = [pair for pair in pairs if pair in wanted] or pairs[:1]
        layers = sorted({layers[0], layers[len(layers) // 2], layers[-1]})

    def one(asked: tuple[tuple[str, str], int]) -> Estimate:
        pair, layer = asked
        a, b = (_type_routing(counts, domain, layer) for domain in pair)
        return type_aligned_estimate(a, b, seed=settings.seed, layer=counts.layers[layer].key, level=settings.level,
                                     n_replicates=settings.n_type_replicates, n_permutations=settings.n_type_permutations)

    asked = [(pair, layer) for pair in pairs for layer in layers]
    found = dict(zip(asked, each(one, asked, settings.threads)))
    rows = [_row("type_aligned_mi", *pair, layer, estimate) for (pair, layer), estimate in found.items()]
    return rows + [_row("type_aligned_mi", *pair, "mean", mean_of([found[pair, layer] for layer in layers])) for pair in pairs]


def _type_routing(counts: TopologyCounts, domain: str, layer: int) -> TypeRouting:
    """Selections of one domain by document, token type and expert."""
    sample, meta = counts.sample, counts.layers[layer]
    members = np.flatnonzero(counts.domain_of_sample == domain)
    number = np.full(len(sample.document), -1, np.int64)
    number[members] = np.arange(len(members))
    document = np.repeat(number, sample.lengths)
    rows = np.flatnonzero(document >= 0)
    key, n = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if len(rows):
        base = (document[rows] * counts.trace.meta.vocabulary_size + sample.types[rows]) * meta.n_experts
        key, n = np.unique(np.concatenate([base + ids[rows] for ids in sample.ids[layer]]), return_counts=True)
    of_type: Int = key // meta.n_experts
    size = counts.trace.meta.vocabulary_size
    return TypeRouting(of_type // size, of_type % size, key % meta.n_experts, n, len(members), size, meta.n_experts, counts.trace.meta.tokenizer,
                       meta.top_k)


def _declared(counts: TopologyCounts, rows: Sequence[Row]) -> list[Row]:
    """The declared pairs, both directions, with their transferred information; those whose domains are not here say so."""
    means = {(row["source"], row["target"]): row["estimate"] for row in rows if row["metric"] == "transfer_info" and row["layer"] == "mean"}
    out: list[Row] = []
    for a, b in counts.evidence.pairs_of_interest:
        for pair in ((a, b), (b, a)):
            absent = [name for name in pair if name not in counts.domains]
            reason = f"{NO_DATA}: no test document of {', '.join(absent)}" if absent else ONE_LAYER
            one = means.get(pair) or Estimate.undefined(reason, unit="bits")
            out.append({"source": pair[0], "target": pair[1], "layer": "mean", **cells(one)})
    return out
