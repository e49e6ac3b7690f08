"""What every arm learns from, made once and read by each process: tokenizer, training windows, held-out texts."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.testbed.recipe import RECIPE_VERSION
from experiments.testbed.training import Material, prepare
from experiments.testbed.windows import Windows
from hypotheses.claim import fingerprint
from tracking.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from experiments.corpora.document import Corpus
    from experiments.progress import Progress
    from experiments.specs import TestbedSpec

ABOUT = "material.json"  # written last: with it the directory is whole


def stored(spec: TestbedSpec, corpus: Corpus, cache: Path, progress: Progress) -> Path:
    """Directory of the material for `spec`, made unless it is there."""
    decides = {"vocabulary": spec.vocabulary, "window": spec.window, "corpus": corpus.digest, "version": RECIPE_VERSION}
    directory = cache / f"material-{fingerprint(decides)[:12]}"
    if not (directory / ABOUT).exists():
        directory.mkdir(parents=True, exist_ok=True)
        _write(prepare(spec, corpus, progress), directory)
    return directory


def _write(material: Material, directory: Path) -> None:
    arrays: dict[str, Any] = {}
    for number, windows in enumerate(material.windows.values()):
        arrays[f"ids_{number}"], arrays[f"lengths_{number}"] = windows.ids_WS.astype(np.int32), windows.lengths_W
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(directory / "tokenizer.json", material.tokenizer.to_str().encode())
    write_bytes(directory / "windows.npz", buffer.getvalue())
    write_json(directory / "held_out.json", material.held_out)
    about = {"domains": list(material.windows), "vocabulary": material.tokenizer.get_vocab_size(), "windows": _digest(material.windows)}
    write_json(directory / ABOUT, about)


def _digest(windows: dict[str, Windows]) -> str:
    """SHA-256 over the windows of every domain in order."""
    digest = hashlib.sha256()
    for domain, of_domain in windows.items():
        digest.update(domain.encode() + of_domain.ids_WS.tobytes() + of_domain.lengths_W.tobytes())
    return digest.hexdigest()


def load(directory: Path) -> Material:
    """The material in `directory`."""
    from tokenizers import Tokenizer

    names = about(directory)["domains"]
    with np.load(directory / "windows.npz", allow_pickle=False) as arrays:
        windows = {name: Windows(arrays[f"ids_{number}"].astype(np.int64), arrays[f"lengths_{number}"]) for number, name in enumerate(names)}
    held_out = json.loads((directory / "held_out.json").read_text(encoding="utf-8"))
    return Material(Tokenizer.from_file(str(directory / "tokenizer.json")), windows, held_out)


def about(directory: Path) -> dict[str, Any]:
    """domains, vocabulary (entries), windows (digest)."""
    return dict(json.loads((directory / ABOUT).read_text(encoding="utf-8")))


def data_order(directory: Path, spec: TestbedSpec) -> str:
    """Digest of what decides every batch of a training, which follows from windows, seed and step alone; equal digests, equal batches."""
    return fingerprint({"windows": about(directory)["windows"], "batch": spec.batch, "steps": spec.steps, "seed": spec.seed})
