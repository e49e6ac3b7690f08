"""What a model must pass before a trace may be written from it: found, fits, loads, conforms."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.trace import LayerMeta, TraceMeta
from experiments.declaration import SourceSpec
from experiments.progress import Progress
from experiments.sources import TokenDocument
from experiments.sources.conformance import Conformance, check_conformance, uncovered_experts
from experiments.sources.decoding import decoder_for, mixes_rows
from experiments.sources.errors import SourceError
from experiments.sources.inputs import Framing, ModelBatch, framing_of, model_batch, tokenizer_digest
from experiments.sources.loading import Checkpoint, device_of, dtype_of, load_model, load_tokenizer, locate
from experiments.sources.memory import footprint, free_bytes, meta_model, require_memory
from experiments.sources.quantise import Quantisation, quantised_model
from experiments.sources.routers import RouterSite, choose_layers, find_routers

if TYPE_CHECKING:
    import torch

COLLECTOR = "assay-huggingface 1"
PROBE_LENGTHS = (24, 17, 9, 5)
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class OpenedModel:
    """A loaded model whose routers were found and checked; `batch_size` and `limit` are what it can be run with."""

    spec: SourceSpec
    checkpoint: Checkpoint
    model: Any
    tokenizer: Any
    framing: Framing
    device: torch.device
    sites: tuple[RouterSite, ...]
    conformance: Conformance
    batch_size: int
    limit: int
    details: Mapping[str, Any]


def run_model(model: Any, batch: ModelBatch, **more: Any) -> Any:
    """One forward pass without gradients, cache or (where the class allows) the language head's full output."""
    import inspect

    import torch

    accepted = inspect.signature(model.forward).parameters
    options = {"use_cache": False, "logits_to_keep": 1, **more}
    inputs = {name: tensor for name, tensor in batch.tensors.items() if name != "position_ids" or name in accepted}
    with torch.no_grad():  # inference tensors cannot be sliced from torchao weights
        return model(**inputs, **{name: value for name, value in options.items() if name in accepted})


