"""The learning itself: rate, optimizer, one step, and the loop that can be cut off and continued."""
# B windows of a batch, S tokens of a window

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.progress import Progress
from experiments.specs import TestbedSpec
from experiments.testbed import checkpoint
from experiments.testbed.model import balance_loss, next_token_loss, routers_heard
from experiments.testbed.windows import Windows, batch

if TYPE_CHECKING:
    import torch
    from transformers import MixtralForCausalLM

    RouterOutputs = list[tuple[torch.Tensor, torch.Tensor]]

SAVE_EVERY = 50
NOTE_EVERY = 10
WARM_UP = 50
FLAT_UNTIL, LAST_SHARE = 0.6, 0.05
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0


def learning_rate(step: int, spec: TestbedSpec) -> float:
    """Rate of a step: linear warm-up over 50 steps (a sixth of fewer than 300), flat to 60 % of the steps, then linear to a twentieth."""
    warm_up = min(WARM_UP, spec.steps // 6)
    if step < warm_up:
        return spec.lr * (step + 1) / warm_up
    flat_until = FLAT_UNTIL * spec.steps
    fallen = max(0.0, step + 1 - flat_until) / (spec.steps - flat_until)
    return spec.lr * (1 - (1 - LAST_SHARE) * fallen)


def optimizer_of(model: MixtralForCausalLM, spec: TestbedSpec, *, fused: bool = False) -> torch.optim.AdamW:
    """AdamW that decays every matrix but the routers', and no norm. fused: in one pass over a tensor, with other last bits."""
    import torch

    parameters = list(model.named_parameters())
    spared = [p for name, p in parameters if "norm" in name or ".gate." in name]
    decayed = [p for name, p in parameters if "norm" not in name and ".gate." not in name]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=BETAS, fused=fused)


@dataclass
class Learner:
    """A model with what it learns from and how."""

    model: MixtralForCausalLM
    optimizer: torch.optim.AdamW
    windows: Mapping[str, Windows]
    spec: TestbedSpec

    def take_step(self, number: int, heard: RouterOutputs) -> list[float]:
        """One update; its loss in nats per token, and its auxiliary losses, means over layers.

        Padding stands on the right of a causal window, so no real token sees it and no attention mask is needed; both losses leave it out.
        """
        import torch

        ids_numpy, lengths_numpy = batch(self.windows, number, self.spec.batch, self.spec.seed)
        lengths_B = torch.from_numpy(lengths_numpy)
        ids_BS = torch.from_numpy(ids_numpy)[:, : int(lengths_B.max())]
        real_BS = torch.arange(ids_BS.shape[1]) < lengths_B[:, None]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.spec)
        loss = next_token_loss(self.model(input_ids=ids_BS, use_cache=False).logits, ids_BS, real_BS)
        auxiliary, shown = self.auxiliary(heard, real_BS.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        (loss + auxiliary).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return [float(loss.detach()), *shown]

    def auxiliary(self, heard: RouterOutputs, real_N: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """What is added to the loss, and its terms as they are noted: here the balance loss of each layer, noted as the mean over layers."""
        import torch

        balance_L = torch.stack([balance_loss(logits, experts, real_N) for logits, experts in heard])
        return self.spec.balance * balance_L.sum(), [float(balance_L.detach().mean())]


def learn(learner: Learner, directory: Path, recipe: str, progress: Progress) -> list[list[float]]:
    """Train to the declared step, from the state in `directory` if of this recipe.

    Returns [step, loss, auxiliary losses] of every tenth step.
    """
    spec = learner.spec
    first, losses = checkpoint.restore(directory, learner.model, learner.optimizer, recipe)
    learner.model.train()
    n_tokens = spec.batch * spec.window
    with progress.stage("training", (spec.steps - first) * n_tokens, "tokens") as task, routers_heard(learner.model) as heard:
        for number in range(first, spec.steps):
            noted = learner.take_step(number, heard)
            done = number + 1
            task.advance(n_tokens)
            if done % NOTE_EVERY == 0 or done == spec.steps:
                losses.append([done, *(round(value, 4) for value in noted)])
                task.note(f"loss {noted[0]:.2f}")
            if done % SAVE_EVERY == 0 or done == spec.steps:
                checkpoint.save(directory, learner.model, learner.optimizer, checkpoint.Place(recipe, done, losses))
    return losses
