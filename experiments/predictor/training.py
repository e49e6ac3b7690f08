"""From a source's documents to a predictor in a directory: resumable to the same bits after any epoch."""
# T token (row), N block of tokens, S token of a block, L layer, K slot in the top-k

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from analysis.kernels import Int
from analysis.planes import Planes
from experiments.predictor import curve as curves
from experiments.predictor.layout import Blocks, lay_out, slots
from experiments.predictor.model import Predictor, build, guesses, loss_of, scores_of
from experiments.predictor.recipe import (
    DELETE,
    RECORD,
    WEIGHTS,
    PredictorError,
    claim,
    layers_of,
    recipe_of,
    record_of,
)
from experiments.predictor.spec import PredictorSpec
from experiments.progress import Progress, Task
from experiments.sources.loading import device_of
from experiments.testbed import checkpoint
from experiments.testbed.training import one_thread
from hypotheses.claim import fingerprint
from tracking.atomic import sha256_file, write_bytes, write_sealed

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP, FLAT_UNTIL, LAST_SHARE = 0.1, 0.4, 0.05  # of all steps; of the declared rate
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0


def train(planes: Planes, spec: PredictorSpec, directory: Path, progress: Progress) -> Path:
    """Train the declared predictor on a source's documents and keep it in `directory`: weights, and record with the learning curve.

    A finished directory of the same recipe is returned as it is, an unfinished one is continued after its last whole epoch.
    The last share `held_out` of the documents, in the order of the planes (by hash, if made by analysis.planes), is only measured on.
    Raises PredictorError if `directory` is another's, and for planes without a token.
    """
    if not len(planes):
        raise PredictorError("planes: no token to learn from; give the source at least one document")
    recipe = recipe_of(spec, planes)
    if claim(directory, recipe):
        return directory
    with one_thread():
        learner = Learner.of(planes, spec)
        found = _learn(learner, directory, fingerprint(recipe), progress)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.model.state_dict().items()}
    write_bytes(directory / WEIGHTS, serialize(weights))
    n_learnt, n_held_out = len(learner.learnt), len(learner.held_out)
    write_sealed(directory / RECORD, {
        "recipe": recipe, "fingerprint": fingerprint(recipe), "weights_sha256": sha256_file(directory / WEIGHTS),
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()), "torch": str(torch.__version__),
        "documents": {"learnt": n_learnt, "held_out": n_held_out}, "tokens": len(planes), "steps": learner.n_steps,
        "curve": curves.table(found, [layer.key for layer in planes.layers]),
        "curve_reason": None if n_held_out else curves.NONE_HELD_OUT})
    (directory / checkpoint.NAME).unlink(missing_ok=True)
    return directory


def open_predictor(directory: Path, device: str = "auto") -> tuple[Predictor, PredictorSpec]:
    """A finished predictor, ready to predict, and its declaration. PredictorError where it is missing, damaged or of another version."""
    record = record_of(directory)
    if not (directory / WEIGHTS).exists() or sha256_file(directory / WEIGHTS) != record["weights_sha256"]:
        raise PredictorError(f"{directory / WEIGHTS}: not the weights that {RECORD} names; {DELETE}")
    spec = PredictorSpec(**record["recipe"]["spec"])
    model = build(spec, layers_of(record))
    model.load_state_dict(load_file(directory / WEIGHTS))
    return model.to(device_of(device)).eval(), spec


