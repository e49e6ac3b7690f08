"""Optuna studies in a sqlite file that survive any death: a declared total of complete trials, kept exactly.

P trials, O objectives (all maximised). The one place that imports Optuna.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracking.locks import Presence, locked

if TYPE_CHECKING:
    import optuna

Value = float | int | str
Params = Mapping[str, Value]

HEARTBEAT_S = 60
GRACE_S = 600  # a batch is evaluated in one call and beats once, when it is asked
ORIGIN = "origin"  # user attribute: "given" for cells that were computed elsewhere

STOPPED = "stopped"  # user attribute of a PRUNED trial: why, and what was seen of it
UNDEFINED = "undefined"  # user attribute of a FAILED trial that ended, without a value
MAX_TRIES = 4  # per declared trial, where many points are undefined


@dataclass(frozen=True)
class Pruned:
    """Stopped early: why, with what was known of it by then. Such a trial is told as PRUNED, and never on the front."""

    reason: str
    seen: Mapping[str, float]


Evaluate = Callable[[Sequence[Params]], Sequence[Sequence[float] | Pruned | None]]


class StudyError(RuntimeError):
    """A study that cannot be used; the message names its file and the remedy."""


@dataclass(frozen=True)
class Knob:
    """One dimension of a study. low, high: inclusive bounds; choices: an unordered knob instead."""

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The knob in Optuna's terms."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class StudyDesign:
    """What a study is about; objectives are all maximised. seed: of the sampler."""

    name: str
    knobs: tuple[Knob, ...]
    objectives: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True)
class TrialTable:
    """Complete trials in the order in which they were first asked, which no death changes.

    number: int64 [P], Optuna's, of the last life;
    params: one array [P] per knob; values: float64 [P, O]; given: bool [P], True for cells computed elsewhere;
    retried: bool [P], True for trials whose first try died.
    """

    number: NDArray[np.int64]
    params: dict[str, NDArray[Any]]
    values: NDArray[np.float64]
    given: NDArray[np.bool_]
    retried: NDArray[np.bool_]


@dataclass(frozen=True)
class Importances:
    """Share of each knob in reaching the best tenth of one objective (PED-ANOVA, arXiv 2304.10255); None with the reason."""

    objective: str
    shares: dict[str, float] | None
    reason: str | None = None


class Study:
    """A stored study. Make one with `open_study`."""

    def __init__(self, path: Path, design: StudyDesign, study: optuna.Study, presence: Presence) -> None:
        self._path, self.design, self._study, self._presence = path, design, study, presence
        self._space = {knob.name: knob.distribution() for knob in design.knobs}

    def add_finished(self, cells: Sequence[tuple[Params, Sequence[float]]]) -> int:
        """Add cells that were computed elsewhere and are not there yet; returns how many. Undefined cells (NaN, inf) are left out."""
        import optuna

        with _mutex(self._path):
            there = {_key(trial.params) for trial in self._study.get_trials(deepcopy=False) if _given(trial)}
            new = {}
            for params, values in cells:
                if _key(params) not in there and all(math.isfinite(value) for value in values):
                    new[_key(params)] = (params, values)
            self._study.add_trials([optuna.create_trial(params=dict(params), distributions=dict(self._space), values=list(values),
                                                        user_attrs={ORIGIN: "given"}) for params, values in new.values()])
        return len(new)

    def refine(self, total: int, evaluate: Evaluate, batch: int = 16, done: Callable[[int], None] = lambda _: None) -> int:
        """Ask, evaluate and tell until `total` trials of ours are complete, over all lives and processes; returns how many are.

        evaluate: values [O] for each of at most `batch` parameter sets, None (or a NaN) where undefined, Pruned where it was stopped early; such
        a trial is FAILED, or PRUNED, and another is asked in its place, until MAX_TRIES * total have been tried. done: called with the number of
        trials told after each batch.
        """
        from optuna.trial import TrialState

        done(self._counts().complete)
        while True:
            with _mutex(self._path):
                trials = self._claim(total, batch)
            if not trials:
                return self._counts().complete
            for trial, values in zip(trials, evaluate([trial.params for trial in trials]), strict=True):
                if isinstance(values, Pruned):
                    trial.set_user_attr(STOPPED, {"reason": values.reason, "seen": dict(values.seen)})
                    self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
                elif values is None or not all(math.isfinite(value) for value in values):
                    trial.set_user_attr(UNDEFINED, True)
                    self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
                else:
                    self._study.tell(trial, list(values), skip_if_finished=True)
            done(len(trials))

    def _claim(self, total: int, batch: int) -> list[optuna.Trial]:
        """Ask for the next trials, at most up to the end of their batch: so a run that died asks for the same ones as one that did not."""
        import optuna

        optuna.storages.fail_stale_trials(self._study)
        counts = self._counts()
        if counts.running and counts.tried >= total and self._presence.alone():
            self._heal()
            counts = self._counts()
        room = min(total - counts.complete - counts.running, MAX_TRIES * total - counts.tried, batch - counts.tried % batch)
        trials = []
        for position in range(counts.tried, counts.tried + max(room, 0)):
            seed = int(np.random.SeedSequence([self.design.seed, position]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
            trials.append(self._study.ask(self._space))
        for trial in trials:
            self._study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]  # only Study.optimize does it by itself
        return trials

    def _heal(self) -> None:
        """FAIL what dead processes left RUNNING, and put each lost trial back with its parameters; nobody else may be present.

        All that wait are put back together, in the order in which they were first asked: the sampler's history is then that of a study
        which nobody killed. A death in here loses nothing: what is lost is found by its state.
        """
        from optuna.storages import RetryHeartbeatStaleTrialCallback
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        if not any(trial.state == TrialState.RUNNING for trial in trials) and not _lost(trials):
            return
        for _ in range(sum(trial.state == TrialState.WAITING for trial in trials)):
            self._study.ask(self._space)  # takes the next waiting one
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
        for trial in sorted(_lost(self._study.get_trials(deepcopy=True)), key=_first_number):
            RetryHeartbeatStaleTrialCallback()(self._study, trial)

    def _counts(self) -> _Counts:
        from optuna.trial import TrialState

        ours = [trial for trial in self._study.get_trials(deepcopy=False) if not _given(trial)]
        complete = sum(trial.state == TrialState.COMPLETE for trial in ours)
        running = sum(trial.state == TrialState.RUNNING for trial in ours)
        undefined = sum(bool(trial.user_attrs.get(UNDEFINED)) and trial.state == TrialState.FAIL for trial in ours)
        pruned = sum(trial.state == TrialState.PRUNED for trial in ours)
        return _Counts(complete, running, complete + running + undefined + pruned)

    def table(self) -> TrialTable:
        """Every complete trial as plain arrays."""
        from optuna.trial import TrialState

        trials = sorted(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), key=_first_number)
        names = [knob.name for knob in self.design.knobs]
        return TrialTable(
            number=np.array([trial.number for trial in trials], dtype=np.int64),
            params={name: np.array([trial.params[name] for trial in trials]) for name in names},
            values=np.array([trial.values for trial in trials], dtype=np.float64).reshape(len(trials), len(self.design.objectives)),
            given=np.array([_given(trial) for trial in trials], dtype=bool),
            retried=np.array(["failed_trial" in trial.system_attrs for trial in trials], dtype=bool))

    def pruned(self) -> list[tuple[Params, Pruned]]:
        """Parameters of every pruned trial, with why it was stopped, in the order in which they were asked."""
        from optuna.trial import TrialState

        trials = sorted(self._study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)), key=_first_number)
        return [(dict(trial.params), Pruned(**trial.user_attrs[STOPPED])) for trial in trials if STOPPED in trial.user_attrs]

    def pareto(self) -> NDArray[np.int64]:
        """Numbers of the complete trials that no other beats in every objective, ascending."""
        return np.array(sorted(trial.number for trial in self._study.best_trials), dtype=np.int64)

    def importances(self, objective: str, knobs: Sequence[str] | None = None) -> Importances:
        """Importance of every knob for `objective`, or of those that it depends on; a reason instead, where Optuna cannot say."""
        import optuna

        index = self.design.objectives.index(objective)
        values = self.table().values[:, index]
        if len(values) < 2 or np.ptp(values) == 0:
            return Importances(objective, None, f"{len(values)} trials without spread in {objective}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shares = optuna.importance.get_param_importances(
                    self._study, params=None if knobs is None else list(knobs), target=lambda trial: -trial.values[index])
        except Exception as error:  # an importance that cannot be computed is a reason, never the end of a sweep
            return Importances(objective, None, f"{type(error).__name__}: {error}")
        if not all(math.isfinite(share) for share in shares.values()):
            return Importances(objective, None, "not finite")
        return Importances(objective, {name: float(share) for name, share in shares.items()})


class _Counts(NamedTuple):
    complete: int
    running: int
    tried: int  # complete, running, pruned, or ended undefined


def _mutex(path: Path) -> AbstractContextManager[None]:
    return locked(path.with_name(path.name + ".lock"))


def _key(params: Params) -> str:
    return json.dumps(dict(params), sort_keys=True)


def _first_number(trial: optuna.trial.FrozenTrial) -> int:
    """Number of the trial's first life, which orders trials as they were asked."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def _lost(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """FAILED trials that ended without saying "undefined" and were not put back."""
    from optuna.trial import TrialState

    again = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return [trial for trial in trials
            if trial.state == TrialState.FAIL and trial.number not in again and not trial.user_attrs.get(UNDEFINED)]


