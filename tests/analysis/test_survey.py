"""The survey of a trace: every row is whole, equals the metric of a slow count, and says why where there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.arithmetic import mutual_information_bits
from analysis.registry import find
from analysis.survey import SECTIONS, Row, SurveyPlan, survey
from tests.references.memory_trace import MemoryTrace, Shape, sample_trace

PLAN = SurveyPlan(n_shifts=19)


@pytest.fixture(scope="module")
def trace() -> MemoryTrace:
    return sample_trace(3, Shape(n_train=2, n_calibration=2, n_test=44))[0]


@pytest.fixture(scope="module")
def rows(trace: MemoryTrace) -> list[Row]:
    return list(survey(trace, PLAN))


def one(rows: list[Row], metric: str, layers: int = 1, part: str = "") -> Row:
    return next(row for row in rows if row.metric == metric and len(row.layers) == layers and row.part == part)


def test_every_row_is_a_registered_metric_with_a_value_or_a_reason(rows: list[Row]) -> None:
    assert len({row.metric for row in rows}) > 40
    for row in rows:
        flat = row.to_json()
        json.dumps(flat, allow_nan=False)
        assert find(row.metric).unit == flat["unit"] or flat["value"] is None
        assert (flat["value"] is None) == (row.status == "undefined")
        assert flat["reason"] or row.status in ("estimated", "seed form")
        assert row.n_documents and row.n_tokens and row.population and row.estimand


def test_rows_equal_slow_counts(trace: MemoryTrace, rows: list[Row]) -> None:
    batches = list(trace.batches(split="test"))
    first = [np.concatenate([batch.ids[layer][:, 0] for batch in batches]) for layer in (0, 1)]
    joint = np.zeros((8, 8))
    np.add.at(joint, tuple(first), 1)
    assert one(rows, "mi_first_choice", 2).estimate.plug_in == pytest.approx(float(mutual_information_bits(joint)), abs=1e-12)
    loads = np.bincount(np.concatenate([batch.ids[0].ravel() for batch in batches]), minlength=8)
    assert one(rows, "usage_cv").estimate.plug_in == pytest.approx(loads.std() / loads.mean())
    same = total = 0
    for batch in batches:
        inside = batch.document[1:] == batch.document[:-1]
        same += int((batch.ids[0][1:, 0] == batch.ids[0][:-1, 0])[inside].sum())
        total += int(inside.sum())
    assert one(rows, "same_expert").estimate.plug_in == pytest.approx(same / total)


def test_neither_shards_nor_order_nor_threads_change_a_row(trace: MemoryTrace, rows: list[Row]) -> None:
    order = np.random.default_rng(0).permutation(len(trace.shards))
    shuffled = MemoryTrace(trace.meta, trace.documents[::-1], [trace.shards[i] for i in order])
    assert [row.to_json() for row in survey(shuffled, replace(PLAN, threads=2))] == [row.to_json() for row in rows]


def test_one_domain_one_layer_and_few_documents_are_reasons() -> None:
    trace = sample_trace(0, Shape(n_train=2, n_calibration=2, n_test=4, n_layers=1, top_k=1))[0]
    alone = MemoryTrace(trace.meta, [replace(row, domain="only") for row in trace.documents], trace.shards)
    rows = list(survey(alone, PLAN))
    assert "one domain (only)" in str(one(rows, "mi_E_D").reason)
    assert "one MoE layer" in str(one(rows, "mi_first_choice").reason)
    assert "too_few_documents" in str(one(rows, "usage_cv").reason) and one(rows, "usage_cv").status == "gated"


def test_what_is_not_there_is_refused_by_name(trace: MemoryTrace) -> None:
    with pytest.raises(ValueError, match="split 'train': no documents; the trace has splits: calibration, test"):
        list(survey(trace, replace(PLAN, split="train")))
    with pytest.raises(ValueError, match="no section 'loads'; choose among usage"):
        list(survey(trace, replace(PLAN, sections=("loads",))))
    assert set(PLAN.sections) == set(SECTIONS)


def test_sections_come_one_by_one(trace: MemoryTrace) -> None:
    seen: list[str] = []
    found = list(survey(trace, replace(PLAN, sections=("sequence",)), stage=seen.append))
    assert seen == ["loads", "sequence"]
    assert {row.metric for row in found} >= {"lag_kappa", "lag_mi", "lag_overlap_kappa"}
