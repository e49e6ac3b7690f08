"""`assay predict` and `assay compare`: a saved predictor on another trace, and how the defaults of one were chosen."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracking.atomic import write_text

PREDICTIONS = (".parquet", ".csv", ".jsonl")


def add_commands(commands: Any) -> None:
    """The two commands with their arguments; commands: what argparse's add_subparsers gave."""
    predict = commands.add_parser("predict", help="apply a saved predictor to another trace of the same model and layers")
    predict.add_argument("trace", help="as for measure")
    predict.add_argument("--predictor", required=True, metavar="DIR", help="a finished predictor, such as RUN/predictor/code/prophet/predictor")
    predict.add_argument("--out", required=True, metavar="FILE", help="document, token, layer, ids: .parquet, .csv or .jsonl")
    predict.add_argument("--split", default="test", help="documents to predict: train, calibration or test")
    compare = commands.add_parser("compare", help="declarations of a predictor on held-out calibration documents, no test document")
    compare.add_argument("trace", help="as for measure")
    compare.add_argument("--candidate", action="append", required=True, metavar="FIELDS", help="fields of [predictor], such as 'hidden=64, lr=0.005'")
    compare.add_argument("--domain", action="append", default=[], help="a source domain (all, if not given)")
    compare.add_argument("--out", metavar="FILE", help="write a row per candidate and domain as .csv or .json")


def predict(root: Path, arguments: argparse.Namespace) -> int:
    """Write what a saved predictor expects at every token and layer of a split; read back by topology.predictions.

    Raises PredictorError where it is no finished predictor, or one of other layers; ValueError for a file that cannot be written.
    """
    from analysis.planes import planes
    from experiments import measuring
    from experiments.predictor.predict import predict as applied
    from experiments.predictor.predictions import save, save_as_text

    out = _destination(Path(arguments.out), PREDICTIONS)
    trace = measuring.open_trace(_trace(root, arguments.trace))
    asked = planes(trace, arguments.split)
    found = applied(Path(arguments.predictor), asked)
    (save if out.suffix == ".parquet" else save_as_text)(out, found, asked, trace.documents)
    print(f"{len(asked):,} tokens of {len(asked.document):,} {arguments.split} documents, {len(asked.layers)} layers, written to {out}")
    return 0


def compare(root: Path, arguments: argparse.Namespace) -> int:
    """Train each candidate on calibration documents and print what it says of others that were held out."""
    from experiments import measuring
    from experiments.predictor.choosing import candidate, compared, summary
    from experiments.predictor.spec import PredictorSpec

    out = None if arguments.out is None else _destination(Path(arguments.out), (".csv", ".json"))
    candidates = {text: candidate(text, PredictorSpec()) for text in arguments.candidate}
    trace = measuring.open_trace(_trace(root, arguments.trace))
    rows: list[dict[str, Any]] = []
    for row in compared(trace, candidates, arguments.domain):
        rows.append(row)
        print(_line(row, ("candidate", "source")), flush=True)
    print("\nmean over source domains")
    for row in summary(rows):
        print(_line(row, ("candidate",)))
    if out is not None:
        write_text(out, json.dumps(rows, indent=1) + "\n" if out.suffix == ".json" else _csv(rows))
    return 0


def _trace(root: Path, given: str) -> Path:
    return Path(given) if Path(given).exists() else root / given


def _destination(path: Path, endings: Sequence[str]) -> Path:
    if path.suffix not in endings:
        raise ValueError(f"--out {path}: write a file ending in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise ValueError(f"--out {path}: the folder {path.parent} is not there; make it first")
    return path


def _line(row: dict[str, Any], names: Sequence[str]) -> str:
    words = "  ".join(f"{row[name]:<32}" if name == "candidate" else f"{row[name]:<12}" for name in names)
    return (f"{words} {row['held_out_nats']:8.4f} nats {row['mi_bits']:8.4f} bits {row['accuracy']:8.4f} right {row['cpu_s']:8.1f} CPU-s")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
