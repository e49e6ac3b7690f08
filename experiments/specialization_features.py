"""Features of a model in memory: its routing of every document, router inputs of a sample, expert outputs on probes, losses; streamed to disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.comparison import Conditions
from analysis.trace import DocumentRow
from experiments.progress import Silent
from experiments.sources import TokenDocument
from experiments.specialization_metrics import Features
from hypotheses.spectra_evidence import ArmRun, Representations, RouterInputs, SpectraSettings, Training

if TYPE_CHECKING:
    from experiments.sources.huggingface import HuggingFaceSource
    from tracking.traces import StoredTrace

SPLIT = "test"
PROBES, PROBE_TOKENS = 12, 64  # documents of each domain, and first tokens of each, that every expert is asked about


def routed(source: HuggingFaceSource, documents: Sequence[TokenDocument], directory: Path) -> StoredTrace:
    """The documents' routing as a trace in a new directory, written shard by shard."""
    from tracking.traces import StoredTrace, TraceWriter

    rows = [DocumentRow(one.document, one.id, one.domain, one.split) for one in documents]
    writer = TraceWriter.create_or_resume(directory, source.meta, rows)
    source.collect(documents, writer, Silent())
    writer.finish()
    return StoredTrace.open(directory)


def extract(source: HuggingFaceSource, batches: Iterable[Mapping[str, Any]], max_samples: int, settings: SpectraSettings) -> Features:
    """See ExpertSpecializationAnalyzer.extract_features."""
    documents = list(_documents(source, batches))
    if not documents:
        raise ValueError("dataloader: no document with a token; give batches with texts or input_ids")
    scratch = TemporaryDirectory(prefix="assay-features-")
    run, missing = run_of(source, documents, Path(scratch.name), tokens=max_samples, probes=PROBES)
    return Features(run, source.token_strings(), settings, missing, scratch)


def run_of(source: HuggingFaceSource, documents: Sequence[TokenDocument], directory: Path, *, tokens: int, probes: int,
           ) -> tuple[ArmRun, dict[str, str]]:
    """Documents of the split "test" through the model, with routing and router inputs on disk in `directory`; and what there is none of, and why.

    tokens: router inputs kept a layer; probes: documents of each domain that every expert is asked about.
    """
    from experiments.testbed.arm_features import PLACE, asked_of
    from experiments.testbed.arm_features import Features as Read

    asked = asked_of(source, documents, tokens=tokens, probes=probes, probe_tokens=PROBE_TOKENS)
    trace = routed(source, documents, directory / "trace")
    features = Read(source, asked, directory)
    with Silent().stage("features") as task:
        features.read(task)
    representations, missing = _outputs(source, asked.probes, features)
    document, position = np.divmod(asked.keys_T, PLACE)
    numbers = [row.document for row in trace.documents]
    inputs = RouterInputs(document.astype(np.int32), position.astype(np.int32), features.vectors_LTd, features.first_LT)
    first = source.meta.layers[0]
    return ArmRun(
        arm=source.meta.model, seed=0, fillers=_any_router(source, "limited", False), scored=not _any_router(source, "scored", True),
        trace=trace, loss_nats_D=features.loss_D[numbers], tokens_D=features.tokens_D[numbers], inputs=inputs,
        representations=representations, data_order="", training=Training(0, None, {}, {}, {}),
        conditions=Conditions(int(source.opened.model.num_parameters()), first.top_k, first.n_experts, None, asked.digest)), missing


def _any_router(source: HuggingFaceSource, says: str, usual: bool) -> bool:
    """Whether some router of a layer looked at says of itself what is not usual."""
    return any(bool(getattr(site.module, says, usual)) != usual for site in source.opened.sites)


