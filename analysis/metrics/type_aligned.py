"""Do two domains send the same token types to the same experts? (seed 000, 1.B, by way of the shared vocabulary)

V token type, E expert (i in domain A, j in domain B), B replicate, Z non-empty cell, M permutation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide, mutual_information_bits
from analysis.estimate import Estimate
from analysis.gates import DOMAIN_FLOOR, NO_DATA, few_per_domain, gated
from analysis.kernels import Int
from analysis.registry import metric
from analysis.resampling import TypeCells, basic_interval, document_weights, generator

TYPE_FLOOR, DECILES = 20, 10
REPLICATES, PERMUTATIONS = 1999, 999
UNSHARED = f"{NO_DATA}: no token type occurs often enough in both domains"


@metric("type_aligned_mi", unit="bits", bounds=(0.0, lambda a, b: float(np.log2(min(np.shape(a)[-1], np.shape(b)[-1])))),
        undefined=UNSHARED, source="metrics specification 2.1 B3", takes=("types_VE", "types_VE"), estimator="basic document bootstrap",
        invariant=("relabelling in either domain", "type order"))
def type_aligned_mi(counts_A: ArrayLike, counts_B: ArrayLike, floor: float = TYPE_FLOOR, selections_per_token: int = 1) -> Float:
    """Type-aligned information: I of J(i,j) = sum_v w_v P_A(i|v) P_B(j|v), w_v ~ min(n_A(v), n_B(v)), bits.

    counts_A, counts_B: selections of each shared type [..., V, E]; n(v) = selections / selections_per_token; types with n >= floor in both
    domains take part. Gives [...], [0, log2 E]; NaN where no type does. i and j are independent given v, so it measures routing by type.
    """
    a, b = np.asarray(counts_A, np.float64), np.asarray(counts_B, np.float64)
    if a.shape[-2] != b.shape[-2]:
        raise ValueError(f"{a.shape[-2]} types in A and {b.shape[-2]} in B: rows must be the same types of one tokenizer")
    tokens = np.minimum(a.sum(axis=-1), b.sum(axis=-1)) / selections_per_token
    return mutual_information_bits(aligned_joint(a, b, np.where(tokens >= floor, tokens, 0.0)))


def aligned_joint(counts_A: Float, counts_B: Float, weight_V: Float) -> Float:
    """J(i,j) = sum_v w_v P_A(i|v) P_B(j|v) with w scaled to sum 1; [..., E, E]; all 0 where no weight is left."""
    weight = np.nan_to_num(divide(weight_V, weight_V.sum(axis=-1, keepdims=True)), nan=0.0)
    p, q = (np.nan_to_num(divide(n, n.sum(axis=-1, keepdims=True)), nan=0.0) for n in (counts_A, counts_B))
    out: Float = np.swapaxes(p * weight[..., None], -1, -2) @ q
    return out


@dataclass(frozen=True)
class TypeRouting:
    """Selections of one domain at one layer by document, type and expert: one entry per non-empty cell [Z].

    tokenizer: SHA-256 of the tokenizer; type ids mean the same only where it is the same. n_types, n_experts: sizes of the id spaces.
    ValueError for numbers out of range.
    """

    document: Int
    type: Int
    expert: Int
    selections: Int
    n_documents: int
    n_types: int
    n_experts: int
    tokenizer: str
    selections_per_token: int = 1

    def __post_init__(self) -> None:
        for name, size in (("document", self.n_documents), ("type", self.n_types), ("expert", self.n_experts)):
            column = np.asarray(getattr(self, name))
            if len(column) != len(self.selections):
                raise ValueError(f"{name}: {len(column)} entries for {len(self.selections)} selections; give one of each per cell")
            if len(column) and not (np.issubdtype(column.dtype, np.integer) and 0 <= int(column.min()) <= int(column.max()) < size):
                raise ValueError(f"{name}: numbers are integers from 0 to {size - 1}; correct n_{name}s, or the numbers")

    def totals(self) -> Float:
        """Selections [V, E] over all documents."""
        out = np.zeros(self.n_types * self.n_experts)
        np.add.at(out, self.type.astype(np.int64) * self.n_experts + self.expert, self.selections)
        return out.reshape(self.n_types, self.n_experts)


def decile_permutation(weight_V: Float, rng: np.random.Generator) -> Int:
    """Types [V] permuted within the deciles of their frequency; a type stays among types about as frequent as itself."""
    order = np.argsort(weight_V, kind="stable")
    places = np.arange(len(weight_V))
    for members in np.array_split(order, min(DECILES, max(len(order), 1))):
        places[members] = rng.permutation(members)
    return places


def type_null(counts_A: ArrayLike, counts_B: ArrayLike, weight_V: ArrayLike, rng: np.random.Generator, n_draws: int = PERMUTATIONS) -> Float:
    """The metric [M] with the types of B permuted within frequency deciles, weights staying with A's types: no alignment, same frequencies."""
    a, b, weight = (np.asarray(x, np.float64) for x in (counts_A, counts_B, weight_V))
    return np.array([mutual_information_bits(aligned_joint(a, b[decile_permutation(weight, rng)], weight)) for _ in range(n_draws)])


