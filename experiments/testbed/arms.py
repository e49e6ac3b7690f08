"""The arms of a comparison of routers: what each is, a model of equal size, and what differs beside the router."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.specs import TestbedSpec
from experiments.testbed.campaign_spec import SpectraSpec
from experiments.testbed.model import MAX_POSITIONS
from experiments.testbed.recipe import TestbedError
from experiments.testbed.tokenizer import END_ID, PAD_ID
from hypotheses.spectra_evidence import BASELINE

if TYPE_CHECKING:
    from experiments.testbed.routers.modeling import RoutedMixtralConfig, RoutedMixtralForCausalLM

TOLERANCE = 0.01  # of the baseline's parameters
WIDTH_STEP = 4  # rows of 16 bytes, which grouped_mm asks for
BALANCED = frozenset({"collapse_rate", "least_load", "cv", "entropy_bits"})
SHARPENED = frozenset({"confidence", "h_full", "routing_gram_rms"})


@dataclass(frozen=True)
class Arm:
    """One router under test.

    router: key of routers.modeling.ROUTERS; changed: its options where they are not the declared ones; top_k: None, the declared one;
    causal: whether it is a language model in evaluation; optimised: ids of metrics that its loss optimises directly; constrained:
    ids of metrics that its way of choosing experts in training bounds, without a loss, such as a transport that evens the loads of a batch;
    scored: whether experts are chosen by scores of the token; says: what it is.
    """

    name: str
    router: str
    says: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    top_k: int | None = None
    causal: bool = True
    optimised: frozenset[str] = frozenset()
    constrained: frozenset[str] = frozenset()
    scored: bool = True


ARMS: dict[str, Arm] = {arm.name: arm for arm in (
    Arm("switch_top1", "switch", "linear router, one expert a token, balance loss", top_k=1, optimised=BALANCED),
    Arm(BASELINE, "switch", "linear router, top-k with renormalised weights, balance loss", optimised=BALANCED),
    Arm("expert_choice", "expert_choice", "experts take tokens, capacity factor 1.25; not causal", causal=False, constrained=BALANCED),
    Arm("hash", "hash", "experts fixed by token id; nothing is learnt", scored=False),
    Arm("random", "random", "linear router that is drawn and never learns"),
    Arm("spectra", "spectra", "SPECTRA in full", optimised=SHARPENED, constrained=BALANCED),
    Arm("spectra_no_gru", "spectra", "SPECTRA, routing vector a linear map of the token", {"gru": False}, optimised=SHARPENED,
        constrained=BALANCED),
    Arm("spectra_no_expression", "spectra", "SPECTRA, one learnt vector an expert", {"expression": False}, optimised=SHARPENED,
        constrained=BALANCED),
    Arm("spectra_no_repulsion", "spectra", "SPECTRA, transport without repulsion", {"repulsion": 0.0}, optimised=SHARPENED,
        constrained=BALANCED),
    Arm("spectra_no_ortho", "spectra", "SPECTRA, no orthogonality loss", {"lambda_ortho": 0.0}, optimised=SHARPENED - {"routing_gram_rms"},
        constrained=BALANCED),
)}


def arm_of(name: str) -> Arm:
    """The arm of that name. Raises TestbedError naming the known ones."""
    if name not in ARMS:
        raise TestbedError(f"campaign.arms: no arm named {name!r}; known: {', '.join(ARMS)}")
    return ARMS[name]


def router_options(arm: Arm, spec: TestbedSpec, spectra: SpectraSpec) -> dict[str, Any]:
    """The router's options, as the checkpoint's config keeps them."""
    declared: dict[str, Any] = {"spectra": spectra.options(), "switch": {"balance": spec.balance},
                                "expert_choice": {"capacity_factor": spectra.capacity_factor}}.get(arm.router, {})
    return declared | dict(arm.changed)


def config_of(arm: Arm, spec: TestbedSpec, spectra: SpectraSpec, vocabulary: int) -> RoutedMixtralConfig:
    """The model's config; spec.intermediate is the expert width."""
    from experiments.testbed.routers.modeling import RoutedMixtralConfig

    return RoutedMixtralConfig(
        vocab_size=vocabulary, hidden_size=spec.hidden, intermediate_size=spec.intermediate, num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads, num_key_value_heads=spec.heads, num_local_experts=spec.experts,
        num_experts_per_tok=arm.top_k or spec.top_k, max_position_embeddings=MAX_POSITIONS, bos_token_id=None, eos_token_id=END_ID,
        pad_token_id=PAD_ID, tie_word_embeddings=False, router=arm.router, router_options=router_options(arm, spec, spectra))


