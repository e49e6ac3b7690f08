"""Worlds of documents that carry a domain: clustered choices, unequal lengths, budgets and spreads, with the domain's laws known.

N document, D domain, E expert. A document draws its own law about its domain's, then its selections from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.domain_labels import DomainDocuments
from tests.calibration.worlds import Float, Rng


@dataclass(frozen=True)
class DomainWorld:
    """documents: of each domain. lengths: least and most selections a document, per domain or for all. concentration: of a document's law about
    its domain's, per domain or for all. effect: 0 gives every domain the same law, 1 its own. specialised: only so many experts differ by
    domain, the others keep their share everywhere (all of them if None). heavy: lengths are log-normal, of this sigma, instead.
    """

    documents: tuple[int, ...] = (20,) * 5
    n_experts: int = 32
    lengths: tuple[tuple[int, int], ...] = ((100, 100),)
    concentration: tuple[float, ...] = (50.0,)
    effect: float = 0.0
    specialised: int | None = None
    heavy: float = 0.0
    base: float = 2.0
    seed: int = 1

    @cached_property
    def law_DE(self) -> Float:
        """Law of each domain."""
        rng = np.random.default_rng([self.seed, 7])
        common = rng.dirichlet(np.full(self.n_experts, self.base))
        n = self.n_experts if self.specialised is None else self.specialised
        own = np.tile(common, (len(self.documents), 1))
        own[:, :n] = rng.dirichlet(np.full(n, self.base), len(self.documents)) * common[:n].sum()
        return (1 - self.effect) * common + self.effect * own

    @cached_property
    def pooled_DE(self) -> Float:
        """Law of domain and expert over all selections."""
        budget = np.array([n * (low + high) / 2 for n, (low, high) in zip(self.documents, self.lengths * len(self.documents))])
        return self.law_DE * (budget / budget.sum())[:, None]

    def draw(self, rng: Rng) -> DomainDocuments:
        """Documents of this world."""
        n_domains = len(self.documents)
        domain = np.repeat(np.arange(n_domains), self.documents)
        low, high = (np.array([pair[side] for pair in self.lengths * n_domains])[domain] for side in (0, 1))
        length = rng.integers(low, high + 1)
        if self.heavy:
            length = np.maximum(8, (low * rng.lognormal(0.0, self.heavy, len(domain))).astype(np.int64))
        gamma = rng.standard_gamma(np.array(self.concentration * n_domains)[domain][:, None] * self.law_DE[domain]) + 1e-300
        counts = rng.multinomial(length, gamma / gamma.sum(axis=1, keepdims=True))
        return DomainDocuments((counts.astype(np.int64),), domain, n_domains)
