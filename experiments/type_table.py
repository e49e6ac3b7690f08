"""`assay var-table`: VAR judged on a table of token types alone, with rho by cut-off and the seed's four figures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.readers.contract import ReadError

if TYPE_CHECKING:
    from hypotheses.claim import Evaluation, Finding

DEFAULT_LIMIT = "0.5 nats at 8 experts"
REPORT, NUMBERS = "validation_report.txt", "type_table.json"


@dataclass(frozen=True)
class Judged:
    """A table judged: finding, evaluation, the entropy limit in nats, and the columns that are drawn."""

    finding: Finding
    evaluation: Evaluation
    limit_nats: float
    shown: Mapping[str, Any]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `assay var-table` takes."""
    command.add_argument("table", metavar="FILE", help="Parquet or CSV with token_id, frequency, mean_entropy and what else routing_stats has")
    command.add_argument("--entropy-threshold", default=DEFAULT_LIMIT, help="with its unit: '0.5 nats at 8 experts', '0.5 nats', '0.5 bits', "
                         "'0.24 normalised'")
    command.add_argument("--unit", choices=("nats", "bits", "normalised"), default=None,
                         help="unit of the table's entropies, where it has no column entropy_unit")
    command.add_argument("--n-experts", type=int, default=None, help="experts of the layer; 8 if not given, where a threshold needs it")
    command.add_argument("--frequency-threshold", type=int, default=50, help="occurrences from which a type is eligible")
    command.add_argument("--min-count", type=int, default=50, help="occurrences from which a type enters rho")
    command.add_argument("--layer", type=int, default=None, help="one layer of a table that has several (all of them, if not given)")
    command.add_argument("--out", metavar="DIRECTORY", default=None, help=f"write {REPORT}, {NUMBERS} and the four figures there")


def run(arguments: argparse.Namespace) -> int:
    """Judge a table, print what came of it, and write report and figures if asked."""
    judged = judged_table(arguments)
    text = "\n".join(lines(Path(arguments.table), arguments, judged)) + "\n"
    print(text, end="")
    if arguments.out is not None:
        _write(Path(arguments.out), text, judged, arguments)
        print(f"written to {arguments.out}")
    return 0


def judged_table(arguments: argparse.Namespace) -> Judged:
    """Read, evaluate and judge. Raises ReadError for what is no such table."""
    import hypotheses
    from experiments.readers import _type_table
    from hypotheses.judge import judge
    from hypotheses.var_type_table import TablePlan, evaluate

    path = Path(arguments.table)
    for name in ("frequency_threshold", "min_count"):
        if getattr(arguments, name) < 1:
            raise ReadError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: give a number of occurrences from 1")
    limit = limit_nats(arguments.entropy_threshold, arguments.n_experts)
    layers = _type_table.read(path, arguments.unit, arguments.n_experts)
    if arguments.layer is not None and arguments.layer not in layers:
        raise ReadError(f"{path}: field layer: no row of layer {arguments.layer}; it has {', '.join(map(str, layers))}")
    chosen = {arguments.layer: layers[arguments.layer]} if arguments.layer is not None else layers
    plan = TablePlan(limit, arguments.frequency_threshold, arguments.min_count)
    evaluation = evaluate([rows for rows, _ in chosen.values()], plan)
    return Judged(judge(hypotheses.find("var"), evaluation), evaluation, limit, _drawn([columns for _, columns in chosen.values()]))


def limit_nats(text: str, n_experts: int | None) -> float:
    """An entropy threshold with its unit, in nats at a layer of n_experts (8 where not given). ReadError without a unit."""
    from analysis.metrics.entropy import EntropyThreshold
    from experiments.specs import ENTROPY_OF_N

    of_n = ENTROPY_OF_N.fullmatch(text)
    try:
        threshold = EntropyThreshold.parse(f"{of_n['value']} {of_n['unit']}" if of_n else text.replace("of ln E", "normalised"))
    except ValueError as error:
        raise ReadError(f"--entropy-threshold: {error}") from None
    if not of_n:
        return threshold.nats(n_experts or 8)
    there = int(of_n["experts"])
    if there < 2:
        raise ReadError(f"--entropy-threshold {text!r}: one expert has no entropy; name two or more")
    return threshold.nats(there) * math.log(n_experts or there) / math.log(there)


