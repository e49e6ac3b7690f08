"""The evaluation's tables as figures want them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.report.var_tables import entropy_histogram, mean_rows, type_columns
from hypotheses.claim import Evaluation


def histogram(*layers):
    table = {"layer": [], "left": [], "right": [], "count": []}
    for layer, (n_experts, counts) in enumerate(layers):
        edges = np.linspace(0, math.log(n_experts), len(counts) + 1)
        table["layer"] += [layer] * len(counts)
        table["left"] += edges[:-1].tolist()
        table["right"] += edges[1:].tolist()
        table["count"] += counts
    return Evaluation({}, tables={"entropy_histogram": table})


def test_histogram_of_layers_with_different_experts_sums_to_one():
    left, right, share = entropy_histogram(histogram((16, [1, 2, 3, 4]), (8, [10, 0, 0, 0]), (16, [0, 0, 0, 0])), None)
    assert share.sum() == pytest.approx(1.0)
    assert right[-1] == pytest.approx(math.log(16))
    # by hand: layer 1 lies below ln(8)/4 = .52, inside the first bin, which ends at ln(16)/4 = .69
    assert share.tolist() == pytest.approx([(0.1 + 1.0) / 2, 0.1, 0.15, 0.2])


def test_histogram_without_any_count_is_none():
    assert entropy_histogram(histogram((16, [0, 0])), None) is None
    assert entropy_histogram(Evaluation({}), None) is None


def test_own_rows_for_the_mean_come_before_averaging():
    table = {"layer": [0, 1, -1], "min_count": [50, 50, 50], "rho": [0.1, 0.2, 0.4]}
    assert mean_rows(table, "min_count")["rho"] == [0.4]
    assert mean_rows({name: column[:2] for name, column in table.items()}, "min_count")["rho"] == pytest.approx([0.15])


def test_means_leave_out_what_is_missing():
    table = {"layer": [0, 1, 0, 1], "token_id": [7, 7, 9, 9], "token_str": ["a", "a", "b", "b"], "mean_entropy": [1.0, None, None, None]}
    rows = mean_rows(table, "token_id")
    assert rows["token_id"].tolist() == [7, 9]
    assert rows["mean_entropy"][0] == 1.0 and np.isnan(rows["mean_entropy"][1])
    assert "token_str" not in rows


def test_types_are_eligible_in_the_mean_from_half_of_the_layers():
    stats = {
        "layer": [0, 1, 0, 1],
        "token_id": [1, 1, 2, 2],
        "frequency": [60, 60, 5, 5],
        "mean_entropy": [0.1, 0.3, 1.0, 1.2],
        "eligible": [True, False, False, False],
    }
    types = type_columns(Evaluation({}, tables={"routing_stats": stats}), None, 50)
    assert types.eligible.tolist() == [True, False]
    assert types.judged.tolist() == [True, False]
    assert types.mean_entropy.tolist() == pytest.approx([0.2, 1.1])
