"""The sweep of analysis knobs: exact grids, a resumable study, the preferred point; nothing of it reaches a criterion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import knob_sweep
from experiments.declaration import load
from experiments.knob_sweep import KnobGrid, best, sweep
from experiments.progress import Silent
from experiments.projection import sweep_metrics
from experiments.report.topology_sweep import choice_table, curves
from experiments.stages import knobs
from experiments.stages.context import Context
from hypotheses.topology_evidence import TopologyEvidence
from hypotheses.topology_knobs import OBJECTIVES, KnobObjectives
from tests.hypotheses.topology_worlds import planted

PEAK = KnobGrid("peak", lambda n: -float((n - 4) ** 2), {"n": [2, 3, 4, 5, 6]}, {"n": "int"})
EDGE = KnobGrid("edge", lambda cut, weight: None if cut > 0.5 else cut - 0.1 * abs(weight - 2),
                {"cut": [0.1, 0.3, 0.5, 0.7], "weight": [1.0, 2.0, 4.0]}, {"cut": "float", "weight": "log"})
NEVER = KnobGrid("never", lambda b: None, {"b": [1.0, 2.0]}, {"b": "log"})


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return sweep([PEAK, EDGE, NEVER], 8, 0, tmp_path_factory.mktemp("sweep"), Silent())


def test_the_preferred_point_is_the_best_of_grid_and_trials(outcome: dict) -> None:
    assert outcome["chosen"]["peak"] == {"knobs": {"n": 4}, "value": 0.0}
    assert outcome["chosen"]["edge"]["value"] >= 0.5
    assert outcome["chosen"]["edge"]["knobs"]["cut"] <= 0.5


def test_an_objective_without_a_value_is_left_out_and_the_others_are_not(outcome: dict) -> None:
    assert outcome["undefined"] == ["never"]
    assert outcome["objectives"] == ["peak", "edge"]
    assert all("b" not in trial for trial in outcome["trials"])


def test_every_grid_point_and_the_declared_number_of_trials_are_kept(outcome: dict) -> None:
    assert len(outcome["grid"]["edge"]) == 12
    assert [row["value"] is None for row in outcome["grid"]["edge"]] == [row["cut"] > 0.5 for row in outcome["grid"]["edge"]]
    assert outcome["n_asked"] == 8
    for trial in outcome["trials"]:
        assert trial["peak"] == PEAK.function(n=trial["n"]) and trial["edge"] == EDGE.function(cut=trial["cut"], weight=trial["weight"])


def test_importance_is_asked_only_where_an_objective_has_several_knobs(outcome: dict) -> None:
    (one,) = outcome["importances"]
    assert one["objective"] == "edge" and (one["shares"] is None or set(one["shares"]) == {"cut", "weight"})


def test_a_second_call_goes_on_with_the_same_study(tmp_path: Path) -> None:
    whole = sweep([PEAK, EDGE], 6, 0, tmp_path / "whole", Silent())
    sweep([PEAK, EDGE], 3, 0, tmp_path / "cut", Silent())
    assert sweep([PEAK, EDGE], 6, 0, tmp_path / "cut", Silent())["n_asked"] == 6
    assert sweep([PEAK, EDGE], 6, 0, tmp_path / "whole", Silent()) == whole


def test_ties_go_to_the_smaller_knob() -> None:
    flat = KnobGrid("flat", lambda n: 1.0 + 0.0 * n, {"n": [3, 2, 5]}, {"n": "int"})
    assert best(flat, [(cell, flat.function(**cell)) for cell in flat.cells()], []).knobs == {"n": 2}


def test_nothing_to_sweep_makes_no_study(tmp_path: Path) -> None:
    found = sweep([NEVER], 8, 0, tmp_path, Silent())
    assert found["objectives"] == [] and found["trials"] == [] and not (tmp_path / knob_sweep.STUDY_FILE).exists()


def context_of(directory: Path, trace: object, *more: str) -> Context:
    (directory / "sweep").mkdir(parents=True, exist_ok=True)
    experiment = load("topology", "tiny", more)
    few = experiment.sweep.model_copy(update={"n_trials": 4})  # fewer than a declaration may ask for
    context = Context(experiment.model_copy(update={"sweep": few}), directory, directory, Silent())
    context.__dict__["trace"] = trace
    return context


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, dict]:
    context = context_of(tmp_path_factory.mktemp("run"), planted("positive", test=20, calibration=20, length=40))
    knobs.run(context)
    knobs.confirm(context)
    return context, context.read_json("sweep/sweep.json") | context.read_json("sweep/confirmed.json")


def test_all_four_knobs_are_swept_and_the_declared_settings_stand_beside(swept: tuple[Context, dict]) -> None:
    _, found = swept
    assert set(found["objectives"]) == set(found["declared"]) == set(OBJECTIVES)
    for name in OBJECTIVES:
        assert found["chosen"][name]["value"] >= max(row["value"] for row in found["grid"][name] if row["value"] is not None)
    assert found["declared"]["edge_agreement"]["setting"] == "0.1"
    assert set(found["confirmed"]["edge_agreement"]) == {"chosen", "declared"}


def test_no_test_document_is_read_by_the_sweep(swept: tuple[Context, dict], tmp_path: Path) -> None:
    context, found = swept
    calibration = {row.document for row in context.trace.documents if row.split == "calibration"}
    blind = replace(context.trace, documents=[row for row in context.trace.documents if row.document in calibration])
    other = context_of(tmp_path, blind)
    knobs.run(other)
    assert {**other.read_json("sweep/sweep.json"), "confirmed": found["confirmed"]} == found


def test_the_declaration_and_its_settings_are_left_alone(swept: tuple[Context, dict]) -> None:
    context, _ = swept
    from experiments.claims.topology import settings

    assert (settings(context).edge_cut, settings(context).n_clusters, settings(context).smoothing) == (0.1, None, None)


def test_declared_numbers_are_measured_as_they_are(tmp_path: Path) -> None:
    context = context_of(tmp_path, planted("positive", test=10, calibration=20, length=40), "topology.n_clusters=3", "topology.smoothing=2.0")
    knobs.run(context)
    found = context.read_json("sweep/sweep.json")
    at_three = next(row["value"] for row in found["grid"]["cluster_silhouette"] if row["n_clusters"] == 3)
    assert found["declared"]["cluster_silhouette"] == {"setting": "3", "value": at_three}
    assert found["declared"]["transition_bits"]["setting"] == "2"


@pytest.mark.parametrize(("shape", "left_out"), [
    ({"layers": 1}, {"transition_bits", "edge_agreement"}), ({"k": 1}, {"cluster_silhouette"}), ({"calibration": 1, "domains": 1}, set(OBJECTIVES))])
def test_degenerate_traces_leave_objectives_out_with_the_reason(shape: dict, left_out: set, tmp_path: Path) -> None:
    trace = planted("positive", **{"test": 6, "calibration": 8, "length": 30, **shape})
    context = context_of(tmp_path, trace)
    knobs.run(context)
    found = context.read_json("sweep/sweep.json")
    assert set(found["left_out"]) == left_out
    assert all(": " in why for why in found["left_out"].values())
    rows = choice_table(found).rows
    assert [row[0] for row in rows] == list(OBJECTIVES)
    assert {row[0] for row in rows if row[2] is None} >= left_out


def test_a_trace_without_calibration_documents_says_so(tmp_path: Path) -> None:
    context = context_of(tmp_path, planted("positive", test=6, calibration=0, length=30))
    assert "calibration" in knobs.run(context)["reason"]
    assert knobs.confirm(context) == {"confirmed": []}


def test_what_the_report_and_mlflow_show(swept: tuple[Context, dict]) -> None:
    _, found = swept
    assert [curve.objective for curve in curves(found, {"edge_cut": 0.1})] == found["objectives"]
    rows = sweep_metrics(found)
    assert {name for name, _, _ in rows} >= {f"sweep/{name}" for name in OBJECTIVES} | {f"sweep/{name}_declared" for name in OBJECTIVES}
    assert len([1 for name, _, _ in rows if name == "sweep/edge_agreement"]) == len(found["trials"])
    json.dumps(found, allow_nan=False)


def test_objectives_are_of_their_split() -> None:
    trace = planted("positive", test=12, calibration=12, length=40)
    one, other = (KnobObjectives(TopologyEvidence(trace, split=split), (1, 4)) for split in ("calibration", "test"))
    assert one.counts.n_documents == other.counts.n_documents == 24
    assert one.transition_bits(1.0) != other.transition_bits(1.0)
