"""Controls of a topology claim: routing planted on a run's own documents, so that the right verdict on structure across layers and domains is known.

Positive. X_0 is drawn from the document's topic; at each later layer of a stack X_l = step_l(X_l-1) with probability f_l, else uniform. step_l is one
permutation for all domains, and f_l puts I(X_l-1; X_l) at 1.5 + 0.6 (log2 E - 1.5) bits, 2.5 at most. The other slots are one of 128 sets
drawn beforehand for the first choice, three in four of them mostly of its own block of experts, the rest uniform: the same in every domain.
Misleading. The same law, but each domain has steps and sets of its own: within-domain information is equal, and no domain says anything of
another. X_0 is uniform.
Independent. Given the document's topic (four a domain, none shared) layers are independent. For k >= 2 the set is drawn from the conditional
Bernoulli law of the topic's liking (uniformly, where there are more than 65,536 sets), and the first choice is, in 2 of k tokens, the member
that the topic likes best: experts of a topic are chosen together, and nothing but the topic of the document makes them.

A row's draws depend on the seed, its document's id, its position and its layer alone. D document, T token (row), L MoE layer, K slot, E expert,
Z topic, H domain, R set drawn beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.conditional_bernoulli import ENUMERATED, from_weights, set_law
from analysis.kernels import Float, Int, mix
from analysis.nulls import document_keys
from analysis.planted_draws import Draws, Keys, uniform_sets
from analysis.resampling import generator
from analysis.rows import whole_documents
from analysis.trace import LayerMeta, RoutingTrace, TraceBatch

Kind = Literal["positive", "independent", "misleading"]
KINDS: tuple[Kind, ...] = ("positive", "independent", "misleading")
SHARE_OF_REST, MOST_BITS, LEAST_ROOM = 0.6, 2.5, 0.25  # bits between the bound and log2 E below which nothing stands comfortably above it
TOPICS_PER_DOMAIN, TOPIC_SD, LOYAL = 4, 1.0, 2.0  # a topic picks the first choice with probability LOYAL / k, 1 at most
BLOCK, IN_BLOCK, PAIR_SD, SETS_PER_EXPERT, UNIFORM_SETS = 4, 3.0, 1.0, 128, 32
ROWS_AT_ONCE = 2**18


@dataclass(frozen=True)
class TopologyAim:
    """What is planted against: the bound of the mean adjacent information in bits, and the seed."""

    bits: float = 1.5
    seed: int = 0


@dataclass(frozen=True)
class TopologyPlan:
    """The law with its numbers. key, domain: of each document number; follow: f of each layer [L], 0 for the first of a stack.

    facts: what was planted; unreachable: why the positive control cannot come out supported, if it cannot.
    """

    aim: TopologyAim
    layers: tuple[LayerMeta, ...]
    key: Keys
    domain: Int
    domains: tuple[str, ...]
    follow: Float
    facts: dict[str, Any]
    unreachable: str | None


def plan_topology_controls(trace: RoutingTrace, aim: TopologyAim | None = None) -> TopologyPlan:
    """Strength of the planted structure from the layers' sizes; reads the document table, no row."""
    aim = aim or TopologyAim()
    layers, documents = trace.meta.layers, trace.documents
    names = tuple(sorted({row.domain for row in documents}))
    domain = np.zeros(max((row.document for row in documents), default=-1) + 1, np.int64)
    for row in documents:
        domain[row.document] = names.index(row.domain)
    follow, planted = np.zeros(len(layers)), []
    for number in range(1, len(layers)):
        if layers[number].stack == layers[number - 1].stack:
            n_experts = min(layers[number - 1].n_experts, layers[number].n_experts)
            bits = min(MOST_BITS, aim.bits + SHARE_OF_REST * max(np.log2(n_experts) - aim.bits, 0.0))
            follow[number] = follow_for(bits, n_experts)
            planted.append(information_of_step(follow[number], n_experts))
    facts = {"planted_bits": float(np.mean(planted)) if planted else None, "bound_bits": aim.bits, "follow": follow.tolist(), "domains": list(names),
             "topics_per_domain": TOPICS_PER_DOMAIN, "sets_per_expert": SETS_PER_EXPERT, "kinds": list(KINDS)}
    return TopologyPlan(aim, layers, document_keys(documents, aim.seed), domain, names, follow, facts, _unreachable(layers, planted, aim))


