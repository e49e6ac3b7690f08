"""A checkpoint by directory or Hugging Face id: checked, identified and loaded, without running any code it brings."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.progress import Progress, Silent
from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    import torch

    from experiments.declaration import SourceSpec

HUB_SECONDS = 10.0
UNSAFE = (".bin", ".pt", ".pth", ".ckpt")
DTYPES = {"float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16"}
CONVERT = ("python -c \"from transformers import AutoModelForCausalLM as A; "
           "A.from_pretrained('{there}').save_pretrained('{there}-safetensors')\" "
           "(reads a pickle: run it in a sandbox, and only on files you trust)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found: where, its config, and its revision (commit, or SHA-256 over its files).

    fetch: how to ask transformers for the rest of it, so that every file is of one commit.
    """

    name: str
    config: Any
    revision: str
    fetch: Mapping[str, Any]


def locate(spec: SourceSpec, progress: Progress | None = None) -> Checkpoint:
    """Find and identify a checkpoint; raises SourceError naming the path or id, before anything is created."""
    directory = Path(spec.model).expanduser()
    if directory.is_dir():
        _require_safetensors(directory)
        fetch: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        return Checkpoint(str(directory), _config(str(directory), fetch), _files_digest(directory, progress or Silent()), fetch)
    if directory.exists() or spec.model.startswith(("/", "./", "../", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec.model):
        raise SourceError(f"model {spec.model!r}: no such checkpoint directory; give a directory with config.json and *.safetensors, "
                          "or a Hugging Face id such as mistralai/Mixtral-8x7B-v0.1")
    commit = _hub_commit(spec.model, spec.revision)
    pinned = commit or _cached_commit(spec.model, spec.revision or "main")
    fetch = {"revision": pinned, "local_files_only": commit is None, "trust_remote_code": False}
    return Checkpoint(spec.model, _config(spec.model, fetch), pinned, fetch)


def _cached_commit(name: str, revision: str) -> str:
    """The commit of `revision` in the local cache; `revision` itself, if the cache has none."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else revision


def _hub_commit(name: str, revision: str | None) -> str | None:
    """The commit that `revision` of a hub repository stands for; None if the hub cannot be reached and only the cache can answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except HfHubHTTPError as error:
        raise SourceError(f"model {name!r}: the Hugging Face hub has no such model for you ({_first_line(error)}); check id and revision, "
                          "and run `hf auth login` for a gated one") from error
    except Exception:  # whichever HTTP library is in use has its own kinds of "no network"
        return None
    files = [file.rfilename for file in found.siblings or []]
    if files and not any(file.endswith(".safetensors") for file in files):
        unsafe = ", ".join(file for file in files if file.endswith(UNSAFE)) or "other files"
        raise SourceError(f"model {name!r}: it has no *.safetensors, only {unsafe}; pickles are not read. "
                          f"Convert once: {CONVERT.format(there=name)}")
    return found.sha


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _require_safetensors(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise SourceError(f"{directory}: no config.json; this is not a checkpoint directory")
    if any(directory.glob("*.safetensors")):
        return
    unsafe = sorted(path.name for path in directory.iterdir() if path.suffix in UNSAFE)
    if unsafe:
        raise SourceError(f"{directory}: {', '.join(unsafe)} is a pickle, which can run code when it is read; only safetensors are read. "
                          f"Convert once: {CONVERT.format(there=directory)}")
    raise SourceError(f"{directory}: no *.safetensors file; the weights are missing")


def _config(name: str, fetch: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    from experiments.testbed.routers import register

    register()
    try:
        return AutoConfig.from_pretrained(name, **fetch)
    except (OSError, ValueError, KeyError) as error:
        first = _first_line(error)
        if Path(name).is_dir():
            raise SourceError(f"{name}/config.json: {first}; its model_type must be one that transformers knows "
                              "(remote code is never run)") from error
        raise SourceError(f"model {name!r}: neither a local directory nor reachable on the Hugging Face hub ({first}). Offline: on a "
                          f"machine with a network run `hf download {name} --local-dir DIR`, copy DIR here and give that") from error


def _files_digest(directory: Path, progress: Progress) -> str:
    """SHA-256 over names, sizes and contents of everything that decides what the model computes."""
    files = sorted(path for path in directory.iterdir() if path.suffix in {".safetensors", ".json", ".model", ".txt"} and path.is_file())
    digest = hashlib.sha256()
    with progress.stage("identify checkpoint", sum(path.stat().st_size for path in files), "bytes") as task:
        for path in files:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 24):
                    digest.update(chunk)
                    task.advance(len(chunk))
    return digest.hexdigest()


def model_class(config: Any) -> Any:
    """The Auto class that has a language head for this config."""
    import transformers

    for auto in (transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
        if type(config) in auto._model_mapping:
            return auto
    raise SourceError(f"model_type {config.model_type!r} has no language-model class in transformers; "
                      "give a causal or an encoder-decoder model")


def device_of(name: str) -> torch.device:
    """The device asked for; "auto" is the first CUDA device, or the CPU."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SourceError(f"device: {name!r} is not a torch device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SourceError(f"device: {name!r} was asked for, but torch {torch.__version__} sees no CUDA device; use auto or cpu")
    return device


def dtype_of(name: str, config: Any) -> torch.dtype:
    """The dtype asked for; "auto" is the checkpoint's own."""
    import torch

    if name == "auto":
        own = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None) or torch.float32
        return getattr(torch, own) if isinstance(own, str) else own
    if name not in DTYPES:
        raise SourceError(f"dtype: {name!r} is not known; use auto, {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, DTYPES[name])
    return found


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.name, **checkpoint.fetch)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise SourceError(f"{checkpoint.name}: its tokenizer cannot be loaded ({_first_line(error)}); "
                          "the directory needs tokenizer.json and tokenizer_config.json") from error
    tokenizer.model_max_length = int(1e30)  # documents are cut by the batch plan, which counts what it cuts
    return tokenizer


def load_model(checkpoint: Checkpoint, dtype: torch.dtype, **options: Any) -> Any:
    """The model in evaluation mode, weights from safetensors only."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = model_class(checkpoint.config).from_pretrained(
            checkpoint.name, dtype=dtype, use_safetensors=True, **checkpoint.fetch, **options)
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{checkpoint.name}: its weights cannot be read ({_first_line(error)}); a safetensors file that was cut or "
                          "renamed is not read: download the checkpoint again") from error
    except RuntimeError as error:
        raise SourceError(f"{checkpoint.name}: the weights do not fit its config ({_first_line(error)}); "
                          "download the checkpoint again") from error
    model.eval()
    return model.requires_grad_(False)
