import pytest
import torch

from experiments.specs import TestbedSpec
from experiments.testbed.arms import ARMS, TOLERANCE, arm_of, build, differences, matched, n_parameters, router_options
from experiments.testbed.campaign_spec import SpectraSpec
from experiments.testbed.recipe import TestbedError
from experiments.testbed.tokenizer import PAD_ID
from hypotheses.spectra_evidence import BASELINE, TREATMENT

from .small_corpus import SMALL

SPECTRA = SpectraSpec(dimension=4)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_the_parameters_of_the_baseline(name: str) -> None:
    spec, spectra = TestbedSpec(), SpectraSpec()
    wanted = n_parameters(arm_of(BASELINE), spec, spectra, spec.vocabulary)
    fitted = matched(arm_of(name), spec, spectra, spec.vocabulary)
    assert fitted.intermediate % 4 == 0
    assert abs(n_parameters(arm_of(name), fitted, spectra, spec.vocabulary) / wanted - 1) <= TOLERANCE
    assert fitted.model_copy(update={"intermediate": spec.intermediate}) == spec  # nothing else differs


def test_the_width_is_the_nearest_multiple_of_four() -> None:
    spec, spectra = TestbedSpec(), SpectraSpec()
    wanted = n_parameters(arm_of(BASELINE), spec, spectra, spec.vocabulary)
    fitted = matched(arm_of(TREATMENT), spec, spectra, spec.vocabulary)
    assert fitted.intermediate < spec.intermediate  # SPECTRA's router is larger
    off = {width: abs(n_parameters(arm_of(TREATMENT), spec.model_copy(update={"intermediate": width}), spectra, spec.vocabulary) - wanted)
           for width in range(fitted.intermediate - 8, fitted.intermediate + 9, 4)}
    assert min(off, key=lambda width: off[width]) == fitted.intermediate


def test_a_router_too_large_for_the_experts_is_refused() -> None:
    with pytest.raises(TestbedError, match="arm spectra: its router has .* lower spectra.dimension"):
        matched(arm_of("spectra"), SMALL, SpectraSpec(dimension=200), 300)


def test_counted_parameters_are_the_models() -> None:
    for name in ("spectra", "hash"):
        made = build(arm_of(name), SMALL, SPECTRA, 300)
        assert n_parameters(arm_of(name), SMALL, SPECTRA, 300) == sum(one.numel() for one in made.parameters())


def initial(name: str, **changed: int) -> dict[str, torch.Tensor]:
    return build(arm_of(name), SMALL.model_copy(update=changed), SPECTRA, 300).state_dict()


ROUTER_SHARED = {"spectra_no_gru": "expression", "spectra_no_expression": "gru.weight_hh_l0", "spectra_no_repulsion": "expression",
                 "spectra_no_ortho": "gru.bias_ih_l0"}


@pytest.mark.parametrize("width", [32, 20])
@pytest.mark.parametrize("name", ARMS)
def test_arms_of_a_seed_begin_alike_in_all_that_is_of_one_shape(name: str, width: int) -> None:
    base, one = initial(BASELINE), initial(name, intermediate=width)
    alike = [key for key in base if key in one and base[key].shape == one[key].shape and ".gate." not in key]
    expected = {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.1.self_attn.q_proj.weight",
                "model.layers.1.self_attn.o_proj.weight", "model.layers.1.post_attention_layernorm.weight"}
    assert expected <= set(alike)
    assert ("model.layers.1.mlp.experts.down_proj" in alike) is (width == 32)
    assert [key for key in alike if not torch.equal(base[key], one[key])] == []
    if name in ("switch_top1", "expert_choice"):
        assert all(torch.equal(base[f"model.layers.{n}.mlp.gate.weight"], one[f"model.layers.{n}.mlp.gate.weight"]) for n in range(2))
    if name in ROUTER_SHARED:
        full = initial(TREATMENT)
        key = f"model.layers.1.mlp.gate.{ROUTER_SHARED[name]}"
        assert torch.equal(full[key], one[key])


def test_layers_and_seeds_begin_unlike_with_the_spread_of_the_model() -> None:
    one, other = initial(TREATMENT), initial(TREATMENT, seed=4)
    drawn = [key for key, value in one.items() if "norm" not in key]
    assert [key for key in drawn if torch.equal(one[key], other[key])] == []
    assert not torch.equal(one["model.layers.0.mlp.experts.down_proj"], one["model.layers.1.mlp.experts.down_proj"])
    assert not torch.equal(one["model.layers.0.mlp.gate.expression"], one["model.layers.1.mlp.gate.expression"])
    assert float(one["lm_head.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert not one["model.embed_tokens.weight"][PAD_ID].any()
    tall = one["model.layers.1.mlp.gate.expression"]
    assert torch.allclose(tall @ tall.T, torch.eye(16), atol=1e-5)


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    build(arm_of("hash"), SMALL, SPECTRA, 300)
    assert torch.equal(torch.rand(3), want)


def test_what_differs_is_said() -> None:
    assert differences(arm_of("spectra"), 1000, 1005, 2) == ()
    assert differences(arm_of("spectra"), 1000, 1050, 2) == ("parameters: 1,000 against 1,050 (-4.8%), more than 1% apart",)
    assert differences(arm_of("switch_top1"), 1000, 1000, 2) == ("experts a token: 1 against 2, so that fewer parameters are active",)
    assert differences(arm_of("expert_choice"), 1000, 1000, 2)[0].startswith("not causal")


def test_an_ablation_changes_one_option() -> None:
    full = router_options(arm_of("spectra"), SMALL, SPECTRA)
    for name, option in (("spectra_no_gru", "gru"), ("spectra_no_expression", "expression"), ("spectra_no_repulsion", "repulsion"),
                         ("spectra_no_ortho", "lambda_ortho")):
        ablated = router_options(arm_of(name), SMALL, SPECTRA)
        assert {key for key in ablated | full if ablated.get(key) != full.get(key)} == {option}
        assert not ablated[option]


def test_an_unknown_arm_is_named() -> None:
    with pytest.raises(TestbedError, match="no arm named 'spectral'; known: switch_top1"):
        arm_of("spectral")
