"""Row arithmetic and keys of a routing log."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from analysis.metrics.integrity import RowPlan, check_keys, collapse_operations, row_arithmetic
from tests.references.cases import case


def test_reference_rows_of_the_seed() -> None:
    inputs, expected = case("D05")
    loaded = inputs.pop("rows_loaded")
    got = row_arithmetic(RowPlan(**inputs), loaded)
    assert {name: getattr(got, name) for name in expected} == expected and not got.sound


def test_arithmetic_that_does_not_come_out_is_none_with_a_reason() -> None:
    plan = RowPlan(2, 3, 2, 3, 2)
    assert row_arithmetic(plan, 72).sound
    odd = row_arithmetic(plan, 77)
    assert odd.surplus_per_domain is None and odd.duplicated_token_records_per_domain is None and odd.independent_routing_rows is None
    assert odd.reason and "operations" in odd.reason
    short = row_arithmetic(plan, 48)
    assert (short.surplus_rows, short.duplicated_token_records_per_domain, short.sound) == (-24, -1, False)


def log(n_tokens: int = 4) -> np.ndarray:
    """Columns domain, document, token, layer, slot, operation of every row."""
    return np.array(list(product(range(2), range(2), range(n_tokens), range(2), range(2), range(3))))


def test_a_sound_log_has_each_key_once_and_a_third_of_its_rows_are_decisions() -> None:
    rows = log()
    expert = rows[:, 2] + rows[:, 4]
    assert check_keys(*rows.T).unique
    assert check_keys(*rows.T[:5]).surplus == len(rows) * 2 // 3
    decisions = collapse_operations(expert, rows[:, 5], *rows.T[:5])
    assert (len(decisions.rows), decisions.conflicting, decisions.incomplete) == (len(rows) // 3, 0, 0)
    assert check_keys(*rows[decisions.rows].T[:5]).unique


def test_repeated_records_and_disagreeing_operations_are_found() -> None:
    rows = log()
    doubled = np.concatenate([rows, rows[(rows[:, :3] == (0, 0, 1)).all(axis=1)]])
    found = check_keys(*doubled.T)
    assert found.surplus == 12 and found.examples[0][:3] == (0, 0, 1) and np.array_equal(found.first, np.arange(len(rows)))
    assert collapse_operations(doubled[:, 2], doubled[:, 5], *doubled.T[:5]).incomplete == 4
    expert = rows[:, 2].copy()
    expert[7] += 1
    assert collapse_operations(expert, rows[:, 5], *rows.T[:5]).conflicting == 1


def test_the_row_order_changes_nothing() -> None:
    rows = np.concatenate([log(), log(1)])
    order = np.random.default_rng(0).permutation(len(rows))
    assert check_keys(*rows.T).surplus == check_keys(*rows[order].T).surplus == len(log(1))
    assert check_keys(*rows.T).examples == check_keys(*rows[order].T).examples


def test_odd_columns_are_refused_and_no_rows_are_sound() -> None:
    assert check_keys(np.zeros(0, int)).unique
    assert collapse_operations([], [], []).conflicting == 0
    with pytest.raises(ValueError, match="one entry per row"):
        check_keys([1, 2], [1])
    with pytest.raises(ValueError, match="integers"):
        check_keys([0.5, 1.0])
    with pytest.raises(ValueError, match="agree"):
        collapse_operations([1], [0, 1], [0, 1])