def information_of_step(follow: float, n_experts: int) -> float:
    """I(X;Y) in bits of Y = step(X) with probability f, else uniform, X uniform: log2 E + p log2 p + (E - 1) r log2 r, p = f + r, r = (1 - f) / E."""
    r = (1 - follow) / n_experts
    p = follow + r
    rest = (n_experts - 1) * r * np.log2(r) if r > 0 and n_experts > 1 else 0.0
    return float(np.log2(n_experts) + p * np.log2(p) + rest)


def follow_for(bits: float, n_experts: int) -> float:
    """The f of information_of_step that gives so many bits; 1 where no f gives as many."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if information_of_step(middle, n_experts) < bits else (low, middle)
    return high


def plant_topology(batches: Iterable[TraceBatch], plan: TopologyPlan, kind: Kind) -> Iterator[TraceBatch]:
    """The same rows (document, position, token_id) with planted expert ids, batch by batch; other columns are absent.

    A row is planted alike whatever lies beside it.
    """
    law = _Law(plan, kind)
    for batch in whole_documents(batches):
        ids = [np.empty((len(batch), layer.top_k), layer.id_dtype) for layer in plan.layers]
        for start in range(0, len(batch), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            for out, planted in zip(ids, law.rows(batch.document[rows], batch.position[rows])):
                out[rows] = planted
        yield TraceBatch(batch.document, batch.position, batch.token_id, tuple(ids))


def _unreachable(layers: tuple[LayerMeta, ...], planted: list[float], aim: TopologyAim) -> str | None:
    if len(layers) < 2:
        return "one MoE layer: no information between layers can be planted"
    least = min(layer.n_experts for layer in layers)
    if np.log2(least) - aim.bits < LEAST_ROOM:
        return (f"{least} experts hold {np.log2(least):.2f} bits at most: no planted structure stands comfortably above {aim.bits:g} bits; "
                "take a model with more experts")
    return None if planted else "no two layers of one stack: no information between layers can be planted"


def _inverse(edges_ZC: Float, topic: Int, uniform: Float) -> Int:
    """The cell of each row in the cumulative probabilities of its topic."""
    flat = (edges_ZC + np.arange(len(edges_ZC))[:, None]).ravel()
    found = np.searchsorted(flat, topic + uniform, side="right") - topic * edges_ZC.shape[1]
    return np.asarray(np.clip(found, 0, edges_ZC.shape[1] - 1), np.int64)


class _Law:
    """The tables of one kind, made once, and the rows that they give."""

    def __init__(self, plan: TopologyPlan, kind: Kind) -> None:
        self.plan, self.kind = plan, kind
        self.n_tables = len(plan.domains) if kind == "misleading" else 1
        self.liking = [self._liking(number, layer.n_experts) for number, layer in enumerate(plan.layers)]
        self.edges = [np.cumsum(w, axis=1) / w.sum(axis=1, keepdims=True) for w in self.liking]
        self.law = [self._law(number, layer) for number, layer in enumerate(plan.layers)] if kind == "independent" else []
        self.step = [self._steps(number) for number in range(len(plan.layers))]
        self.sets = [self._sets(number, layer) for number, layer in enumerate(plan.layers)]

    def rows(self, document: NDArray[np.int32], position: NDArray[np.int32]) -> Iterator[NDArray[Any]]:
        """Expert ids [T, K] of each layer."""
        key = mix(self.plan.key[document] ^ mix(position.astype(np.uint64)))
        domain = self.plan.domain[document]
        topic = domain * TOPICS_PER_DOMAIN + (self.plan.key[document] % np.uint64(TOPICS_PER_DOMAIN)).astype(np.int64)
        table = domain if self.n_tables > 1 else np.zeros(len(domain), np.int64)
        first: Int | None = None
        for number, layer in enumerate(self.plan.layers):
            draws = Draws(key, number)
            if self.kind == "independent":
                yield self._independent(number, layer, topic, draws)
                continue
            if self.plan.follow[number] and first is not None:
                follows = draws.uniform(1) < self.plan.follow[number]
                first = np.where(follows, self.step[number][table, first], draws.below(0, layer.n_experts))
            else:
                first = self._of_topic(number, topic, draws) if self.kind == "positive" else draws.below(0, layer.n_experts)
            others = self.sets[number][table, first, draws.below(2, SETS_PER_EXPERT)]
            yield np.concatenate([first[:, None], others], axis=1)

    def _liking(self, number: int, n_experts: int) -> Float:
        """How much each topic likes each expert [Z, E]."""
        rng = generator(self.plan.aim.seed, f"topology_topics {self.kind}", number)
        spread = TOPIC_SD if self.kind == "independent" else TOPIC_SD / 2
        return np.exp(spread * rng.normal(size=(max(len(self.plan.domains), 1) * TOPICS_PER_DOMAIN, n_experts)))

    def _of_topic(self, number: int, topic: Int, draws: Draws) -> Int:
        return _inverse(self.edges[number], topic, draws.uniform(3))

    def _law(self, number: int, layer: LayerMeta) -> tuple[Int, Float] | None:
        """Every set of k experts [C, K] with the edges of its probability in each topic [Z, C]; None for too many, and for one choice."""
        if layer.top_k == 1 or comb(layer.n_experts, layer.top_k) > ENUMERATED:
            return None
        found = [set_law(from_weights(liking, layer.top_k), layer.top_k) for liking in self.liking[number]]
        return found[0][0], np.cumsum([chances for _, chances in found], axis=1)

    def _steps(self, number: int) -> Int:
        """Expert that follows each expert of the layer before, in each table [H or 1, E]."""
        n_experts = self.plan.layers[number].n_experts
        before = self.plan.layers[number - 1].n_experts if number else n_experts
        rng = generator(self.plan.aim.seed, "topology_steps", number)
        return np.stack([rng.permutation(max(before, n_experts))[:before] % n_experts for _ in range(self.n_tables)]).astype(np.int64)

    def _sets(self, number: int, layer: LayerMeta) -> Int:
        """Companions of each expert [H or 1, E, R, K - 1]: mostly of its block, the pairs of experts unlike one another."""
        rng = generator(self.plan.aim.seed, "topology_sets", number)
        tables = []
        for _ in range(self.n_tables):
            block = rng.permutation(layer.n_experts) // BLOCK
            liking = rng.normal(size=(layer.n_experts, layer.n_experts)) * PAIR_SD
            liking = (liking + liking.T) / 2**0.5 + IN_BLOCK * (block[:, None] == block)
            np.fill_diagonal(liking, -np.inf)
            pull = np.where(np.arange(SETS_PER_EXPERT) < UNIFORM_SETS, 0.0, 1.0)[:, None]
            drawn = np.where(np.isinf(liking)[:, None], -np.inf, pull * np.nan_to_num(liking[:, None], neginf=0.0))
            drawn = drawn + rng.gumbel(size=(layer.n_experts, SETS_PER_EXPERT, layer.n_experts))
            tables.append(np.argsort(-drawn, axis=-1)[..., : layer.top_k - 1])
        return np.stack(tables)

    def _independent(self, number: int, layer: LayerMeta, topic: Int, draws: Draws) -> NDArray[Any]:
        if layer.top_k == 1:
            return self._of_topic(number, topic, draws)[:, None]
        law = self.law[number]
        chosen = uniform_sets(layer.n_experts, layer.top_k, draws) if law is None else law[0][_inverse(law[1], topic, draws.uniform(2))]
        best = self.liking[number][topic[:, None], chosen].argmax(axis=1)
        front = np.where(draws.uniform(1) < LOYAL / layer.top_k, best, 0)
        rows = np.arange(len(chosen))
        chosen[rows, front], chosen[:, 0] = chosen[:, 0].copy(), chosen[rows, front]
        return chosen
