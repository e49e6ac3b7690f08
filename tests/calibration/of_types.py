"""Coverage of what is said of token types: the two-way Spearman, the fast path, experts and types, types shared by two domains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from analysis.arithmetic import divide, mutual_information_bits
from analysis.estimation import estimates, group_tables
from analysis.metrics.conditional import PairedTokens, given_type
from analysis.metrics.diversity import TokenRows, diversity_jsd, shuffled_tables
from analysis.metrics.fastpath import fast_path_point
from analysis.metrics.frequency import midranks
from analysis.metrics.information import conditional_bits
from analysis.metrics.type_aligned import TypeRouting, aligned_joint, type_aligned_estimate
from analysis.resampling import document_weights, jackknife_groups, normal_quantile, two_way_correlation
from tests.calibration.checks import Claim, Rng, Study
from tests.calibration.of_means import covers
from tests.calibration.worlds import Float, Int, choose, random_keys

TWO_WAY = "metrics specification 4.4: two-way .947 to .993, documents only .49 to .67, types only .83 to .97"


@dataclass(frozen=True)
class RankWorld:
    """Types drawn from a super-population whose frequency and mean entropy are correlated (Gaussian copula), read in documents that differ.

    Frequencies span a factor of 8, so that every type has enough occurrences; a document shifts all entropies, and those of each type.
    """

    n_types: int = 200
    n_documents: int = 60
    length: int = 800
    correlation: float = -0.5
    document_sd: float = 0.3
    cell_sd: float = 1.0
    token_sd: float = 0.5

    @property
    def rho(self) -> float:
        """Spearman's rho of the super-population."""
        return float(6 / np.pi * np.arcsin(self.correlation / 2))

    def draw(self, rng: Rng) -> tuple[Float, Float, Float]:
        """Frequencies [V] of a corpus of other documents, counts [D, V] and entropy sums [D, V] of the documents."""
        from scipy.special import ndtr

        z = rng.normal(size=self.n_types)
        mean = self.correlation * z + (1 - self.correlation**2) ** 0.5 * rng.normal(size=self.n_types)
        p = np.exp(np.log(8.0) * ndtr(z))
        n = rng.multinomial(self.length, p / p.sum(), self.n_documents).astype(np.float64)
        shift = self.document_sd * rng.normal(size=(self.n_documents, 1)) + self.cell_sd * rng.normal(size=n.shape)
        return p, n, n * (mean + shift) + np.sqrt(n) * self.token_sd * rng.normal(size=n.shape)


def rank_correlation(frequency: Float, mean_BV: Float) -> Float:
    """Spearman over types [B], types without occurrence left out of a replicate."""
    out = np.empty(len(mean_BV))
    for b, mean in enumerate(mean_BV):
        there = np.isfinite(mean)
        out[b] = np.corrcoef(midranks(frequency[there]), midranks(mean[there]))[0, 1]
    return out


def two_way(world: RankWorld, rng: Rng) -> list[bool]:
    """The two-way interval; the mutant: documents alone."""
    frequency, n, sums = world.draw(rng)
    weights = np.vstack([np.ones((1, len(n))), document_weights(len(n), 99, rng)])
    rho = rank_correlation(frequency, divide(weights @ sums, weights @ n))
    made = two_way_correlation(float(rho[0]), np.arctanh(rho[1:]), world.n_types)
    z, half = np.arctanh(rho[0]), normal_quantile(0.95) * float(np.arctanh(rho[1:]).std(ddof=1))
    return [covers(made.low, made.high, world.rho), covers(float(np.tanh(z - half)), float(np.tanh(z + half)), world.rho)]


