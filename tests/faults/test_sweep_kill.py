"""Case 4 and 14: a sweep killed by SIGKILL goes on with its declared total; several processes may start one study at once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# One process that opens a study and refines it, and kills itself at the n-th passing of a named place: real SIGKILL, real sqlite file.
CHILD = """
import json, os, signal, sys
from pathlib import Path
import optuna
from experiments.progress import Silent
from experiments.sweep import SweepQuestion, SweepSpace, sweep
import numpy as np

def child(path, place, at):
    passed = [0]
    def pass_by(name):
        passed[0] += name == place
        if name == place and passed[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
    def dying(name, call):
        def wrapped(*args, **kwargs):
            if name + ".before" == place:
                pass_by(name + ".before")
            out = call(*args, **kwargs)
            pass_by(name)
            return out
        return wrapped
    optuna.Study.ask = dying("ask", optuna.Study.ask)
    optuna.Study.tell = dying("tell", optuna.Study.tell)
    optuna.Study.add_trial = dying("add", optuna.Study.add_trial)
    optuna.create_study = dying("create", optuna.create_study)
    def points(knobs):
        pass_by("evaluate")
        return np.column_stack([knobs[:, 1] / (1 + knobs[:, 0] / 100), 1 - knobs[:, 1] ** 2 * 0.4 + knobs[:, 2] * 0.01])
    space = SweepSpace((5, 20, 80), (0.1, 0.4, 0.7), (1, 2), n_trials=int(os.environ.get("TRIALS", 32)))
    outcome = sweep(SweepQuestion(points), space, Path(path), Silent())
    print(outcome.n_asked, flush=True)

if sys.argv[1] == "once":
    child(sys.argv[2], "", 0)
else:  # forked, so that imports are paid once: each line of the plan is one life
    for line in json.loads(sys.argv[1]):
        pid = os.fork()
        if pid == 0:
            try:
                child(*line)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print("status", os.waitpid(pid, 0)[1], flush=True)
"""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "OMP_NUM_THREADS": "1", **environment})


def lives(plan: list[tuple[str, str, int]]) -> list[int]:
    """Exit statuses (negative: the signal) of the processes of `plan`, one after the other."""
    child = start(json.dumps(plan))
    out, err = child.communicate(timeout=500)
    assert child.returncode == 0, err
    return [os.waitstatus_to_exitcode(int(line.split()[1])) for line in out.splitlines() if line.startswith("status")]


def states(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(path / "study.db")
    counts = dict(connection.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall())
    connection.close()
    return counts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed")
    assert lives([(str(path), "", 0)]) == [0]
    return path


def test_killed_again_and_again_keeps_the_total_and_the_trials(tmp_path: Path, undisturbed: Path) -> None:
    deaths = [("create", 1), ("add", 3), ("ask.before", 1), ("ask", 3), ("add", 2), ("ask", 16), ("evaluate", 2), ("add", 5), ("tell", 5),
              ("tell.before", 1), ("tell", 19), ("ask", 20), ("evaluate", 2)]  # some of them in the healing of the one before
    statuses = lives([*((str(tmp_path), place, at) for place, at in deaths), (str(tmp_path), "", 0)])
    assert statuses.count(-signal.SIGKILL) >= 10
    assert statuses[-1] == 0
    counts = states(tmp_path)
    assert "RUNNING" not in counts
    assert "WAITING" not in counts
    assert counts["COMPLETE"] == 32 + 18
    assert (tmp_path / "sweep.json").read_bytes() == (undisturbed / "sweep.json").read_bytes()
    assert not list(tmp_path.glob("*.new-*"))


def test_a_finished_sweep_called_again_adds_nothing(undisturbed: Path) -> None:
    before = (undisturbed / "sweep.json").read_bytes(), states(undisturbed)
    assert lives([(str(undisturbed), "", 0)]) == [0]
    assert ((undisturbed / "sweep.json").read_bytes(), states(undisturbed)) == before


def test_four_processes_start_one_new_study(tmp_path: Path) -> None:
    children = [start("once", str(tmp_path), TRIALS="32") for _ in range(4)]
    outputs = [child.communicate(timeout=500) for child in children]
    assert [child.returncode for child in children] == [0] * 4, [err for _, err in outputs]
    assert states(tmp_path) == {"COMPLETE": 32 + 18}


@pytest.mark.slow
def test_a_worker_that_dies_beside_a_living_one_costs_no_trial(tmp_path: Path) -> None:
    dying = start(json.dumps([(str(tmp_path), "tell", 3)]), TRIALS="48")
    living = start("once", str(tmp_path), TRIALS="48")
    for child in (dying, living):
        child.communicate(timeout=500)
    assert living.returncode == 0
    assert lives([(str(tmp_path), "", 0)]) == [0]  # whoever comes next finds nothing RUNNING
    counts = states(tmp_path)
    assert counts["COMPLETE"] == 48 + 18
    assert set(counts) <= {"COMPLETE", "FAIL"}
