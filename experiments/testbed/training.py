"""From a declaration and a corpus to a checkpoint directory like any other."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.corpora.document import Corpus
from experiments.progress import Progress
from experiments.specs import TestbedSpec
from experiments.testbed import checkpoint, tokenizer
from experiments.testbed.held_out import measure
from experiments.testbed.learning import Learner, learn, optimizer_of
from experiments.testbed.model import build
from experiments.testbed.recipe import TestbedError, claim, recipe_of
from experiments.testbed.windows import Windows, cut_into_windows
from hypotheses.claim import fingerprint
from tracking.atomic import write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import MixtralForCausalLM


@dataclass(frozen=True)
class Material:
    """What is learnt from and measured on: tokenizer, training windows by domain, calibration texts by domain."""

    tokenizer: Tokenizer
    windows: dict[str, Windows]
    held_out: dict[str, list[str]]


def train(spec: TestbedSpec, corpus: Corpus, out: Path, progress: Progress) -> Path:
    """Train the declared Mixtral on the training documents and save it in `out` as an ordinary checkpoint directory.

    A finished directory of the same recipe is returned as it is, an unfinished one is continued after its last saved step.
    Beside the weights lie the tokenizer and training.json: recipe, losses, held-out cross-entropy, load of each layer.
    Raises TestbedError if `out` belongs to another recipe or a domain has no training document.
    """
    recipe = recipe_of(spec, corpus)
    if claim(out, recipe):
        return out
    material = prepare(spec, corpus, progress)
    tokenizer.save(material.tokenizer, out)
    model = build(spec, material.tokenizer.get_vocab_size())
    learner = Learner(model, optimizer_of(model, spec), material.windows, spec)
    with one_thread():
        losses = learn(learner, out, fingerprint(recipe), progress)
        with progress.stage("held-out loss", None, "tokens") as task:
            held_out = measure(model, material.tokenizer, material.held_out, spec, task)
    save_weights(model, out)
    windows = {domain: len(of_domain) for domain, of_domain in material.windows.items()}
    finish(out, {"recipe": recipe, "fingerprint": fingerprint(recipe), **about(model), "windows": windows, **held_out, "losses": losses})
    return out


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread within the block.

    Bits depend on the number of threads, so the weights do not depend on the machine's. A second thread saves a fifth of the time on an idle
    two-core machine (8.3 against 6.5 thousand tokens/s) and costs eightfold on a busy one (0.36 against 3.1), where each waits for the other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(spec: TestbedSpec, corpus: Corpus, progress: Progress) -> Material:
    """Tokenizer learnt from the training texts, their windows, and the calibration texts for the held-out loss."""
    texts = texts_of(corpus, "train")
    empty = [domain for domain, of_domain in texts.items() if not of_domain]
    if empty or not texts:
        raise TestbedError(f"corpus: no training document in {', '.join(empty) or 'any domain'}; raise corpus.documents_per_domain")
    n_texts = sum(map(len, texts.values()))
    with progress.stage("tokenizer", n_texts, "documents") as task:
        learnt = tokenizer.learn((text for of_domain in texts.values() for text in of_domain), spec.vocabulary)
        windows = {domain: cut_into_windows(tokenizer.encode(learnt, of_domain), spec.window) for domain, of_domain in texts.items()}
        task.advance(n_texts)
    return Material(learnt, windows, texts_of(corpus, "calibration"))


def texts_of(corpus: Corpus, split: str) -> dict[str, list[str]]:
    """Texts of one split by domain; every domain of the corpus is a key."""
    texts: dict[str, list[str]] = {domain: [] for domain in corpus.domains}
    for document in corpus.of_split(split):
        texts[document.domain].append(document.text)
    return texts


def save_weights(model: MixtralForCausalLM, out: Path) -> None:
    """Write config.json and model.safetensors, without transformers' own progress bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(out)
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def about(model: MixtralForCausalLM) -> dict[str, Any]:
    """Size and library versions for training.json."""
    import tokenizers
    import torch
    import transformers

    versions = {"python": platform.python_version()} | {module.__name__: module.__version__ for module in (torch, transformers, tokenizers)}
    return {"parameters": model.num_parameters(), "versions": versions}


def finish(out: Path, training: dict[str, Any]) -> None:
    """Write training.json, which marks the directory as finished, and drop the resumable state."""
    write_json(out / "training.json", training)
    (out / checkpoint.NAME).unlink(missing_ok=True)
