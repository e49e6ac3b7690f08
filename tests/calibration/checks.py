"""What a calibration check is, and how it is decided.

R replicate. A check draws a world anew in every replicate and says whether the interval covered the truth, or the test rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Literal

import numpy as np

from analysis.resampling import generator

MONTE_CARLO_ERRORS = 3.0  # standard errors that a frequency may lie outside its window by chance
LEAST = {"coverage": 400, "size": 2000}
Rng = np.random.Generator


@dataclass(frozen=True)
class Check:
    """One claim about an interval or a test.

    window: frequencies that the claim allows, before Monte-Carlo error; for a size the upper end is what counts. run: one replicate,
    whether the interval covered the truth or the test rejected. mutant: a known wrong method, which must fall outside the window.
    """

    name: str
    kind: Literal["coverage", "size"]
    nominal: float
    window: tuple[float, float]
    world: str
    source: str
    run: Callable[[Rng], bool]
    mutant: bool = False
    replicates: int | None = None

    @property
    def least(self) -> int:
        """Replicates of the whole suite."""
        return self.replicates or LEAST[self.kind]


@dataclass(frozen=True)
class Outcome:
    """The frequency a check came to, and whether it stays within its window."""

    check: Check
    replicates: int
    frequency: float

    @property
    def error(self) -> float:
        """Monte-Carlo standard error at the nominal frequency."""
        p = self.check.nominal
        return float(np.sqrt(p * (1 - p) / self.replicates))

    @property
    def within(self) -> bool:
        """Whether the frequency is within the window widened by Monte-Carlo error."""
        low, high = self.check.window
        return low - MONTE_CARLO_ERRORS * self.error <= self.frequency <= high + MONTE_CARLO_ERRORS * self.error

    @property
    def passed(self) -> bool:
        """A sound method is within; a mutant is outside."""
        return self.within != self.check.mutant


def every() -> dict[str, Check]:
    """All checks by name; a module `of_*` of this package holds CHECKS."""
    import tests.calibration

    modules = [import_module(f"tests.calibration.{found.name}") for found in iter_modules(tests.calibration.__path__) if found.name.startswith("of_")]
    checks = [check for module in modules for check in module.CHECKS]
    named = {check.name: check for check in checks}
    assert len(named) == len(checks), "two calibration checks share a name"
    return named


def outcome(check: Check, replicates: int, seed: int = 0, processes: int = 1) -> Outcome:
    """Run a check; a replicate's draws depend on seed, name and its number alone, whatever the number of processes."""
    blocks = [list(range(start, replicates, 8 * processes)) for start in range(min(8 * processes, replicates))]
    if processes == 1:
        hits = sum(_block(check.name, block, seed) for block in blocks)
    else:
        with ProcessPoolExecutor(processes) as pool:
            hits = sum(pool.map(_block, [check.name] * len(blocks), blocks, [seed] * len(blocks)))
    return Outcome(check, replicates, hits / replicates)


def outcomes(names: list[str], share: float = 1.0, seed: int = 0, processes: int = 2) -> Iterator[Outcome]:
    """Outcomes of the named checks, with that share of their replicates."""
    checks = every()
    with ProcessPoolExecutor(processes) as pool:
        for name in names:
            n = max(1, round(checks[name].least * share))
            blocks = [list(range(start, n, 8 * processes)) for start in range(min(8 * processes, n))]
            hits = sum(pool.map(_block, [name] * len(blocks), blocks, [seed] * len(blocks)))
            yield Outcome(checks[name], n, hits / n)


def _block(name: str, numbers: list[int], seed: int) -> int:
    check = every()[name]
    return sum(bool(check.run(generator(seed, name, number))) for number in numbers)
