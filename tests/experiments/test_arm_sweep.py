"""The sweep of SPECTRA's losses: what is stopped, what is on the front, what is chosen, and that a second call trains nothing anew."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from experiments.arm_sweep import MedianRule, choose, sweep, to_json
from experiments.declaration import load
from experiments.report.spectra_sweep import _confirmed, sweep_section
from experiments.report.topology_columns import View
from experiments.stages import arm_sweep as stage
from experiments.testbed.campaign_spec import LEAST_TRIALS, ArmSweepSpec, SpectraSpec

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


def test_fewer_than_twelve_trials_are_a_sketch_and_the_full_profile_asks_for_twelve(tmp_path):
    few = sweep(ArmSweepSpec(n_trials=3, eps=None), tmp_path, 0, World().train)
    assert (few.n_complete, few.reason) == (3, "3 of 12 trials are complete: a sketch of the front")
    assert few.chosen is not None
    assert load("spectra", "full").campaign.sweep.n_trials >= LEAST_TRIALS == 12


def test_the_choice_is_confirmed_on_both_kinds_of_documents(tmp_path, monkeypatch):
    """Optimism is the chosen trial less fresh seeds on test documents; a part of it is there on the same documents already."""
    values = {("calibration", 1000): (0.5, 4.9), ("calibration", 1001): (0.7, 5.1), ("test", 1000): (0.2, 5.2), ("test", 1001): (0.4, 5.4)}
    chosen = {"lambda_ortho": 0.1, "mi_E_D": 0.8, "loss": 4.7}
    seen = []
    monkeypatch.setattr(stage, "_trained", lambda context, spectra, steps, seed: seen.append((spectra.lambda_ortho, steps)) or seed)
    monkeypatch.setattr(stage, "measured", lambda context, checkpoint, split: values[split, checkpoint])
    campaign = SimpleNamespace(sweep=ArmSweepSpec(steps=7, confirm_seeds=2))
    context = SimpleNamespace(experiment=SimpleNamespace(campaign=campaign, spectra=SpectraSpec()), directory=tmp_path,
                              read_json=lambda name: {"chosen": chosen, "knobs": ["lambda_ortho"]})
    (tmp_path / "sweep").mkdir()
    assert stage.confirm(context) == {"confirmed": True}
    found = json.loads((tmp_path / "sweep" / "confirmed.json").read_text())
    assert seen == [(0.1, 7)] * 2
    assert [found["confirmed"][name]["value"] for name in ("mi_E_D", "loss")] == pytest.approx([0.3, 5.3])
    assert found["optimism"] == pytest.approx({"mi_E_D": 0.5, "loss": -0.6})
    assert found["choosing"] == pytest.approx({"mi_E_D": 0.2, "loss": -0.3})
    (table,) = _confirmed({**found, "chosen": chosen, "knobs": ["lambda_ortho"]})
    (bits, nats) = table.rows
    assert [bits[1], bits[2].value, bits[3].value, bits[4], bits[5]] == pytest.approx([0.8, 0.6, 0.3, 0.2, 0.5])
    assert [nats[2].value, nats[3].value] == pytest.approx([5.0, 5.3])
    assert "1000, 1001; 7 steps each" in table.note
    assert "the difference between the documents" in table.note


def test_the_report_shows_every_trial(swept):
    class Content:
        sweep = to_json(swept[2])

    section = sweep_section(View(Content()))
    table = next(block for block in section.blocks if getattr(block, "name", "") == "sweep_trials")
    assert len(table.rows) == len(swept[2].trials)
