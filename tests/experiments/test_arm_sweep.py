"""The sweep of SPECTRA's losses: what is stopped, what is on the front, what is chosen, and that a second call trains nothing anew."""

from __future__ import annotations

import math

import pytest

from experiments.arm_sweep import MedianRule, choose, sweep, to_json
from experiments.report.spectra_sweep import sweep_section
from experiments.report.topology_columns import View
from experiments.testbed.campaign_spec import ArmSweepSpec

SPEC = ArmSweepSpec(n_trials=12, eps=None)


class World:
    """More weight on orthogonality gives more bits and more loss; beyond a weight both get worse."""

    def __init__(self):
        self.trained, self.calls = {}, 0

    def train(self, knobs, steps):
        key = (tuple(sorted(knobs.items())), steps)
        if key not in self.trained:
            self.calls += 1
            ortho = math.log10(knobs["lambda_ortho"])
            bits = 0.5 + 0.1 * ortho if ortho < -1 else 0.1 - 0.1 * ortho
            nats = 4.7 + 0.05 * ortho + (2.0 if ortho > -1 else 0.0) + (1.0 if steps < 200 else 0.0) + knobs["lambda_entropy"]
            self.trained[key] = (bits, nats)
        return self.trained[key]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    world, directory = World(), tmp_path_factory.mktemp("sweep")
    return world, directory, sweep(SPEC, directory, 0, world.train)


def test_the_declared_number_of_trials_is_complete_and_stopped_ones_are_never_on_the_front(swept):
    _, _, outcome = swept
    assert outcome.n_complete == 12
    assert outcome.n_pruned == sum(one["state"] == "pruned" for one in outcome.trials) > 0
    assert not [one for one in outcome.trials if one["state"] == "pruned" and one["on_front"]]
    assert all(one["reason"] for one in outcome.trials if one["state"] == "pruned")


def test_the_front_is_what_no_complete_trial_beats(swept):
    complete = [one for one in swept[2].trials if one["state"] == "complete"]
    for one in complete:
        beaten = any(other["mi_E_D"] >= one["mi_E_D"] and other["loss"] <= one["loss"]
                     and (other["mi_E_D"], -other["loss"]) != (one["mi_E_D"], -one["loss"]) for other in complete)
        assert one["on_front"] is not beaten


def test_a_second_call_trains_nothing_and_says_the_same(swept):
    world, directory, outcome = swept
    before = world.calls
    again = sweep(SPEC, directory, 0, world.train)
    assert world.calls == before
    assert to_json(again) == to_json(outcome)


def test_the_chosen_point_has_most_information_at_a_loss_within_the_margin():
    trials = [{"mi_E_D": bits, "loss": nats, "state": state, "on_front": state == "complete", "reason": ""}
              for bits, nats, state in ((0.3, 4.70, "complete"), (0.4, 4.74, "complete"), (0.9, 4.80, "complete"), (2.0, 4.7, "pruned"))]
    assert choose(trials, 0.05) == {"mi_E_D": 0.4, "loss": 4.74}
    assert choose([trials[-1]], 0.05) is None


def test_nothing_is_stopped_before_there_is_a_history():
    rule = MedianRule()
    assert [rule.stop((1.0 - 0.1 * i, 4.0 + 0.1 * i)) for i in range(4)] == [None] * 4
    assert "below the median of 4 trials" in rule.stop((0.1, 9.0))
    assert rule.stop((0.1, 1.0)) is None  # worse in one objective is not worse


def test_the_report_shows_every_trial(swept):
    class Content:
        sweep = to_json(swept[2])

    section = sweep_section(View(Content()))
    table = next(block for block in section.blocks if getattr(block, "name", "") == "sweep_trials")
    assert len(table.rows) == len(swept[2].trials)
