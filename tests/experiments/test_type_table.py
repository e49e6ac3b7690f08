"""VAR on a table of types alone: numbers by hand and against scipy, units, what is refused, and that no table ever supports."""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from experiments import type_table
from experiments.cli import main
from experiments.readers import ReadError

N_TYPES = 300


def columns(**changes: Any) -> dict[str, Any]:
    """Seed 003's eleven columns of a made-up layer in which frequent types are routed with little entropy."""
    rng = np.random.default_rng(5)
    n = np.maximum(1, (30_000 / np.arange(1, N_TYPES + 1))).astype(int)
    h = np.clip(1.6 - 0.22 * np.log(n) + rng.normal(0, 0.05, N_TYPES), 0.01, 2)
    h[N_TYPES // 2:] = 0.3  # enough low types for the seed's rule to pass
    made = {"token_id": np.arange(N_TYPES), "token_str": [f"=t{i}" for i in range(N_TYPES)], "frequency": n, "mean_entropy": h, "std_entropy": h / 10,
            "mean_confidence": 1 - h / 3, "std_confidence": h / 20, "routing_consistency": 1 - h / 3, "top_expert": np.arange(N_TYPES) % 8,
            "min_entropy": h / 2, "max_entropy": np.minimum(h * 1.1, 2)}
    return {name: column for name, column in (made | changes).items() if column is not None}


def parquet(folder: Path, **changes: Any) -> Path:
    pq.write_table(pa.table(columns(**changes)), folder / "routing_stats.parquet")
    return folder / "routing_stats.parquet"


def as_csv(folder: Path, **changes: Any) -> Path:
    made = columns(**changes)
    with (folder / "routing_stats.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(made)
        writer.writerows(zip(*made.values()))
    return folder / "routing_stats.csv"


def judged(path: Path, **options: Any) -> type_table.Judged:
    parser = argparse.ArgumentParser()
    type_table.add_arguments(parser)
    flags = [part for name, value in ({"unit": "nats", "n-experts": 8} | options).items() if value is not None for part in (f"--{name}", str(value))]
    return type_table.judged_table(parser.parse_args([str(path), *flags]))


@pytest.mark.parametrize("write", [parquet, as_csv])
def test_numbers_by_hand(write: Any, tmp_path: Path) -> None:
    made = columns()
    n, h = made["frequency"], made["mean_entropy"]
    one = judged(write(tmp_path))
    table = one.evaluation.tables["rho_sensitivity"]
    assert table["min_count"] == [1, 10, 20, 50, 100, 200]
    for cut, rho, p, n_types in zip(table["min_count"], table["rho"], table["p"], table["n_types"]):
        expected = stats.spearmanr(n[n >= cut], h[n >= cut])
        assert rho == pytest.approx(expected.statistic, abs=1e-12)
        assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)
        assert n_types == (n >= cut).sum()
    assert one.evaluation.estimates["fastpath_coverage"].value == pytest.approx(n[(h < 0.5) & (n >= 50)].sum() / n.sum())
    assert one.evaluation.estimates["entropy_type_share_below"].value == pytest.approx((h < 0.5).mean())
    assert one.evaluation.facts["seed_rule"]["mean_consistency"] == pytest.approx((1 - h / 3).mean())


def test_the_seeds_rule_may_pass_and_the_verdict_still_supports_nothing(tmp_path: Path) -> None:
    h = np.linspace(0.1, 0.45, N_TYPES)
    one = judged(parquet(tmp_path, mean_entropy=h))  # rho -1, every type low, every occurrence of frequent types covered
    assert one.finding.seed_verdict["supported"]
    assert one.finding.verdict == "inconclusive"
    assert {criterion.outcome for criterion in one.finding.criteria} == {"inconclusive"}
    assert all("0 test documents" in criterion.reason for criterion in one.finding.criteria)


@pytest.mark.parametrize(("unit", "factor"), [("bits", 1 / math.log(2)), ("normalised", 1 / math.log(8))])
def test_units_give_the_same_numbers(unit: str, factor: float, tmp_path: Path) -> None:
    h = columns()["mean_entropy"]
    nats, other = judged(parquet(tmp_path)), judged(as_csv(tmp_path, mean_entropy=h * factor), unit=unit)
    assert other.evaluation.estimates["fastpath_coverage"].value == nats.evaluation.estimates["fastpath_coverage"].value
    assert other.evaluation.tables["rho_sensitivity"]["rho"] == pytest.approx(nats.evaluation.tables["rho_sensitivity"]["rho"], abs=1e-12)
    said = judged(as_csv(tmp_path, mean_entropy=h * factor, entropy_unit=[unit] * N_TYPES), unit=None)
    assert said.evaluation.estimates["fastpath_coverage"].value == nats.evaluation.estimates["fastpath_coverage"].value


@pytest.mark.parametrize(("text", "n_experts", "nats"), [
    ("0.5 nats at 8 experts", None, 0.5), ("0.5 nats at 8 experts", 64, 0.5 * math.log(64) / math.log(8)), ("0.5 nats", 64, 0.5),
    ("0.5 bits", 64, 0.5 * math.log(2)), ("0.25 of ln E", 64, 0.25 * math.log(64)), ("0.25 normalised", None, 0.25 * math.log(8)),
])
def test_thresholds_have_a_unit(text: str, n_experts: int | None, nats: float) -> None:
    assert type_table.limit_nats(text, n_experts) == pytest.approx(nats)


@pytest.mark.parametrize("text", ["0.5", "half a nat", "0.5 nats at 1 experts", "nan nats"])
def test_thresholds_without_one_are_refused(text: str) -> None:
    with pytest.raises(ReadError, match="--entropy-threshold"):
        type_table.limit_nats(text, None)


def test_missing_entropies_are_counted_with_their_occurrences(tmp_path: Path) -> None:
    made = columns()
    h = made["mean_entropy"].copy()
    h[[0, 7]] = np.nan
    one = judged(parquet(tmp_path, mean_entropy=h))
    facts = one.evaluation.facts
    assert (facts["types_without_entropy"], facts["tokens_without_entropy"]) == (2, int(made["frequency"][[0, 7]].sum()))
    assert one.evaluation.tables["rho_sensitivity"]["n_types"][0] == N_TYPES - 2


def test_layers_are_judged_together_or_one_alone(tmp_path: Path) -> None:
    first = columns()
    twice = {name: np.concatenate([first[name], first[name]]) for name in ("token_id", "frequency", "mean_entropy", "routing_consistency")}
    twice["mean_entropy"][N_TYPES:] = twice["mean_entropy"][N_TYPES:][::-1]
    pq.write_table(pa.table(twice | {"layer": np.repeat([0, 3], N_TYPES)}), tmp_path / "t.parquet")
    both, one = judged(tmp_path / "t.parquet"), judged(tmp_path / "t.parquet", layer=3)
    rhos = [estimate.value for estimate in both.evaluation.by_layer["freq_entropy_rho"]]
    assert both.evaluation.estimates["freq_entropy_rho"].value == pytest.approx(np.mean(rhos))
    assert one.evaluation.estimates["freq_entropy_rho"].value == rhos[1]
    assert one.shown["mean_entropy"].tolist() == first["mean_entropy"][::-1].tolist()
    with pytest.raises(ReadError, match="no row of layer 2; it has 0, 3"):
        judged(tmp_path / "t.parquet", layer=2)


def at(name: str, row: int, value: Any) -> dict[str, Any]:
    column = np.array(columns()[name], dtype=np.float64 if isinstance(value, float) else None)
    column[row] = value
    return {name: column}


@pytest.mark.parametrize(("changes", "words"), [
    ({"mean_entropy": None}, "column mean_entropy: absent"),
    (at("mean_entropy", 4, 2.9), "row 4, field mean_entropy: 2.9, expected 0 to 2.08 nats; is it in bits"),
    (at("mean_entropy", 4, -0.5), "row 4, field mean_entropy: -0.5"),
    (at("mean_entropy", 4, math.inf), "row 4, field mean_entropy: inf"),
    (at("token_id", 4, 3), "field token_id: 1 rows of layer 0"),
    (at("token_id", 4, -3), "row 4, field token_id: -3"),
    (at("frequency", 4, -1), "row 4, field frequency: -1"),
    ({"frequency": np.zeros(N_TYPES, int)}, "no type of layer 0 occurs"),
    (at("routing_consistency", 4, 1.5), "row 4, field routing_consistency: 1.5"),
    ({"entropy_unit": ["bits"] * N_TYPES}, "field entropy_unit: bits, nats"),
    ({"frequency": ["x"] * N_TYPES}, "field frequency"),
])
def test_damage_is_named_with_its_place(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = as_csv(tmp_path, **changes)
    with pytest.raises(ReadError, match=words) as refusal:
        judged(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(("changes", "words"), [
    ({"frequency": None}, "column frequency: absent"), (at("mean_entropy", 4, 2.9), "row 4, field mean_entropy"),
    ({"frequency": ["x"] * N_TYPES}, "field frequency"), ({"token_id": [None] * N_TYPES}, "field token_id: 300 rows have none"),
])
def test_damage_in_parquet(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=words):
        judged(parquet(tmp_path, **changes))


def test_a_unit_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="nats, bits and shares of ln E differ: give --unit"):
        judged(as_csv(tmp_path), unit=None)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1\x00\x00PAR1", b"token_id,token_id\n", b"token_id,frequency,mean_entropy\n1,2\n",
                                     b"token_id,frequency,mean_entropy\n\xff,1,1\n", b"token_id,frequency,mean_entropy\n"])
