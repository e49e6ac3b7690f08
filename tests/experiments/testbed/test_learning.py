import pytest

from experiments.specs import TestbedSpec
from experiments.testbed.learning import learning_rate, optimizer_of
from experiments.testbed.model import build

from .small_corpus import SMALL


def test_the_rate_warms_up_stays_and_falls_to_a_twentieth() -> None:
    spec = TestbedSpec(steps=300, lr=1.0)
    rates = [learning_rate(step, spec) for step in range(300)]
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[49:180] == [1.0] * 131
    assert rates[239] == pytest.approx(1 - 0.95 * 0.5)
    assert rates[299] == pytest.approx(0.05)
    assert all(a >= b for a, b in zip(rates[50:], rates[51:]))


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_short_runs_have_a_rate_too(steps: int) -> None:
    assert all(0 < learning_rate(step, TestbedSpec(steps=steps, lr=1.0)) <= 1 for step in range(steps))


def test_routers_and_norms_do_not_decay() -> None:
    model = build(SMALL, 300)
    groups = optimizer_of(model, SMALL).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    by_name = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert {name for name, rate in by_name.items() if rate == 0} == {
        name for name in by_name if name.endswith(("norm.weight", "mlp.gate.weight"))
    }
    assert sum(rate == 0 for rate in by_name.values()) == 1 + 3 * SMALL.layers  # the last norm; two norms and a router a layer
