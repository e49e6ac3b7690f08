"""Training of the testbed: a fixed number of steps on training documents, resumable, ending in an ordinary checkpoint directory."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.corpora.document import Corpus
from experiments.corpora.stored import replacing
from experiments.progress import Progress
from experiments.specs import TestbedSpec
from experiments.testbed import checkpoint, tokenizer
from experiments.testbed.held_out import measure
from experiments.testbed.model import balance_loss, build, next_token_loss, routers_heard
from experiments.testbed.windows import Windows, batch, cut_into_windows
from hypotheses.claim import fingerprint

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import MixtralForCausalLM

RECIPE_VERSION = 1  # raised when code below changes what is learnt
SAVE_EVERY = 50
WARM_UP = 50
FLAT_UNTIL, LAST_SHARE = 0.6, 0.05
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0


class TestbedError(RuntimeError):
    """A testbed that cannot be trained as declared; the message names directory, field and remedy."""

    __test__ = False


@dataclass(frozen=True)
class Material:
    """What is learnt from and measured on: tokenizer, training windows by domain, held-out texts by domain."""

    tokenizer: Tokenizer
    windows: dict[str, Windows]
    held_out: dict[str, list[str]]


def recipe_of(spec: TestbedSpec, corpus: Corpus) -> dict[str, Any]:
    """Everything that decides the weights: declaration, corpus digest, version of this code."""
    return {"spec": spec.model_dump(mode="json"), "corpus": corpus.digest, "version": RECIPE_VERSION}


def train(spec: TestbedSpec, corpus: Corpus, out: Path, progress: Progress) -> Path:
    """Train the declared Mixtral on the training documents and save it in `out` as an ordinary checkpoint directory.

    A finished directory of the same recipe is returned as it is, an unfinished one is continued after its last saved step.
    Beside the weights lie the tokenizer and training.json: recipe, loss by step, held-out cross-entropy, load of each layer.
    Raises TestbedError if `out` belongs to another recipe or a domain has no training document.
    """
    recipe = recipe_of(spec, corpus)
    if claim(out, recipe):
        return out
    material = prepare(spec, corpus, progress)
    tokenizer.save(material.tokenizer, out)
    model = build(spec, material.tokenizer.get_vocab_size())
    losses = fit(model, spec, material.windows, (out, fingerprint(recipe)), progress)
    with progress.stage("held-out loss", None, "tokens") as task:
        held_out = measure(model, material.tokenizer, material.held_out, spec, task)
    model.save_pretrained(out)
    finish(out, {"recipe": recipe, "fingerprint": fingerprint(recipe), "loss": losses, **held_out, **about(model)})
    return out


def claim(out: Path, recipe: dict[str, Any]) -> bool:
    """Whether `out` holds the finished model of this recipe; makes the directory if it is new. Raises TestbedError if it is another's."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "recipe.json"
    if path.exists():
        other = json.loads(path.read_text())
        if other != recipe:
            changed = ", ".join(_differences(other, recipe))
            raise TestbedError(f"{out}: holds a testbed of another recipe ({changed}); train into another directory, or delete this one")
    elif any(not child.name.startswith(".") for child in out.iterdir()):
        raise TestbedError(f"{out}: holds files but no recipe.json, so it is not a testbed directory; train into an empty one")
    else:
        with replacing(path) as aside:
            aside.write_text(json.dumps(recipe, indent=1, sort_keys=True) + "\n")
    return (out / "training.json").exists()


def _differences(was: dict[str, Any], is_now: dict[str, Any]) -> list[str]:
    flat_was, flat_now = ({**recipe.get("spec", {}), "corpus": recipe.get("corpus"), "version": recipe.get("version")} for recipe in (was, is_now))
    return [f"{key}: {flat_was.get(key)} there, {flat_now.get(key)} declared" for key in flat_now | flat_was if flat_was.get(key) != flat_now.get(key)]


