"""The GRU with its written-out gradient is torch's own."""

import pytest
import torch

from experiments.testbed.routers.modeling import routers_of
from experiments.testbed.routers.recurrence import SequenceGRU

from .small_models import model, token_ids


def both(length: int) -> tuple[SequenceGRU, torch.nn.GRU, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mine, torchs = SequenceGRU(6, 4).double(), torch.nn.GRU(6, 4, batch_first=True).double()
    mine.load_state_dict(torchs.state_dict())
    return mine, torchs, torch.randn(3, length, 6, dtype=torch.float64), torch.randn(3, length, 4, dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 7, 40])
def test_states_and_gradients_are_those_of_torch(length: int) -> None:
    mine, torchs, x, weight = both(length)
    found = []
    for gru in (mine, torchs):
        given = x.clone().requires_grad_()
        states, last = gru(given)
        assert torch.equal(last[0], states[:, -1])
        (states * weight).sum().backward()
        found.append([states, given.grad, *(one.grad for one in gru.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_gradients_are_those_of_differences() -> None:
    mine, _, x, _ = both(5)
    assert torch.autograd.gradcheck(lambda given: mine(given)[0], (x.requires_grad_(),))


def test_a_gradient_that_others_use_too_is_left_as_it_is() -> None:
    mine, _, x, weight = both(7)
    states, _ = mine(x.requires_grad_())
    given = weight.transpose(0, 1).contiguous().transpose(0, 1)  # laid out as the backward pass wants it
    before = given.clone()
    states.backward(given)
    assert torch.equal(given, before)


def test_without_gradients_it_is_torchs_and_the_router_uses_it() -> None:
    mine, torchs, x, _ = both(7)
    with torch.no_grad():
        assert torch.equal(mine(x)[0], torchs(x)[0])
    made = model("spectra")
    assert all(isinstance(router.gru, SequenceGRU) for router in routers_of(made))
    logits = made(input_ids=token_ids()).logits
    with torch.no_grad():
        assert torch.allclose(made(input_ids=token_ids()).logits, logits, atol=1e-4)
