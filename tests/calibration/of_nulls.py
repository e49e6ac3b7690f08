"""Size of the tests between layers where no token-level coupling exists: circular shifts, shuffles within token types, and wrong nulls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from analysis.arithmetic import mutual_information_bits
from analysis.moved_rows import RoutedDocuments
from analysis.multiplicity import holm, max_t
from analysis.permutation import p_value
from analysis.shift import ShiftPlan, shifted_information
from analysis.shuffles import ShufflePlan, shuffled_information
from tests.calibration.checks import Rng, Study, size
from tests.calibration.worlds import ApartWorld, Float, Int, choose, random_keys

ALPHA, N_DRAWS = 0.05, 99
APART = {"independent tokens": ApartWorld(topics=False), "sticky": ApartWorld(topics=False, sticky=0.6), "topics": ApartWorld(),
         "sticky and topics": ApartWorld(sticky=0.6)}
SHORT = ApartWorld(sticky=0.6, length=12, n_documents=120)
PAGE = {"independent tokens": 0.063, "sticky": 0.060, "topics": 0.040, "sticky and topics": 0.053}  # metrics specification 3.3
NEAR = ("Shifts of m to T - m leave small ones out: two draws turn a sticky document alike more often than a draw leaves it as it was, so that "
        "they are more like each other than like what was observed; p-values draw from 0 to T - 1")

TREND = "A trend of positions counts as coupling: leave out the positions of the template, or compare inside position bands"
CUT = "A document is a line and is turned as a ring: the seam breaks one run of a sticky layer, which matters in 12 tokens"


def shift_rejects(world: ApartWorld, rng: Rng) -> list[bool]:
    """Rejection by circular shifts; and the mutant, from the shifts of the excess, which keep away from 0."""
    null = shifted_information(world.draw(rng), [[0, 1]], ShiftPlan(N_DRAWS, seed=int(rng.integers(2**31)), n_interval_draws=0, p_values=True))
    return [bool(null.p[0] <= ALPHA), bool(p_value(null.observed, null.null)[0] <= ALPHA)]


def shift_only(world: ApartWorld, rng: Rng) -> list[bool]:
    """Rejection by circular shifts alone."""
    return shift_rejects(world, rng)[:1]


def template_rejects(world: ApartWorld, rng: Rng) -> list[bool]:
    """Rejection by circular shifts of documents that begin alike: all tokens, and those after the template."""
    documents, seed = world.draw(rng), int(rng.integers(2**31))
    plans = (ShiftPlan(N_DRAWS, seed, n_interval_draws=0, p_values=True, drop_first=first) for first in (0, world.prefix))
    return [bool(shifted_information(documents, [[0, 1]], plan).p[0] <= ALPHA) for plan in plans]


def family_rejects(world: ApartWorld, rng: Rng) -> list[bool]:
    """Any rejection among adjacent pairs under shared shifts: Holm, studentised maxT, none."""
    documents = world.draw(rng)
    pairs = [[i, i + 1] for i in range(world.n_layers - 1)]
    null = shifted_information(documents, pairs, ShiftPlan(N_DRAWS, seed=int(rng.integers(2**31)), n_interval_draws=0, p_values=True))
    both = np.vstack([null.observed, null.orbit])
    scaled = (both - both.mean(axis=0)) / both.std(axis=0)
    adjusted = holm(null.p.tolist()), max_t(scaled[0].tolist(), scaled[1:]), null.p.tolist()
    return [min(p) <= ALPHA for p in adjusted]


def wrong_nulls(world: ApartWorld, rng: Rng) -> list[bool]:
    """The mutants: a shuffle over all tokens, and whole documents swapped (topics) or tokens shuffled within documents (sticky)."""
    documents = world.draw(rng)
    x, y = (np.asarray(first).reshape(world.n_documents, world.length) for first in documents.first_L)
    moves = (lambda: rng.permutation(y.reshape(-1)).reshape(y.shape), lambda: rng.permutation(y) if world.topics else rng.permuted(y, axis=1))
    observed, out = information(x, y, world.n_experts), []
    for moved in moves:
        out.append(bool(p_value(observed, np.array([information(x, moved(), world.n_experts) for _ in range(99)])) <= ALPHA))
    return out


def information(x: Int, y: Int, n_experts: int) -> float:
    """Plug-in, bits."""
    return float(mutual_information_bits(np.bincount((x * n_experts + y).reshape(-1), minlength=n_experts**2).reshape(n_experts, -1)))


@dataclass(frozen=True)
class TypedWorld:
    """Two layers that each follow the token's type and nothing else: coupled through the type, independent given it."""

    n_types: int = 60
    n_experts: int = 6
    n_documents: int = 30
    length: int = 64

    @cached_property
    def law_LVX(self) -> Float:
        return np.random.default_rng(10).dirichlet(np.full(self.n_experts, 0.5), (2, self.n_types))

    def draw(self, rng: Rng) -> RoutedDocuments:
        """Documents of Zipf types."""
        frequency = 1 / np.arange(1, self.n_types + 1)
        types = rng.choice(self.n_types, self.n_documents * self.length, p=frequency / frequency.sum())
        layers = [choose(law, types, rng) for law in self.law_LVX]
        return RoutedDocuments(layers, [self.n_experts] * 2, np.arange(self.n_documents + 1) * self.length, random_keys(self.n_documents, rng),
                               token_id=types)


