"""Worlds of documents with known truth: topics, sticky tokens, template prefixes and unequal lengths.

D document, T token, Z topic, X, Y expert at two layers, L layer. Truths are closed forms of the population that documents are drawn from,
not averages of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import entropy_bits, mutual_information_bits
from analysis.moved_rows import RoutedDocuments

Rng = np.random.Generator
Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Documents of one draw: rows in order, documents contiguous."""

    x: Int  # [T]
    y: Int  # [T]
    h: Float  # [T] entropies, nats
    starts: Int  # [D+1]

    @property
    def lengths(self) -> Int:
        return np.diff(self.starts)

    @property
    def document(self) -> Int:
        """Document of each row [T]."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def joint(self, n_experts: int) -> Int:
        """Tokens by both choices [D, X, Y]."""
        return counted(self.starts, n_experts, self.x, self.y)

    def loads(self, n_experts: int) -> Int:
        """Tokens by the first layer's choice [D, X]."""
        return counted(self.starts, n_experts, self.x)

    def transitions(self, n_experts: int) -> Int:
        """Neighbouring tokens of one document by their first layer's choices [D, X, X]."""
        inside = np.ones(len(self.x), bool)
        inside[self.starts[1:] - 1] = False
        rows = np.flatnonzero(inside)
        cell = (self.document[rows] * n_experts + self.x[rows]) * n_experts + self.x[rows + 1]
        return np.bincount(cell, minlength=len(self.lengths) * n_experts**2).reshape(-1, n_experts, n_experts)

    def sums(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Sums [D] of a value per token."""
        return np.add.reduceat(values, self.starts[:-1])


def counted(starts: Int, n_experts: int, *columns: Int) -> Int:
    """Tokens by document and columns [D, E...]."""
    cell = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    for column in columns:
        cell = cell * n_experts + column
    return np.bincount(cell, minlength=(len(starts) - 1) * n_experts ** len(columns)).reshape(-1, *[n_experts] * len(columns))


def choose(p_GC: Float, given: Int, rng: Rng) -> Int:
    """One category for each entry of given [T], from the law of its row of p_GC."""
    edges = np.cumsum(p_GC, axis=1)
    edges /= edges[:, -1:]
    flat = (edges + np.arange(len(edges))[:, None]).reshape(-1)
    place = np.searchsorted(flat, given + rng.random(len(given)), side="right") - given * p_GC.shape[1]
    return np.clip(place, 0, p_GC.shape[1] - 1)


def stuck(starts: Int, stay: float, rng: Rng, free: int = 0) -> Int:
    """Row that each row repeats [T]: its predecessor's with probability `stay`, never across documents nor within the first `free` + 1 rows."""
    rows = np.arange(starts[-1])
    place = rows - np.repeat(starts[:-1], np.diff(starts))
    fresh = (rng.random(len(rows)) >= stay) | (place <= free)
    return np.maximum.accumulate(np.where(fresh, rows, 0))


def random_keys(n: int, rng: Rng) -> NDArray[np.uint64]:
    """Keys of n documents."""
    return rng.integers(0, 2**64, n, dtype=np.uint64)


@dataclass(frozen=True)
class TopicWorld:
    """Each document mixes topics by Dirichlet(alpha prior); a topic has its own joint law of two layers' experts and its own mean entropy.

    coupled: whether y depends on x inside a topic. sticky: probability that a token repeats the token before it. prefix: tokens at the start
    of every document that are the same in all. lengths: least and most tokens after the prefix. prior: of topics (uniform if None).
    spread: Dirichlet parameter of the experts' laws. law: seed of the laws (that of `seed` if None), so that worlds may share them.
    """

    seed: int = 1
    n_topics: int = 8
    n_experts: int = 16
    alpha: float = 0.1
    coupled: bool = True
    sticky: float = 0.0
    prefix: int = 0
    lengths: tuple[int, int] = (60, 140)
    noise: float = 0.5
    prior: tuple[float, ...] | None = None
    spread: float = 0.3

    @cached_property
    def prior_Z(self) -> Float:
        return np.full(self.n_topics, 1 / self.n_topics) if self.prior is None else np.asarray(self.prior, np.float64)

    @cached_property
    def joint_ZXY(self) -> Float:
        """Law of (x, y) in each topic."""
        rng = np.random.default_rng([self.seed, 1])
        x = rng.dirichlet(np.full(self.n_experts, self.spread), self.n_topics)
        y = rng.dirichlet(np.full(self.n_experts, self.spread), (self.n_topics, self.n_experts) if self.coupled else (self.n_topics, 1))
        return x[:, :, None] * y

    @cached_property
    def mean_h_Z(self) -> Float:
        return np.random.default_rng([self.seed, 2]).uniform(0.5, 2.0, self.n_topics)

    @cached_property
    def prefix_rows(self) -> tuple[Int, Int, Float]:
        """The template's x, y and h."""
        rng = np.random.default_rng([self.seed, 3])
        return rng.integers(0, 3, self.prefix), rng.integers(0, 3, self.prefix), np.full(self.prefix, 0.1)

    @cached_property
    def body_share(self) -> float:
        """Share of all tokens that are not in a prefix."""
        mean = (self.lengths[0] + self.lengths[1]) / 2
        return mean / (mean + self.prefix)

    @cached_property
    def joint_XY(self) -> Float:
        """Pooled law of (x, y) over all tokens."""
        body = np.einsum("z,zxy->xy", self.prior_Z, self.joint_ZXY) * self.body_share
        x, y, _ = self.prefix_rows
        if self.prefix:
            np.add.at(body, (x, y), (1 - self.body_share) / self.prefix)
        return body

    @cached_property
    def load_X(self) -> Float:
        return self.joint_XY.sum(axis=1)

    @property
    def information(self) -> float:
        """I(X;Y) in bits, pooled over documents."""
        return float(mutual_information_bits(self.joint_XY))

    @property
    def mean_h(self) -> float:
        prefix = self.prefix_rows[2].mean() if self.prefix else 0.0
        return float(self.body_share * (self.prior_Z @ self.mean_h_Z) + (1 - self.body_share) * prefix)

    def share_below(self, limit: float) -> float:
        """P(h < limit)."""
        from scipy.special import ndtr

        body = float(self.prior_Z @ ndtr((limit - self.mean_h_Z) / self.noise))
        prefix = float((self.prefix_rows[2] < limit).mean()) if self.prefix else 0.0
        return self.body_share * body + (1 - self.body_share) * prefix

    @cached_property
    def second_ZZ(self) -> Float:
        """E[w w'] of the documents' mixtures w: topics of two tokens of one document."""
        total = 1 / self.alpha_sum
        return (np.diag(self.prior_Z) * total + np.outer(self.prior_Z, self.prior_Z)) / (1 + total)

    @cached_property
    def lag_one_XX(self) -> Float:
        """Pooled law of (x_t, x_t+1); worlds without a prefix only."""
        assert not self.prefix
        x = self.joint_ZXY.sum(axis=2)
        return self.sticky * np.diag(self.load_X) + (1 - self.sticky) * np.einsum("yz,ya,zb->ab", self.second_ZZ, x, x)

    @property
    def excess(self) -> float:
        """I(X;Y) less that of two tokens of one document far apart: what circular shifts leave; worlds without a prefix only."""
        assert not self.prefix
        apart = np.einsum("yz,ya,zb->ab", self.second_ZZ, self.joint_ZXY.sum(axis=2), self.joint_ZXY.sum(axis=1))
        return self.information - float(mutual_information_bits(apart))

    @property
    def load_entropy(self) -> float:
        """Bits."""
        return float(entropy_bits(self.load_X))

    @property
    def alpha_sum(self) -> float:
        return self.alpha * self.n_topics

    def draw(self, n_documents: int, rng: Rng) -> Sample:
        """Documents of this world."""
        body = rng.integers(self.lengths[0], self.lengths[1] + 1, n_documents)
        mixture = rng.dirichlet(self.alpha_sum * self.prior_Z + 1e-12, n_documents)
        length = body + self.prefix
        starts = np.concatenate([[0], np.cumsum(length)])
        document = np.repeat(np.arange(n_documents), length)
        topic = choose(mixture, document, rng)
        cell = choose(self.joint_ZXY.reshape(self.n_topics, -1), topic, rng)
        source = stuck(starts, self.sticky, rng, self.prefix)
        topic, cell = topic[source], cell[source]
        x, y = np.divmod(cell, self.n_experts)
        h = self.mean_h_Z[topic] + self.noise * rng.normal(size=len(document))
        offset = np.arange(len(document)) - starts[document]
        early = np.flatnonzero(offset < self.prefix)
        for column, fixed in zip((x, y, h), self.prefix_rows):
            column[early] = fixed[offset[early]]
        return Sample(x, y, h, starts)


@dataclass(frozen=True)
class ChainWorld:
    """Layers in a chain: in each topic the first layer has a law, and each later one a kernel from the layer before. Documents as TopicWorld."""

    n_layers: int = 5
    n_topics: int = 6
    n_experts: int = 8
    alpha: float = 0.1
    lengths: tuple[int, int] = (60, 140)
    seed: int = 1
    spread: float = 0.3
    mixing: float = 0.5  # share of tokens whose kernel is followed; the others draw from a law of the layer alone

    @cached_property
    def first_ZX(self) -> Float:
        return np.random.default_rng([self.seed, 4]).dirichlet(np.full(self.n_experts, self.spread), self.n_topics)

    @cached_property
    def kernel_LZXY(self) -> Float:
        rng = np.random.default_rng([self.seed, 5])
        shape = (self.n_layers - 1, self.n_topics)
        free = rng.dirichlet(np.full(self.n_experts, 2.0), (self.n_layers - 1, 1, 1))
        return self.mixing * rng.dirichlet(np.full(self.n_experts, self.spread), (*shape, self.n_experts)) + (1 - self.mixing) * free

    @cached_property
    def joint_PXY(self) -> Float:
        """Pooled law of each adjacent pair."""
        law, out = self.first_ZX, []
        for kernel in self.kernel_LZXY:
            joint = law[:, :, None] * kernel
            out.append(joint.mean(axis=0))
            law = joint.sum(axis=1)
        return np.array(out)

    def draw(self, n_documents: int, rng: Rng) -> tuple[list[Int], Int]:
        """Choices [T] of each layer, and starts [D+1]."""
        starts = np.concatenate([[0], np.cumsum(rng.integers(self.lengths[0], self.lengths[1] + 1, n_documents))])
        mixture = rng.dirichlet(np.full(self.n_topics, self.alpha) + 1e-12, n_documents)
        topic = choose(mixture, np.repeat(np.arange(n_documents), np.diff(starts)), rng)
        layers = [choose(self.first_ZX, topic, rng)]
        for kernel in self.kernel_LZXY:
            layers.append(choose(kernel.reshape(-1, self.n_experts), topic * self.n_experts + layers[-1], rng))
        return layers, starts


@dataclass(frozen=True)
class ApartWorld:
    """Layers that know nothing of each other token by token: each draws its own topics and sticks on its own, from the document's mixture.

    topics False: tokens are independent of their document. What is left between two layers is the documents' composition. prefix: first
    tokens that are the same in every document, as a template makes them.
    """

    topics: bool = True
    sticky: float = 0.0
    n_layers: int = 2
    n_documents: int = 40
    length: int = 64
    n_experts: int = 8
    n_topics: int = 6
    alpha: float = 0.1
    prefix: int = 0
    seed: int = 1

    @cached_property
    def law_LZX(self) -> Float:
        rng = np.random.default_rng([self.seed, 6])
        law = rng.dirichlet(np.full(self.n_experts, 0.5), (self.n_layers, self.n_topics))
        return law if self.topics else np.broadcast_to(law.mean(axis=1, keepdims=True), law.shape)

    def draw(self, rng: Rng) -> RoutedDocuments:
        """Documents of one draw."""
        starts = np.arange(self.n_documents + 1) * self.length
        document = np.repeat(np.arange(self.n_documents), self.length)
        mixture = rng.dirichlet(np.full(self.n_topics, self.alpha) + 1e-12, self.n_documents)
        layers = [choose(law, choose(mixture, document, rng), rng)[stuck(starts, self.sticky, rng)] for law in self.law_LZX]
        place = np.arange(starts[-1]) - starts[document]
        fixed = np.random.default_rng([self.seed, 8]).integers(0, self.n_experts, (self.n_layers, self.prefix + 1))
        early = place < self.prefix
        layers = [np.where(early, template[np.minimum(place, self.prefix)], layer) for layer, template in zip(layers, fixed)]
        return RoutedDocuments(layers, [self.n_experts] * self.n_layers, starts, random_keys(self.n_documents, rng), place)