@dataclass(frozen=True)
class VocabularyWorld:
    """Documents of topics over types; an expert follows its type (and, in part, its document's topic). Every document has one length.

    V type, E expert, Z topic of a document, Y expert of a second layer that follows the type and, in part, the first layer's expert.
    """

    n_types: int = 40
    n_experts: int = 6
    n_topics: int = 5
    length: int = 80
    of_topic: float = 0.2
    coupled: float = 0.3
    sharp: float = 0.3
    seed: int = 14

    @cached_property
    def type_ZV(self) -> Float:
        """Law of types in each topic, about a common one."""
        rng = np.random.default_rng([self.seed, 1])
        return rng.dirichlet(np.linspace(6, 1, self.n_types), self.n_topics)

    @cached_property
    def type_V(self) -> Float:
        return self.type_ZV.mean(axis=0)

    @cached_property
    def expert_ZVE(self) -> Float:
        """Law of the expert given topic and type."""
        rng = np.random.default_rng([self.seed, 2])
        by_type, by_topic = rng.dirichlet(np.full(self.n_experts, self.sharp), self.n_types), rng.dirichlet(np.ones(self.n_experts), self.n_topics)
        return (1 - self.of_topic) * by_type + self.of_topic * by_topic[:, None]

    @cached_property
    def second_VEY(self) -> Float:
        """Law of the second layer's expert given type and first expert."""
        rng = np.random.default_rng([self.seed, 3])
        alone = rng.dirichlet(np.full(self.n_experts, self.sharp), self.n_types)
        return (1 - self.coupled) * alone[:, None] + self.coupled * np.eye(self.n_experts)

    @cached_property
    def joint_VE(self) -> Float:
        return np.einsum("zv,zve->ve", self.type_ZV, self.expert_ZVE) / self.n_topics

    @cached_property
    def shuffled_VE(self) -> Float:
        """Law of type and expert after a uniform shuffle of a document's experts over its tokens."""
        load_ZE = np.einsum("zv,zve->ze", self.type_ZV, self.expert_ZVE)
        return self.joint_VE / self.length + (1 - 1 / self.length) * self.type_ZV.T @ load_ZE / self.n_topics

    def draw(self, n_documents: int, rng: Rng) -> tuple[Int, Int, Int]:
        """Document, type and expert of each token [T]."""
        document = np.repeat(np.arange(n_documents), self.length)
        topic = rng.integers(0, self.n_topics, n_documents)[document]
        types = choose(self.type_ZV, topic, rng)
        return document, types, choose(self.expert_ZVE.reshape(-1, self.n_experts), topic * self.n_types + types, rng)


