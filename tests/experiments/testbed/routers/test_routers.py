from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from experiments.testbed.model import next_token_loss
from experiments.testbed.routers import register
from experiments.testbed.routers.modeling import routers_of
from experiments.testbed.routers.router import Pass, Router
from experiments.testbed.routers.spectra import SpectraRouter
from experiments.testbed.routers.transport import capacity, marginal_misfit

from .small_models import ARMS, PAD, VOCABULARY, WIDTH, E, K, config, decided, model, token_ids


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spectra_router(seed: int = 0, layer: int = 0, **options: Any) -> SpectraRouter:
    torch.manual_seed(seed)
    router = SpectraRouter(config("spectra", router_options={"dimension": 10, **options}), layer, Pass())
    with torch.no_grad():
        router.draw_weights()
    return router


@pytest.mark.parametrize("arm", ARMS)
def test_every_parameter_learns(arm: str) -> None:
    made = model(arm).train()
    ids = token_ids()
    loss = next_token_loss(made(input_ids=ids, use_cache=False).logits, ids, ids != PAD)
    for router in routers_of(made):
        for weight, value in router.terms.loss.values():
            loss = loss + weight * value
    loss.backward()
    still = [name for name, one in made.named_parameters() if one.grad is None or not bool((one.grad != 0).any())]
    assert not still
    assert all(bool(torch.isfinite(one.grad).all()) for one in made.parameters())


@pytest.mark.parametrize("arm", ARMS)
def test_a_saved_model_is_the_same_when_loaded(arm: str, tmp_path: Path) -> None:
    register()
    made = model(arm).eval()
    made.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(made)
    ids = token_ids()
    with torch.no_grad():
        one, other = (m(input_ids=ids, use_cache=False, output_router_logits=True) for m in (made, loaded))
    assert torch.equal(one.logits, other.logits)
    assert all(torch.equal(a, b) for a, b in zip(one.router_logits, other.router_logits, strict=True))
    assert len(one.router_logits) == 3


@pytest.mark.parametrize("arm", [name for name in ARMS if name != "expert_choice"])
def test_a_later_token_changes_nothing_before_it(arm: str) -> None:
    made = model(arm).eval()
    ids = token_ids()
    changed = ids.clone()
    changed[:, 15] = 3 + (changed[:, 15] - 2) % (VOCABULARY - 3)
    with torch.no_grad():
        a, b = (made(input_ids=one, use_cache=False).logits for one in (ids, changed))
    assert torch.allclose(a[:, :15], b[:, :15], atol=1e-5)
    assert not torch.allclose(a[:, 15:], b[:, 15:], atol=1e-3)
    with torch.no_grad():
        alone = made(input_ids=ids[:1], use_cache=False).logits
    assert torch.allclose(alone, a[:1], atol=1e-4)  # nor does another sequence


@pytest.mark.parametrize(("arm", "more"), [("expert_choice", {}), ("spectra", {"router_options": {"dimension": 10, "sinkhorn_inference": True}})])
def test_routing_over_a_batch_sees_later_tokens_and_says_so(arm: str, more: dict[str, Any]) -> None:
    made = model(arm, **more).eval()
    assert all(not router.causal and router.mixes_rows for router in routers_of(made))
    ids = token_ids(length=16)
    changed = torch.cat((ids[:, :8], token_ids(length=8, seed=9)), dim=1)
    before, after = (decided(made, one)[0] for one in (ids, changed))
    first = torch.arange(3 * 16).view(3, 16)[:, :8].flatten()
    assert not torch.allclose(before[1][first], after[1][first], atol=1e-4)


@pytest.mark.parametrize("arm", ARMS)
def test_padding_changes_no_real_token_and_takes_part_in_no_loss(arm: str) -> None:
    made = model(arm)
    ids = token_ids(batch=2, length=10)
    padded = torch.cat((ids, torch.full((2, 6), PAD)), dim=1)
    for mode in (made.eval(), made.train()):
        with torch.no_grad():
            a, b = (mode(input_ids=one, use_cache=False).logits[:, :10] for one in (ids, padded))
            terms = [[float(value) for _, value in router.terms.loss.values()] for router in routers_of(made)]
            mode(input_ids=ids, use_cache=False)
            bare = [[float(value) for _, value in router.terms.loss.values()] for router in routers_of(made)]
        assert torch.allclose(a, b, atol=1e-4)
        assert np.array(terms, dtype=object).tolist() == [pytest.approx(one, abs=1e-4) for one in bare]


