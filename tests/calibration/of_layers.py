"""Coverage of what several layers say together: means over adjacent pairs, slot averages, excess over shifts, the decomposition chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations

import numpy as np

from analysis.arithmetic import divide, mutual_information_bits
from analysis.decomposition import DecompositionPlan, decompose
from analysis.estimation import Groups, estimates
from analysis.metrics.information import mi_slot_average
from analysis.metrics.joint_tables import slot_average_counts
from analysis.metrics.layer_pairs import LayerPair, cross_layer_estimates
from analysis.moved_rows import RoutedDocuments
from analysis.resampling import jackknife_groups, t_quantile
from analysis.rows import bands
from analysis.shift import ShiftPlan, shifted_information
from tests.calibration.checks import Claim, Rng, Study, size
from tests.calibration.of_means import covers, grouped
from tests.calibration.worlds import ChainWorld, Float, Int, TopicWorld, choose, counted, random_keys

CHAIN = ChainWorld()
SETS = TopicWorld(seed=6, n_experts=15, lengths=(50, 90))  # the 15 pairs of 6 experts are the symbols
PLAN = DecompositionPlan(n_draws=8, n_interval_draws=5, backend="numba")
MEMBERS = np.array(list(combinations(range(6), 2)))
SHIFTED = TopicWorld(seed=7, n_experts=8, lengths=(64, 100))
STICKY_SHIFTED = TopicWorld(seed=7, n_experts=8, lengths=(64, 100), sticky=0.5)
N_WEAK, WEAK_TOKENS = 40, 2000


def mean_over_pairs(world: ChainWorld, n_documents: int, rng: Rng) -> list[bool]:
    """The mean over adjacent pairs, of information and of u, and one pair of it."""
    layers, starts = world.draw(n_documents, rng)
    tables = [LayerPair(i, i + 1, grouped(counted(starts, world.n_experts, layers[i], layers[i + 1]))) for i in range(world.n_layers - 1)]
    each = mutual_information_bits(world.joint_PXY)
    found = cross_layer_estimates(tables)
    return [covers(one.low, one.high, truth) for one, truth in ((found.mean_adjacent, float(each.mean())), (found.pairs[2].estimate, float(each[2])))]


def slot_average(rng: Rng) -> list[bool]:
    """One expert drawn from each of two sets of two of six."""
    sample = SETS.draw(60, rng)
    groups = Groups((slot_average_counts(MEMBERS[sample.x], MEMBERS[sample.y], 6, sample.document, 60),), 60)
    hot = np.zeros((15, 6))
    np.add.at(hot, (np.arange(15)[:, None], MEMBERS), 0.5)
    found = estimates("mi_slot_average", groups).item()
    return [covers(found.low, found.high, float(mi_slot_average(hot.T @ SETS.joint_XY @ hot)))]


def excess(world: TopicWorld, rng: Rng) -> list[bool]:
    """I less its circular-shift null, jackknife over documents."""
    sample = world.draw(60, rng)
    documents = RoutedDocuments([sample.x, sample.y], [8, 8], sample.starts, random_keys(60, rng), group=jackknife_groups(60))
    found = shifted_information(documents, [[0, 1]], ShiftPlan(n_draws=20, n_interval_draws=6)).estimates()[0]
    return [covers(found.low, found.high, world.excess)]


def clipped(rng: Rng) -> list[bool]:
    """Many pairs without coupling: the mean of corrected informations, and the mutant that sets each to 0 where it is below, then averages."""
    starts = np.linspace(0, WEAK_TOKENS, 41).astype(np.int64)
    tables = np.stack([counted(starts, 6, *rng.integers(0, 6, (2, WEAK_TOKENS))) for _ in range(N_WEAK)], axis=1)
    values = np.array([one.value for one in estimates("mi_first_choice", grouped(tables))], np.float64)
    half = t_quantile(0.95, N_WEAK - 1) * float(values.std(ddof=1)) / N_WEAK**0.5  # pairs are independent here
    mean, cut = float(values.mean()), float(np.maximum(values, 0).mean())
    return [covers(mean - half, mean + half, 0.0), covers(cut - half, cut + half, 0.0)]


@dataclass(frozen=True)
class SourceWorld:
    """Two layers whose coupling has declared sources: shares of tokens that follow their type, their position band, their document, or each other.

    V token type, B position band, Z document topic. Every document has the same length; the rest of the tokens is uniform.
    """

    of_type: float = 0.0
    of_band: float = 0.0
    of_document: float = 0.0
    together: float = 0.0
    n_types: int = 6
    n_topics: int = 4
    n_experts: int = 4
    length: int = 72

    @cached_property
    def laws(self) -> tuple[Float, Float, Float]:
        """Laws of a layer's choice by type [2, V, X], band [2, B, X] and topic [2, Z, X]."""
        rng = np.random.default_rng(8)
        return tuple(rng.dirichlet(np.full(self.n_experts, 0.1), (2, n)) for n in (self.n_types, 5, self.n_topics))  # type: ignore[return-value]

    @cached_property
    def band_T(self) -> Int:
        return bands(np.arange(self.length))

    @cached_property
    def pair_XY(self) -> Float:
        """Law of the tokens whose layers go together."""
        return np.random.default_rng(9).dirichlet(np.full(self.n_experts**2, 0.3)).reshape(self.n_experts, -1)

    @cached_property
    def law_LVBZX(self) -> Float:
        """A layer's choice given type, band and topic."""
        v, b, z = self.laws
        rest = (1 - self.of_type - self.of_band - self.of_document) / self.n_experts
        own = (self.of_type * v[:, :, None, None] + self.of_band * b[:, None, :, None] + self.of_document * z[:, None, None]) + rest
        margin = np.stack([self.pair_XY.sum(axis=1), self.pair_XY.sum(axis=0)])[:, None, None, None]
        return (1 - self.together) * own + self.together * margin

    @cached_property
    def weight_VBZ(self) -> Float:
        """Share of each stratum among tokens that are not alone in theirs."""
        n_B = np.bincount(self.band_T, minlength=5)
        kept = (n_B / self.length * (1 - (1 - 1 / self.n_types) ** np.maximum(n_B - 1, 0)))[None, :, None]
        weight = np.broadcast_to(kept, (self.n_types, 5, self.n_topics))
        return weight / weight.sum()

    @cached_property
    def information_of(self) -> Callable[[str], float]:
        """I(X;Y) when Y is shuffled within the named strata ("" all tokens, "VBZ" the finest)."""
        x, y = self.law_LVBZX

        def shuffled(within: str) -> float:
            gone = tuple(axis for axis, name in enumerate("VBZ") if name not in within)
            weight = self.weight_VBZ.sum(axis=gone, keepdims=True)
            p, q = (divide((self.weight_VBZ[..., None] * law).sum(axis=gone, keepdims=True), weight[..., None]) for law in (x, y))
            return float(mutual_information_bits(np.einsum("vbz,vbzx,vbzy->xy", weight, np.nan_to_num(p), np.nan_to_num(q))))

        return shuffled

    @property
    def terms(self) -> tuple[list[float], list[float]]:
        """The four terms of the chain, and of its reverse; within a document all strata of it share its topic."""
        pure = (1 - self.together) ** -2 if self.together < 1 else 0.0
        own = (self.law_LVBZX - self.together * np.stack([self.pair_XY.sum(axis=1), self.pair_XY.sum(axis=0)])[:, None, None, None])
        apart = np.einsum("vbz,vbzx,vbzy->xy", self.weight_VBZ, *own) * pure
        whole = float(mutual_information_bits((1 - self.together) * apart + self.together * self.pair_XY))
        forward = [whole - self.information_of(s) for s in ("", "V", "VB", "VBZ")]
        reverse = [whole - self.information_of(s) for s in ("", "Z", "BZ", "VBZ")]
        return tuple([a - b for a, b in zip(chain, [*chain[1:], 0.0])] for chain in (forward, reverse))  # type: ignore[return-value]

    def draw(self, n_documents: int, rng: Rng) -> RoutedDocuments:
        """Documents of this world."""
        n = n_documents * self.length
        topic, types = np.repeat(rng.integers(0, self.n_topics, n_documents), self.length), rng.integers(0, self.n_types, n)
        position = np.tile(np.arange(self.length), n_documents)
        columns = (types, np.tile(self.band_T, n_documents), topic)
        layers = []
        for layer in range(2):
            which = choose(np.array([[self.of_type, self.of_band, self.of_document, 1 - self.of_type - self.of_band - self.of_document]]),
                           np.zeros(n, np.int64), rng)
            x = rng.integers(0, self.n_experts, n)
            for source, law in enumerate(self.laws):
                rows = np.flatnonzero(which == source)
                x[rows] = choose(law[layer], columns[source][rows], rng)
            layers.append(x)
        both = np.flatnonzero(rng.random(n) < self.together)
        drawn = choose(self.pair_XY.reshape(1, -1), np.zeros(len(both), np.int64), rng)
        layers[0][both], layers[1][both] = np.divmod(drawn, self.n_experts)
        return RoutedDocuments(layers, [self.n_experts] * 2, np.arange(n_documents + 1) * self.length, random_keys(n_documents, rng), position, types,
                               jackknife_groups(n_documents))


