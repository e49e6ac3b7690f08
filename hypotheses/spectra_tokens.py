"""What single tokens of a run say: silhouettes of its router inputs with their references, and whether experts serve other token types.

D document, L MoE layer, E expert, V token type, R shuffle, G group of documents, T sampled token.
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
from analysis.planes import Planes, planes
from analysis.resampling import generator, jackknife_groups
from hypotheses.spectra_runs import SPLIT, RunCounts

SILHOUETTE_DRAWS = 5  # permutations and random routers behind each reference
SHUFFLES, TYPE_GROUPS = 5, 20  # 20 groups cover as well as 100 (metrics specification 4.2); every group costs a table of shuffles
MOST_TYPES = 2_000


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

    Over the types that occur 20 times, the commonest 2,000 at most; nothing where the trace has no token types.
    """
    sample = planes(counts.run.trace, SPLIT, salt=counts.settings.salt)
    if sample.token_id is None or not len(sample):
        return {}
    frequency = np.bincount(sample.types, minlength=counts.run.trace.meta.vocabulary_size)
    kept = frequent_types(frequency[None])
    kept = kept[np.argsort(-frequency[kept], kind="stable")[:MOST_TYPES]]
    if not len(kept):
        return {}
    column = np.full(counts.run.trace.meta.vocabulary_size, -1, np.int64)
    column[np.sort(kept)] = np.arange(len(kept))
    tables, shuffles = _type_tables(counts, sample, column, len(kept))
    documents = replace(counts.documents, n=len(sample.document), stratum=None)
    found: dict[str, Draws] = {}
    for name, function, plain in (("diversity_jsd_excess", diversity_jsd_excess, diversity_jsd), ("mi_E_V_excess", mi_E_V_excess, mi_E_V)):
        draws = left_out(name, [tables, shuffles], lambda n, null, of=function: layers_and_mean(of(n, null)), documents)
        null = layers_and_mean(plain(shuffles.sum(axis=0)).mean(axis=-1))
        found[name] = replace(draws, null=null)
    return found


def _type_tables(counts: RunCounts, sample: Planes, column: Int, n_types: int) -> tuple[Int, Int]:
    """Selections [G, L, E, V] and shuffled ones [G, L, R, E, V] by group of documents."""
    group = jackknife_groups(len(sample.document), TYPE_GROUPS)
    n_groups, n_layers, shape = int(group.max()) + 1, len(counts.layers), (counts.n_experts, n_types)
    keys = document_keys(counts.run.trace.documents, counts.settings.seed)
    tables = np.zeros((n_groups, n_layers, *shape), np.int64)
    shuffles = np.zeros((n_groups, n_layers, SHUFFLES, *shape), np.int64)
    document, types, of_row = np.repeat(sample.document, sample.lengths), column[sample.types], np.repeat(group, sample.lengths)
    for g in range(n_groups):
        rows = np.flatnonzero(of_row == g)
        for layer, ids in enumerate(sample.ids):
            tokens = TokenRows(document[rows], types[rows], ids[:, rows].T.astype(np.int64), shape)
            tables[g, layer] = tokens.table()
            shuffles[g, layer] = np.stack(list(shuffled_tables(tokens, keys, SHUFFLES)))
    return tables, shuffles