def test_experts_are_run_in_groups_with_the_results_of_one_after_the_other() -> None:
    made, ids = model("spectra"), token_ids()
    assert made.config._experts_implementation == "grouped_mm"
    with torch.no_grad():
        grouped = made(input_ids=ids).logits
        made.set_experts_implementation("eager")
        assert torch.allclose(made(input_ids=ids).logits, grouped, atol=1e-4)


def test_the_projector_is_orthogonal_at_first() -> None:
    tall = spectra_router().expression.detach()  # [80, 32]
    assert torch.allclose(tall.T @ tall, torch.eye(WIDTH), atol=1e-5)
    wide = spectra_router(dimension=3).expression.detach()  # [24, 32]
    assert torch.allclose(wide @ wide.T, torch.eye(24), atol=1e-5)
    constant = spectra_router(expression=False).offers.detach()
    assert torch.allclose(constant @ constant.T, torch.eye(E), atol=1e-5)
    drawn = [router.expression.detach() for router in routers_of(model("spectra"))]  # as the model draws it, post_init included
    assert all(torch.allclose(one.T @ one, torch.eye(WIDTH), atol=1e-5) for one in drawn)


def test_evaluation_is_a_softmax_of_cosines_with_the_gru_written_out() -> None:
    """PyTorch's documentation of nn.GRU: r, z, n; n = tanh(W x + b + r (U h + c)); h = (1 - z) n + z h."""
    router = spectra_router(layer=0).eval()
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))
    scores, weights, ids = router(x)
    w, u, b, c = (getattr(router.gru, name).detach().double().numpy() for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))
    projector = router.expression.detach().double().numpy().reshape(E, 10, WIDTH)
    for sequence in range(2):
        h = np.zeros(10)
        for place in range(5):
            vector = x[sequence, place].double().numpy()
            i, j = np.split(w @ vector + b, 3), np.split(u @ h + c, 3)
            reset, update = (1 / (1 + np.exp(-(i[n] + j[n]))) for n in (0, 1))
            h = (1 - update) * np.tanh(i[2] + reset * j[2]) + update * h
            offered = projector @ vector
            cosines = offered @ h / np.linalg.norm(offered, axis=1) / np.linalg.norm(h)
            row = sequence * 5 + place
            assert scores[row].detach().numpy() == pytest.approx(cosines / 0.05, abs=1e-3)
            p = np.exp(cosines / 0.05 - (cosines / 0.05).max())
            best = np.argsort(-p)[:K]
            assert ids[row].tolist() == best.tolist()
            assert weights[row].detach().numpy() == pytest.approx(p[best] / p[best].sum(), abs=1e-3)


def test_the_hidden_state_goes_from_layer_to_layer_token_by_token() -> None:
    made = model("spectra").eval()
    ids = token_ids()
    heard: list[torch.Tensor] = []
    gru = routers_of(made)[1].gru
    handle = gru.register_forward_pre_hook(lambda _m, args: heard.append(args[0].detach()))
    left: list[torch.Tensor] = []
    below = routers_of(made)[0].gru.register_forward_hook(lambda _m, _a, output: left.append(output[0].detach()))
    with torch.no_grad():
        made(input_ids=ids, use_cache=False)
        before = decided(made, ids)
        routers_of(made)[0].gru.bias_hh_l0.add_(1.0)  # changes what the first layer hands on
        handed = made.model.shared
        after = decided(made, ids)
    handle.remove()
    below.remove()
    assert torch.equal(heard[0][..., WIDTH:], left[0])
    assert handed.handed.shape == (3, 24, 10)
    assert not torch.equal(before[1][0], after[1][0])
    assert routers_of(made)[0].gru.input_size == WIDTH  # the first layer has nothing below it: h_0 = 0


def test_training_routes_by_the_plan_and_evaluation_does_not() -> None:
    made = model("spectra", router_options={"dimension": 10, "iterations": 300})
    ids = token_ids()
    decided(made.eval(), ids)
    assert routers_of(made)[0].terms.plan_NE is None
    made.train()
    trained = decided(made, ids)
    plan = routers_of(made)[0].terms.plan_NE
    assert plan is not None
    assert torch.allclose(trained[0][0].exp(), plan, atol=1e-5)
    rows, columns = marginal_misfit(plan)
    assert rows < 1e-5
    assert columns < 1e-3
    assert set(routers_of(made)[0].terms.loss) == {"entropy", "ortho"}  # no balance loss


def test_without_repulsion_the_plan_is_another() -> None:
    x = torch.randn(2, 8, WIDTH, generator=torch.Generator().manual_seed(4))
    plans = []
    for weight in (0.0, 5.0):
        router = spectra_router(repulsion=weight).train()
        router(x)
        plans.append(router.terms.plan_NE)
    assert not torch.allclose(plans[0], plans[1], atol=1e-3)