def held_out_coverage(world: VocabularyWorld, n_documents: int, rng: Rng) -> list[bool]:
    """Fast-path coverage on held-out documents, of types chosen on 30 others."""
    counts = []
    for n in (30, n_documents):
        document, types, _ = world.draw(n, rng)
        counts.append(np.bincount(document * world.n_types + types, minlength=n * world.n_types).reshape(n, -1))
    decided, scored = counts
    n_V = decided.sum(axis=0)
    floor = float(np.sort(n_V)[world.n_types // 2])  # a floor that some types pass by chance
    chosen = fast_path_point(n_V, np.zeros(world.n_types), floor, 0.5).eligible
    found = estimates("fastpath_coverage", group_tables((scored[:, chosen].sum(axis=1), scored.sum(axis=1)), jackknife_groups(n_documents))).item()
    return [covers(found.low, found.high, float(world.type_V[chosen].sum()))]


def experts_and_types(world: VocabularyWorld, n_documents: int, rng: Rng) -> list[bool]:
    """I(E;V), mean divergence of experts' profiles, and I(E;V) less its within-document shuffles."""
    document, types, experts = world.draw(n_documents, rng)
    shape = (world.n_experts, world.n_types)
    cells = np.bincount((document * shape[0] + experts) * shape[1] + types, minlength=n_documents * shape[0] * shape[1])
    per_document, keys = cells.reshape(n_documents, *shape), random_keys(n_documents, rng)
    shuffles = shuffle_by_document(document, types, experts, keys, shape)
    group = jackknife_groups(n_documents)
    jsd, bits = (estimates(name, group_tables((per_document,), group)).item() for name in ("diversity_jsd", "mi_E_V"))
    excess = estimates("mi_E_V_excess", group_tables((per_document, shuffles), group)).item()
    truth = float(mutual_information_bits(world.joint_VE))
    return [covers(jsd.low, jsd.high, float(diversity_jsd(world.joint_VE.T))), covers(bits.low, bits.high, truth),
            covers(excess.low, excess.high, truth - float(mutual_information_bits(world.shuffled_VE)))]


def shuffle_by_document(document: Int, types: Int, experts: Int, keys: np.ndarray, shape: tuple[int, int], draws: int = 4) -> Int:
    """Tables [D, R, E, V] of the same shuffles, document by document: each document's types are numbered apart, then folded."""
    n_documents = len(keys)
    apart = TokenRows(document, document * shape[1] + types, experts[:, None], (shape[0], n_documents * shape[1]))
    tables = np.stack([table.reshape(shape[0], n_documents, shape[1]) for table in shuffled_tables(apart, keys, draws)])
    return np.moveaxis(tables, 2, 0)


def beyond_the_type(world: VocabularyWorld, rng: Rng) -> list[bool]:
    """I(X;Y|V) over the types that have enough tokens; the types are those of the draw."""
    document, types, x = world.draw(100, rng)
    y = choose(world.second_VEY.reshape(-1, world.n_experts), types * world.n_experts + x, rng)
    found = given_type(PairedTokens(x, y, document, 100, 100), types)
    n_V = np.bincount(types, minlength=world.n_types)
    table = np.zeros((world.n_types, world.n_experts, world.n_experts))
    np.add.at(table, (types, x, y), 1)
    enough = n_V >= 5 * (table.sum(axis=2) > 0).sum(axis=1) * (table.sum(axis=1) > 0).sum(axis=1)
    law = np.where(enough[:, None, None], world.joint_VE[:, :, None] * world.second_VEY, 0.0)
    return [covers(found.estimate.low, found.estimate.high, float(conditional_bits(law)))]


def aligned(world: VocabularyWorld, n_documents: int, rng: Rng) -> list[bool]:
    """Types shared by two domains: basic document bootstrap."""
    sides, laws = [], []
    for factor, other in ((1, world), (3, replace(world, of_topic=0.5))):
        document, types, experts = other.draw(factor * n_documents, rng)
        sides.append(TypeRouting(document, types, experts, np.ones(len(types), np.int64), factor * n_documents, world.n_types, world.n_experts, "0"))
        laws.append(other.joint_VE)
    found = type_aligned_estimate(*sides, seed=int(rng.integers(2**31)), n_replicates=199, n_permutations=9)
    return [covers(found.low, found.high, float(mutual_information_bits(aligned_joint(laws[0], laws[1], world.type_V))))]


WORLD = VocabularyWorld()
RARE = "Experts that a type hardly uses are seen in few documents, and the jackknife corrects four fifths of the bias that they leave"
STUDIES = [
    Study("types and documents", "200 types of a super-population, 60 documents that differ by type", (
        Claim("two-way interval: freq_entropy_rho", window=(0.94, 0.995), source=TWO_WAY),
        Claim("document bootstrap alone: freq_entropy_rho", mutant=True, source=TWO_WAY)), partial(two_way, RankWorld()), 400),
    Study("fast path, 30 documents", "30 held-out documents of topics, types chosen on 30 others", (
        Claim("jackknife: fastpath_coverage", source="metrics specification 2.4"),), partial(held_out_coverage, WORLD, 30), 2000),
    Study("fast path, 100 documents", "100 held-out documents of topics, types chosen on 30 others", (
        Claim("jackknife: fastpath_coverage", source="metrics specification 2.4"),), partial(held_out_coverage, WORLD, 100), 2000),
    Study("experts and types", "60 documents of topics, experts follow types", (
        Claim("jackknife: diversity_jsd", source="metrics specification 2.5 B.4"), Claim("jackknife: mi_E_V", source="metrics specification 2.5 B.4"),
        Claim("jackknife less shuffles within documents: mi_E_V_excess", source="metrics specification 2.5 B.4")),
        partial(experts_and_types, WORLD, 60), 400),
    Study("beyond the type", "100 documents, 40 types, layers coupled beyond the type", (
        Claim("jackknife: mi_given_type", source="metrics specification 3.2"),),
        partial(beyond_the_type, replace(WORLD, of_topic=0.0, sharp=5.0)), 800),
    Study("beyond the type, rare experts", "100 documents, 40 types that each use few experts often, layers coupled beyond the type", (
        Claim("jackknife: mi_given_type", window=(0.87, 0.94), source="metrics specification 3.2", limit=RARE),),
        partial(beyond_the_type, replace(WORLD, of_topic=0.0)), 800),
    Study("types of two domains", "domains of 100 and 300 documents that share 40 types", (
        Claim("basic bootstrap: type_aligned_mi", window=(0.905, 0.96), source="metrics specification 2.6 and 4.1: basic intervals .90 to .96"),),
        partial(aligned, WORLD, 100), 400),
]
