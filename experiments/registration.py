"""The register on disk, and the protocol that is fingerprinted before a test document is read."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypotheses
from experiments.declaration import Experiment
from hypotheses import register as entries
from hypotheses.claim import Hypothesis, fingerprint
from tracking import ledger

if TYPE_CHECKING:
    from hypotheses.register import Register

REGISTER = Path(hypotheses.__file__).parent / "registered.json"
PROTOCOL_SCHEMA = "assay-protocol/1"

# metrics spec section 5.3
FAMILIES: Mapping[str, str] = {
    "criteria of one hypothesis": "joined by AND; intersection-union, each at its own level, no correction",
    "several hypotheses": "Holm",
    "layers, thresholds and other scans": "exploratory; never feed a verdict",
}


OF_ONE_CLAIM: Mapping[str, tuple[str, ...]] = {  # tables that only this claim's verdict depends on
    "topology": ("topology", "predictor"), "spectra": ("campaign", "spectra"), "repetition": ("atlas",), "domain_specialisation": ("atlas",)}
DRAWING = ("corpus.salt", "corpus.calibration_share", "corpus.test_share",
           "trace.salt", "trace.test_share")  # another draw of the splits is another look


def protocol(experiment: Experiment, claims: Sequence[Hypothesis]) -> dict[str, Any]:
    """Everything that decides the verdict: claims with gates, splits, families, seeds, thresholds, and which documents and model.

    Neither the code's version nor where files lie: bytes are identified by the hashes of corpus and trace manifests, recorded beside it.
    """
    source = experiment.source
    fields: dict[str, Any] = {
        "schema": PROTOCOL_SCHEMA,
        "hypotheses": {claim.name: claim.declaration() for claim in claims},
        "seed": experiment.seed,
        **_documents_of(experiment),
        "uncertainty": experiment.uncertainty.model_dump(mode="json"),
        "analysis": experiment.analysis.model_dump(mode="json"),
        "sweep": experiment.sweep.model_dump(mode="json"),
        "families": dict(FAMILIES),
        "departures": {claim.name: departures(experiment, claim) for claim in claims},
    }
    for name in OF_ONE_CLAIM:
        if name in experiment.hypotheses:
            of_claim = {table: getattr(experiment, table) for table in OF_ONE_CLAIM[name]}
            fields |= {table: declared and declared.model_dump(mode="json") for table, declared in of_claim.items()}
    if experiment.audit.accept:
        fields["audit"] = experiment.audit.model_dump(mode="json")
    if source.is_testbed and not experiment.trace.given:
        fields["testbed"] = experiment.testbed.model_dump(mode="json")
    return fields


def _documents_of(experiment: Experiment) -> dict[str, Any]:
    """Which documents, how they are split, and whose routing it is."""
    source, corpus, trace = experiment.source, experiment.corpus, experiment.trace
    splits = {"by": "SHA-256 of salt and document id", "tuned_on": "calibration", "judged_on": "test"}
    if trace.given:
        return {"trace": trace.model_dump(mode="json", exclude={"paths", "mapping"}),
                "splits": {**splits, "salt": trace.salt, "calibration": 1 - trace.test_share, "test": trace.test_share}}
    return {"corpus": corpus.model_dump(mode="json", exclude={"path"}),
            "splits": {**splits, "salt": corpus.salt, "calibration": corpus.calibration_share, "test": corpus.test_share},
            "source": {"model": model_name(source.model), **source.model_dump(mode="json", include={
                "kind", "revision", "dtype", "quantize", "max_length", "layers"})}}


def protocol_fingerprint(experiment: Experiment, claims: Sequence[Hypothesis]) -> str:
    """SHA-256 of the protocol's canonical JSON."""
    return fingerprint(protocol(experiment, claims))


def model_name(model: str) -> str:
    """A hub id as it is; of a local checkpoint directory the last name only, since the revision's hash says which one it is."""
    path = Path(model).expanduser()
    return path.name if path.is_absolute() or model.startswith((".", "~")) or path.is_dir() else model