def _drawn(layers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Columns of the one layer, or their means over layers by type."""
    from experiments.report.var_tables import mean_rows

    if len(layers) == 1:
        return layers[0]
    import numpy as np

    names = set.intersection(*(set(one) for one in layers)) - {"entropy_unit", "eligible"}
    return mean_rows({name: np.concatenate([one[name] for one in layers]) for name in sorted(names)}, "token_id")


def lines(path: Path, arguments: argparse.Namespace, judged: Judged) -> list[str]:
    """The report: what was read, rho by cut-off, our verdict criterion by criterion, and what the seed's own rule says."""
    facts, finding = judged.evaluation.facts, judged.finding
    found = [f"table       {path}: {facts['n_types']:,} types, {facts['n_tokens']:,} occurrences",
             f"thresholds  low entropy below {judged.limit_nats:.4f} nats ({arguments.entropy_threshold}); eligible from "
             f"{arguments.frequency_threshold} occurrences; in rho from {arguments.min_count}"]
    if facts["types_without_entropy"]:
        share = facts["tokens_without_entropy"] / facts["n_tokens"]
        found.append(f"missing     {facts['types_without_entropy']:,} types have no mean entropy; they carry {facts['tokens_without_entropy']:,} "
                     f"occurrences ({share:.1%}) and are in no rho and in no share")
    found += ["", "Spearman's rho of frequency and mean entropy, by smallest count", f"{'layer':>5} {'from':>6} {'types':>8} {'rho':>8}  p"]
    table = judged.evaluation.tables["rho_sensitivity"]
    for row in zip(*(table[name] for name in ("layer", "min_count", "n_types", "rho", "p", "reason"))):
        layer, cut, n_types, rho, p, reason = row
        found.append(f"{layer:>5} {cut:>6} {n_types:>8,} " + (f"{'-':>8}  {reason}" if rho is None else f"{rho:>8.4f}  {p:.3g}"))
    found += ["", f"VERDICT     {(finding.verdict or 'none').upper()}: {finding.title}",
              "            A table of types has no documents, so that nothing can be resampled: a point value supports no claim."]
    for one in finding.criteria:
        value = "no value" if one.estimate.value is None else f"{one.estimate.value:.4f} {one.estimate.unit}"
        found.append(f"  {one.criterion.name:<18} {value:<32} asked {one.criterion.inequality}: {one.outcome}, {one.reason}")
    return found + ["", *_seed_lines(finding.seed_verdict)]


def _seed_lines(seed: Mapping[str, Any]) -> list[str]:
    head = f"seed 003    {seed['words']} (its own rule: point values of one layer, eligibility and coverage from the same tokens)"
    if seed.get("reason"):
        return [head, f"            {seed['reason']}"]
    return [head, *(f"  {'pass' if line['passed'] else 'fail'}  {line['text']}" for line in seed["lines"])]


def _write(directory: Path, text: str, judged: Judged, arguments: argparse.Namespace) -> None:
    from analysis.figures.routing_stats import figures_of
    from experiments.report.figure_files import save
    from hypotheses.findings import findings_to_json
    from tracking.atomic import write_json, write_text

    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / REPORT, text)
    write_text(directory / "findings.json", findings_to_json([judged.finding]))
    evaluation = judged.evaluation
    write_json(directory / NUMBERS, {"facts": evaluation.facts, "estimates": {name: one.to_json() for name, one in evaluation.estimates.items()},
                                     "rho_by_min_count": evaluation.tables["rho_sensitivity"]})
    figures = figures_of(judged.shown, entropy_nats=judged.limit_nats, frequency_threshold=arguments.frequency_threshold,
                         n_experts=arguments.n_experts, rho=evaluation.estimates["freq_entropy_rho"])
    for name, figure in figures.items():
        save(figure, directory, name)
