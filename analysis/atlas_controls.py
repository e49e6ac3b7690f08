"""Controls of what an atlas claims: routing planted on a run's own documents, with a known answer on repetition and on domains.

At each layer a document has a law over experts: softmax of domain_sd x (normal of its domain) + document_sd x (normal of the document). A token
repeats the whole set of the token before it with probability `sticky` (never at the first layer of a stack), else each of its choices is drawn
from the law of its document, or, where that gives one that it has, uniformly from the rest. The plans of each claim are named below.

A row's draws depend on the seed, its document's id, its position and its layer alone. T token (row), D document, L MoE layer, K slot, E expert,
H domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Float, Int, mix
from analysis.nulls import document_keys
from analysis.planted_draws import Draws, Keys, another
from analysis.resampling import generator
from analysis.rows import whole_documents
from analysis.trace import CountsTrace, LayerMeta, RoutingTrace, TraceBatch

TOKENS_OF_COUNTS = 100_000  # planted in a domain whose tokens are not recorded


@dataclass(frozen=True)
class AtlasPlan:
    """domain_sd, document_sd: spread of the log-probabilities over domains and over documents; sticky: probability of repeating."""

    domain_sd: float
    document_sd: float
    sticky: float = 0.0


# Repetition: sticky above the first layer; nothing but loads; documents of strong composition whose tokens come in no order.
REPETITION: Mapping[str, AtlasPlan] = {
    "positive": AtlasPlan(0.5, 0.2, 0.3), "negative": AtlasPlan(0.5, 0.1), "composition": AtlasPlan(0.5, 1.5)}
# Domains: each with a law of its own; one law for all, from which single documents stray as far as domains do in the positive control.
SPECIALISATION: Mapping[str, AtlasPlan] = {"positive": AtlasPlan(1.0, 0.2), "negative": AtlasPlan(0.0, 0.5)}


@dataclass(frozen=True)
class Planting:
    """A plan on the documents of one trace. key, domain: of each document number; domains: their names in order."""

    plan: AtlasPlan
    seed: int
    layers: tuple[LayerMeta, ...]
    key: Keys
    domain: Int
    domains: tuple[str, ...]

    @classmethod
    def of(cls, trace: RoutingTrace, plan: AtlasPlan, seed: int) -> Planting:
        """Reads the document table, no row."""
        names = tuple(sorted({row.domain for row in trace.documents}))
        domain = np.zeros(max((row.document for row in trace.documents), default=-1) + 1, np.int64)
        for row in trace.documents:
            domain[row.document] = names.index(row.domain)
        return cls(plan, seed, trace.meta.layers, document_keys(trace.documents, seed), domain, names)

    def rows(self, batches: Iterable[TraceBatch]) -> Iterator[TraceBatch]:
        """The same rows (document, position, token_id) with planted expert ids, batch by batch; other columns are absent."""
        for batch in whole_documents(batches):
            key = mix(self.key[batch.document] ^ mix(batch.position.astype(np.uint64)))
            starts = np.r_[True, batch.document[1:] != batch.document[:-1]] if len(batch) else np.zeros(0, bool)
            ids = tuple(self._layer(number, key, batch.document, starts) for number in range(len(self.layers)))
            yield TraceBatch(batch.document, batch.position, batch.token_id, ids)

    def _layer(self, number: int, key: Keys, document: NDArray[np.int32], starts: NDArray[np.bool_]) -> NDArray[Any]:
        layer, draws = self.layers[number], Draws(key, number)
        law = self._law(number, np.unique(document))
        sets = np.empty((len(document), layer.top_k), np.int64)
        of = np.unique(document, return_inverse=True)[1]
        for slot in range(layer.top_k):
            one, before = _drawn(law, of, draws.uniform(1024 + slot)), sets[:, :slot]
            again = another(before, draws.below(2048 + slot, layer.n_experts - slot))
            sets[:, slot] = np.where((before == one[:, None]).any(axis=1), again, one)
        if self.plan.sticky and not is_lowest(self.layers, number):
            fresh = starts | (draws.uniform(0) >= self.plan.sticky)
            sets = sets[np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))]
        return sets.astype(layer.id_dtype)

    def _law(self, number: int, documents: NDArray[np.int32]) -> Float:
        """P(e) of each document [D, E]."""
        n_experts = self.layers[number].n_experts
        of_domain = domain_law(self, number)[self.domain[documents]]
        own = np.stack([_normal(Draws(self.key[documents], number), e) for e in range(n_experts)], axis=1)
        weight = np.exp(of_domain + self.plan.document_sd * own)
        out: Float = weight / weight.sum(axis=1, keepdims=True)
        return out


def is_lowest(layers: tuple[LayerMeta, ...], number: int) -> bool:
    """Whether a layer is the first MoE layer of its stack."""
    return number == 0 or layers[number].stack != layers[number - 1].stack


def domain_law(planting: Planting, number: int) -> Float:
    """Log-weights of each domain [H, E]."""
    size = (max(len(planting.domains), 1), planting.layers[number].n_experts)
    return planting.plan.domain_sd * generator(planting.seed, "atlas_domains", number).normal(size=size)


def _normal(draws: Draws, expert: int) -> Float:
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(draws.uniform(1 + expert), 1e-12, 1 - 1e-12)), np.float64)


def _drawn(law_DE: Float, of: NDArray[Any], uniform: Float) -> Int:
    """Expert of each row by the law of its document."""
    edges = np.cumsum(law_DE, axis=1)
    edges[:, -1] = 1.0
    found = np.searchsorted((edges + np.arange(len(edges))[:, None]).ravel(), of + uniform, side="right") - of * edges.shape[1]
    return np.asarray(np.clip(found, 0, edges.shape[1] - 1), np.int64)


def planted_counts(trace: CountsTrace, plan: AtlasPlan, seed: int) -> CountsTrace:
    """Counts of the same shape as `trace` by the laws of its domains; there is no document, so that sets are k independent draws."""
    planting = Planting(plan, seed, trace.meta.layers, np.zeros(0, np.uint64), np.zeros(0, np.int64), trace.domains)
    tokens = trace.tokens if trace.tokens is not None else np.full(len(trace.domains), TOKENS_OF_COUNTS)
    counts = []
    for number, layer in enumerate(trace.meta.layers):
        weight = np.exp(domain_law(planting, number))
        rng = generator(seed, "atlas_counts", number)
        counts.append(np.stack([rng.multinomial(int(n) * layer.top_k, p / p.sum()) for n, p in zip(tokens, weight)]).astype(np.int64))
    return CountsTrace(trace.meta, trace.domains, tuple(counts), tokens=trace.tokens)