def probe_documents(vocabulary_size: int, dropped: frozenset[int], limit: int) -> list[TokenDocument]:
    """A few documents of unequal length whose tokens are spread over the vocabulary; the same every time."""
    ids = [token for token in np.linspace(0, vocabulary_size - 1, 4 * sum(PROBE_LENGTHS)).astype(int).tolist() if token not in dropped]
    ids = ids[::max(1, len(ids) // sum(PROBE_LENGTHS))] or [0]
    documents, start = [], 0
    for number, length in enumerate(min(length, limit) for length in PROBE_LENGTHS):
        tokens = [ids[(start + place) * 7 % len(ids)] for place in range(length)]
        documents.append(TokenDocument(number, f"probe-{number}", "probe", "test", tuple(tokens)))
        start += length
    return documents


def open_model(spec: SourceSpec, progress: Progress) -> OpenedModel:
    """Find, fit, load and check the model of `spec`; raises SourceError at the first thing that is wrong, in that order."""
    checkpoint = locate(spec, progress)
    device = device_of(spec.device)
    dtype = dtype_of(spec.dtype, checkpoint.config)
    shape = meta_model(checkpoint.config)
    sites, _ = find_routers(shape)
    for site in choose_layers(sites, spec.layers):
        decoder_for(site.module)
    _require_room(spec, checkpoint, shape, dtype, device)
    tokenizer = load_tokenizer(checkpoint)
    with progress.stage("load model"):
        if spec.quantize is None:
            return _checked(spec, checkpoint, load_model(checkpoint, dtype, device_map={"": str(device)}), tokenizer, device, None)
        model, quantisation = quantised_model(checkpoint, str(spec.quantize), dtype, device, shape)
        try:
            return _checked(spec, checkpoint, model, tokenizer, device, quantisation)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise SourceError(f'quantize = "{spec.quantize}": the quantised experts of {type(model).__name__} cannot be run '
                              f"({str(error).strip().splitlines()[0]}); leave quantize out, or try the other width") from error


def opened_from(model: Any, tokenizer: Any, device: str, spec: SourceSpec) -> OpenedModel:
    """A model that is in memory already, checked like a loaded one and moved to `device`; spec: batch size, length and layers.

    Its revision is not known, so that traces of it cannot be told from those of another state of the same model. Raises SourceError.
    """
    where = device_of(device)
    name = str(getattr(model.config, "name_or_path", "") or type(model).__name__)
    checkpoint = Checkpoint(name, model.config, "in memory", {})
    return _checked(spec.model_copy(update={"model": name}), checkpoint, model.to(where).eval(), tokenizer, where, None)


def _require_room(spec: SourceSpec, checkpoint: Checkpoint, shape: Any, dtype: torch.dtype, device: torch.device) -> None:
    import torch

    need = footprint(shape, dtype, spec.quantize, spec.batch_size, spec.max_length)
    require_memory(need, free_bytes(device), device, checkpoint.name, spec.quantize)
    if spec.quantize == "4bit":  # quantised after loading, so that the host holds the whole model first
        host = torch.device("cpu")
        whole = footprint(shape, dtype, None, 1, 1)
        require_memory(whole, free_bytes(host), host, f"{checkpoint.name} (before 4-bit quantisation)", "4bit")


def _checked(spec: SourceSpec, checkpoint: Checkpoint, model: Any, tokenizer: Any, device: torch.device,
             quantisation: Quantisation | None) -> OpenedModel:
    every, left_out = find_routers(model)
    if bare := uncovered_experts(model, [*(site.key for site in every), *left_out]):
        raise SourceError(f"experts without a known router: {', '.join(bare[:4])}; the router class of {type(model).__name__} is unknown, "
                          "declare it in _can_record_outputs['router_logits']")
    sites = tuple(choose_layers(every, spec.layers))
    framing = framing_of(tokenizer, model.config)
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or spec.max_length
    limit = min(spec.max_length, room) - framing.overhead
    if limit < 2:
        raise SourceError(f"max_length: {spec.max_length} leaves {limit} tokens for a document (the model takes {room}, "
                          f"special tokens need {framing.overhead}); raise max_length")
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    if len(tokenizer) > vocabulary:
        raise SourceError(f"{checkpoint.name}: the tokenizer has {len(tokenizer)} tokens but the model embeds {vocabulary}; "
                          "tokenizer and weights are not of one model")
    alone = any(mixes_rows(site.module) for site in every)
    documents = probe_documents(vocabulary, framing.dropped, limit)
    batch = model_batch(documents[:1] if alone else documents, framing, device)
    conformance = check_conformance(model, sites, batch.rows, lambda: run_model(model, batch))
    details = {"conformance": dict(conformance.verdict), "quantisation": quantisation.record if quantisation else None,
               "dtype": str(model.dtype).removeprefix("torch."), "device": device.type, "routers_left_out": left_out,
               "moe_layers_of_model": len(every),
               "experts_implementation": getattr(model.config, "_experts_implementation", None),
               "special_tokens": {"prefix": list(framing.prefix), "suffix": list(framing.suffix), "without_rows": sorted(framing.dropped)},
               "batch_plan": {"batch_size": 1 if alone else spec.batch_size, "documents_per_shard": spec.documents_per_shard,
                              "document_limit": limit, "order": "length, longest first", "padding": "right"}}
    if getattr(model.config, "router_options", None) is not None:  # a router of the testbed, which may route otherwise than it learnt to
        details["router"] = {"name": model.config.router, **model.config.router_options}
    return OpenedModel(spec, checkpoint, model, tokenizer, framing, device, sites, conformance,
                       batch_size=1 if alone else spec.batch_size, limit=limit, details=details)


def _common(values: Sequence[str]) -> str:
    """The one value, or every value with how often it occurs."""
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else "; ".join(f"{value} ({list(values).count(value)} layers)" for value in distinct)


def _model_name(model: str) -> str:
    """A hub id as it is; of a directory its last name, since the revision's hash says which one it is and directories move."""
    directory = Path(model).expanduser()
    return directory.resolve().name if directory.is_dir() else model


def trace_meta(opened: OpenedModel) -> TraceMeta:
    """Provenance of the trace that this model will write."""
    found = opened.conformance
    layers = tuple(LayerMeta(site.key, site.depth, site.stack, experts, k)
                   for site, experts, k in zip(opened.sites, found.n_experts, found.top_k))
    scores = ["softmax" if reading.score == "probabilities" else reading.score for reading in found.readings]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return TraceMeta(
        model=_model_name(opened.spec.model), revision=opened.checkpoint.revision, layers=layers, score_function=_common(scores),
        entropy_of=_common(["softmax_logits" if score == "softmax" else "normalised_scores" for score in scores]),
        weights_mean=_common([formula.text for formula in found.formula]), tokenizer=tokenizer_digest(opened.tokenizer),
        vocabulary_size=int(opened.model.get_input_embeddings().num_embeddings), collector=COLLECTOR, versions=versions,
        details=opened.details)
