"""Several tests at once: Holm, Benjamini-Hochberg, Benjamini-Yekutieli, maxT, and the declared family that says which (metrics specification 5.3).

m members of a family, B draw of a null. An untestable member (None) stays listed and does not count in m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.kernels import Float
from analysis.permutation import p_value

P = Sequence[float | None]
CONTROLS = ("none", "fwer", "fdr", "exploratory")
METHODS = {"none": "interval rule", "fwer": "holm", "fdr": "bh", "exploratory": "bh"}
# Kind of claim -> what is controlled (metrics specification 5.3).
CONTROL_OF = {
    "criteria joined by AND": "none", "criteria joined by OR": "fwer", "several hypotheses": "fwer", "all pairs": "none", "some pair": "fwer",
    "cells, edges or experts": "fdr", "scan": "exploratory",
}
TIES = 1e-9  # relative: statistics of mirrored arrangements differ in their last bits
DRAWS_PER_MEMBER = 20  # permutation p-values resolve Holm's smallest step from M + 1 = 20 m / alpha on


def holm(p: P) -> list[float | None]:
    """Holm's step-down adjusted p: max over j <= i of (m - j + 1) p_(j), at most 1; strong control of the family-wise error."""
    return _adjusted(p, lambda ordered, m: np.maximum.accumulate(ordered * np.arange(m, 0, -1)))


def benjamini_hochberg(p: P) -> list[float | None]:
    """Benjamini-Hochberg q: min over j >= i of m p_(j) / j, at most 1; false discovery rate under positive dependence."""
    return _adjusted(p, lambda ordered, m: _step_up(ordered * m / np.arange(1, m + 1)))


def benjamini_yekutieli(p: P) -> list[float | None]:
    """Benjamini-Yekutieli q: the Benjamini-Hochberg q times sum_{i <= m} 1/i, at most 1; for any dependence."""
    return _adjusted(p, lambda ordered, m: _step_up(ordered * m / np.arange(1, m + 1) * np.sum(1 / np.arange(1, m + 1))))


def bonferroni(p: P) -> list[float | None]:
    """Bonferroni's adjusted p: m p, at most 1."""
    return _adjusted(p, lambda ordered, m: ordered * m)


def _step_up(scaled: Float) -> Float:
    out: Float = np.minimum.accumulate(scaled[::-1])[::-1]
    return out


def _adjusted(p: P, steps: Callable[[Float, int], Float]) -> list[float | None]:
    """Apply `steps` to the sorted testable p-values and put the outcome back in the given order."""
    testable = [i for i, one in enumerate(p) if one is not None]
    values = np.array([p[i] for i in testable], np.float64)
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails both
        raise ValueError("p-values lie in [0, 1]; give None for a member that cannot be tested")
    out: list[float | None] = [None] * len(p)
    order = np.argsort(values, kind="stable")
    for place, value in zip(order, np.minimum(steps(values[order], len(values)), 1.0)):
        out[testable[place]] = float(value)
    return out


def max_t(observed: Sequence[float | None], null_BM: ArrayLike, *, exact: bool = False) -> list[float | None]:
    """Westfall-Young single-step maxT p: (1 + #{max_j null_bj >= observed_i}) / (B + 1), over draws that all members share.

    observed: statistic per member, None where untestable (its column is then left out of the maximum); null_BM [B, m]. Studentise
    statistics of different scale first. exact: the draws are every arrangement, the observed one among them. ValueError for no draw or NaN.
    """
    null = np.asarray(null_BM, np.float64)
    if null.ndim != 2 or null.shape[1] != len(observed):
        raise ValueError(f"null has shape {null.shape}; one row per draw and one column for each of the {len(observed)} members is needed")
    testable = [i for i, one in enumerate(observed) if one is not None]
    if not testable:
        return [None] * len(observed)
    largest = null[:, testable].max(axis=1)
    if not len(null) or np.isnan(largest).any() or np.isnan([observed[i] for i in testable]).any():  # type: ignore[arg-type]
        raise ValueError("maxT needs at least one draw, and no NaN; give None for a member that cannot be tested")
    return [None if one is None else float(p_value(one, largest, TIES, exact=exact)) for one in observed]


def draws_needed(n_members: int, alpha: float = 0.05) -> int:
    """Permutations M that resolve Holm's first step: the least M with M + 1 >= 20 m / alpha."""
    return int(np.ceil(DRAWS_PER_MEMBER * n_members / alpha - 1e-9)) - 1


def resolves(n_draws: int, n_members: int, alpha: float = 0.05) -> bool:
    """Whether M permutations are enough for a family: M + 1 >= 20 m / alpha."""
    return n_draws >= draws_needed(n_members, alpha)


def simultaneous_level(n_members: int, level: float = 0.95) -> float:
    """Level of each interval that makes all m hold together: 1 - (1 - level) / m (Bonferroni)."""
    return 1 - (1 - level) / max(n_members, 1)


@dataclass(frozen=True)
class Adjusted:
    """Adjusted p or q per member (None: untestable), by which method, over how many testable members."""

    method: str
    p: Mapping[str, float | None]
    n_family: int
    judges: bool  # False: exploratory, never feeds a verdict

    @property
    def untestable(self) -> tuple[str, ...]:
        """Members that are listed without a p."""
        return tuple(name for name, value in self.p.items() if value is None)

    def rejected(self, alpha: float = 0.05) -> tuple[str, ...]:
        """Members whose adjusted p is at most alpha."""
        return tuple(name for name, value in self.p.items() if value is not None and value <= alpha)


@dataclass(frozen=True)
class Family:
    """A family of tests, declared before any test is made.

    control: "none" (criteria joined by AND: intersection-union, each at alpha), "fwer", "fdr" or "exploratory"; see CONTROL_OF.
    negative_dependence: members that share a denominator and pull against each other, for which BH becomes BY.
    """

    name: str
    control: str
    members: tuple[str, ...]
    negative_dependence: bool = False

    def __post_init__(self) -> None:
        if self.control not in CONTROLS:
            raise ValueError(f"family {self.name!r}: control {self.control!r} is none of {', '.join(CONTROLS)}")
        if len(set(self.members)) != len(self.members):
            raise ValueError(f"family {self.name!r} lists a member twice")

    @property
    def method(self) -> str:
        """Name of the adjustment."""
        return "by" if self.negative_dependence and self.control in ("fdr", "exploratory") else METHODS[self.control]

    def adjust(self, p: Mapping[str, float | None]) -> Adjusted:
        """Adjusted p of the declared members, in declared order; ValueError for a member that is missing or was not declared."""
        if set(p) != set(self.members):
            odd = sorted(set(p) ^ set(self.members))
            raise ValueError(f"family {self.name!r}: {', '.join(odd)} is declared without a p or has a p without being declared; give None "
                             "for a member that cannot be tested")
        values = [p[name] for name in self.members]
        adjust = {"holm": holm, "bh": benjamini_hochberg, "by": benjamini_yekutieli}.get(self.method, list)
        adjusted = dict(zip(self.members, adjust(values)))
        return Adjusted(self.method, adjusted, sum(value is not None for value in values), self.control != "exploratory")

    def interval_level(self, level: float = 0.95) -> float:
        """Level of the members' intervals: Bonferroni where the family-wise error is controlled, else `level` (pointwise)."""
        return simultaneous_level(len(self.members), level) if self.control == "fwer" else level
