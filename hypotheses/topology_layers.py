"""Information between layers: all pairs, against distance, per layer, beyond document composition, given the token type, and its sources.

L MoE layer, P pair of layers, T token.
"""

from __future__ import annotations

import numpy as np

from analysis.decomposition import Decomposition, DecompositionPlan, Terms, decompose
from analysis.estimate import Estimate
from analysis.estimation import estimates
from analysis.gates import NO_DATA, few_documents, gated, undersampled
from analysis.joint import joint_counts
from analysis.metrics.conditional import GivenType, PairedTokens, given_type
from analysis.metrics.layer_pairs import CrossLayerEstimates, LayerPair, PairEstimate, cross_layer_estimates
from analysis.pair_counts import PairPlan, pair_groups
from analysis.shift import ShiftNull, ShiftPlan, eligible, shifted_information
from analysis.threads import each
from hypotheses.h02_topology import USEFUL_BITS
from hypotheses.topology_evidence import TopologyCounts
from hypotheses.topology_parts import Part, Row, cells, columns, mean_of, status

ONE_LAYER = f"{NO_DATA}: one MoE layer; information between layers needs two"
POSITION, BANDED_SHIFTS = "position", 25
NO_TYPES = f"{NO_DATA}: the trace has no token ids"
BITS = ("mi_first_choice", "mi_excess", "mi_excess_banded", "mi_given_type", "u")
DROP_FIRST = 4  # positions whose routing follows the place in the document, so that a shift would count it as coupling (specification 3.3)
GIVEN_ROWS = 2**21  # rows times pairs up to which the form given the token type is made for all pairs
TERMS = ("token identity", "position", "document", "residual")
PAIR_COLUMNS = ("layer_i", "layer_j", "distance", "value", "low", "high", "plug_in", "null", "excess", "excess_low", "excess_high", "p", "given_type",
                "grassberger", "unit", "status", "reason")


def layer_part(counts: TopologyCounts) -> Part:
    """Everything between layers; with one layer, undefined estimates that say so."""
    if not counts.adjacent:
        return _no_layers(counts)
    found = _information(counts)
    null = _excess(counts, counts.adjacent, counts.settings.n_shifts, 25)
    banded = _excess(counts, counts.adjacent, min(counts.settings.n_shifts, BANDED_SHIFTS), BANDED_SHIFTS, bands=True).mean().estimates()[0]
    part = Part(estimates={"mi_first_choice": found.mean_adjacent, "mi_excess": _mean_excess(counts, null, banded), "mi_excess_banded": banded},
                facts={"shift_left_out": null.left_out})
    if not counts.settings.judged_only:
        missing = Estimate.undefined(ONE_LAYER, unit="bits", n_units=counts.n_documents)
        part.by_layer["mi_first_choice"] = tuple(found.by_layer.get(layer, missing) for layer in range(len(counts.layers)))
        _describe(counts, part, found, null)
    return part


def _describe(counts: TopologyCounts, part: Part, found: CrossLayerEstimates, null: ShiftNull) -> None:
    """What no criterion rests on: shares, types, sources, and the tables."""
    given, sources = _given_types(counts), _decomposition(counts)
    no_types = Estimate.undefined(NO_TYPES, unit="bits", n_units=counts.n_documents)
    part.facts["decomposition_left_out"] = None if sources is None else sources.left_out
    part.estimates |= {"u": _share(counts), "mi_given_type": mean_of([given[pair].estimate for pair in counts.adjacent]) if given else no_types}
    part.estimates |= _terms(counts, sources)
    part.tables["cross_layer_mi"] = columns(_pair_rows(counts, found, null, _map(counts), given), PAIR_COLUMNS)
    part.tables["mi_by_distance"] = columns([{"distance": gap, **cells(one)} for gap, one in found.by_distance.items()])
    part.tables["mi_by_layer"] = columns(_layer_rows(counts, found))
    part.tables["decomposition"] = columns(_decomposition_rows(counts, sources))


def _no_layers(counts: TopologyCounts) -> Part:
    undefined = Estimate.undefined(ONE_LAYER, unit="bits", n_units=counts.n_documents)
    part = Part(estimates=dict.fromkeys(BITS, undefined), facts={"shift_left_out": None, "decomposition_left_out": None})
    part.by_layer["mi_first_choice"] = tuple(undefined for _ in counts.layers)
    part.estimates |= _terms(counts, None)
    part.tables["cross_layer_mi"] = columns([], PAIR_COLUMNS)
    part.tables["mi_by_layer"] = columns(_layer_rows(counts, None))
    part.tables["mi_by_distance"] = columns([], ("distance", *cells(undefined)))
    part.tables["decomposition"] = columns(_decomposition_rows(counts, None))
    return part


