"""Real child processes, killed and signalled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(work: str, directory: Path, kill_at: str | None = None, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A child at work on `directory`; kill_at: where it kills itself; prefix: a command that starts it."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    variables.pop("MOE_KILL_AT", None)
    if kill_at:
        variables["MOE_KILL_AT"] = kill_at
    return subprocess.Popen([*prefix, sys.executable, "-m", "tests.faults.working", work, str(directory)], cwd=ROOT, env=variables,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_ready(child: subprocess.Popen[str]) -> None:
    """Return when the child says that its work begins."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line == "ready\n", (line, child.stderr.read() if child.stderr else "")


def end(child: subprocess.Popen[str], timeout_s: float = 60) -> tuple[int, str, str]:
    """(exit status, output, errors) of a child that ends by itself."""
    output, errors = child.communicate(timeout=timeout_s)
    return child.returncode, output, errors