@dataclass
class Learner:
    """A model with what it learns from: places of the documents that are learnt and held out, and the slots of all."""

    model: Predictor
    optimizer: torch.optim.AdamW
    spec: PredictorSpec
    planes: Planes
    slots_TLK: Tensor
    learnt: Int
    held_out: Int

    @classmethod
    def of(cls, planes: Planes, spec: PredictorSpec) -> Learner:
        """A new model and the documents' split."""
        device = device_of(spec.device)
        model = build(spec, planes.layers).to(device)
        n_documents = len(planes.document)
        n_held_out = min(max(1, round(spec.held_out * n_documents)), n_documents - 1)
        places = np.arange(n_documents)
        return cls(model, _optimizer(model, spec), spec, planes, torch.from_numpy(slots(planes)).to(device),
                   places[: n_documents - n_held_out], places[n_documents - n_held_out:])

    @property
    def blocks_per_step(self) -> int:
        """Blocks of tokens in a batch."""
        return max(1, self.spec.batch // self.spec.reach)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that all learnt documents make, in whatever order."""
        return -(-int((-(-self.planes.lengths[self.learnt] // self.spec.reach)).sum()) // self.blocks_per_step)

    @property
    def n_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.spec.epochs

    def epoch(self, number: int, task: Task) -> float:
        """Learn every document once, in an order of its own; mean loss in nats per slot."""
        order = np.random.default_rng(np.random.SeedSequence([self.spec.seed, number])).permutation(self.learnt)
        nats, n_slots = 0.0, 0
        self.model.train()
        for place, (blocks, _) in enumerate(lay_out(self.planes, order, self.spec.reach).batches(self.blocks_per_step)):
            loss_T = self._step(number * self.steps_per_epoch + place, blocks)
            nats, n_slots = nats + float(loss_T.sum()), n_slots + len(loss_T)
            task.advance(int((blocks.row_NS >= 0).sum()))
        return nats / n_slots

    def _step(self, number: int, blocks: Blocks) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate(number, self.n_steps, self.spec.lr)
        torch.manual_seed(int(np.random.SeedSequence([self.spec.seed, number]).generate_state(1)[0]))  # what dropout draws
        loss_T = self._losses(blocks)
        self.optimizer.zero_grad(set_to_none=True)
        loss_T.mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss_T.detach()

    def _losses(self, blocks: Blocks) -> Tensor:
        """Loss of every slot of a batch, layer after layer."""
        scores_TLE, rows = scores_of(self.model, self.slots_TLK, blocks)
        actual_TLK = self.slots_TLK[torch.from_numpy(rows).to(self.slots_TLK.device)]
        return torch.cat([loss_of(scores_TLE[:, i, : layer.n_experts], actual_TLK[:, i, : layer.top_k], self.spec.set_weight)
                          for i, layer in enumerate(self.planes.layers)])

    def measured(self, nats: float) -> curves.Epoch:
        """The epoch's losses, and the numbers of each layer on the held-out documents."""
        if not len(self.held_out):
            return curves.Epoch(nats, math.nan, ((math.nan,) * len(curves.FIELDS),) * len(self.planes.layers))
        self.model.eval()
        total, n_slots, first, every = 0.0, 0, [], []
        with torch.inference_mode():
            blocks = lay_out(self.planes, self.held_out, self.spec.reach)
            for batch, warm in blocks.batches(self.blocks_per_step, self.spec.blocks):
                scores_TLE, rows = scores_of(self.model, self.slots_TLK, batch, warm)
                for i, layer in enumerate(self.planes.layers):
                    actual = self.slots_TLK[torch.from_numpy(rows).to(self.slots_TLK.device), i, : layer.top_k]
                    total += float(loss_of(scores_TLE[:, i, : layer.n_experts], actual, self.spec.set_weight).sum())
                n_slots += len(rows) * len(self.planes.layers)
                first.append(guesses(scores_TLE, 1)[..., 0].cpu().numpy())
                every.append(rows)
        by_layer = curves.by_layer(self.planes, tuple(np.concatenate(first).T), np.concatenate(every))
        return curves.Epoch(nats, total / n_slots, by_layer)


def rate(step: int, n_steps: int, highest: float) -> float:
    """Learning rate of a step: linear warm-up over a tenth of the steps, flat to 40 %, then linear to a twentieth."""
    warm_up = max(1, round(WARM_UP * n_steps))
    flat_until = FLAT_UNTIL * n_steps
    fallen = max(0.0, step + 1 - flat_until) / (n_steps - flat_until)
    return highest * min(1.0, (step + 1) / warm_up) * (1 - (1 - LAST_SHARE) * fallen)


def _optimizer(model: Predictor, spec: PredictorSpec) -> torch.optim.AdamW:
    """AdamW that decays matrices and no vector, bias or norm."""
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "bias" not in name]
    spared = [p for name, p in model.named_parameters() if p.ndim < 2 or "bias" in name]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": DECAY}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=BETAS)


def _learn(learner: Learner, directory: Path, recipe: str, progress: Progress) -> list[curves.Epoch]:
    """The declared epochs, from the state in `directory` if it is of this recipe; the curve."""
    done, kept = checkpoint.restore(directory, learner.model, learner.optimizer, recipe)
    for parameter, state in learner.optimizer.state.items():
        for moment in checkpoint.MOMENTS:
            state[moment] = state[moment].to(parameter.device)
    curve = [curves.Epoch.of(numbers) for numbers in kept]
    epochs = learner.spec.epochs
    n_tokens = int(learner.planes.lengths[learner.learnt].sum())
    with progress.stage("predictor", (epochs - len(curve)) * n_tokens, "tokens") as task, torch.random.fork_rng(devices=[]):
        for number in range(len(curve), epochs):
            curve.append(learner.measured(learner.epoch(number, task)))
            task.note(f"epoch {number + 1} of {epochs}, loss {curve[-1].nats:.2f}")
            done += learner.steps_per_epoch
            place = checkpoint.Place(recipe, done, [epoch.numbers for epoch in curve])
            checkpoint.save(directory, learner.model, learner.optimizer, place)
    return curve