def departures(experiment: Experiment, claim: Hypothesis) -> list[str]:
    """Settings that differ from those the claim names, accepted flaws, rows left out, and splits drawn otherwise; each makes the finding post hoc."""
    actual = {f"{table}.{key}": value for table in ("analysis", "uncertainty", "source", "topology", "atlas")
              for key, value in getattr(experiment, table).model_dump(mode="json").items()}
    differing = [f"{key} = {actual.get(key)!r}, declared {wanted!r}" for key, wanted in sorted(claim.settings.items())
                 if actual.get(key) != wanted]
    differing += [f"accepted finding of the audit: {code}" for code in experiment.audit.accept]
    if experiment.trace.leave_out_first:
        differing.append(f"the first {experiment.trace.leave_out_first} rows of every document left out")
    return differing + [f"--set {text}" for text in experiment.overrides if text.split("=")[0].strip() in DRAWING]


def read(path: Path = REGISTER) -> dict[str, dict[str, Any]]:
    """The register; empty where there is no file yet. Raises RegisterError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise entries.RegisterError(f"{path}: line {error.lineno}: {error.msg}; restore it from version control") from None
    return entries.checked(content, str(path))


def fingerprints() -> dict[str, str]:
    """Fingerprint of each hypothesis as declared now."""
    return {name: hypotheses.find(name).fingerprint for name in hypotheses.names()}


def check(path: Path = REGISTER, current: Mapping[str, str] | None = None) -> list[str]:
    """Every disagreement between the register and the declarations as they are now; empty when all is in order."""
    return entries.problems(read(path), fingerprints() if current is None else current)


def register(name: str, now: datetime.datetime, runs_counted: int, path: Path = REGISTER, *, claim: Hypothesis | None = None) -> str:
    """Record the present declaration of `name`, keeping the earlier ones, and return its note. The only writer of the register.

    now: an aware time, taken to UTC; runs_counted: openings of a test split for this hypothesis so far.
    """
    if now.tzinfo is None:
        raise entries.RegisterError(f"{name}: the time of registration has no time zone; give it in UTC")
    mark = (claim or hypotheses.find(name)).fingerprint
    content = entries.registered(read(path), name, mark, now.astimezone(datetime.UTC).date(), runs_counted)
    _replace(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return entries.registration_note(name, mark, content, {name: runs_counted})


def finding_registration(experiment: Experiment, claim: Hypothesis, ledger_counts: Mapping[str, int],
                         content: Register | None = None) -> dict[str, Any]:
    """The `registration` that judge() carries into a finding.

    ledger_counts: openings of a test split by hypothesis name, this run excluded; content: the register, read from disk if None.
    """
    known = read() if content is None else content
    return entries.registration(claim.name, claim.fingerprint, known, ledger_counts, departures(experiment, claim))


def note_of(experiment: Experiment, name: str, root: Path, *, run: str | None = None) -> dict[str, Any]:
    """The `registration` of hypothesis `name` for a finding, looks counted by the ledger under `root`, those of `run` itself excluded."""
    return finding_registration(experiment, hypotheses.find(name), ledger.counts(root, excluding=run))


def open_test_split(experiment: Experiment, run: str, root: Path, documents: str, now: datetime.datetime) -> list[str]:
    """Enter into the ledger, before a test document is read, that `run` looks at `documents`; returns the hypotheses that were new to it.

    documents: SHA-256 of the corpus manifest. Call it again on resume: the same run is counted once.
    """
    claims = [hypotheses.find(name) for name in experiment.hypotheses]
    mark, at = protocol_fingerprint(experiment, claims), now.astimezone(datetime.UTC).isoformat(timespec="seconds")
    return [claim.name for claim in claims
            if ledger.record(root, ledger.Opening(run, claim.name, claim.fingerprint, mark, documents, at))]


def _replace(path: Path, text: str) -> None:
    """Write beside, sync, rename: a reader sees the old register or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
