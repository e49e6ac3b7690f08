"""The compiled path under a hard limit on address space (RLIMIT_AS), set in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.counts import accumulate
from tests.analysis.memory_child import PLAN, TRACE, digest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS and /proc are Linux")


def child(backend, mib):
    ran = subprocess.run([sys.executable, "-m", "tests.analysis.memory_child", backend, str(mib)], cwd=ROOT, capture_output=True, text=True,
                         timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("mib", [60, 150, 220, 300])  # too little to load LLVM, to start it, to compile, and to be sure of compiling
def test_counting_falls_back_to_numpy_where_numba_has_no_room(mib):
    assert child("chosen", mib) == f"{digest(accumulate(TRACE, PLAN, 'numpy'))} False"


def test_counting_takes_numba_where_it_has_room():
    assert child("chosen", 600) == f"{digest(accumulate(TRACE, PLAN, 'numpy'))} True"


def test_numba_asked_for_without_room_is_refused_with_the_remedy():
    found = child("numba", 100)
    assert found.startswith("refused: numba needs about 384 MiB of address space") and "ulimit -v" in found
