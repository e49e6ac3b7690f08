"""Whether the rows of a routing log are what they say: keys once, the expected number, one row per decision (seed 002, Part 1).

R row. The operations of one expert layer (gate, up, down) repeat one routing decision; a slot is one of the top-k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.kernels import Int

SHOWN = 5  # repeated keys that are named


@dataclass(frozen=True)
class RowPlan:
    """What a log was to hold: tokens of each domain, MoE layers, operations per layer that repeat a decision, slots per token."""

    domains: int
    tokens: int
    layers: int
    ops_per_layer: int
    k: int

    @property
    def rows_per_token(self) -> int:
        """Rows of one token's record."""
        return self.layers * self.ops_per_layer * self.k

    @property
    def rows_expected(self) -> int:
        """Rows of the whole log."""
        return self.domains * self.tokens * self.rows_per_token


@dataclass(frozen=True)
class RowArithmetic:
    """Rows loaded against rows expected. A quotient that does not come out whole is None, and `reason` says which."""

    rows_expected: int
    rows_loaded: int
    surplus_rows: int
    surplus_per_domain: int | None
    duplicated_token_records_per_domain: int | None
    independent_routing_rows: int | None
    reason: str | None = None

    @property
    def sound(self) -> bool:
        """Whether the log has the rows that it should have."""
        return self.surplus_rows == 0 and self.reason is None


def row_arithmetic(plan: RowPlan, rows_loaded: int) -> RowArithmetic:
    """Surplus rows, whole token records among them per domain, and rows left once each decision counts once (rows / operations)."""
    surplus = rows_loaded - plan.rows_expected
    per_domain = _whole(surplus, plan.domains)
    records = None if per_domain is None else _whole(per_domain, plan.rows_per_token)
    independent = _whole(rows_loaded, plan.ops_per_layer)
    odd = [name for name, value in (("surplus rows over domains", per_domain), ("surplus over rows per token", records),
                                    ("rows over operations", independent)) if value is None]
    reason = f"not whole: {', '.join(odd)}; some records are partial" if odd else None
    return RowArithmetic(plan.rows_expected, rows_loaded, surplus, per_domain, records, independent, reason)


def _whole(a: int, b: int) -> int | None:
    return a // b if b > 0 and a % b == 0 else None


@dataclass(frozen=True)
class KeyCheck:
    """Rows whose key occurred before. surplus: how many; examples: some of the keys, as tuples; first [R']: the row of each key, in order."""

    n_rows: int
    surplus: int
    examples: tuple[tuple[int, ...], ...]
    first: Int

    @property
    def unique(self) -> bool:
        """Whether every key occurs once."""
        return self.surplus == 0


def check_keys(*columns: ArrayLike) -> KeyCheck:
    """Whether (domain, document, token, layer, slot) or any other integer columns [R] are a key. ValueError for columns of unequal length."""
    keys = _columns(columns)
    if not len(keys):
        return KeyCheck(0, 0, (), np.zeros(0, np.int64))
    values, first, count = np.unique(keys, axis=0, return_index=True, return_counts=True)
    repeated = values[count > 1][:SHOWN]
    return KeyCheck(len(keys), len(keys) - len(values), tuple(tuple(int(x) for x in key) for key in repeated), np.sort(first).astype(np.int64))


@dataclass(frozen=True)
class Decisions:
    """One row per routing decision. rows [R']: its first row; conflicting: decisions of which the operations name different experts."""

    rows: Int
    conflicting: int
    incomplete: int  # decisions with fewer or more operations than the most common number


def collapse_operations(expert: ArrayLike, operation: ArrayLike, *key: ArrayLike) -> Decisions:
    """The rows that remain when gate, up and down of one (domain, document, token, layer, slot) count once.

    expert, operation and the columns of the key are integers [R]. Rows repeated within an operation count in `incomplete`.
    """
    keys, experts = _columns(key), np.asarray(expert)
    if not len(keys):
        return Decisions(np.zeros(0, np.int64), 0, 0)
    if len(experts) != len(keys) or len(np.asarray(operation)) != len(keys):
        raise ValueError(f"expert, operation and key have {len(experts)}, {len(np.asarray(operation))} and {len(keys)} rows; they must agree")
    _, first, number, count = np.unique(keys, axis=0, return_index=True, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    differs = np.zeros(len(first), bool)
    np.logical_or.at(differs, number, experts != experts[first][number])
    usual = np.bincount(count).argmax()
    operations = np.unique(np.column_stack([number, np.asarray(operation)]), axis=0)[:, 0]
    distinct = np.bincount(operations, minlength=len(first))
    return Decisions(np.sort(first).astype(np.int64), int(differs.sum()), int(((count != usual) | (distinct != count)).sum()))


def _columns(columns: tuple[ArrayLike, ...]) -> Int:
    arrays = [np.asarray(column) for column in columns]
    lengths = {len(one) for one in arrays}
    if len(lengths) > 1:
        raise ValueError(f"columns of a key have {sorted(lengths)} rows; each needs one entry per row")
    if any(len(one) and not np.issubdtype(one.dtype, np.integer) for one in arrays):
        raise ValueError("columns of a key must be integers; number the domains, documents and operations")
    return np.column_stack([one.astype(np.int64) for one in arrays]) if arrays else np.zeros((0, 0), np.int64)
