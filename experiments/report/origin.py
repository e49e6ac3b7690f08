"""The documents and the model of a run, as tables: counts by domain and split, what was dropped, how well the model was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.report.blocks import Block, Cell, Column, Table
from experiments.report.verdict import pairs_table

SPLITS = ("train", "calibration", "test")
OWN_TABLE = ("documents", "bytes", "topics", "dropped", "spec", "origin")


def corpus_blocks(manifest: Mapping[str, Any]) -> list[Block]:
    """Documents by domain and split, what was dropped and why, and the rest of the manifest as it stands."""
    blocks: list[Block] = []
    documents = manifest.get("documents")
    if isinstance(documents, Mapping) and all(isinstance(one, Mapping) for one in documents.values()):
        n_bytes = manifest.get("bytes") or {}
        rows: list[list[Cell]] = [
            [domain, *(int(counts.get(split, 0)) for split in SPLITS), sum(int(n) for n in counts.values()), n_bytes.get(domain)]
            for domain, counts in documents.items()
        ]
        by_split = [sum(int(counts.get(split, 0)) for counts in documents.values()) for split in SPLITS]
        rows.append(["all", *by_split, sum(by_split), sum(n_bytes.values()) if n_bytes else None])
        columns = [
            Column("domain"),
            *(Column(split, "number") for split in SPLITS),
            Column("documents", "number"),
            Column("bytes", "number"),
        ]
        blocks.append(
            Table(
                "documents",
                "Documents by domain and split",
                columns,
                rows,
                "Frequencies are counted on train and calibration documents, choices are made on calibration, the verdict is from test.",
            )
        )
    rest = {key: value for key, value in manifest.items() if key not in OWN_TABLE}
    named = {"declared": manifest.get("spec", {}), "dropped": manifest.get("dropped", {}), "origin": manifest.get("origin", {})}
    if isinstance(named["origin"], list) and all(isinstance(one, Mapping) for one in named["origin"]):
        files: list[list[Cell]] = [[str(one.get(key, "")) for key in ("file", "format", "sha256")] for one in named.pop("origin")]
        blocks.append(Table("files", "Files that were read", [Column("file"), Column("format"), Column("SHA-256")], files))
    if "documents" not in {one.name for one in blocks if isinstance(one, Table)} and documents is not None:
        rest["documents"] = documents
    blocks.append(pairs_table("corpus", "Corpus", {**rest, **{key: value for key, value in named.items() if value}}))
    return blocks


def training_blocks(training: Mapping[str, Any]) -> list[Block]:
    """Held-out cross-entropy, the load of each layer, and the rest of the training record without its loss curve."""
    blocks: list[Block] = []
    load = training.get("load")
    if isinstance(load, list) and load and all(isinstance(one, Mapping) for one in load):
        keys = [key for key, value in load[0].items() if isinstance(value, int | float) or value is None]
        rows: list[list[Cell]] = [[i, *(one.get(key) for key in keys)] for i, one in enumerate(load)]
        blocks.append(
            Table(
                "load",
                "Load of the experts by layer, on held-out documents",
                [Column("layer", "number"), *(Column(key.replace("_", " "), "number") for key in keys)],
                rows,
            )
        )
    rest = {key: value for key, value in training.items() if key not in ("load", "losses")}
    return [pairs_table("training", "Training of the model", rest), *blocks]
