"""The permuted control of SPECTRA as a test that can fail: what it deals, its size, and an estimator that it catches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.comparison import method_estimate
from hypotheses import spectra_evaluation
from hypotheses.h05_spectra import SPECTRA
from hypotheses.judge import judge
from hypotheses.spectra_controls import dealt_pairs, planted
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_method import checkpoint_change
from tests.hypotheses import spectra_worlds as worlds

SEEDS, DEALINGS = 5, 4_000
TOKEN_SE = 0.1  # standard error within a training over the spread between trainings: documents and tokens are many, trainings few


def rates(interval, rng):
    """Shares of dealings whose interval lies wholly below 0, and wholly above."""
    found = []
    for _ in range(DEALINGS):
        values = rng.standard_normal(SEEDS)
        low, high = interval(np.array([values[a] - values[b] for a, b in dealt_pairs(SEEDS, rng)]))
        found.append((high < 0, low > 0))
    return np.mean(found, axis=0)


def over_seeds(differences):
    made = method_estimate(differences, unit="cosine")
    return (-1.0, 1.0) if made.low is None else (made.low, made.high)  # undefined supports nothing


def over_tokens(differences):
    half = 1.96 * TOKEN_SE / np.sqrt(len(differences))
    return differences.mean() - half, differences.mean() + half


def test_two_trainings_are_dealt_to_every_seed_and_their_mean_difference_is_not_fixed():
    rng = np.random.default_rng(0)
    dealt = [dealt_pairs(SEEDS, rng) for _ in range(200)]
    assert all(a != b and max(a, b) < SEEDS for pairs in dealt for a, b in pairs)
    means = [np.mean([a - b for a, b in pairs]) for pairs in dealt]
    assert np.std(means) > 0.5  # of numbers 0 to 4; a circle without coins has 0
    assert dealt_pairs(1, rng) == [(0, 0)]


def test_intervals_over_seeds_keep_their_size_and_intervals_over_tokens_do_not():
    below, above = rates(over_seeds, np.random.default_rng(1))
    assert below + above < 0.055 + 3 * np.sqrt(0.055 * 0.945 / DEALINGS)  # 200,000 dealings: .055; neighbours in the circle share a training
    assert min(below, above) > 0.01  # of either sign
    assert min(rates(over_tokens, np.random.default_rng(1))) > 0.3


def token_level(pairs, name, *, gate, level):
    """The broken estimator: trainings pooled, and the interval taken from what varies inside them."""
    del gate
    found = [checkpoint_change(pair, name, gate=None, level=level)[-1] for pair in pairs]
    value = float(np.mean([one.value for one in found]))
    half = float(np.mean([one.half_width for one in found])) / np.sqrt(len(found))
    return [replace(found[0], value=value, low=value - half, high=value + half, gate=None)]


@pytest.fixture(scope="module")
def evidence():
    return worlds.null(worlds.World(layers=1, length=8, calibration=0), settings=SpectraSettings(judged_only=True, n_bootstrap=19))


def orthogonality_of(evidence, seed):
    """Status of the control and outcomes of its orthogonality criteria with outputs dealt from a seed."""
    control = planted(replace(evidence, settings=replace(evidence.settings, seed=seed)), "permuted")
    evaluation = spectra_evaluation.evaluate(control)
    finding = judge(SPECTRA, evaluation, controls={"permuted": evaluation})
    one = finding.controls["permuted"]
    return one["status"], {name: of["outcome"] for name, of in one["criteria"].items() if name.startswith("orthogonality")}


def test_the_control_fails_for_an_estimator_that_takes_tokens_as_units(evidence, monkeypatch):
    dealings = range(3, 6)  # of any estimator half of the differences go against the claim
    right = [orthogonality_of(evidence, seed) for seed in dealings]
    assert {status for status, _ in right} == {"passed"}
    monkeypatch.setattr(spectra_evaluation, "method_changes", token_level)
    broken = [orthogonality_of(evidence, seed) for seed in dealings]
    assert "failed" in {status for status, _ in broken}
    assert "supported" in {outcome for _, of in broken for outcome in of.values()}
