import pytest
import torch

from experiments.specs import TestbedSpec
from experiments.testbed.arms import ARMS, TOLERANCE, arm_of, build, differences, matched, n_parameters, router_options
from experiments.testbed.campaign_spec import SpectraSpec
from experiments.testbed.recipe import TestbedError
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


def test_arms_of_a_seed_begin_alike_but_for_router_and_width() -> None:
    a, b = (dict(build(arm_of(name), SMALL, SPECTRA, 300).named_parameters()) for name in (BASELINE, "spectra"))
    other = dict(build(arm_of(BASELINE), SMALL.model_copy(update={"seed": 4}), SPECTRA, 300).named_parameters())
    shared = [name for name in a if ".gate." not in name]
    assert len(shared) > 10
    assert all(torch.equal(a[name], b[name]) for name in shared)
    assert not torch.equal(a["lm_head.weight"], other["lm_head.weight"])


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
