import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.predictor.processes import ShareError, work_side_by_side

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import sys
sys.path.insert(0, {root!r})
from experiments.predictor.processes import work_side_by_side
from tests.experiments.predictor.test_processes import sleep_long

if __name__ == "__main__":
    work_side_by_side(sleep_long, [sys.argv[1]], lambda: print("started", flush=True))
"""


def write_each(share: tuple[Path, list[int]], done: Callable[[], None]) -> None:
    directory, numbers = share
    for number in numbers:
        if number < 0:
            raise ValueError(f"number {number} is negative\ud800")
        if number == 99:
            os.kill(os.getpid(), signal.SIGKILL)
        (directory / str(number)).write_text(str(os.getpid()))
        done()


def sleep_long(path: str, done: Callable[[], None]) -> None:
    Path(path).write_text(str(os.getpid()))
    done()
    time.sleep(60)


def test_shares_are_done_elsewhere_and_told_of(tmp_path: Path) -> None:
    told: list[int] = []
    work_side_by_side(write_each, [(tmp_path, [0, 1]), (tmp_path, [2])], lambda: told.append(1))
    assert len(told) == 3
    writers = {number: int((tmp_path / str(number)).read_text()) for number in range(3)}
    assert writers[0] == writers[1] != writers[2] and os.getpid() not in writers.values()


@pytest.mark.parametrize(("number", "message"), [(-1, r"ValueError: number -1 is negative"), (99, "exit code -9; what was finished is kept")])
def test_a_failure_is_told_with_its_message(number: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ShareError, match=message):
        work_side_by_side(write_each, [(tmp_path, [number])], lambda: None)


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT.format(root=str(ROOT)))
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "child")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"started\n"
        parent.kill()
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {child} still runs")


UNGUARDED = """
import sys
sys.path.insert(0, {root!r})
from experiments.predictor.processes import work_side_by_side
from tests.experiments.predictor.test_processes import write_each

work_side_by_side(write_each, [({out!r}, [0] * 2**20)], lambda: None)
"""


def test_a_process_that_dies_at_its_start_is_an_error_and_no_wait(tmp_path: Path) -> None:
    """A program without a main guard: its children die before they take their share, which is larger than a pipe."""
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED.format(root=str(ROOT), out=str(tmp_path)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ShareError: a process ended with exit code 1" in done.stderr
