import numpy as np
import pytest
import torch

from experiments.testbed.held_out import load_of
from experiments.testbed.model import balance_loss, build, next_token_loss, routers_heard

from .small_corpus import SMALL


def test_balance_loss_is_one_when_balanced_and_e_when_collapsed() -> None:
    everything = torch.ones(8, dtype=torch.bool)
    even = torch.zeros(8, 4)
    assert balance_loss(even, torch.arange(8)[:, None] % 4, everything).item() == pytest.approx(1.0)
    one = torch.full((8, 4), -50.0)
    one[:, 2] = 50.0
    assert balance_loss(one, torch.full((8, 1), 2), everything).item() == pytest.approx(4.0)


def test_balance_loss_leaves_padding_out() -> None:
    torch.manual_seed(0)
    logits = torch.randn(10, 4)
    experts = logits.topk(2).indices
    real = torch.arange(10) < 6
    assert torch.equal(balance_loss(logits, experts, real), balance_loss(logits[:6], experts[:6], real[:6]))


def test_layers_balanced_only_together_are_seen_as_unbalanced() -> None:
    # each layer sends all tokens to its own half of the experts; pooled over layers the load looks even, which is why the loss is per layer
    left, right = torch.full((8, 4), -20.0), torch.full((8, 4), -20.0)
    left[:, :2], right[:, 2:] = 20.0, 20.0
    real = torch.ones(8, dtype=torch.bool)
    losses = [balance_loss(logits, logits.topk(2).indices, real).item() for logits in (left, right)]
    assert losses == pytest.approx([2.0, 2.0])


def test_right_padding_without_a_mask_is_the_masked_loss() -> None:
    model = build(SMALL, 300)
    torch.manual_seed(1)
    ids = torch.randint(2, 300, (3, 20))
    lengths = torch.tensor([20, 11, 2])
    real = torch.arange(20) < lengths[:, None]
    with torch.no_grad():
        plain = next_token_loss(model(input_ids=ids, use_cache=False).logits, ids, real)
        masked = next_token_loss(model(input_ids=ids, attention_mask=real.long(), use_cache=False).logits, ids, real)
        alone = [model(input_ids=ids[i : i + 1, :n], use_cache=False).logits[0] for i, n in enumerate(lengths)]
    pairs = [(own[:-1], ids[i, 1:n]) for i, (own, n) in enumerate(zip(alone, lengths))]
    by_hand = torch.cat([torch.nn.functional.cross_entropy(logits, labels, reduction="none") for logits, labels in pairs])
    assert plain.item() == pytest.approx(masked.item(), abs=1e-6)
    assert plain.item() == pytest.approx(by_hand.mean().item(), abs=1e-5)


def test_weights_come_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = build(SMALL, 300), build(SMALL, 300), build(SMALL.model_copy(update={"seed": 4}), 300)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_routers_are_heard_in_layer_order_and_only_within_the_block() -> None:
    model = build(SMALL, 300)
    with routers_heard(model) as heard, torch.no_grad():
        for n in (5, 9):
            hidden = model(input_ids=torch.full((1, n), 7), use_cache=False, output_router_logits=True).router_logits
            assert [logits.shape for logits, _ in heard] == [(n, 4)] * 2
            assert all(torch.equal(logits, theirs) for (logits, _), theirs in zip(heard, hidden))
    n_heard = len(heard)
    model(input_ids=torch.full((1, 3), 7), use_cache=False)
    assert len(heard) == n_heard == 2
    assert heard[0][0].shape[0] == 9


def test_load_of_known_counts() -> None:
    assert load_of(np.array([5, 5, 5, 5])) == {"usage_entropy": pytest.approx(1.0), "dead_share": 0.0, "counts": [5, 5, 5, 5]}
    assert load_of(np.array([8, 8, 0, 0]))["usage_entropy"] == pytest.approx(0.5)  # ln 2 / ln 4
    assert load_of(np.array([98, 98, 3, 1]))["dead_share"] == 0.5  # a tenth of the fair share of 50 is 5
    assert load_of(np.array([0, 0]))["usage_entropy"] is None
