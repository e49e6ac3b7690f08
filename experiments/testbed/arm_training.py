"""Trains one arm with one seed: the testbed's learning with the router's own losses, and what shows that the router works as it should."""
# N tokens of a batch, L layer, E expert

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.progress import Progress
from experiments.specs import TestbedSpec
from experiments.testbed import checkpoint, material, tokenizer
from experiments.testbed.arms import arm_of, build, router_options
from experiments.testbed.campaign_spec import SpectraSpec
from experiments.testbed.held_out import measure
from experiments.testbed.learning import Learner, learn, optimizer_of
from experiments.testbed.recipe import ARM_VERSION, claim
from experiments.testbed.training import about, finish, one_thread, save_weights
from experiments.testbed.windows import cut_into_windows, spread
from hypotheses.claim import fingerprint

if TYPE_CHECKING:
    import torch

    from experiments.testbed.learning import RouterOutputs
    from experiments.testbed.routers.modeling import RoutedMixtralForCausalLM
    from experiments.testbed.training import Material
    from experiments.testbed.windows import Windows

WINDOWS_PER_DOMAIN = 8  # behind agreement and checks


@dataclass(frozen=True)
class Training:
    """One arm with one seed. spec: sizes with the matched expert width, and the seed; corpus: digest of the documents."""

    arm: str
    spec: TestbedSpec
    spectra: SpectraSpec
    corpus: str

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that decides the weights."""
        arm = arm_of(self.arm)
        options = router_options(arm, self.spec, self.spectra)
        spec = self.spec.model_dump(mode="json") | {"router": arm.router, "top_k": arm.top_k or self.spec.top_k, "router_options": options}
        return {"spec": spec, "corpus": self.corpus, "version": ARM_VERSION}

    @property
    def name(self) -> str:
        """Name of the checkpoint's directory: arm and recipe."""
        return f"{self.arm}-{fingerprint(self.recipe)[:12]}"


class ArmLearner(Learner):
    """A Learner whose auxiliary losses are those that the routers themselves compute."""

    def auxiliary(self, heard: RouterOutputs, real_N: torch.Tensor) -> tuple[torch.Tensor, list[float]]:  # noqa: ARG002
        """Weighted sum over terms and layers; the mean of each term over layers, in the order of `columns`."""
        import torch

        from experiments.testbed.routers.modeling import routers_of

        terms = [router.terms.loss for router in routers_of(self.model)]
        total = sum((weight * value for of_layer in terms for weight, value in of_layer.values()), torch.zeros(()))
        return total, [float(sum(float(of_layer[name][1].detach()) for of_layer in terms) / len(terms)) for name in terms[0]]


def train_arm(training: Training, prepared: Path, out: Path, progress: Progress) -> Path:
    """Train and save in `out`, an ordinary checkpoint directory with training.json; see training.train, whose rules hold here as well.

    prepared: directory of the material.
    """
    recipe, arm, spec = training.recipe, arm_of(training.arm), training.spec
    if claim(out, recipe):
        return out
    of = material.load(prepared)
    tokenizer.save(of.tokenizer, out)
    model = build(arm, spec, training.spectra, of.tokenizer.get_vocab_size())
    begun, resumed = time.process_time(), (out / checkpoint.NAME).exists()
    with one_thread():
        losses = learn(ArmLearner(model, optimizer_of(model, spec, fused=True), of.windows, spec), out, fingerprint(recipe), progress)
        seconds = None if resumed else round(time.process_time() - begun, 2)
        with progress.stage("held-out loss", None, "tokens") as task:
            held_out = measure(model, of.tokenizer, of.held_out, spec, task)
        modes = compare_modes(model, of, spec)
    save_weights(model, out)
    columns = ["step", "loss", *_terms(model)]
    finish(out, {"recipe": recipe, "fingerprint": fingerprint(recipe), "arm": arm.name, "seed": spec.seed, "causal": arm.causal,
                 **about(model), "data_order": material.data_order(prepared, spec), "tokens_seen": spec.steps * spec.batch * spec.window,
                 "cpu_seconds": seconds, **held_out, **modes, "columns": columns, "losses": losses})
    return out


def _terms(model: RoutedMixtralForCausalLM) -> list[str]:
    from experiments.testbed.routers.modeling import routers_of

    return list(routers_of(model)[0].terms.loss)


