"""What single tokens of a run say: silhouettes of its router inputs with their references, and whether experts serve other token types.

D document, L MoE layer, E expert, V token type, R shuffle, G group of documents, T sampled token, K slot.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.counts import document_hash
from analysis.gates import NO_DATA
from analysis.kernels import Int
from analysis.metrics.diversity import TokenRows, diversity_jsd, diversity_jsd_excess, frequent_types, mi_E_V, mi_E_V_excess, shuffled_tables
from analysis.metrics.geometry import silhouette_report
from analysis.nulls import document_keys
from analysis.paired_draws import Draws, bootstrapped, layers_and_mean, left_out
from analysis.resampling import generator, jackknife_groups
from hypotheses.spectra_rows import columns_of, commonest, layer_rows, occurrences
from hypotheses.spectra_runs import SPLIT, RunCounts

SILHOUETTE_DRAWS = 5  # permutations and random routers behind each reference
SHUFFLES, TYPE_GROUPS = 5, 20  # 20 groups cover as well as 100 (metrics specification 4.2); every group costs a table of shuffles
MOST_TYPES, MOST_CELLS = 2_000, 2**25  # of the tables of one layer, int32: 128 MiB
OF_TYPES = (("diversity_jsd_excess", diversity_jsd_excess, diversity_jsd), ("mi_E_V_excess", mi_E_V_excess, mi_E_V))


def silhouette_draws(counts: RunCounts) -> tuple[dict[str, Draws], dict[str, Float]]:
    """Silhouette of router inputs less its value under permuted labels, clusters fixed; and the references themselves by layer [L].

    Vectors are a sample of test tokens, the same in every arm. References: `value`, `permuted`, `hyperplane` (random linear routers).
    """
    inputs, n_layers = counts.run.inputs, len(counts.layers)
    if not len(inputs.document_T):
        return {}, {}
    place, n = _places(counts, inputs.document_T)
    sums, sizes = np.zeros((n, n_layers)), np.zeros((n, n_layers))
    references = {name: np.full(n_layers, np.nan) for name in ("value", "permuted", "hyperplane")}
    for layer in range(n_layers):
        rng = generator(counts.settings.seed, "silhouette", layer)
        found = silhouette_report(np.asarray(inputs.vectors[layer], np.float64), inputs.first_LT[layer], rng, n_experts=counts.n_experts,
                                  draws=SILHOUETTE_DRAWS)
        if found.value is None or found.permuted is None:
            continue
        known = ~np.isnan(found.samples)
        sums[:, layer] = np.bincount(place[known], weights=found.samples[known] - found.permuted, minlength=n)
        sizes[:, layer] = np.bincount(place[known], minlength=n)
        references["value"][layer], references["permuted"][layer] = found.value, found.permuted
        references["hyperplane"][layer] = np.nan if found.hyperplane is None else found.hyperplane

    def value(total: ArrayLike, size: ArrayLike) -> Float:
        return layers_and_mean(divide(total, size))

    documents = replace(counts.documents, n=n, stratum=None)
    draws = bootstrapped("silhouette", [sums, sizes], value, documents, kind="percentile")
    beyond = references["hyperplane"] - references["permuted"]
    made = replace(draws, null=np.append(beyond, beyond.mean()), undefined=f"{NO_DATA}: fewer than two clusters in a layer")
    return {"silhouette": made}, references


def _places(counts: RunCounts, document_T: NDArray[np.integer]) -> tuple[Int, int]:
    """Place of each token's document in hash order, and how many documents the sample has."""
    ids = {row.document: row.id for row in counts.run.trace.documents}
    present = sorted(set(document_T.tolist()), key=lambda number: document_hash(ids[number], counts.settings.salt))
    lookup = np.full(max(present) + 1, -1, np.int64)
    lookup[present] = np.arange(len(present))
    return lookup[document_T], len(present)


def diversity_draws(counts: RunCounts) -> dict[str, Draws]:
    """Divergence of the experts' token types and I(E;V), both less their shuffle within documents, by the jackknife over 20 groups.

    Over the types that occur 20 times, the commonest 2,000 at most, and fewer of many experts, so that the tables of a layer stay within
    MOST_CELLS; nothing where the trace has no token types.
    """
    frequency = occurrences(counts.run, SPLIT)
    if frequency is None:
        return {}
    kept = commonest(frequency, min(MOST_TYPES, MOST_CELLS // (TYPE_GROUPS * (SHUFFLES + 1) * counts.n_experts)), frequent_types(frequency[None]))
    if not len(kept):
        return {}
    group = _groups(counts)
    documents = replace(counts.documents, n=len(group), stratum=None)
    found: dict[str, list[Draws]] = {name: [] for name, _, _ in OF_TYPES}
    for layer in range(len(counts.layers)):
        tables, shuffles = _type_tables(counts, layer, kept, group)
        for name, function, plain in OF_TYPES:
            draws = left_out(name, [tables, shuffles], lambda n, null, of=function: np.atleast_1d(of(n, null)), documents)
            found[name].append(replace(draws, null=plain(shuffles.sum(axis=0)).mean(axis=-1, keepdims=True)))
    return {name: _side_by_side(draws) for name, draws in found.items()}


def _side_by_side(layers: list[Draws]) -> Draws:
    """Draws of single layers as those of all and their mean."""
    null = np.concatenate([one.null for one in layers if one.null is not None])
    return replace(layers[0], plug_in=layers_and_mean(np.concatenate([one.plug_in for one in layers])),
                   drawn=layers_and_mean(np.concatenate([one.drawn for one in layers], axis=1)), null=layers_and_mean(null))


def _groups(counts: RunCounts) -> dict[int, int]:
    """Group of each test document by its number, dealt in hash order."""
    rows = sorted((document_hash(row.id, counts.settings.salt), row.document) for row in counts.run.trace.documents if row.split == SPLIT)
    return dict(zip([number for _, number in rows], jackknife_groups(len(rows), TYPE_GROUPS).tolist(), strict=True))


def _type_tables(counts: RunCounts, layer: int, kept: Int, group: dict[int, int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Selections [G, E, V] and shuffled ones [G, R, E, V] of one layer by group of documents."""
    n_groups, shape = max(group.values()) + 1, (counts.n_experts, len(kept))
    keys, column = document_keys(counts.run.trace.documents, counts.settings.seed), columns_of(kept, counts.run.trace.meta.vocabulary_size)
    of_document = np.zeros(max(group) + 1, np.int64)
    of_document[list(group)] = list(group.values())
    tables, shuffles = np.zeros((n_groups, *shape), np.int32), np.zeros((n_groups, SHUFFLES, *shape), np.int32)
    for rows in layer_rows(counts.run, SPLIT, layer):
        assert rows.types is not None
        of_row, types = of_document[rows.document], column[rows.types]
        for g in np.unique(of_row).tolist():
            chosen = np.flatnonzero(of_row == g)
            tokens = TokenRows(rows.document[chosen], types[chosen], rows.experts[chosen], shape)
            tables[g] += tokens.table().astype(np.int32)
            for draw, table in enumerate(shuffled_tables(tokens, keys, SHUFFLES)):
                shuffles[g, draw] += table.astype(np.int32)
    return tables, shuffles
