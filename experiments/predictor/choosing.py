"""Declarations of a predictor compared on calibration documents that were held out of learning; no test document is read.

The defaults of PredictorSpec were chosen so; docs/predictor.md has the table.
"""

from __future__ import annotations

import re
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from analysis.planes import Planes, planes
from analysis.trace import RoutingTrace
from experiments.predictor.recipe import PredictorError
from experiments.predictor.scoring import predicted_layers
from experiments.predictor.spec import PredictorSpec
from experiments.progress import Silent

SPLIT, HELD_OUT = "calibration", 0.3
COLUMNS = ("candidate", "source", "tokens", "held_out_nats", "mi_bits", "accuracy", "cpu_s")


def candidate(text: str, base: PredictorSpec) -> PredictorSpec:
    """The base with fields replaced, written 'hidden=64, lr=0.005'. PredictorError names the field that is not one, or its value."""
    try:
        fields = tomllib.loads("\n".join(part.strip() for part in re.split(r"[,\s]+(?=[a-z_]+\s*=)", text.strip()) if part.strip()))
        return PredictorSpec(**{**base.model_dump(), **fields})
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        why = error.errors()[0] if isinstance(error, ValidationError) else None
        field = ".".join(map(str, why["loc"])) if why else "text"
        raise PredictorError(f"--candidate {text!r}: {field}: {why['msg'] if why else error}; write fields of [predictor] such as "
                             f"'hidden=64, lr=0.005' (fields: {', '.join(PredictorSpec.model_fields)})") from error


def compared(trace: RoutingTrace, candidates: Mapping[str, PredictorSpec], domains: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A row (COLUMNS) per candidate and source domain: loss, information and accuracy on held-out documents after the last epoch.

    Means over the layers that have one before them. PredictorError for a trace without calibration documents, or an unknown domain.
    """
    documents = [row for row in trace.documents if row.split == SPLIT]
    known = sorted({row.domain for row in documents})
    missing = [domain for domain in domains if domain not in known]
    if missing or not known:
        raise PredictorError(f"--domain {missing[0]}: no {SPLIT} document; the domains are {', '.join(known)}" if missing else
                             f"the trace has no {SPLIT} documents; predictors are chosen on these alone, so declare a calibration split")
    for name, spec in candidates.items():
        for domain in domains or known:
            numbers = [row.document for row in documents if row.domain == domain]
            learnt = planes(trace, SPLIT, documents=numbers, max_rows=spec.source_tokens)
            yield {"candidate": name, "source": domain, "tokens": len(learnt), **_held_out(learnt, spec)}


def _held_out(learnt: Planes, spec: PredictorSpec) -> dict[str, float]:
    from experiments.predictor.recipe import record_of
    from experiments.predictor.training import train

    with tempfile.TemporaryDirectory() as directory:
        began = time.process_time()
        path = train(learnt, spec.model_copy(update={"held_out": HELD_OUT}), Path(directory) / "predictor", Silent())
        spent = time.process_time() - began
        curve = record_of(path)["curve"]
    last = np.asarray(curve["epoch"]) == max(curve["epoch"])
    counted = {learnt.layers[place].key for place in predicted_layers(learnt.layers)}
    chosen = last & np.array([key in counted for key in curve["layer"]])

    def mean(column: str) -> float:
        return float(np.mean([np.nan if value is None else value for value, here in zip(curve[column], chosen) if here]))

    return {"held_out_nats": mean("held_out_nats"), "mi_bits": mean("mi"), "accuracy": mean("accuracy"), "cpu_s": round(spent, 1)}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over source domains, one row per candidate in the order given; cpu_s is the sum."""
    out = []
    for name in dict.fromkeys(row["candidate"] for row in rows):
        mine = [row for row in rows if row["candidate"] == name]
        means = {column: float(np.mean([row[column] for row in mine])) for column in ("held_out_nats", "mi_bits", "accuracy")}
        out.append({"candidate": name, "sources": len(mine), **means, "cpu_s": round(sum(row["cpu_s"] for row in mine), 1)})
    return out
