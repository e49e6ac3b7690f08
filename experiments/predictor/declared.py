"""Predictions and retention made elsewhere that a declaration names: checked before a run begins, kept inside it, read from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.predictor import foreign
from experiments.predictor.families import PREDICTIONS, Sources, folder
from experiments.predictor.foreign import refuse, shown
from experiments.predictor.imported import read_predictions, read_retention
from experiments.predictor.predictions import Predictions, save
from hypotheses.topology_evidence import PROPHET
from tracking.atomic import sha256_file, write_json

if TYPE_CHECKING:
    from experiments.specs import TopologySpec

RETENTION, IMPORTED = "retention.json", "imported.json"


def check(topology: TopologySpec) -> None:
    """ImportedError for a declared file that is not there or has an ending that is not read; nothing of it is read yet."""
    for path in (*files_of(topology).values(), *((topology.retention,) if topology.retention else ())):
        foreign.format_of(Path(path))


def files_of(topology: TopologySpec) -> Mapping[str, str]:
    """Source domain -> file of predictions; "" for one file of a predictor whose source is not told."""
    given = topology.predictions
    return {} if given is None else {"": given} if isinstance(given, str) else given


def bring_in(topology: TopologySpec, sources: Sources, directory: Path) -> dict[str, Any]:
    """Read the declared files against the trace and keep them in `directory`; returns their SHA-256 by name.

    ImportedError names file, row, field and remedy; a source that is no domain of the trace is refused as a field of the declaration.
    """
    domains, digests = sorted({row.domain for row in sources.documents}), {}
    for source, path in files_of(topology).items():
        if source and source not in domains:
            refuse("declaration", f"topology.predictions.{source}", "no such domain in the trace",
                   f"the domains are {', '.join(map(shown, domains))}")
        found = read_predictions(Path(path), sources.scored, sources.documents)
        kept = directory / (folder(source) if source else "imported") / PROPHET
        kept.mkdir(parents=True, exist_ok=True)
        save(kept / PREDICTIONS, found, sources.scored, sources.documents)
        digests[f"predictions of {source or 'an untold source'}"] = sha256_file(Path(path))
    if topology.retention:
        rows = read_retention(Path(topology.retention), domains)
        write_json(directory / RETENTION, {"retention": [[one.source, one.target, one.value] for one in rows], "file": topology.retention})
        digests["retention"] = sha256_file(Path(topology.retention))
    write_json(directory / IMPORTED, {"sha256": digests})
    return {"imported": digests}


def predictions_of(topology: TopologySpec, sources: Sources, directory: Path) -> dict[tuple[str, str], Predictions]:
    """(PROPHET, source) -> the predictions that `bring_in` kept; one file of an untold source stands for every source, at home alone."""
    found = {source: read_predictions(directory / (folder(source) if source else "imported") / PROPHET / PREDICTIONS, sources.scored,
                                      sources.documents) for source in files_of(topology)}
    named = found if "" not in found else dict.fromkeys(sorted({*sources.by_domain, *_scored(sources)}), found[""])
    return {(PROPHET, source): one for source, one in named.items()}


def _scored(sources: Sources) -> set[str]:
    """Domains of the documents that predictions are scored on."""
    scored = set(sources.scored.document.tolist())
    return {row.domain for row in sources.documents if row.document in scored}


def retention_of(directory: Path) -> dict[tuple[str, str], float | None]:
    """(source, target) -> retention that `bring_in` kept; empty without one."""
    path = directory / RETENTION
    if not path.exists():
        return {}
    return {(source, target): value for source, target, value in json.loads(path.read_text(encoding="utf-8"))["retention"]}
