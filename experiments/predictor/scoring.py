"""Predictors and baselines of every source domain held against the routing of every domain: additive tables by group of documents."""
# T token (row of the scored planes), L layer, R rank of a guess, G jackknife group of one target's documents, E expert

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.gates import NO_DATA, SINGLE_CHOICE
from analysis.kernels import Int, mix
from analysis.metrics.baselines import TokensToPredict, baseline_guesses
from analysis.metrics.prediction import prediction_counts, recall_counts
from analysis.nulls import document_keys
from analysis.planes import Planes
from analysis.resampling import jackknife_groups
from analysis.trace import DocumentRow, LayerMeta
from experiments.predictor.predictions import Predictions
from hypotheses.topology_evidence import ABLATION, PROPHET, PredictionScores

LEARNT = (PROPHET, ABLATION)
TABLES = ("uniform", "modal", "token_type", "previous_layer", "ordered_pair")
ACROSS = (*LEARNT, "previous_layer", "ordered_pair")  # scored outside their own domain too
MAX_GROUPS, FEWEST_GROUPS = 100, 20
TABLE_BYTES = 2**30  # of all joint tables together; more experts than fit get fewer groups

Key = tuple[str, str, str]  # predictor, source, target
Guesses = tuple[NDArray[Any] | None, ...]  # per layer [R, T], best first


@dataclass(frozen=True)
class Guessed:
    """A predictor fitted on one source, on the scored rows, per layer: first choices [T] and sets [R, T]; None where there is none."""

    first: tuple[NDArray[Any] | None, ...]
    sets: Guesses

    @classmethod
    def of(cls, predictions: Predictions) -> Guessed:
        """Guesses of a learnt or imported predictor."""
        return cls(predictions.first, predictions.sets)


@dataclass(frozen=True)
class Targets:
    """The scored rows by domain: group_T numbers the groups of all domains, those of one domain being a range."""

    planes: Planes
    group_T: Int
    range_of: Mapping[str, tuple[int, int]]
    n_documents: Mapping[str, int]

    @classmethod
    def of(cls, planes: Planes, documents: Sequence[DocumentRow], max_groups: int = MAX_GROUPS) -> Targets:
        """Documents of the planes dealt to groups inside their domain, in the order of the planes (by hash, if made by analysis.planes)."""
        domain_of = {row.document: row.domain for row in documents}
        domains = np.array([domain_of[int(number)] for number in planes.document], object)
        group_D, range_of, n_documents, start = np.zeros(len(domains), np.int64), {}, {}, 0
        for domain in sorted(set(domains)):
            members = np.flatnonzero(domains == domain)
            group_D[members] = start + jackknife_groups(len(members), max_groups)
            stop = start + min(len(members), max_groups)
            range_of[domain], n_documents[domain], start = (start, stop), len(members), stop
        return cls(planes, np.repeat(group_D, planes.lengths), range_of, n_documents)

    @property
    def n_groups(self) -> int:
        """Groups of all domains."""
        return max(stop for _, stop in self.range_of.values())