def test_sinkhorn_in_evaluation_when_asked() -> None:
    x = torch.randn(1, 16, WIDTH, generator=torch.Generator().manual_seed(5))
    plain, mixed = (spectra_router(sinkhorn_inference=asked).eval() for asked in (False, True))
    assert not torch.equal(plain(x)[0], mixed(x)[0])
    assert torch.equal(mixed(x)[0], mixed.train()(x)[0])


def test_quota_limits_the_load_in_training() -> None:
    router = spectra_router(quota=True, eps=1.0, iterations=1).train()
    x = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(6)).expand(4, 10, WIDTH)  # all tokens alike: all want the same
    _, weights, ids, kept = router(x)
    loads = torch.bincount(ids[weights > 0], minlength=E)
    assert torch.equal(kept, weights > 0)
    assert int(loads.max()) <= capacity(40, K, E, 1.25)
    assert torch.allclose(weights.sum(dim=1), torch.ones(40), atol=1e-5)


def test_an_unknown_option_or_router_is_named() -> None:
    with pytest.raises(ValueError, match="lamda are no options of SPECTRA; known: dimension"):
        spectra_router(lamda=1)
    with pytest.raises(ValueError, match=r"config.router = 'spectral': no such router; known: switch"):
        made = config("spectra")
        made.router = "spectral"
        from experiments.testbed.routers.modeling import RoutedMixtralModel

        RoutedMixtralModel(made)


def test_a_router_that_reads_sequences_refuses_a_cache() -> None:
    made = model("spectra").eval()
    with torch.no_grad():
        first = made(input_ids=token_ids(), use_cache=True)
        with pytest.raises(ValueError, match="reads whole sequences: call the model with use_cache=False"):
            made(input_ids=token_ids(length=1), past_key_values=first.past_key_values)


def test_hash_routing_looks_at_token_ids_alone() -> None:
    made = model("hash").eval()
    ids = token_ids()
    for number, (scores, weights, chosen) in enumerate(decided(made, ids)):
        table = routers_of(made)[number].table
        assert torch.equal(chosen, table[ids.flatten()])
        assert weights[0].tolist() == pytest.approx([2 / 3, 1 / 3])
        assert torch.allclose(scores.sum(dim=1), torch.ones(len(scores)))
    tables = [router.table for router in routers_of(made)]
    assert not torch.equal(tables[0], tables[1])
    assert all(len(set(row.tolist())) == K for row in tables[0])
    counts = torch.bincount(tables[0].flatten(), minlength=E)
    assert int(counts.min()) > 0.6 * VOCABULARY * K / E
    with pytest.raises(ValueError, match="needs token ids"):
        made(inputs_embeds=torch.randn(1, 3, WIDTH))


def test_expert_choice_gives_each_expert_its_tokens() -> None:
    made = model("expert_choice").eval()
    scores, weights, ids, kept = decided(made, token_ids())[0]
    p = torch.softmax(scores, dim=1)
    room = capacity(72, K, E, 1.25)
    for expert in range(E):
        best = set(p[:, expert].topk(room).indices.tolist())
        took = set(torch.nonzero(((ids == expert) & kept).any(dim=1)).flatten().tolist())
        assert took <= best
        assert all(int((kept[token]).sum()) == 2 * K for token in best - took)  # left out only by the limit of experts a token
    assert torch.equal(weights[~kept], torch.zeros(int((~kept).sum())))
    assert torch.allclose(weights[kept], p.gather(1, ids)[kept])


def test_top_1_keeps_its_probability_as_weight() -> None:
    made = model("switch", num_experts_per_tok=1).eval()
    scores, weights, ids = decided(made, token_ids())[0]
    assert torch.allclose(weights[:, 0], torch.softmax(scores, dim=1).amax(dim=1))
    assert torch.equal(ids[:, 0], scores.argmax(dim=1))


def test_the_balance_loss_is_one_for_even_routing() -> None:
    router = routers_of(model("switch"))[0].train()
    with torch.no_grad():
        router.weight.zero_()
    router(torch.randn(2, 9, WIDTH))
    assert float(router.terms.loss["balance"][1].detach()) == pytest.approx(1.0)


def test_frozen_weights_are_no_parameters() -> None:
    made = model("random")
    assert not [name for name, _ in made.named_parameters() if ".gate." in name]
    assert all(isinstance(router, Router) for router in routers_of(made))
    assert float(routers_of(made)[0].weight.std()) == pytest.approx(WIDTH**-0.5, rel=0.2)