def test_files_that_are_no_table(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ReadError, match=str(tmp_path / "file")):
        judged(tmp_path / "file")


def test_damaged_parquet_is_refused_or_the_same_and_this_process_lives(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    pq.write_table(pa.table(columns()), path, write_page_checksum=True)
    whole, before = path.read_bytes(), judged(path).evaluation.tables["rho_sensitivity"]["rho"]
    for place in np.random.default_rng(1).integers(4, len(whole) - 4, 4):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1:])
        try:
            after = judged(path).evaluation.tables["rho_sensitivity"]["rho"]
        except ReadError:
            continue
        assert after == before
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="not Parquet, or cut"):
        judged(path)


def test_the_command_prints_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = as_csv(tmp_path)
    assert main(["var-table", str(path), "--unit", "nats", "--n-experts", "8"]) == 0
    said = capsys.readouterr().out
    assert "VERDICT     INCONCLUSIVE" in said
    assert "seed 003    VAR Hypothesis" in said
    assert main(["var-table", str(path)]) == 1
    assert "give --unit" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_report_numbers_and_the_four_figures(tmp_path: Path) -> None:
    assert main(["var-table", str(parquet(tmp_path)), "--unit", "nats", "--n-experts", "8", "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "validation_report.txt", "findings.json", "type_table.json", *(f"{name}.{kind}" for kind in ("png", "pdf") for name in (
            "frequency_vs_entropy", "entropy_distribution", "routing_consistency", "fastpath_coverage"))}
    kept = json.loads((tmp_path / "out" / "type_table.json").read_text())
    assert kept["rho_by_min_count"]["min_count"] == [1, 10, 20, 50, 100, 200]


def test_our_own_table_gives_the_numbers_of_the_run_it_is_of(tmp_path: Path) -> None:
    from tests.hypotheses.test_var_evaluation import evaluated

    made = evaluated()
    table = pa.table({name: pa.array(column, from_pandas=True) for name, column in made.tables["routing_stats"].items()})
    pq.write_table(table, tmp_path / "t.parquet")
    one = judged(tmp_path / "t.parquet", unit=None, **{"n-experts": None}).evaluation
    for layer in range(2):
        assert one.by_layer["freq_entropy_rho"][layer].value == pytest.approx(made.by_layer["freq_entropy_rho"][layer].plug_in, abs=1e-9)
        assert one.by_layer["fastpath_coverage"][layer].value == pytest.approx(made.by_layer["fastpath_coverage"][layer].plug_in, abs=1e-9)
    assert one.estimates["fastpath_coverage"].gate is None
