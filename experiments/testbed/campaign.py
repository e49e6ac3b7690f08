"""Trains every arm with every seed, several at a time, each in its own resumable directory of the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.predictor.processes import work_side_by_side
from experiments.progress import Progress, Silent, Task
from experiments.specs import TestbedSpec
from experiments.testbed import material
from experiments.testbed.arms import arm_of, matched
from experiments.testbed.campaign_spec import CampaignSpec, SpectraSpec
from hypotheses.spectra_evidence import BASELINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.corpora.document import Corpus
    from experiments.testbed.arm_training import Training

    Ran = Callable[[], None]


@dataclass(frozen=True)
class Trained:
    """A finished training: arm, seed, and the checkpoint's directory."""

    arm: str
    seed: int
    directory: Path


def seeds_of(campaign: CampaignSpec, first: int) -> Mapping[str, tuple[int, ...]]:
    """Training seeds of each arm, in the declared order of arms; an arm named twice has the larger number."""
    named = {**dict.fromkeys(campaign.beside, campaign.seeds_beside), **dict.fromkeys(campaign.arms, campaign.seeds)}
    order = dict.fromkeys([*campaign.arms, *campaign.beside])
    return {name: tuple(range(first, first + named[name])) for name in order}


def plan(campaign: CampaignSpec, spec: TestbedSpec, spectra: SpectraSpec, prepared: Path, corpus: str) -> list[Training]:
    """Every training of the campaign, experts as wide as makes arms equally large. Raises TestbedError for an unknown arm."""
    from experiments.testbed.arm_training import Training

    vocabulary = int(material.about(prepared)["vocabulary"])
    fitted = {name: matched(arm_of(name), spec, spectra, vocabulary) for name in seeds_of(campaign, spec.seed)}
    return [Training(name, fitted[name].model_copy(update={"seed": seed}), spectra, corpus)
            for name, seeds in seeds_of(campaign, spec.seed).items() for seed in seeds]


def train_all(campaign: CampaignSpec, spec: TestbedSpec, spectra: SpectraSpec, corpus: Corpus, cache: Path, progress: Progress) -> list[Trained]:
    """Train what is not trained yet; checkpoints lie in `cache`, by recipe, and a killed training goes on after its last saved step.

    campaign.processes at a time, each on one thread, with the same bits as one after the other. Raises ShareError or TestbedError.
    """
    prepared = material.stored(spec, corpus, cache, progress)
    every = plan(campaign, spec, spectra, prepared, corpus.digest)
    waiting = [training for training in every if not (cache / training.name / "training.json").exists()]
    shares = deal(waiting, campaign.processes)
    if len(shares) > 1:
        with progress.stage("train arms", sum(training.spec.steps for training in waiting), "steps") as task:
            task.note(f"{len(waiting)} trainings")
            work_side_by_side(_train_share, [(share, prepared, cache) for share in shares], task.advance)
    for training in every if len(shares) < 2 else []:
        _train(training, prepared, cache, progress)
    return [Trained(training.arm, training.spec.seed, cache / training.name) for training in every]


def deal(trainings: Sequence[Training], processes: int) -> list[list[Training]]:
    """Shares of about equal work: arm by arm in turn, so that a slow arm is in every share. Empty shares are left out."""
    order = sorted(trainings, key=lambda training: (arm_of(training.arm).router != "spectra", training.arm, training.spec.seed))
    return [share for share in (list(order[number::processes]) for number in range(processes)) if share]


def _train_share(share: tuple[list[Training], Path, Path], ran: Ran) -> None:
    trainings, prepared, cache = share
    for training in trainings:
        _train(training, prepared, cache, _Steps(ran, training.spec))


def _train(training: Training, prepared: Path, cache: Path, progress: Progress) -> None:
    from experiments.testbed.arm_training import train_arm

    train_arm(training, prepared, cache / training.name, progress)


class _Steps:
    """Progress of a process that tells another one of each finished step, of those that an earlier attempt did at once."""

    def __init__(self, ran: Ran, spec: TestbedSpec) -> None:
        self._ran, self._steps, self._tokens = ran, spec.steps, spec.batch * spec.window

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Training tells of its steps, everything else of nothing."""
        with Silent().stage(name, total, unit) as silent:
            told = _Told(self._ran, self._tokens)
            if name == "training" and total is not None:
                told.advance(self._steps * self._tokens - total)
            yield told if name == "training" else silent


class _Told:
    def __init__(self, ran: Ran, tokens: int) -> None:
        self._ran, self._tokens = ran, tokens

    def advance(self, n: int = 1) -> None:
        for _ in range(n // self._tokens):
            self._ran()

    def note(self, text: str) -> None:
        pass


def baseline_of(trained: Sequence[Trained]) -> Trained:
    """The baseline's first seed, which stands for the run where one model is meant. Raises LookupError without a baseline."""
    for one in trained:
        if one.arm == BASELINE:
            return one
    raise LookupError(f"campaign.arms: {BASELINE} is not among the arms {', '.join(dict.fromkeys(one.arm for one in trained))}; the judged "
                      "pair needs it")