def _given(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.user_attrs.get(ORIGIN) == "given"


@contextmanager
def open_study(path: Path, design: StudyDesign) -> Iterator[Study]:
    """Open the study in the sqlite file `path`, or make it; what a dead process left RUNNING is put back first.

    Several processes may hold one study open. Raises StudyError for a file that is no study, or that was made for another design.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")  # _claim records it
        presence = Presence(path.with_name(path.name + ".workers"))
        try:
            with _mutex(path):
                if not path.exists():
                    _create_aside(path, design)
                study = Study(path, design, _load(path, design), presence)
                if presence.alone():
                    study._heal()
            yield study
        finally:
            presence.leave()


def _load(path: Path, design: StudyDesign) -> optuna.Study:
    import optuna

    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM studies")
        stored = optuna.load_study(study_name=design.name, storage=_storage(path))
    except (KeyError, sqlite3.Error, optuna.exceptions.OptunaError) as error:
        raise StudyError(f"{path}: no usable study {design.name!r} ({error}); move the file away to start it again") from error
    if stored.user_attrs.get("design") != _design_key(design):
        raise StudyError(f"{path}: made for another design of study {design.name!r}; move the file away, or start a new run")
    return stored


def _design_key(design: StudyDesign) -> str:
    return json.dumps(asdict(design), sort_keys=True)


def _storage(path: Path) -> optuna.storages.RDBStorage:
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    return RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}, heartbeat_interval=HEARTBEAT_S,
                      grace_period=GRACE_S, heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback())


def _create_aside(path: Path, design: StudyDesign) -> None:
    """Make the study under another name and rename it when whole; a killed process leaves no half schema."""
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f"{path.name}.new-*"):
        stale.unlink(missing_ok=True)
    aside = path.with_name(f"{path.name}.new-{os.getpid()}")
    storage = _storage(aside)
    study = optuna.create_study(storage=storage, study_name=design.name, directions=["maximize"] * len(design.objectives))
    study.set_metric_names(list(design.objectives))
    study.set_user_attr("design", _design_key(design))
    storage.remove_session()
    storage.engine.dispose()
    aside.replace(path)