ALL_SOURCES = SourceWorld(0.4, 0.2, 0.3, 0.2)
ALONE = {"token identity": SourceWorld(of_type=0.6), "position": SourceWorld(of_band=0.6), "document": SourceWorld(of_document=0.6),
         "residual": SourceWorld(together=0.3)}


def chain_terms(world: SourceWorld, rng: Rng) -> list[bool]:
    """Whether each of the eight terms is covered, declared order first."""
    found = decompose(world.draw(40, rng), [[0, 1]], PLAN)
    return [covers(low, high, truth) for chain, truths in zip((found.forward, found.reverse), world.terms)
            for low, high, truth in zip(chain.interval.low[:, 0], chain.interval.high[:, 0], truths)]


def absent_terms(source: str, rng: Rng) -> list[bool]:
    """Whether each absent source is found present: its interval lies above 0, in the declared order."""
    terms = decompose(ALONE[source].draw(24, rng), [[0, 1]], PLAN).forward
    return [bool(low > 0) for name, low in zip(terms.names, terms.interval.low[:, 0]) if name != source]


TERMS = ("token identity", "position", "document", "residual", "document, reversed", "position, reversed", "token identity, reversed",
         "residual, reversed")
NOISE = "The error holds the noise of shuffles made anew without each group, which the value does not: conservative for terms near 0"
SHIFT = "metrics specification 2.6: jackknife of I less the null's mean"


