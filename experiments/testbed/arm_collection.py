"""Every arm's routing of the same documents into a trace of its own, and its features beside it, several arms at a time."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.trace import DocumentRow
from experiments.collected import whole_collection
from experiments.evaluation_files import plain
from experiments.predictor.processes import work_side_by_side
from experiments.progress import Progress, Silent
from experiments.sources import TokenDocument
from experiments.sources.huggingface import HuggingFaceSource
from experiments.specs import SourceSpec
from experiments.testbed.arm_features import Features, asked_of, digest_of, expert_norms, probe
from experiments.testbed.campaign import Trained
from experiments.testbed.campaign_spec import CampaignSpec
from experiments.testbed.training import one_thread
from tracking.atomic import sha256_file, write_bytes, write_json

ABOUT, TRAINING = "features.json", "training.json"  # ABOUT is written last: with it an arm is whole
ASKED = "asked.json"  # written first: whose collection the directory is
TRACE = "trace"
CHECKPOINT = (".safetensors", ".json")  # weights, config, tokenizer, and what is told of the training


@dataclass(frozen=True)
class Wanted:
    """What is collected of every arm: how models are run, documents, sizes of the samples, the run's directory."""

    source: SourceSpec
    campaign: CampaignSpec
    documents: tuple[TokenDocument, ...]
    directory: Path

    def of(self, trained: Trained) -> Path:
        """Where an arm's files go."""
        return self.directory / f"{trained.arm}-{trained.seed}"

    @cached_property
    def documents_digest(self) -> str:
        """SHA-256 of the documents as they were given, domains included."""
        return digest_of(self.documents)

    def asked(self, trained: Trained) -> dict[str, Any]:
        """Everything that decides what is collected of an arm: checkpoint, documents, how models are run, sizes of the samples."""
        campaign = self.campaign
        return {"arm": trained.arm, "seed": trained.seed, "documents": self.documents_digest,
                "checkpoint": {path.name: sha256_file(path) for path in sorted(trained.directory.iterdir()) if path.suffix in CHECKPOINT},
                "source": self.source.model_dump(mode="json", exclude={"model"}),
                "sizes": [campaign.sample_tokens, campaign.probe_documents, campaign.probe_tokens]}


def collect_all(trained: Sequence[Trained], wanted: Wanted, progress: Progress) -> None:
    """Collect what is not collected yet, wanted.campaign.processes arms at a time. Raises ShareError, SourceError or TraceError."""
    waiting = [one for one in trained if not is_whole(one, wanted)]
    n = min(wanted.campaign.processes, len(waiting))
    with progress.stage("collect arms", len(waiting), "arms") as task:
        if n > 1:
            work_side_by_side(_share, [(waiting[number::n], wanted) for number in range(n)], task.advance)
        else:
            _share((waiting, wanted), task.advance)


def is_whole(trained: Trained, wanted: Wanted) -> bool:
    """Whether an arm was collected to the end from this checkpoint on these documents, and every file is as it was written."""
    from tracking.traces import faults_of

    directory = wanted.of(trained)
    if not (directory / ABOUT).exists() or _begun_as(directory) != wanted.asked(trained) or faults_of(directory / TRACE):
        return False
    files = json.loads((directory / ABOUT).read_text(encoding="utf-8"))["files"]
    return all((directory / name).is_file() and sha256_file(directory / name) == digest for name, digest in files.items())


def _begun_as(directory: Path) -> dict[str, Any] | None:
    """What the collection in a directory was asked for; None where that is not known."""
    try:
        found = json.loads((directory / ASKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _share(share: tuple[Sequence[Trained], Wanted], done: Callable[[], None]) -> None:
    trained, wanted = share
    for one in trained:
        collect_arm(one, wanted)
        done()


def collect_arm(trained: Trained, wanted: Wanted) -> None:
    """Trace, losses, router inputs and vectors of one arm; a killed collection goes on after its last whole shard.

    What was collected from another checkpoint, or on other documents, is thrown away first.
    """
    directory, asked = wanted.of(trained), wanted.asked(trained)
    if directory.exists() and _begun_as(directory) != asked:
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / ASKED, asked)
    spec = wanted.source.model_copy(update={"model": str(trained.directory)})
    with one_thread():
        source = HuggingFaceSource.open(spec, Silent())
        _trace(source, wanted.documents, directory / TRACE)
        _features(source, wanted, directory)
    training = json.loads((trained.directory / TRAINING).read_text(encoding="utf-8"))
    write_json(directory / TRAINING, training)
    files = {path.name: sha256_file(path) for path in sorted(directory.iterdir()) if path.suffix in (".npz", ".npy") or path.name == TRAINING}
    write_json(directory / ABOUT, {"arm": trained.arm, "seed": trained.seed, "checkpoint": trained.directory.name,
                                   **_asked_digest(source, wanted), "files": files})
    source.close()


def _asked(source: HuggingFaceSource, wanted: Wanted) -> Any:
    campaign = wanted.campaign
    return asked_of(source, wanted.documents, tokens=campaign.sample_tokens, probes=campaign.probe_documents, probe_tokens=campaign.probe_tokens)


def _asked_digest(source: HuggingFaceSource, wanted: Wanted) -> dict[str, Any]:
    asked = _asked(source, wanted)
    return {"evaluation_documents": asked.digest, "sampled_tokens": len(asked.keys_T), "probe_documents": len(asked.probes)}


def _trace(source: HuggingFaceSource, documents: Sequence[TokenDocument], directory: Path) -> None:
    from tracking.traces import StoredTrace, TraceWriter, faults_of

    if (directory / "collection.json").exists() and not faults_of(directory):
        return
    rows = [DocumentRow(one.document, one.id, one.domain, one.split) for one in documents]
    writer = TraceWriter.create_or_resume(directory, source.meta, rows)
    report = source.collect(documents, writer, Silent())
    writer.finish()
    write_json(directory / "collection.json", plain(whole_collection(report, StoredTrace.open(directory).manifest.events)))


def _features(source: HuggingFaceSource, wanted: Wanted, directory: Path) -> None:
    asked = _asked(source, wanted)
    features = Features(source, asked)
    with Silent().stage("features") as task:
        features.read(task)
    sums, tokens, directions = probe(source, asked.probes)
    document, position = np.divmod(asked.keys_T, 2**32)
    _save(directory / "losses.npz", loss_nats=features.loss_D, tokens=features.tokens_D)
    _save(directory / "inputs.npz", document=document.astype(np.int32), position=position.astype(np.int32), first=features.first_LT)
    for layer, vectors in enumerate(features.vectors_LTd):
        buffer = io.BytesIO()
        np.save(buffer, vectors, allow_pickle=False)
        write_bytes(directory / f"inputs_{layer}.npy", buffer.getvalue())
    _save(directory / "representations.npz", probe=sums, probe_tokens=tokens, probe_ids=np.array([one.id for one in asked.probes]),
          centroid=features.centroid_LEd, centroid_count=features.count_LE, expert_norm=expert_norms(source),
          **{f"routing_{layer}": one for layer, one in enumerate(directions)})


def _save(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