def max_groups(layers: Sequence[LayerMeta], n_sources: int, n_targets: int) -> int:
    """Jackknife groups of a target so that the joint tables fit TABLE_BYTES: 100, or fewer down to 20 with many experts."""
    n_tables = n_sources * (len(LEARNT) + len(TABLES) + len(ACROSS) * max(0, n_targets - 1))
    bytes_per_group = 4 * n_tables * sum(layer.n_experts**2 for layer in layers)
    return int(np.clip(TABLE_BYTES // max(bytes_per_group, 1), FEWEST_GROUPS, MAX_GROUPS))


def predicted_layers(layers: Sequence[LayerMeta]) -> tuple[int, ...]:
    """Places of the layers that have one before them in their stack, where every baseline can be fitted; the first alone if it is the only one."""
    return tuple(i for i in range(1, len(layers)) if layers[i].stack == layers[i - 1].stack) or tuple(range(min(1, len(layers))))


def table_guesses(source: Planes, scored: Planes, documents: Sequence[DocumentRow], seed: int, layers: Collection[int]) -> dict[str, Guessed]:
    """Guesses for the scored rows of every baseline fitted on the source's rows, for `layers`; None where a layer does not allow it.

    First choices come from tables of first choices, sets from tables of all slots. documents, seed: of the uniform guesses' random keys.
    """
    keys = document_keys(documents, seed)[scored.document]
    key_T = mix(np.repeat(keys, scored.lengths) ^ mix(scored.position.astype(np.uint64)))
    found: dict[str, tuple[list[Any], list[Any]]] = {name: ([], []) for name in TABLES}
    for index, layer in enumerate(scored.layers):
        if index not in layers:
            for lists in found.values():
                for one in lists:
                    one.append(None)
            continue
        before = index - 1 if index and scored.layers[index - 1].stack == layer.stack else None
        fitted, asked = (_tokens(planes, index, before, key) for planes, key in ((source, np.zeros(0, np.uint64)), (scored, key_T)))
        first = baseline_guesses(fitted, asked, layer.n_experts, 1)
        sets = baseline_guesses(fitted, asked, layer.n_experts, layer.top_k) if layer.top_k > 1 else first
        for name, (of_first, of_sets) in found.items():
            of_first.append(first[name][:, 0].astype(layer.id_dtype) if name in first else None)
            of_sets.append(np.ascontiguousarray(sets[name].T, layer.id_dtype) if name in sets else None)
    return {name: Guessed(tuple(first), tuple(sets)) for name, (first, sets) in found.items()}


def _tokens(planes: Planes, index: int, before: int | None, key_T: NDArray[np.uint64]) -> TokensToPredict:
    previous = None if before is None else planes.ids[before].T.astype(np.int64)
    types = None if planes.token_id is None else planes.token_id.astype(np.int64)
    return TokensToPredict(planes.ids[index].T.astype(np.int64), key_T, previous, types)


def why_missing(name: str, scored: Planes, layers: Sequence[int]) -> str:
    """Why a baseline could not be fitted on all of these layers."""
    if name == "token_type":
        return f"{NO_DATA}: the trace does not record token ids"
    if len(scored.layers) == 1:
        return f"{NO_DATA}: one MoE layer; there is no layer before it"
    narrow = [scored.layers[i - 1].key for i in layers if i and scored.layers[i - 1].top_k == 1]
    return f"{SINGLE_CHOICE}: no ordered pair of choices in layer {narrow[0]}" if narrow else f"{NO_DATA}: a layer has none before it"


def scores_of(guessed: Guessed, targets: Targets, wanted: Sequence[str], layers: Sequence[int]) -> dict[str, PredictionScores]:
    """Tables of one predictor on the documents of each wanted target, for the given layers, all of which it must have guessed."""
    joints: dict[str, list[NDArray[np.integer]]] = {target: [] for target in wanted}
    recalls: dict[str, list[NDArray[np.integer]]] = {target: [] for target in wanted}
    rows = _rows_of(targets, wanted)
    for index in layers:
        first, sets, layer = guessed.first[index], guessed.sets[index], targets.planes.layers[index]
        if first is None or sets is None:
            raise ValueError(f"layer {layer.key} was not guessed; leave it out of the layers")
        actual_KT, group = targets.planes.ids[index][:, rows].astype(np.int64), targets.group_T[rows]
        joint_GPY = prediction_counts(first[rows].astype(np.int64), actual_KT[0], layer.n_experts, group, targets.n_groups).astype(np.int32)
        recall_G2 = recall_counts(sets[: layer.top_k, rows].T.astype(np.int64), actual_KT.T, layer.n_experts, group, targets.n_groups)
        for target in wanted:
            start, stop = targets.range_of[target]
            joints[target].append(joint_GPY[start:stop].copy())
            recalls[target].append(recall_G2[start:stop].copy())
    return {target: PredictionScores(joints[target], recalls[target]) for target in wanted}


def _rows_of(targets: Targets, wanted: Sequence[str]) -> NDArray[Any] | slice:
    if len(wanted) == len(targets.range_of):
        return slice(None)
    kept = np.zeros(targets.n_groups, bool)
    for target in wanted:
        start, stop = targets.range_of[target]
        kept[start:stop] = True
    return np.flatnonzero(kept[targets.group_T])


def right_by_group(scores: PredictionScores) -> Int:
    """First choices predicted right [L, G]: the diagonals' sums."""
    return np.array([np.einsum("gee->g", table.astype(np.int64)) for table in scores.joint_LGPY])