def chain_study() -> Study:
    claims = tuple(Claim(f"jackknife: decomposition, {name}", window=(0.93, 0.98) if "residual" in name else (0.96, 1.0),
                         source="metrics specification 3.2", limit="" if "residual" in name else NOISE) for name in TERMS)
    return Study("decomposition", "40 documents, every source planted at once", claims, partial(chain_terms, ALL_SOURCES), 800)


def absent_study(source: str) -> Study:
    claims = tuple(size(f"interval of {name} above 0", source="metrics specification 3.2: zero elsewhere") for name in ALONE if name != source)
    return Study(f"decomposition, {source} only", f"24 documents, only {source} couples the layers", claims, partial(absent_terms, source), 2000)


STUDIES = [
    Study("five layers", "100 documents of topics, five layers in a chain",
          (Claim("jackknife: mean of mi_first_choice over adjacent pairs"), Claim("jackknife: mi_first_choice of one pair")),
          partial(mean_over_pairs, CHAIN, 100), 1200),
    Study("sets of two", "60 documents of topics, 2 of 6 experts a token", (Claim("jackknife: mi_slot_average"),), slot_average, 1200),
    Study("excess", "60 documents of topics", (Claim("jackknife less circular shifts: mi_excess", source=SHIFT),), partial(excess, SHIFTED), 1500),
    Study("excess, sticky", "60 documents of topics, a token repeats the last with probability 0.5",
          (Claim("jackknife less circular shifts: mi_excess", source=SHIFT),), partial(excess, STICKY_SHIFTED), 1500),
    Study("forty pairs without coupling", "2,000 independent tokens, 6 experts, 40 layer pairs",
          (Claim("mean of corrected informations", source="never clip a corrected estimate: metrics specification 2.1 A"),
           Claim("mean of corrected informations, clipped at 0", mutant=True)), clipped, 400),
    chain_study(),
    absent_study("token identity"),
    absent_study("document"),
]