def compare_modes(model: RoutedMixtralForCausalLM, of: Material, spec: TestbedSpec) -> dict[str, Any]:
    """agreement: of routing in training mode with that in evaluation mode on held-out windows, per layer; checks: the equations, per layer.

    first_choice: share of tokens with the same best expert; experts: share of the experts chosen in training that evaluation chooses too.
    row_sums, column_sums: largest misfit of Sinkhorn's marginals, the rows' no more than rounding by construction; gram_rms: root mean square
    cosine of expert centroids; gram_diagonal: largest misfit of their norms.
    """
    import torch

    from experiments.testbed.routers.modeling import routers_of

    routers, same, checks = routers_of(model), [], []
    with torch.no_grad():
        for ids, real in _batches(of, spec):
            chosen = []
            for mode in (True, False):
                model.train(mode)
                chosen.append(_choices(model, ids))
                if mode:
                    checks.append([_checks(router.terms.plan_NE, router.terms.gram_EE) for router in routers])
            same.append([_agreement(trained, evaluated, real.flatten()) for trained, evaluated in zip(*chosen, strict=True)])
    model.train(False)
    if not same:
        return {"agreement": {}, "checks": {}}
    counts_L4 = np.sum(np.array(same, np.float64), axis=0)
    agreement = {"first_choice": (counts_L4[:, 0] / counts_L4[:, 1]).tolist(), "experts": (counts_L4[:, 2] / counts_L4[:, 3]).tolist()}
    found = {name: [float(np.max([of_batch[layer][name] for of_batch in checks])) for layer in range(len(routers))] for name in checks[0][0]}
    return {"agreement": agreement, "checks": found}


def _batches(of: Material, spec: TestbedSpec) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Held-out windows, domains mixed as in training."""
    import torch

    every: list[Windows] = [spread(cut_into_windows(tokenizer.encode(of.tokenizer, texts), spec.window), WINDOWS_PER_DOMAIN)
                            for texts in of.held_out.values() if texts]
    if not every:
        return []
    ids = torch.from_numpy(np.concatenate([windows.ids_WS for windows in every]))
    mixed = torch.from_numpy(np.random.default_rng(0).permutation(len(ids)))
    return [(ids[rows], ids[rows] != tokenizer.PAD_ID) for rows in torch.split(mixed, spec.batch)]


def _choices(model: RoutedMixtralForCausalLM, ids_BS: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """First choice [N] and chosen experts, bool [N, E], of each layer."""
    import torch

    from experiments.testbed.routers.modeling import routers_of

    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hear(router: Any, _args: Any, output: Any) -> None:
        _, weights, ids, *_ = output
        first = ids.gather(1, weights.argmax(dim=1, keepdim=True))[:, 0]
        found.append((first, torch.zeros(len(ids), router.n_experts, dtype=torch.bool).scatter(1, ids, weights > 0)))

    handles = [router.register_forward_hook(hear) for router in routers_of(model)]
    try:
        model(input_ids=ids_BS, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _agreement(trained: tuple[torch.Tensor, torch.Tensor], evaluated: tuple[torch.Tensor, torch.Tensor], real_N: torch.Tensor) -> list[int]:
    """Tokens with the same first choice, tokens, experts in both, experts in training."""
    same = (trained[0] == evaluated[0])[real_N]
    both = (trained[1] & evaluated[1])[real_N]
    return [int(same.sum()), int(same.numel()), int(both.sum()), int(trained[1][real_N].sum())]


def _checks(plan_NE: torch.Tensor | None, gram_EE: torch.Tensor | None) -> dict[str, float]:
    """What the router's equations promise, for one batch in training mode; empty for a router without a plan."""
    from experiments.testbed.routers.transport import marginal_misfit

    if plan_NE is None or gram_EE is None:
        return {}
    rows, columns = marginal_misfit(plan_NE)
    n, diagonal_E = len(gram_EE), gram_EE.diagonal()
    squares = float((gram_EE**2).sum() - (diagonal_E**2).sum())
    return {"row_sums": rows, "column_sums": columns, "gram_rms": (squares / (n * (n - 1))) ** 0.5,
            "gram_diagonal": float((diagonal_E - 1).abs().max())}
