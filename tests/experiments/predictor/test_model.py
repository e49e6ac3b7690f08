import math

import numpy as np
import pytest
import torch

from analysis.planes import Planes
from experiments.predictor.layout import lay_out, slots
from experiments.predictor.model import Predictor, attention_plan, build, guesses, loss_of, scores_of
from experiments.predictor.spec import PredictorSpec

from .planted import LAYERS, metas, planted_trace, replaced, source_planes

SPECS = {
    "two blocks": PredictorSpec(hidden=12, heads=2, blocks=2, context_tokens=8, device="cpu"),
    "one block": PredictorSpec(hidden=12, heads=3, blocks=1, context_tokens=5, device="cpu"),
    "three blocks": PredictorSpec(hidden=8, heads=1, blocks=3, context_tokens=9, device="cpu"),
}


def loud(spec: PredictorSpec, layers: tuple = metas()) -> Predictor:
    """A predictor in which everything that may matter does."""
    model = build(spec, layers)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def scores(model: Predictor, planes: Planes, spec: PredictorSpec, size: int = 10**6, warm: int = 0) -> np.ndarray:
    table = torch.from_numpy(slots(planes))
    parts = []
    with torch.inference_mode():
        for batch, n_warm in lay_out(planes, range(len(planes.document)), spec.reach).batches(size, warm):
            parts.append(scores_of(model, table, batch, n_warm)[0].numpy())
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def planes() -> Planes:
    return source_planes(planted_trace(3, n_documents=8, tokens=(17, 33)))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_slot_changes_only_what_comes_after_it_within_the_window(name: str, layer: int, planes: Planes) -> None:
    spec = SPECS[name]
    model = loud(spec)
    before = scores(model, planes, spec)
    row = int(planes.starts[1]) + 6  # of the second document
    changed = ~np.isclose(before, scores(model, replaced(planes, layer, [row]), spec), atol=1e-6, equal_nan=True).all(axis=2)
    assert not changed[:row].any()
    assert not changed[row, : layer + 1].any()  # its own layer and those below
    assert not changed[row + spec.context_tokens + 1:].any()
    assert not changed[planes.starts[2]:].any()  # the next document
    assert changed[row, layer + 1:].all() and changed[row + 1].all()
    assert changed[row + 1: row + spec.blocks * (spec.reach - 1) + 1].all()  # as far as the window reaches


@pytest.mark.parametrize("name", SPECS)
def test_earlier_scores_keep_every_bit(name: str, planes: Planes) -> None:
    spec = SPECS[name]
    model = loud(spec)
    row = int(planes.starts[1]) + 6
    before, after = scores(model, planes, spec), scores(model, replaced(planes, 1, np.arange(row, len(planes))), spec)
    assert np.array_equal(before[:row], after[:row])
    assert np.array_equal(before[row, :2], after[row, :2])


@pytest.mark.parametrize("name", SPECS)
def test_without_cross_layer_attention_only_the_own_past_matters(name: str, planes: Planes) -> None:
    spec = SPECS[name].ablated()
    model = loud(spec)
    before = scores(model, planes, spec)
    row = int(planes.starts[1]) + 6
    for layer in range(3):
        after = scores(model, replaced(planes, layer, [row]), spec)
        others = [index for index in range(3) if index != layer]
        assert np.array_equal(before[:, others], after[:, others])
        changed = ~np.isclose(before[:, layer], after[:, layer], atol=1e-6, equal_nan=True).all(axis=1)
        assert not changed[: row + 1].any() and not changed[row + spec.context_tokens + 1:].any()
        assert changed[row + 1: row + spec.blocks * (spec.reach - 1) + 1].all()