def _information(counts: TopologyCounts) -> CrossLayerEstimates:
    pairs = counts.adjacent if counts.settings.judged_only else counts.pairs
    plan = PairPlan(counts.split, counts.settings.salt, pairs)
    tables = (LayerPair(a, b, groups) for (a, b), groups in pair_groups(counts.trace, plan, threads=counts.settings.threads))
    return cross_layer_estimates(tables, level=counts.settings.level)


def _share(counts: TopologyCounts) -> Estimate:
    plan = PairPlan(counts.split, counts.settings.salt, counts.adjacent)
    tables = (LayerPair(a, b, groups) for (a, b), groups in pair_groups(counts.trace, plan, threads=counts.settings.threads))
    return cross_layer_estimates(tables, "u", level=counts.settings.level).mean_adjacent


def _excess(counts: TopologyCounts, pairs: tuple[tuple[int, int], ...], n_draws: int, n_interval: int, bands: bool = False) -> ShiftNull:
    settings = counts.settings
    plan = ShiftPlan(n_draws, settings.seed, n_interval, drop_first=DROP_FIRST, level=settings.level, threads=settings.threads,
                     p_values=pairs == counts.adjacent and not bands and not settings.judged_only, bands=bands)
    return shifted_information(counts.routed, pairs, plan)


def _map(counts: TopologyCounts) -> dict[tuple[int, int], Estimate]:
    """Excess of the pairs that are not adjacent, from fewer shifts."""
    others = tuple(pair for pair in counts.pairs if pair not in counts.adjacent)
    if not others or not counts.settings.n_map_shifts:
        return {}
    return dict(zip(others, _excess(counts, others, counts.settings.n_map_shifts, 3).estimates()))


def _gates(counts: TopologyCounts, null: ShiftNull) -> list[str | None]:
    first, layers = eligible(counts.routed, DROP_FIRST).first_L, counts.layers
    tables = (joint_counts(np.asarray(first[a]), np.asarray(first[b]), layers[a].n_experts, layers[b].n_experts) for a, b in counts.adjacent)
    return [few_documents(null.n_documents), *(undersampled(table, n_tokens=null.n_tokens) for table in tables)]


def _mean_excess(counts: TopologyCounts, null: ShiftNull, banded: Estimate) -> Estimate:
    mean = null.mean().estimates()[0]
    return mean if mean.value is None else gated(mean, *_gates(counts, null), _position(mean, banded))


def _position(mean: Estimate, banded: Estimate) -> str | None:
    """Why no verdict rests on the excess: inside bands of position it lies on another side of what is of use."""
    if banded.value is None:
        return f"{POSITION}: the excess inside bands of position is undefined ({banded.reason})"
    sides = [(one.low is not None and one.low > USEFUL_BITS, one.high is not None and one.high <= USEFUL_BITS) for one in (mean, banded)]
    if sides[0] == sides[1]:
        return None
    return f"{POSITION}: inside bands of position the excess is {banded.value:.3f} bits, which is on another side of {USEFUL_BITS:g}"


def _given_types(counts: TopologyCounts) -> dict[tuple[int, int], GivenType]:
    """I(X;Y|token type) of every pair, of the adjacent ones alone where all would take minutes; empty where the source has no token ids."""
    sample, settings = counts.sample, counts.settings
    if sample.token_id is None:
        return {}
    group = np.repeat(sample.group(), sample.lengths)
    types = np.asarray(sample.token_id)

    def one(pair: tuple[int, int]) -> GivenType:
        x, y = (sample.first[layer].astype(np.int64) for layer in pair)
        return given_type(PairedTokens(x, y, group, int(group.max(initial=0)) + 1, len(sample.document)), types, level=settings.level)

    pairs = counts.pairs if len(types) * len(counts.pairs) <= GIVEN_ROWS else counts.adjacent
    return dict(zip(pairs, each(one, pairs, settings.threads)))


