"""The bench on little: every way gives our numbers, and table and JSON have their form. Never how long anything took."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import __main__ as bench
from tests.bench import report, type_statistics
from tests.bench.evaluation import STREAMED
from tests.bench.measure import YARD_TOKENS, Rival, Workload, compare
from tests.bench.rows import Sample, Sizes
from tests.bench.stages import RATIO_GATES, TIME_GATES, Gate, gates, rivals_of_stages, stage_gates

TINY = Sizes(tokens=6_000, vocabularies=(256,), loop_tokens=500, replicates=20, rival_replicates=2, null_draws=4, rival_draws=1,
             store_tokens=3_000, evaluated_tokens=6_000, evaluations=2, bound_mib=224, alternations=2,
             seed_documents=120, seed_experts=16, stage_replicates=20, stage_draws=(2, 3), exact_pairs=1, yard_tokens=5_000,
             shape_share=0.02, topk_layers=2, topk_loop_tokens=20, half_values=4_096, moment_rows=3_000, moment_loop_rows=200,
             silhouette_rows=(400, 200), pairs_bound_mib=448, starts=1)
SEED_000 = ["joint tables of 66 pairs, ids layer by layer", "information of 66 pairs, overall and in 6 domains",
            "expert correlation, 11 adjacent pairs x 16^2", "usage, specialisation, chi-square, V, JSD",
            "NMI of 120 pairs of experts x 12 layers", "transitions, 12 layers", "31 lags x 12 layers",
            "20 bootstrap replicates of every marginal statistic", "corrected information and document error of 66 pairs",
            "2 circular shifts x 66 pairs", "20 exact replicates of information, 2 pairs"]
SHAPES = [f"{shape}: {what}" for shape, k, n in (("Mixtral-like", 2, 8), ("fine-grained", 8, 128))
          for what in (f"top-{k} joint tables of 1 adjacent pairs", "co-activation of 2 layers", "first choices of all 1 pairs",
                       f"clusters of {n} experts x 2 layers")]
ROUTERS = ["entropy of float16 probabilities, E = 8", "entropy of float16 logits, E = 8", "entropy of float16 probabilities, E = 128",
           "entropy of float16 logits, E = 128", "per-type statistics from float16 probabilities, E = 8",
           "silhouette (cosine), 400 x 1,024, 64 labels"]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and RLIMIT_DATA are Linux")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.bench.evaluation.LARGER", 0.05)
        patch.setattr("tests.bench.evaluation.REPLICATES", 39)
        patch.setattr("tests.bench.evaluation.STREAMED", replace(STREAMED, n_documents=4))
        patch.setattr("tests.bench.evaluation.LARGER", 0.001)
        found: dict[str, Any] = json.loads(json.dumps(bench.measure(TINY, tmp_path_factory.mktemp("bench"))))
    return found


@linux
def test_every_workload_is_measured(measured: dict[str, Any]) -> None:
    names = list(dict.fromkeys(row["workload"] for row in measured["rows"]))
    assert names == [*SEED_000, *SHAPES, *ROUTERS,
                     "per-type statistics, 256 types", "all counts of the analysis, 256 types", "two-way bootstrap of Spearman, B = 20",
                     "matched null, R = 4", "trace store, write", "trace store, read", "ids to arrays",
                     "evaluate(), from the store to every estimate, null and table",
                     "a trace larger than memory, streamed through the counts",
                     "a trace larger than memory, streamed into joint tables and loads"]
    for row in measured["rows"]:
        if "rival" in row:
            assert len(row["ours"]["wall_s"]) == len(row["theirs"]["wall_s"]) == TINY.alternations
            assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["agreed"]
    assert set(measured) == {"form", "sizes", "machine", "versions", "commit", "yard_s", "wall_s", "rows", "stages", "memory", "start", "gates"}


@linux
def test_stages_add_up(measured: dict[str, Any]) -> None:
    stages = {one["stage"]: one for one in measured["stages"]}
    assert list(stages) == ["a", "b", "c", "d", "e", "g", "j"]
    for letter, before in (("a", ""), ("b", "a"), ("c", "ab"), ("d", "ab"), ("e", ""), ("g", ""), ("j", "")):
        expected = sum(stages[one]["own"]["cpu_s"] for one in [*before, letter])
        assert stages[letter]["whole"]["cpu_s"] == pytest.approx(expected)
    for kind in ("naive", "library"):
        assert set(rivals_of_stages(measured["rows"], kind)) == {"a", "b", "c", "e"}
    assert stage_gates(measured["stages"])[0].name == "stage a: every point estimate"
    assert {gate["unit"] for gate in measured["gates"]} == {"s"}  # a smaller world has no targets but those of the start
    assert [one["name"] for one in measured["memory"]] == ["stage a", "stage b", "stage c, d"]
    assert all(0 < one["before_mib"] <= one["peak_mib"] for one in measured["memory"])


def test_a_full_run_has_every_target() -> None:
    sizes = vars(bench.LONG)
    rows = [{"workload": workload, "rival": rival, "ratio": 1.0, "rate": 1e9} for workload, rival, _ in RATIO_GATES]
    rows = [{"workload": workload, "rate": 4e8, "ours": {"wall_s": [2.0], "cpu_s": [1.0]}} for workload, _ in TIME_GATES] + rows
    times = {"cpu_s": 0.1, "wall_s": 0.1, "yards": 2.0}
    stages = [{"stage": "a", "name": "points", "threads": 1, "own": times, "whole": times}]
    measured = gates({"rows": rows, "sizes": sizes, "stages": stages, "start": []})
    assert len(measured) == 1 + len(RATIO_GATES) + len(TIME_GATES)
    assert not any(gate["met"] for gate in measured if gate["at_least"] and gate["bound"] > 1)
    joint = next(gate for gate in measured if gate["gate"].startswith("Mixtral-like"))
    assert joint["measured"] == pytest.approx(1.25)  # CPU, not wall
    assert joint["bound"] == pytest.approx(max(0.8, 1.3 * 0.05 / (66 * YARD_TOKENS) * 1e9))


@linux
def test_an_earlier_run_is_written_again(measured: dict[str, Any], tmp_path: Path) -> None:
    earlier, page = tmp_path / "earlier.json", tmp_path / "docs" / "benchmarks.md"
    earlier.write_text(json.dumps(measured))
    bench.main(["--read", str(earlier), "--markdown", str(page)])
    assert page.read_text() == report.page(measured)
    earlier.write_text(json.dumps(measured | {"form": bench.FORM - 1}))
    with pytest.raises(ValueError, match="another form"):
        bench.main(["--read", str(earlier)])


def test_gates_are_met_at_their_bound() -> None:
    assert Gate("g", 10.0, 10.0, "yards").met
    assert not Gate("g", 10.1, 10.0, "yards").met
    assert Gate("g", 3.0, 3.0, "x", least=True).met
    assert not Gate("g", 2.9, 3.0, "x", least=True).met
    assert Gate("g", None, 3.0, "x").met is None


@linux
def test_table_has_a_line_per_rival(measured: dict[str, Any]) -> None:
    lines = report.table(measured).splitlines()
    body = [line for line in lines if line.startswith("|")][2:]
    assert len(body) == len(measured["rows"])
    assert len({line.count("|") for line in body}) == 1
    assert all(row["share_run"] == 1 or "scaled" in row["rival_note"] for row in measured["rows"] if "rival" in row)  # a slice says so


@linux
def test_changes_compare_like_with_like(measured: dict[str, Any]) -> None:
    assert report.changes(measured, measured).count("\n") == 1 + len(measured["stages"]) + sum("rival" in row for row in measured["rows"])
    with pytest.raises(ValueError, match="other sizes"):
        report.changes(measured | {"form": bench.FORM - 1}, measured)


def test_a_rival_with_other_numbers_is_not_timed() -> None:
    def check() -> str:
        raise AssertionError("pandas")

    timed: list[str] = []
    wrong = Workload("w", lambda: timed.append("ours"), [Rival("pandas", lambda: timed.append("theirs"))], check, 1, "x/s")
    with pytest.raises(AssertionError, match="pandas"):
        compare(wrong, 3)
    assert not timed


def test_statistics_that_differ_are_told() -> None:
    found = type_statistics.ours(Sample.of(1_000, 64))
    assert found.agrees(found)
    assert not found.agrees(replace(found, mean=found.mean + 1e-6))
    moved = found.experts.copy()
    moved[0, int(np.argmax(found.n)), 0] += 1
    assert not found.agrees(replace(found, experts=moved))


def test_a_slice_is_scaled() -> None:
    row = compare(Workload("w", lambda: sum(range(20_000)), [Rival("r", lambda: sum(range(20_000)), share=0.001)], lambda: "", 1, "x/s"), 3)[0]
    assert row["share_run"] == 0.001
    assert row["theirs"]["wall_s"][0] > 0


def test_bench_is_run_by_make() -> None:
    assert "-m tests.bench" in (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
