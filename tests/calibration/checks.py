"""What a calibration study is, and how its claims are decided.

R replicate. A study draws a world anew in every replicate and says of each claim whether the interval covered the truth, the test rejected,
or which share of its discoveries was false. Claims of one study share its draws.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Literal

import numpy as np

from analysis.resampling import generator

MONTE_CARLO_ERRORS = 3.0  # standard errors that a frequency may lie outside its window by chance
LEAST = {"coverage": 400, "size": 2000, "false discoveries": 2000}
COVERAGE, SIZE = (0.93, 0.97), (0.0, 0.05)
BLOCKS = 16  # pieces that the replicates of a study are handed out in, per process
Rng = np.random.Generator


@dataclass(frozen=True)
class Claim:
    """One claim about an interval or a test.

    nominal: what it says of itself. window: frequencies that are allowed before Monte-Carlo error. source: where the window is from.
    mutant: a known wrong method, which must fall outside the window of the sound one. limit: why a sound method does not keep its nominal
    frequency in this world; such a claim has the window of what is known instead.
    """

    name: str
    kind: Literal["coverage", "size", "false discoveries"] = "coverage"
    nominal: float = 0.95
    window: tuple[float, float] = COVERAGE
    source: str = "metrics specification 4.1"
    mutant: bool = False
    limit: str = ""


def size(name: str, window: tuple[float, float] = SIZE, source: str = "metrics specification 5", **more: object) -> Claim:
    """A test at 5 %: only the upper end of the window counts unless a lower one is given."""
    return Claim(name, "size", 0.05, window, source, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Study:
    """Claims that are judged on the same draws. run: one replicate, a number in [0, 1] for each claim (did it cover, did it reject)."""

    name: str
    world: str
    claims: tuple[Claim, ...]
    run: Callable[[Rng], Sequence[float]]
    replicates: int

    def __post_init__(self) -> None:
        for claim in self.claims:
            if not claim.mutant and self.replicates < LEAST[claim.kind]:
                raise ValueError(f"{self.name}: {self.replicates} replicates; {claim.name} needs {LEAST[claim.kind]}")


@dataclass(frozen=True)
class Outcome:
    """The frequency a claim came to, and whether it stays within its window."""

    study: Study
    claim: Claim
    replicates: int
    frequency: float

    @property
    def allowed(self) -> tuple[float, float]:
        """The window, wider at each end by three Monte-Carlo errors of a frequency there."""
        low, high = (end + side * MONTE_CARLO_ERRORS * (end * (1 - end) / self.replicates) ** 0.5 for end, side in zip(self.claim.window, (-1, 1)))
        return max(low, 0.0), min(high, 1.0)

    @property
    def within(self) -> bool:
        """Whether the frequency is allowed."""
        low, high = self.allowed
        return low <= self.frequency <= high

    @property
    def passed(self) -> bool:
        """A sound method is within; a mutant is outside."""
        return self.within != self.claim.mutant


@cache
def every() -> dict[str, Study]:
    """All studies by name; a module `of_*` of this package holds STUDIES."""
    import tests.calibration

    modules = [import_module(f"tests.calibration.{found.name}") for found in iter_modules(tests.calibration.__path__) if found.name.startswith("of_")]
    studies = [study for module in modules for study in module.STUDIES]
    named = {study.name: study for study in studies}
    assert len(named) == len(studies), "two calibration studies share a name"
    return named


def outcomes(names: Sequence[str], share: float = 1.0, seed: int = 0, processes: int = 2) -> Iterator[Outcome]:
    """Outcomes of the named studies, with that share of their replicates (1 at least)."""
    if processes == 1:
        for name in names:
            yield from outcome(every()[name], share, seed)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _compile_at_once) as pool:
        for name in names:
            study = every()[name]
            numbers = range(n_replicates(study, share))
            blocks = [numbers[start :: BLOCKS * processes] for start in range(min(BLOCKS * processes, len(numbers)))]
            sums = np.sum(list(pool.map(_named_block, [name] * len(blocks), blocks, [seed] * len(blocks))), axis=0)
            yield from _decided(study, sums, len(numbers))


def _compile_at_once() -> None:
    """numba loaded: nulls then take their compiled twins, whose values have the same bits."""
    import_module("numba")


def outcome(study: Study, share: float = 1.0, seed: int = 0) -> list[Outcome]:
    """Outcomes of one study, in this process. A replicate's draws depend on seed, study and its number alone."""
    numbers = range(n_replicates(study, share))
    return _decided(study, _block(study, numbers, seed), len(numbers))


def n_replicates(study: Study, share: float) -> int:
    """That share of the study's replicates, 1 at least."""
    return max(1, round(study.replicates * share))


def _decided(study: Study, sums: np.ndarray, n: int) -> list[Outcome]:
    return [Outcome(study, claim, n, float(total / n)) for claim, total in zip(study.claims, sums)]


def _named_block(name: str, numbers: Sequence[int], seed: int) -> np.ndarray:
    return _block(every()[name], numbers, seed)


def _block(study: Study, numbers: Sequence[int], seed: int) -> np.ndarray:
    """Sums over replicates [claims], of multiples of 2^-20, so that they do not depend on how replicates are dealt to processes."""
    total = np.zeros(len(study.claims))
    for number in numbers:
        found = np.asarray(study.run(generator(seed, study.name, number)), np.float64)
        if found.shape != total.shape or not ((found >= 0) & (found <= 1)).all():
            raise ValueError(f"{study.name}: {found} for {len(study.claims)} claims; give each a number in [0, 1]")
        total += np.rint(found * 2**20) / 2**20
    return total
