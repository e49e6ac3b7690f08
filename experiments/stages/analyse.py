"""Analyse: every estimate of each hypothesis on the held-out documents; the opening of the test split goes into the ledger first."""

from __future__ import annotations

import io
from typing import Any

import hypotheses
from experiments import claims, evaluation_files
from experiments.report.table_files import csv_text
from experiments.stages.context import Context
from hypotheses.claim import Evaluation
from tracking.atomic import write_bytes

SEED_TABLE = "routing_stats"


def run(context: Context) -> dict[str, Any]:
    """Evaluate every hypothesis on the run's trace."""
    for name in context.experiment.hypotheses:
        claim = claims.of(name)
        with context.progress.stage(f"analyse {name}", unit="parts") as context.task:
            evaluation = hypotheses.evaluator(name)(claim.evidence(context, context.routing if claims.takes_counts(claim) else context.trace))
        evaluation_files.save(evaluation, context.directory / "analysis" / name)
        _write_seed_table(context, evaluation)
    return {"hypotheses": list(context.experiment.hypotheses)}


def _write_seed_table(context: Context, evaluation: Evaluation) -> None:
    """routing_stats.parquet and .csv, as seed 003 names them, at the top of the run directory."""
    import pyarrow as pa
    import pyarrow.csv as pv
    import pyarrow.parquet as pq

    columns = evaluation.tables.get(SEED_TABLE)
    if columns is None:
        return
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    escaped = {name: pa.array([csv_text(one) for one in values]) if pa.types.is_string(table[name].type) else table[name]
               for name, values in columns.items()}
    parquet, csv = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, write_page_checksum=True)
    pv.write_csv(pa.table(escaped), csv)
    write_bytes(context.directory / f"{SEED_TABLE}.parquet", parquet.getvalue())
    write_bytes(context.directory / f"{SEED_TABLE}.csv", csv.getvalue())
