"""Worlds with known truth: documents of topics, sticky tokens, template prefixes and unequal lengths.

D document, T token, Z topic, X, Y expert at two layers, V token type. Truths are closed forms of the population that documents
are drawn from, not averages of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.arithmetic import entropy_bits, mutual_information_bits

Rng = np.random.Generator
Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Documents of one draw: rows in order, documents contiguous."""

    x: Int  # [T]
    y: Int  # [T]
    h: Float  # [T] entropies, nats
    topic: Int  # [T] topic of the token; -1 in the prefix
    starts: Int  # [D+1]

    @property
    def document(self) -> Int:
        """Document of each row [T]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def n_documents(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True)
class TopicWorld:
    """Each document mixes topics by Dirichlet(alpha); a topic has its own joint law of two layers' experts and its own mean entropy.

    coupled: whether y depends on x inside a topic (else layers are independent given the topic). sticky: probability that a token
    repeats the token before it. prefix: tokens at the start of every document that are the same in all documents. lengths: least and
    most tokens after the prefix. prior: topic probabilities (uniform if None).
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

    @cached_property
    def prior_Z(self) -> Float:
        return np.full(self.n_topics, 1 / self.n_topics) if self.prior is None else np.asarray(self.prior, np.float64)

    @cached_property
    def joint_ZXY(self) -> Float:
        """Law of (x, y) in each topic."""
        rng = np.random.default_rng([self.seed, 1])
        x = rng.dirichlet(np.full(self.n_experts, 0.3), self.n_topics)
        y = rng.dirichlet(np.full(self.n_experts, 0.3), (self.n_topics, self.n_experts) if self.coupled else (self.n_topics, 1))
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
    def load_entropy(self) -> float:
        """Bits."""
        return float(entropy_bits(self.load_X))

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
    def lag_one_XX(self) -> Float:
        """Pooled law of (x_t, x_t+1); worlds without a prefix only."""
        assert not self.prefix
        total = 1 / self.alpha_sum
        second = (np.diag(self.prior_Z) * total + np.outer(self.prior_Z, self.prior_Z)) / (1 + total)  # E[w w'] of the Dirichlet
        x = self.joint_ZXY.sum(axis=2)
        apart = np.einsum("yz,ya,zb->ab", second, x, x)
        return self.sticky * np.diag(self.load_X) + (1 - self.sticky) * apart

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
        offset = np.arange(len(document)) - starts[document]
        topic = choose(mixture[document], rng)
        cell = choose(self.joint_ZXY.reshape(self.n_topics, -1)[topic], rng)
        fresh = (rng.random(len(document)) >= self.sticky) | (offset <= self.prefix)
        source = np.maximum.accumulate(np.where(fresh, np.arange(len(document)), 0))  # a token that sticks is its predecessor again
        topic, cell = topic[source], cell[source]
        x, y = np.divmod(cell, self.n_experts)
        h = self.mean_h_Z[topic] + self.noise * rng.normal(size=len(document))
        early = np.flatnonzero(offset < self.prefix)
        for column, fixed in zip((x, y, h), self.prefix_rows):
            column[early] = fixed[offset[early]]
        topic[early] = -1
        return Sample(x, y, h, topic, starts)


def choose(p: Float, rng: Rng) -> Int:
    """One category per row of p [T, C]."""
    edges = np.cumsum(p, axis=1)
    out: Int = (rng.random(len(p))[:, None] * edges[:, -1:] > edges).sum(axis=1)
    return np.minimum(out, p.shape[1] - 1)


def document_joint(sample: Sample, n_experts: int) -> Int:
    """Counts [D, X, Y]."""
    flat = (sample.document * n_experts + sample.x) * n_experts + sample.y
    return np.bincount(flat, minlength=sample.n_documents * n_experts**2).reshape(-1, n_experts, n_experts)


def document_loads(sample: Sample, n_experts: int) -> Int:
    """Counts [D, X]."""
    return np.bincount(sample.document * n_experts + sample.x, minlength=sample.n_documents * n_experts).reshape(-1, n_experts)


def document_sums(sample: Sample, values: Float) -> Float:
    """Sums [D] of a value per token."""
    return np.add.reduceat(values, sample.starts[:-1])