@pytest.mark.parametrize("across", [True, False])
def test_a_document_is_scored_alike_alone_and_among_others(across: bool, planes: Planes) -> None:
    spec = SPECS["two blocks"].model_copy(update={"cross_layer_attention": across})
    model = loud(spec)
    together = scores(model, planes, spec)
    for place in range(len(planes.document)):
        start, end = planes.starts[place], planes.starts[place + 1]
        alone = Planes(planes.layers, tuple(ids[:, start:end] for ids in planes.ids), None, planes.position[start:end],
                       np.array([0, end - start]), planes.document[place: place + 1])
        assert np.allclose(scores(model, alone, spec), together[start:end], atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("across", [True, False])
def test_batches_with_warm_blocks_give_the_scores_of_the_whole(name: str, across: bool, planes: Planes) -> None:
    spec = SPECS[name].model_copy(update={"cross_layer_attention": across})
    model = loud(spec)
    whole = scores(model, planes, spec)
    assert np.allclose(scores(model, planes, spec, size=3, warm=spec.blocks), whole, atol=1e-5)


def test_experts_that_a_layer_has_not_are_never_guessed(planes: Planes) -> None:
    spec = SPECS["two blocks"]
    found = scores(loud(spec), planes, spec)
    for index, (n_experts, _) in enumerate(LAYERS):
        assert np.isfinite(found[:, index, :n_experts]).all() and np.isneginf(found[:, index, n_experts:]).all()
    best = guesses(torch.from_numpy(found), 6).numpy()
    assert (best < 8).all() and (best[:, 2] < 6).all()


def test_ties_go_to_the_lowest_id() -> None:
    assert guesses(torch.tensor([[[1.0, 3.0, 3.0, 2.0]]]), 3).tolist() == [[[1, 2, 3]]]


def test_the_first_choice_is_told_from_the_rest_of_the_set() -> None:
    planes = source_planes(planted_trace(3, n_documents=4))
    spec = SPECS["one block"]
    model = loud(spec)
    turned = Planes(planes.layers, (planes.ids[0][::-1].copy(), *planes.ids[1:]), None, planes.position, planes.starts, planes.document)
    swapped = Planes(planes.layers, (*planes.ids[:2], planes.ids[2][[0, 2, 1]]), None, planes.position, planes.starts, planes.document)
    before = scores(model, planes, spec)
    assert not np.allclose(before[:, 1, :8], scores(model, turned, spec)[:, 1, :8])
    assert np.allclose(before, scores(model, swapped, spec), atol=1e-5)  # the others are a set


def test_loss_is_the_first_choice_and_the_others_given_it() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]], dtype=torch.float64))
    assert float(loss_of(logits, torch.tensor([[0]]), 0.5)) == pytest.approx(-math.log(0.5))
    rest = -(math.log(0.2 / 0.5) + math.log(0.1 / 0.5)) / 2
    for ids in ([[0, 1, 3]], [[0, 3, 1]]):
        assert float(loss_of(logits, torch.tensor(ids), 0.5)) == pytest.approx(-math.log(0.5) + 0.5 * rest)
    assert float(loss_of(logits, torch.tensor([[0, 1, 3]]), 0.0)) == pytest.approx(-math.log(0.5))


@pytest.mark.parametrize("across", [True, False])
def test_the_plan_of_attention_by_hand(across: bool) -> None:
    reach, n_layers = 3, 2
    visible, place = attention_plan(reach, n_layers, across)
    per_token = n_layers if across else 1
    assert visible.shape == (reach * per_token, 2 * reach * per_token) and place.shape == (1 if across else n_layers, *visible.shape)
    seen = {}
    for query in range(visible.shape[0]):
        for key in range(visible.shape[1]):
            token, own = divmod(query, per_token)
            back, other = token + reach - key // per_token, key % per_token
            assert bool(visible[query, key]) == (0 <= back < reach and (back > 0 or other <= own))
            for group in range(len(place)):
                if visible[query, key]:
                    kind = (back, own, other) if across else (back, group)
                    assert seen.setdefault(int(place[group, query, key]), kind) == kind  # one bias for one relation
    assert len(set(seen.values())) == len(seen)


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    build(SPECS["one block"], metas())
    assert torch.equal(torch.rand(1), want)