def _pair_rows(counts: TopologyCounts, found: CrossLayerEstimates, null: ShiftNull, others: dict[tuple[int, int], Estimate],
               given: dict[tuple[int, int], GivenType]) -> list[Row]:
    excess = {**dict(zip(counts.adjacent, null.estimates())), **others}
    return [_pair_row(one, excess.get((one.first, one.second)), given.get((one.first, one.second))) for one in found.pairs]


def _pair_row(one: PairEstimate, excess: Estimate | None, given: GivenType | None) -> Row:
    e = one.estimate
    return {"layer_i": one.first, "layer_j": one.second, "distance": one.second - one.first, "value": e.value, "low": e.low, "high": e.high,
            "plug_in": e.plug_in, "null": excess and excess.null, "excess": excess and excess.value, "excess_low": excess and excess.low,
            "excess_high": excess and excess.high, "p": excess and excess.p, "given_type": None if given is None else given.estimate.value,
            "grassberger": one.grassberger, "unit": e.unit, "status": status(e), "reason": e.reason or e.gate or one.warning or ""}


def _layer_rows(counts: TopologyCounts, found: CrossLayerEstimates | None) -> list[Row]:
    """Each layer with its entropy (the diagonal of a layer-by-layer picture, never information) and its mean information with the others."""
    rows: list[Row] = []
    for number, layer in enumerate(counts.layers):
        entropy = estimates("usage_entropy_bits", counts.loads.groups(number, "first"), level=counts.settings.level).item()
        one = found.by_layer.get(number) if found else None
        one = one or Estimate.undefined(ONE_LAYER, unit="bits", n_units=counts.n_documents)
        rows.append({"layer": number, "key": layer.key, "entropy": entropy.value, **cells(one)})
    return rows


def _decomposition(counts: TopologyCounts) -> Decomposition | None:
    settings = counts.settings
    if counts.sample.token_id is None:
        return None
    plan = DecompositionPlan(settings.n_decomposition, min(10, settings.n_decomposition), settings.seed, settings.level, settings.threads)
    return decompose(counts.routed, counts.adjacent, plan)


def _of_terms(terms: Terms, place: int, pair: int, sources: Decomposition, level: float) -> Estimate:
    value, plug_in, se, low, high = (float(getattr(terms.interval, name)[place, pair]) for name in ("value", "plug_in", "se", "low", "high"))
    if np.isnan(plug_in):
        return Estimate.undefined(f"{NO_DATA}: every token is alone in its stratum", unit="bits", n_units=sources.n_documents)
    known = not np.isnan(se)
    estimate = Estimate(value if known else plug_in, low if known else None, high if known else None, "bits", "document", sources.n_documents,
                        "group jackknife of shuffles", level, plug_in=plug_in, se=se if known else None, n=sources.n_tokens, n_of="tokens")
    return gated(estimate, few_documents(sources.n_documents))


def _orders(sources: Decomposition) -> tuple[tuple[str, Terms], ...]:
    return ("token first", sources.forward), ("document first", sources.reverse)


def _terms(counts: TopologyCounts, sources: Decomposition | None) -> dict[str, Estimate]:
    """Means over adjacent pairs of each term, in both orders: mi_of_token_identity and mi_of_token_identity_reverse, and so on."""
    out = {}
    for order, suffix in (("token first", ""), ("document first", "_reverse")):
        for name in TERMS:
            key = f"mi_of_{name.replace(' ', '_')}{suffix}"
            if sources is None:
                reason = NO_TYPES if counts.adjacent else ONE_LAYER
                out[key] = Estimate.undefined(reason, unit="bits", n_units=counts.n_documents)
                continue
            terms = dict(_orders(sources))[order]
            place = terms.names.index(name)
            out[key] = mean_of([_of_terms(terms, place, pair, sources, counts.settings.level) for pair in range(len(counts.adjacent))])
    return out


def _decomposition_rows(counts: TopologyCounts, sources: Decomposition | None) -> list[Row]:
    if sources is None:
        reason = NO_TYPES if counts.adjacent else ONE_LAYER
        missing = Estimate.undefined(reason, unit="bits", n_units=counts.n_documents)
        return [{"layer_i": -1, "layer_j": -1, "order": order, "term": term, **cells(missing)}
                for order in ("token first", "document first") for term in TERMS]
    return [{"layer_i": a, "layer_j": b, "order": order, "term": name, **cells(_of_terms(terms, place, pair, sources, counts.settings.level))}
            for pair, (a, b) in enumerate(counts.adjacent) for order, terms in _orders(sources) for place, name in enumerate(terms.names)]
