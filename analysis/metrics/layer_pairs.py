"""Information over all pairs of MoE layers: estimates per pair, and the means that are reported, each over the same groups of documents.

L MoE layer, P layer pair, G group of documents, X, Y expert of the first and second layer of a pair. Pairs are streamed: the tables of one
pair are held at a time. The diagonal of a layer-by-layer picture is entropy and never called information.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from analysis.arithmetic import Float
from analysis.estimate import Estimate
from analysis.estimation import Groups
from analysis.gates import bias_sensitive, few_documents, gated, undersampled
from analysis.left_out import LeftOut, leave_out, stack
from analysis.metrics.entropy_estimators import mutual_information
from analysis.metrics.joint_tables import drop_warning, selection_biased
from analysis.registry import find

DIRECTED = ("u", "mi_slot_average_ratio")  # X to Y is another number than Y to X


@dataclass(frozen=True)
class LayerPair:
    """Tables of one pair by group of documents; first, second: numbers of the MoE layers; drop_rate: tokens left out pairwise.

    n_tokens: behind the tables, where these count several cells per token (all slot pairs); None where it is their sum.
    """

    first: int
    second: int
    groups: Groups
    drop_rate: float | None = None
    n_tokens: int | None = None


@dataclass(frozen=True)
class PairEstimate:
    """One pair: the jackknife estimate with its gate; grassberger: second estimator, None for tables that are not whole counts."""

    first: int
    second: int
    estimate: Estimate
    grassberger: float | None
    warning: str | None


@dataclass(frozen=True)
class CrossLayerEstimates:
    """A metric over layer pairs. mean_adjacent: mean over pairs one layer apart; by_distance: mean over pairs g layers apart, g ascending.

    by_layer: mean over the pairs of a layer with each other layer of its stack (for u: what the others remove of its uncertainty);
    undefined where not every pair of its stack was counted.
    """

    metric: str
    pairs: tuple[PairEstimate, ...]
    mean_adjacent: Estimate
    by_distance: Mapping[int, Estimate]
    by_layer: Mapping[int, Estimate]

    def matrix(self, n_layers: int, entropy_L: Sequence[float] | None = None) -> Float:
        """Corrected values [L, L], NaN where undefined or not counted; the diagonal is H(X_l) where entropy_L is given, else NaN."""
        out = np.full((n_layers, n_layers), np.nan)
        for pair in self.pairs:
            value = np.nan if pair.estimate.value is None else pair.estimate.value
            out[pair.first, pair.second] = value
            if self.metric not in DIRECTED:
                out[pair.second, pair.first] = value
        if entropy_L is not None:
            np.fill_diagonal(out, np.asarray(entropy_L, np.float64))
        return out


def cross_layer_estimates(pairs: Iterable[LayerPair], metric: str = "mi_first_choice", *, level: float = 0.95) -> CrossLayerEstimates:
    """Estimates of a registered metric of joint tables per layer pair and for its aggregates, by one jackknife over the same documents.

    Gates: undersampled, too_few_documents, selection_biased, bias_sensitive; an aggregate carries the first gate but the last of its
    pairs, and its own bias_sensitive. ValueError for a pair given twice, a layer with itself, and other groups in one pair than in another.
    """
    seen = [_scan(pair, metric) for pair in pairs]
    places = [(min(one.place), max(one.place)) if metric not in DIRECTED else one.place for one in seen]
    for number, place in enumerate(places):
        if place[0] == place[1] or place in places[:number]:
            raise ValueError(f"layers {place[0]} and {place[1]}: a pair is two layers, and is given once (the diagonal is H, not information)")
    if not seen:
        raise ValueError("no layer pair: information between layers needs two MoE layers")
    together = stack([one.left_out for one in seen])
    values = together.estimates(metric, level=level)
    singles = tuple(PairEstimate(*one.place, _gate(value, one), one.grassberger, drop_warning(one.drop_rate)) for one, value in zip(seen, values))
    adjacent = {1: [number for number, (x, y) in enumerate(places) if y - x == 1]}
    gaps = sorted({y - x for x, y in places if y > x})
    distances = {gap: [number for number, (x, y) in enumerate(places) if y - x == gap] for gap in gaps}
    layers = {layer: _pairs_of(layer, places, metric) for layer in sorted({layer for place in places for layer in place})}

    def means(members: dict[int, list[int]], missing: str) -> dict[int, Estimate]:
        values = cast(Iterable[Estimate], together.mean(list(members.values())).estimates(metric, level=level))
        return dict(zip(members, _aggregated(values, seen, members.values(), missing)))

    return CrossLayerEstimates(metric, singles, means(adjacent, "no_data: no adjacent pair was counted")[1],
                               means(distances, "no_data: no pair at this distance was counted"),
                               means(layers, "no_data: not every pair of this layer's stack was counted"))


@dataclass(frozen=True)
class _Scanned:
    place: tuple[int, int]
    left_out: LeftOut
    grassberger: float | None
    drop_rate: float | None
    gate: str | None  # whatever does not depend on the estimate


def _scan(pair: LayerPair, metric: str) -> _Scanned:
    if find(metric).takes[0] != "joint_XY":
        raise ValueError(f"{metric} takes {find(metric).takes[0]}; cross-layer estimates are of metrics of one joint table")
    values = leave_out(pair.groups, find(metric).function)
    table = pair.groups.totals[0]
    whole = find(metric).unit == "bits" and np.issubdtype(np.asarray(pair.groups.tables[0]).dtype, np.integer) and table.sum() > 0
    whole &= pair.n_tokens in (None, int(table.sum()))
    reasons = (undersampled(table, n_tokens=pair.n_tokens), few_documents(pair.groups.n_documents), selection_biased(pair.drop_rate))
    return _Scanned((pair.first, pair.second), values, float(mutual_information(table, "grassberger_G")) if whole else None,
                    pair.drop_rate, next((reason for reason in reasons if reason), None))


def _gate(estimate: Estimate, one: _Scanned) -> Estimate:
    return gated(estimate, one.gate, _bias(estimate, one.grassberger)) if estimate.value is not None else estimate


def _bias(estimate: Estimate, grassberger: float | None) -> str | None:
    if estimate.value is None or estimate.plug_in is None or estimate.unit != "bits":
        return None
    return bias_sensitive(estimate.plug_in, estimate.value, grassberger)


def _pairs_of(layer: int, places: Sequence[tuple[int, int]], metric: str) -> list[int]:
    """Pairs of a layer with every other layer of its stack; none where one is missing."""
    def partners(one: int) -> set[int]:
        if metric in DIRECTED:
            return {x for x, y in places if y == one} | {one}
        return {other for place in places if one in place for other in place} | {one}

    stack_of = {other for place in places if layer in place for other in place}
    if any(partners(other) != stack_of for other in stack_of):
        return []
    return [number for number, place in enumerate(places) if (place[1] == layer if metric in DIRECTED else layer in place)]


def _aggregated(values: Iterable[Estimate], seen: Sequence[_Scanned], members: Iterable[Sequence[int]], missing: str) -> list[Estimate]:
    out = []
    for estimate, chosen in zip(values, members):
        if not chosen:
            out.append(Estimate.undefined(missing, unit=estimate.unit, n_units=estimate.n_units, method=estimate.method))
            continue
        seconds = [seen[number].grassberger for number in chosen]
        second = None if None in seconds else float(np.mean(cast(list[float], seconds)))
        barred = [f"{seen[number].gate} (layers {seen[number].place[0]} and {seen[number].place[1]})" for number in chosen if seen[number].gate]
        reason = f"{barred[0]}, and {len(barred) - 1} more of {len(chosen)} pairs" if len(barred) > 1 else next(iter(barred), None)
        out.append(estimate if estimate.value is None else gated(estimate, reason, _bias(estimate, second)))
    return out