def prepare(spec: TestbedSpec, corpus: Corpus, progress: Progress) -> Material:
    """Tokenizer learnt from the training texts, their windows, and the calibration texts for the held-out loss."""
    texts = {domain: [d.text for d in corpus.of_split("train") if d.domain == domain] for domain in corpus.domains}
    empty = [domain for domain, of_domain in texts.items() if not of_domain]
    if empty or not texts:
        raise TestbedError(f"no training document in {', '.join(empty) or 'any domain'}; raise corpus.documents_per_domain or lower the other shares")
    n_texts = sum(map(len, texts.values()))
    with progress.stage("tokenizer", n_texts, "documents") as task:
        learnt = tokenizer.learn((text for of_domain in texts.values() for text in of_domain), spec.vocabulary)
        windows = {domain: cut_into_windows(tokenizer.encode(learnt, of_domain), spec.window) for domain, of_domain in texts.items()}
        task.advance(n_texts)
    held_out = {domain: [d.text for d in corpus.of_split("calibration") if d.domain == domain] for domain in corpus.domains}
    return Material(learnt, windows, held_out)


def learning_rate(step: int, spec: TestbedSpec) -> float:
    """Rate of a step: linear warm-up, flat until 60 % of the steps, then linear down to a twentieth."""
    warm_up = min(WARM_UP, spec.steps // 6)
    if step < warm_up:
        return spec.lr * (step + 1) / warm_up
    flat_until = FLAT_UNTIL * spec.steps
    fallen = max(0.0, step + 1 - flat_until) / (spec.steps - flat_until)
    return spec.lr * (1 - (1 - LAST_SHARE) * fallen)


def optimizer_of(model: MixtralForCausalLM, spec: TestbedSpec) -> torch.optim.AdamW:
    """AdamW that decays matrices, routers excepted, and no norms."""
    import torch

    def decays(name: str) -> bool:
        return "norm" not in name and ".gate." not in name

    parameters = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in parameters if decays(name)], "weight_decay": DECAY},
        {"params": [p for name, p in parameters if not decays(name)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=BETAS)


def fit(
    model: MixtralForCausalLM, spec: TestbedSpec, windows: dict[str, Windows], place: tuple[Path, str], progress: Progress
) -> list[list[float]]:
    """Train to the declared step. place: directory and recipe fingerprint of the resumable state. Returns [step, loss, balance] now and then."""
    directory, recipe = place
    optimizer = optimizer_of(model, spec)
    first = checkpoint.restore(directory, model, optimizer, recipe)
    losses: list[list[float]] = []
    model.train()
    with progress.stage("training", (spec.steps - first) * spec.batch * spec.window, "tokens") as task, routers_heard(model) as heard:
        for step in range(first, spec.steps):
            loss, balance = take_step(model, optimizer, heard, spec, (step, windows))
            task.advance(spec.batch * spec.window)
            if (step + 1) % 10 == 0 or step + 1 == spec.steps:
                losses.append([step + 1, round(loss, 4), round(balance, 4)])
                task.note(f"loss {loss:.2f}")
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == spec.steps:
                checkpoint.save(directory, model, optimizer, step + 1, recipe)
    return losses


def take_step(
    model: MixtralForCausalLM,
    optimizer: torch.optim.AdamW,
    heard: list[tuple[torch.Tensor, torch.Tensor]],
    spec: TestbedSpec,
    at: tuple[int, dict[str, Windows]],
) -> tuple[float, float]:
    """One update; its loss in nats per token and its balance loss, mean over layers.

    Padding stands on the right of a causal window, so no real token sees it and no attention mask is needed; loss and balance leave it out.
    """
    import torch

    step, windows = at
    ids_numpy, lengths = (torch.from_numpy(array) for array in batch(windows, step, spec.batch, spec.seed))
    longest = int(lengths.max())
    ids_BS = ids_numpy[:, :longest]
    real_BS = torch.arange(longest) < lengths[:, None]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, spec)
    loss = next_token_loss(model(input_ids=ids_BS, use_cache=False).logits, ids_BS, real_BS)
    balance = torch.stack([balance_loss(logits, experts, real_BS.flatten()) for logits, experts in heard])
    optimizer.zero_grad(set_to_none=True)
    (loss + spec.balance * balance.sum()).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return float(loss.detach()), float(balance.detach().mean())


def about(model: MixtralForCausalLM) -> dict[str, Any]:
    """Sizes and versions for training.json."""
    import tokenizers
    import torch
    import transformers

    versions = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers)}
    return {"parameters": model.num_parameters(), "versions": {**versions, "python": platform.python_version()}, "threads": torch.get_num_threads()}


def finish(out: Path, training: dict[str, Any]) -> None:
    """Write training.json, which marks the directory as finished, and drop the resumable state."""
    with replacing(out / "training.json") as aside:
        aside.write_text(json.dumps(training, indent=1, allow_nan=False) + "\n")
    (out / checkpoint.NAME).unlink(missing_ok=True)
