"""What one layer says of the next, and a token of the one after it, as rows.

L MoE layer, P adjacent pair, E expert, G group of documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.estimate import Estimate
from analysis.estimation import Groups, estimates
from analysis.gates import NO_DATA, SINGLE_CHOICE, active, few_documents, gated, undersampled
from analysis.joint import joint_counts
from analysis.lag_tables import lag_loads, lag_overlap_sizes
from analysis.lags import lag_overlaps, lag_pairs
from analysis.loads import Loads
from analysis.metrics.layer_pairs import LayerPair, cross_layer_estimates
from analysis.moved_rows import RoutedDocuments
from analysis.nulls import document_keys
from analysis.pair_counts import PairPlan, pair_groups
from analysis.planes import Planes, planes
from analysis.registry import find
from analysis.shift import ShiftPlan, shifted_information
from analysis.survey_row import Row, SurveyPlan
from analysis.trace import LayerMeta, RoutingTrace

LAG_ONE = ("same_expert", "lag_kappa", "transition_rate", "transition_diversity", "lag_mi", "autocorrelation_of_ids_seed", "lag_same_seed")


def adjacent(layers: Sequence[LayerMeta]) -> tuple[tuple[int, int], ...]:
    """Places of layers that follow one another in one stack."""
    return tuple((i, i + 1) for i in range(len(layers) - 1) if layers[i].stack == layers[i + 1].stack)


def pair_rows(trace: RoutingTrace, loads: Loads, plan: SurveyPlan) -> Iterator[Row]:
    """Information between adjacent layers in its forms, their means over the pairs, and the excess over circular shifts."""
    pairs = adjacent(loads.layers)
    if not pairs:
        yield Row("mi_first_choice", "token-weighted, first choice", tuple(layer.key for layer in loads.layers), plan.split,
                  int(loads.n_documents.sum()), int(loads.tokens.sum()), None, None,
                  Estimate.undefined(f"{NO_DATA}: one MoE layer; information between layers needs two", unit="bits"))
        return
    several = max(layer.top_k for layer in loads.layers) > 1
    for variant, names in (("first", ("mi_first_choice", "u")), ("slots", ("mi_slot_average",)), ("sets", ("mi_set",))):
        if variant == "first" or several:
            yield from _information(trace, loads, plan, pairs, variant, names)
    yield from _excess(trace, loads, plan, pairs)


def _information(trace: RoutingTrace, loads: Loads, plan: SurveyPlan, pairs: tuple[tuple[int, int], ...], variant: str,
                 names: tuple[str, ...]) -> Iterator[Row]:
    counted = list(pair_groups(trace, PairPlan(plan.split, plan.salt, pairs, variant=variant), threads=plan.threads))  # type: ignore[arg-type]
    form = {"first": "first choice", "slots": "all slots, 1/k each", "sets": "sets as symbols"}[variant]
    missing = [pair for pair in pairs if pair not in dict(counted)]
    for name in names:
        if counted:
            tables = (LayerPair(a, b, groups, n_tokens=int(loads.tokens.sum())) for (a, b), groups in counted)
            found = cross_layer_estimates(tables, name, level=plan.level)
            for one, (_, groups) in zip(found.pairs, counted):
                yield _pair_row(name, form, (one.first, one.second), loads, plan, one.estimate, groups)
            if not missing:
                yield Row(name, f"token-weighted, {form}, mean over adjacent pairs", tuple(layer.key for layer in loads.layers), plan.split,
                          int(loads.n_documents.sum()), int(loads.tokens.sum()), None, None, found.mean_adjacent)
        for pair in missing:
            reason = "undersampled: more observed sets than tokens could fill; read mi_first_choice"
            yield _pair_row(name, form, pair, loads, plan, Estimate.undefined(reason, unit="bits", n_units=int(loads.n_documents.sum())), None)


def _pair_row(name: str, form: str, pair: tuple[int, int], loads: Loads, plan: SurveyPlan, estimate: Estimate, groups: Groups | None) -> Row:
    a, b = (loads.layers[place] for place in pair)
    smallest = None if groups is None else min(active(groups.totals[0].sum(axis=axis)) for axis in (0, 1))
    return Row(name, f"token-weighted, {form}", (a.key, b.key), plan.split, int(loads.n_documents.sum()), int(loads.tokens.sum()), smallest,
               min(a.n_experts, b.n_experts), estimate)


def routed(part: Planes, trace: RoutingTrace, seed: int) -> RoutedDocuments:
    """First choices of planes with a random key per document, for the nulls."""
    return RoutedDocuments(part.first, part.n_experts, part.starts, document_keys(trace.documents, seed)[part.document], part.position,
                           part.token_id, part.group())


def _excess(trace: RoutingTrace, loads: Loads, plan: SurveyPlan, pairs: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    held = planes(trace, plan.split, salt=plan.salt)
    shifts = ShiftPlan(plan.n_shifts, plan.seed, level=plan.level, threads=plan.threads, p_values=True)
    null = shifted_information(routed(held, trace, plan.seed), pairs, shifts)
    for pair, one in zip(pairs, null.estimates()):
        a, b = (loads.layers[place] for place in pair)
        joint = joint_counts(held.first[pair[0]], held.first[pair[1]], a.n_experts, b.n_experts)
        gates = few_documents(null.n_documents), undersampled(joint, n_tokens=null.n_tokens)
        estimate = gated(one, *gates) if one.value is not None else one
        yield Row("mi_excess", "token-weighted, first choice, over circular shifts", (a.key, b.key), f"{plan.split}, documents of 8 tokens or more",
                  null.n_documents, null.n_tokens, None, min(a.n_experts, b.n_experts), estimate)


def sequence_rows(trace: RoutingTrace, loads: Loads, plan: SurveyPlan) -> Iterator[Row]:
    """Stickiness from a token to the next, per layer: of the first choice, and of the set where k > 1."""
    own = tuple((i, i) for i in range(len(loads.layers)))
    gate = few_documents(int(loads.n_documents.sum()))
    for (place, _), groups in pair_groups(trace, PairPlan(plan.split, plan.salt, own, lag=1), threads=plan.threads):
        layer = loads.layers[place]
        for name in LAG_ONE:
            found = estimates(name, groups, level=plan.level).item()
            few = undersampled(groups.totals[0]) if find(name).unit == "bits" else None
            yield _lag_row(name, "first choice", layer, loads, plan, gated(found, gate, few) if found.value is not None else found)
    if max(layer.top_k for layer in loads.layers) > 1:
        yield from _overlaps(planes(trace, plan.split, salt=plan.salt), loads, plan, gate)


def _overlaps(held: Planes, loads: Loads, plan: SurveyPlan, gate: str | None) -> Iterator[Row]:
    group = held.group()
    n_pairs = lag_pairs(held.starts, [1], group)[:, 0]
    for ids, layer in zip(held.ids, loads.layers):
        if layer.top_k == 1:
            reason = f"{SINGLE_CHOICE}: the overlap of sets of one is same_expert"
            yield _lag_row("lag_overlap_kappa", "sets", layer, loads, plan, Estimate.undefined(reason, unit="kappa"))
            continue
        matches = lag_overlaps(ids, held.starts, layer.n_experts, [1], group)[:, 0]
        sizes = lag_overlap_sizes(ids, held.starts, layer.n_experts, 1, group)
        tables = {"lag_overlap_kappa": (matches, *lag_loads(ids, held.starts, layer.n_experts, 1, group), n_pairs),
                  "lag_jaccard": (sizes,), "lag_any": (sizes,)}
        for name, sums in tables.items():
            found = estimates(name, Groups(sums, len(held.document)), level=plan.level).item()
            yield _lag_row(name, "sets", layer, loads, plan, gated(found, gate) if found.value is not None else found)


def _lag_row(name: str, form: str, layer: LayerMeta, loads: Loads, plan: SurveyPlan, estimate: Estimate) -> Row:
    return Row(name, f"pairs of neighbouring tokens, {form}", (layer.key,), plan.split, int(loads.n_documents.sum()), int(loads.tokens.sum()), None,
               layer.n_experts, estimate)
