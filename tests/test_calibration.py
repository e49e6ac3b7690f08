"""The calibration suite judges as it says, does not depend on processes, and in a short run passes sound methods and catches wrong ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.calibration.__main__ import main, markdown
from tests.calibration.checks import COVERAGE, SIZE, Claim, Outcome, Study, every, n_replicates, outcome, outcomes, size

STUDIES = every()


def draws(p: float, *claims: Claim, replicates: int = 2000) -> Study:
    return Study("draws", "a coin", claims, lambda rng: [rng.random() < p for _ in claims], replicates)


def test_a_frequency_outside_its_window_fails_and_a_mutant_must_be_outside() -> None:
    sound, wrong = outcome(draws(0.95, Claim("interval")))[0], outcome(draws(0.85, Claim("interval")))[0]
    assert sound.passed and not wrong.passed
    assert outcome(draws(0.85, Claim("interval", mutant=True)))[0].passed and not outcome(draws(0.95, Claim("interval", mutant=True)))[0].passed
    assert not outcome(draws(0.999, Claim("interval")))[0].passed  # an interval that always covers is off as well
    assert outcome(draws(0.0, size("test")))[0].passed and not outcome(draws(0.1, size("test")))[0].passed


@pytest.mark.parametrize("window", [COVERAGE, SIZE, (0.0, 1.0), (0.6, 0.7)])
@pytest.mark.parametrize("n", [100, 2000])
def test_a_window_is_widened_by_three_errors_of_a_frequency_at_its_end(window: tuple[float, float], n: int) -> None:
    low, high = Outcome(draws(0.5, Claim("any")), Claim("any", window=window), n, 0.5).allowed
    assert low == pytest.approx(max(0.0, window[0] - 3 * (window[0] * (1 - window[0]) / n) ** 0.5))
    assert high == pytest.approx(min(1.0, window[1] + 3 * (window[1] * (1 - window[1]) / n) ** 0.5))


def test_too_few_replicates_and_answers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="399 replicates; interval needs 400"):
        draws(0.5, Claim("interval"), replicates=399)
    with pytest.raises(ValueError, match="needs 2000"):
        draws(0.5, size("test"), replicates=1999)
    draws(0.5, size("test", mutant=True), replicates=100)  # a wrong method is off by far
    for answer in ([1.5], [True, True], [float("nan")]):
        with pytest.raises(ValueError, match="give each a number in"):
            outcome(replace(draws(0.5, Claim("interval")), run=lambda rng, answer=answer: answer), 0.001)


def test_a_replicate_depends_on_seed_study_and_number_alone() -> None:
    seen: list[float] = []

    def run(rng: np.random.Generator) -> list[float]:
        seen.append(rng.random())
        return [seen[-1]]

    study = Study("numbers", "", (Claim("mean"),), run, 400)
    whole = outcome(study, 0.1)[0]
    first = list(seen)
    assert len(first) == n_replicates(study, 0.1) == 40 and len(set(first)) == 40 and whole.frequency == pytest.approx(np.mean(first), abs=1e-6)
    outcome(study, 0.2)
    assert seen[40:80] == first
    outcome(study, 0.1, seed=1)
    outcome(replace(study, name="others"), 0.1)
    assert len(set(seen)) == 40 + 40 + 40 + 40


def test_processes_change_no_outcome() -> None:
    names = ["at the margin", "specialists"]
    one, two = (list(outcomes(names, 0.01, seed=5, processes=processes)) for processes in (1, 2))
    assert [(x.claim.name, x.replicates, x.frequency) for x in one] == [(x.claim.name, x.replicates, x.frequency) for x in two]
    assert {x.study.name for x in one} == set(names)


def test_every_claim_says_what_it_allows_and_why() -> None:
    for study in STUDIES.values():
        assert study.world and study.claims and len({claim.name for claim in study.claims}) == len(study.claims)
        for claim in study.claims:
            low, high = claim.window
            assert 0 <= low < high <= 1 and claim.source
            own = SIZE if claim.kind != "coverage" else COVERAGE
            assert claim.limit or claim.mutant or high - own[1] <= 0.026 and own[0] - low <= 0.045, (study.name, claim.name)


def test_what_has_to_be_calibrated_is() -> None:
    sound = " | ".join(claim.name for study in STUDIES.values() for claim in study.claims if not claim.mutant)
    wrong = " | ".join(claim.name for study in STUDIES.values() for claim in study.claims if claim.mutant)
    for name in ("mean entropy", "mi_first_choice", "mi_slot_average", "mean of mi_first_choice", "mi_excess", "mi_given_type", "mi_E_D",
                 "V_squared", "specialisation_e", "purity_cross_fitted", "lag_kappa", "lag_mi", "transfer_info", "transfer_ratio", "retention",
                 "predictor_mi", "predictor_gain", "type_aligned_mi", "freq_entropy_rho", "fastpath_coverage", "diversity_jsd", "mi_E_V",
                 "influence", "decomposition", "poisson", "multinomial", "t interval over seeds", "sign flips", "circular shift", "Rao-Scott",
                 "permutation of document labels", "Holm", "maxT", "BH", "one-sided tests"):
        assert name in sound, name
    for name in ("token bootstrap: mean entropy", "token bootstrap: mi_first_choice", "chi-square of tokens", "percentiles of document replicates",
                 "shuffle over all tokens", "whole documents swapped", "t test over tokens", "in-sample", "plug-in T", "clipped at 0"):
        assert name in wrong, name


SHORT = {  # replicates of a study in this short run; wrong methods that are off by little need more and are left to `make calibrate`
    "30 documents": 100, "tokens as if independent": 30, "association, 5 domains of 20 documents": 100, "domains of 40 documents": 80,
    "no specialisation": 60, "purity without specialisation": 40, "specialists": 60, "five layers": 60, "forty pairs without coupling": 30,
    "layers apart, sticky": 60, "wrong nulls, topics": 15, "wrong nulls, sticky": 15, "coupling through the type": 15,
    "transfer, 16 experts, 10 tokens a cell": 60, "predictors, 30 documents": 60, "types and documents": 25, "fast path, 30 documents": 100,
    "poisson weights, 30 documents": 60, "equal methods": 400, "one seed each": 100, "at the margin": 200,
}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_passes_sound_methods_and_catches_wrong_ones(name: str) -> None:
    study = STUDIES[name]
    found = outcome(study, SHORT[name] / study.replicates)
    assert found[0].replicates == SHORT[name]
    assert [(one.claim.name, one.frequency) for one in found if not one.passed] == []


def test_the_command_writes_the_page_and_tells_by_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "calibration.md"
    assert main(["one seed each", "--share", "0.1", "--processes", "1", "--markdown", str(page), "--json", str(tmp_path / "found.json")]) == 0
    text = page.read_text(encoding="utf-8")
    assert "## Wrong methods that the suite must catch" in text and "| caught |" in text and "t test over tokens" in capsys.readouterr().out
    assert "100 replicates in 1 studies" in text.replace("\n", " ")
    with pytest.raises(SystemExit):
        main(["no such study"])


def test_the_page_separates_limits_and_says_what_is_off() -> None:
    known = outcome(draws(0.7, Claim("interval", window=(0.65, 0.75), limit="because"), Claim("other")))
    text = markdown(known, 60.0)
    methods, limits = text.split("## Known limits")
    assert "| other | a coin |" in methods and "| OFF |" in methods and "a coin. because" in limits and "| ok |" in limits