def build(arm: Arm, spec: TestbedSpec, spectra: SpectraSpec, vocabulary: int) -> RoutedMixtralForCausalLM:
    """The arm's model. Every tensor is drawn from the seed and its own name, so that those of the same name and shape begin alike in every arm.

    A single random stream would not do: experts of another width, or another router, shift all that is drawn after them.
    """
    import torch

    from experiments.testbed.routers.modeling import RoutedMixtralForCausalLM
    from experiments.testbed.routers.router import Router

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(spec.seed)
        made = RoutedMixtralForCausalLM(config_of(arm, spec, spectra, vocabulary))
        for of, module in made.named_modules():
            if isinstance(module, Router):
                for name, tensor in module.drawn():
                    torch.manual_seed(_seed_of(spec.seed, f"{of}.{name}"))
                    module.draw(name, tensor)
            elif next(module.parameters(recurse=False), None) is not None and ".gate." not in f"{of}.":
                torch.manual_seed(_seed_of(spec.seed, of))
                made._init_weights(module)
    return made


def _seed_of(seed: int, name: str) -> int:
    """A torch seed, below 2^63."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1


def n_parameters(arm: Arm, spec: TestbedSpec, spectra: SpectraSpec, vocabulary: int) -> int:
    """Parameters that learn, by a model without a byte of weights."""
    import torch

    from experiments.testbed.routers.modeling import RoutedMixtralForCausalLM

    with torch.device("meta"):
        return int(RoutedMixtralForCausalLM(config_of(arm, spec, spectra, vocabulary)).num_parameters())


def matched(arm: Arm, spec: TestbedSpec, spectra: SpectraSpec, vocabulary: int) -> TestbedSpec:
    """`spec` with the expert width, a multiple of 4, that brings the arm nearest to the baseline's parameters."""
    wanted = n_parameters(arm_of(BASELINE), spec, spectra, vocabulary)
    surplus = n_parameters(arm, spec, spectra, vocabulary) - wanted
    a_step = WIDTH_STEP * 3 * spec.hidden * spec.experts * spec.layers  # gate, up and down matrices
    width = spec.intermediate - WIDTH_STEP * round(surplus / a_step)
    if width < WIDTH_STEP:
        raise TestbedError(f"arm {arm.name}: its router has {surplus:,} parameters more than experts of width {spec.intermediate} can give up; "
                           "raise testbed.intermediate, or lower spectra.dimension")
    return spec.model_copy(update={"intermediate": width})


def differences(arm: Arm, parameters: int, baseline_parameters: int, top_k: int) -> tuple[str, ...]:
    """What differs from the baseline beside the router, in words; a comparison across any of it is confounded. Empty for a fair pair.

    Data order, steps and evaluation documents are equal by construction, and total parameters where `matched` reaches 1 %.
    """
    found = []
    share = parameters / baseline_parameters - 1
    if abs(share) > TOLERANCE:
        found.append(f"parameters: {parameters:,} against {baseline_parameters:,} ({share:+.1%}), more than {TOLERANCE:.0%} apart")
    if arm.top_k not in (None, top_k):
        found.append(f"experts a token: {arm.top_k} against {top_k}, so that fewer parameters are active")
    if not arm.causal:
        found.append("not causal: later tokens decide the experts of earlier ones, in evaluation too; experts a token vary, and its loss is "
                     "no language model's")
    return tuple(found)