def _outputs(source: HuggingFaceSource, probes: Sequence[TokenDocument], features: Any) -> tuple[Representations, dict[str, str]]:
    """Vectors of the experts; zero, with the reason, for a model whose experts cannot be asked one by one."""
    from experiments.testbed.arm_features import expert_norms, probe

    missing: dict[str, str] = {}
    n_layers, n_experts, width = features.centroid_LEd.shape
    norms: NDArray[np.float64] = np.full((n_layers, n_experts), np.nan)
    try:
        if not probes:
            raise ValueError("no probe document was asked for")
        sums, tokens, directions = probe(source, probes)
        norms = expert_norms(source)
    except (AttributeError, TypeError, RuntimeError, IndexError, ValueError) as error:
        sums, tokens = np.zeros((len(probes), n_layers, n_experts, width), np.float32), np.zeros(len(probes), np.int64)
        directions = ()
        missing["outputs"] = (f"the experts of {type(source.opened.model).__name__} cannot be asked one by one "
                              f"({str(error).strip().splitlines()[0] if str(error) else type(error).__name__})")
    return Representations(sums, tokens, tuple(one.id for one in probes), features.centroid_LEd, features.count_LE,
                           tuple(one for one in directions if one.size), norms), missing


def _documents(source: HuggingFaceSource, batches: Iterable[Mapping[str, Any]]) -> Iterator[TokenDocument]:
    """Documents of the batches, numbered from 0; rows of one document id are one document, in their order.

    No more of a document is kept than the model is run on, and equal token ids are one object: eight bytes a token.
    """
    waiting: dict[str, tuple[str, list[int]]] = {}
    limit, shared = source.opened.limit, list(range(source.meta.vocabulary_size))
    for number, batch in enumerate(batches):
        tokens = _tokens(source, batch, number)
        domains = _domains(batch, len(tokens), number)
        ids = [str(one) for one in batch.get("document_ids", [f"batch {number}, row {row}" for row in range(len(tokens))])]
        for name, domain, row in zip(ids, domains, tokens, strict=True):
            had = waiting.setdefault(name, (domain, []))
            if had[0] != domain:
                raise ValueError(f"batch {number}: document {name!r} is in domain {domain!r} and in {had[0]!r}; a document has one domain")
            kept = row[: limit - len(had[1])]
            if kept and not 0 <= min(kept) <= max(kept) < len(shared):
                raise ValueError(f"batch {number}: document {name!r} has token ids from {min(kept)} to {max(kept)}, the model knows 0 to "
                                 f"{len(shared) - 1}; tokenize with the model's own tokenizer")
            had[1].extend(shared[token] for token in kept)
    for place, name in enumerate([name for name, (_, row) in waiting.items() if row]):
        domain, row = waiting.pop(name)
        yield TokenDocument(place, name, domain, SPLIT, tuple(row))


def _tokens(source: HuggingFaceSource, batch: Mapping[str, Any], number: int) -> list[list[int]]:
    if "texts" in batch:
        return source.tokenize([str(text) for text in batch["texts"]])
    if "input_ids" not in batch:
        raise ValueError(f"batch {number}: has {', '.join(map(str, batch)) or 'nothing'}; give texts [B] or input_ids [B, S]")
    special = source.opened.framing.dropped
    ids = [np.asarray(_plain(row)).tolist() for row in batch["input_ids"]]
    masks = batch.get("attention_mask")
    kept = [[1] * len(row) for row in ids] if masks is None else [np.asarray(_plain(row)).tolist() for row in masks]
    return [[token for token, real in zip(row, mask, strict=True) if real and token not in special] for row, mask in zip(ids, kept, strict=True)]


def _plain(row: Any) -> Any:
    """A tensor's row on the host; anything else as it is."""
    return row.detach().cpu().numpy() if hasattr(row, "detach") else row


def _domains(batch: Mapping[str, Any], n: int, number: int) -> list[str]:
    if "domain_labels" not in batch:
        raise ValueError(f"batch {number}: no domain_labels; give the domain of each document [B]")
    found: list[str] = []
    for row in batch["domain_labels"]:
        labels = {str(row)} if isinstance(row, str | int) or np.ndim(_plain(row)) == 0 else {str(one) for one in np.asarray(_plain(row)).tolist()}
        if len(labels) != 1:
            raise ValueError(f"batch {number}, row {len(found)}: domains {', '.join(sorted(labels))} in one document; split it, or label its rest "
                             f"alike")
        found.append(labels.pop())
    if len(found) != n:
        raise ValueError(f"batch {number}: {len(found)} domain_labels for {n} documents")
    return found