def type_shuffle_rejects(world: TypedWorld, rng: Rng) -> list[bool]:
    """Rejection by a shuffle within token types; and by circular shifts, which see the coupling through the type."""
    documents, seed = world.draw(rng), int(rng.integers(2**31))
    within = shuffled_information(documents, [[0, 1]], ShufflePlan(("token_type",), 99, seed, backend="numba"))
    shift = shifted_information(documents, [[0, 1]], ShiftPlan(99, seed, n_interval_draws=0, p_values=True))
    return [bool(within.p[0] <= ALPHA), bool(shift.p[0] <= ALPHA)]


def apart_study(text: str, world: ApartWorld) -> Study:
    claim = size("circular shift", source=f"metrics specification 3.3: {PAGE[text]:.3f}")
    return Study(f"layers apart, {text}", f"40 documents of 64 tokens, {text}, no coupling of tokens", (claim,), partial(shift_only, world), 2000)


STUDIES = [
    *(apart_study(text, world) for text, world in APART.items()),
    Study("layers apart, short documents", "120 documents of 12 tokens, sticky and topics, no coupling of tokens", (
        size("circular shift", window=(0.05, 0.09), limit=CUT),
        size("shifts that keep away from 0", mutant=True, limit=NEAR)), partial(shift_rejects, SHORT), 2000),
    Study("layers apart, template", "40 documents of 64 tokens of topics that begin with the same 6, no coupling of tokens", (
        size("circular shift of all tokens", window=(0.9, 1.0), source="metrics specification 3.3", limit=TREND),
        size("circular shift after the first 6 positions", source="metrics specification 3.3")),
        partial(template_rejects, ApartWorld(prefix=6)), 2000),
    Study("pairs of layers apart", "5 layers, topics, no coupling of tokens", (
        size("Holm over adjacent pairs, shared shifts", source="metrics specification 5.3"), size("maxT over adjacent pairs, shared shifts"),
        size("each pair on its own at 5 %", mutant=True)), partial(family_rejects, ApartWorld(n_layers=5)), 2000),
    Study("coupling through the type", "30 documents of Zipf types, layers independent given the type", (
        size("shuffle within token types", source="metrics specification 3.2"),
        size("circular shift, read as coupling beyond the type", mutant=True)), partial(type_shuffle_rejects, TypedWorld()), 2000),
    Study("wrong nulls, topics", "40 documents of 64 tokens, topics, no coupling of tokens", (
        size("shuffle over all tokens", mutant=True, source="metrics specification 3.3: 1.0"),
        size("whole documents swapped", mutant=True, source="metrics specification 3.3: 1.0")), partial(wrong_nulls, APART["topics"]), 400),
    Study("wrong nulls, sticky", "40 documents of 64 tokens, sticky, no coupling of tokens", (
        size("shuffle over all tokens", mutant=True, source="metrics specification 3.3: .97"),
        size("shuffle within documents", mutant=True, source="metrics specification 3.3: .92")), partial(wrong_nulls, APART["sticky"]), 400),
]