def type_aligned_estimate(a: TypeRouting, b: TypeRouting, *, seed: int, layer: int | str = "all", level: float = 0.95,
                          floor: float = TYPE_FLOOR, n_replicates: int = REPLICATES, n_permutations: int = PERMUTATIONS) -> Estimate:
    """type_aligned_mi of two domains: plug-in with the basic document bootstrap interval, beside the null of permuted types.

    Documents of A and of B are drawn independently; the set of types is fixed, and a type absent from a replicate has weight 0 there. One
    domain of one document has no interval and is gated. p = (1 + #{null >= value}) / (M + 1). ValueError for unlike tokenizers or sizes.
    """
    if a.tokenizer != b.tokenizer:
        raise ValueError(f"tokenizers differ ({a.tokenizer[:12]!r} and {b.tokenizer[:12]!r}): type ids mean different tokens; compare domains "
                         "traced with one tokenizer")
    if (a.n_types, a.n_experts, a.selections_per_token) != (b.n_types, b.n_experts, b.selections_per_token):
        raise ValueError("n_types, n_experts and selections_per_token must be equal: the same layer of one model")
    n_A, n_B = a.totals(), b.totals()
    tokens = np.minimum(n_A.sum(axis=1), n_B.sum(axis=1)) / a.selections_per_token
    kept = np.flatnonzero(tokens >= floor)
    n_documents = min(a.n_documents, b.n_documents)
    if not len(kept):
        return Estimate.undefined(UNSHARED, unit="bits", n_units=n_documents, method="basic document bootstrap", n=0, n_of="types")
    value = float(mutual_information_bits(aligned_joint(n_A[kept], n_B[kept], tokens[kept])))
    null = type_null(n_A[kept], n_B[kept], tokens[kept], generator(seed, "type_aligned_mi null", layer), n_permutations)
    estimate = Estimate(value, None, None, "bits", "document", n_documents, "plug-in", level, plug_in=value, n=len(kept), n_of="types",
                        null=float(null.mean()), null_low=float(np.quantile(null, 0.025)), null_high=float(np.quantile(null, 0.975)),
                        p=float((1 + np.sum(null >= value - 1e-12)) / (len(null) + 1)))
    if n_documents > 1:
        replicates = np.concatenate(list(_replicates(a, b, kept, n_replicates, generator(seed, "type_aligned_mi", layer))))
        low, high = basic_interval(np.asarray(value), replicates, level)
        estimate = replace(estimate, low=float(low), high=float(high), se=float(replicates.std(ddof=1)), method="basic document bootstrap")
    return gated(estimate, few_per_domain([a.n_documents, b.n_documents], DOMAIN_FLOOR))


def _replicates(a: TypeRouting, b: TypeRouting, kept: Int, n_replicates: int, rng: np.random.Generator, at_once: int = 64) -> Iterator[Float]:
    place = np.full(a.n_types, -1)
    place[kept] = np.arange(len(kept))
    cells = [_cells(domain, place, len(kept)) for domain in (a, b)]
    for start in range(0, n_replicates, at_once):
        size = min(at_once, n_replicates - start)
        left, right = (one.sums(document_weights(domain.n_documents, size, rng), values).reshape(size, len(kept), a.n_experts)
                       for domain, (one, values) in zip((a, b), cells))
        yield mutual_information_bits(aligned_joint(left, right, np.minimum(left.sum(axis=-1), right.sum(axis=-1))))


def _cells(domain: TypeRouting, place: Int, n_kept: int) -> tuple[TypeCells, Int]:
    """The kept types' cells as a sparse [D, V * E], with their selections; repeated cells are summed first."""
    chosen = place[domain.type] >= 0
    column = place[domain.type[chosen]] * domain.n_experts + domain.expert[chosen]
    width = n_kept * domain.n_experts
    keys, inverse = np.unique(domain.document[chosen].astype(np.int64) * width + column, return_inverse=True)
    values = np.zeros(len(keys), np.int64)
    np.add.at(values, inverse, domain.selections[chosen])
    return TypeCells(keys // width, keys % width, (domain.n_documents, width)), values
