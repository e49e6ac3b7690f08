"""How long a command takes before it does anything, and what it loads: each in a process of its own. Reported, never asserted."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "sklearn", "matplotlib", "mlflow", "transformers", "scipy.stats", "pandas")
IMPORTING = """
import json, sys, time
begun = time.perf_counter()
import {module}
took = time.perf_counter() - begun
print(json.dumps([took, [name for name in {heavy!r} if name in sys.modules]]))
"""
BOUNDS = {"import analysis.registry": 0.15, "import experiments.cli": 0.15, "assay --help": 0.25, "assay metrics": 1.5}


def _run(command: Sequence[str]) -> tuple[float, str]:
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, done.stdout


def rows(passes: int) -> list[dict[str, Any]]:
    """Seconds of each, the imports without the interpreter's own start, and which heavy libraries came with them."""
    bare = [_run([sys.executable, "-c", "pass"])[0] for _ in range(passes)]
    out = [{"what": "python -c pass", "wall_s": bare, "bound_s": None, "loads": []}]
    for module in ("analysis.registry", "experiments.cli"):
        found = [json.loads(_run([sys.executable, "-c", IMPORTING.format(module=module, heavy=HEAVY)])[1]) for _ in range(passes)]
        out.append({"what": f"import {module}", "wall_s": [took for took, _ in found], "loads": found[0][1]})
    assay = [sys.executable, "-m", "experiments.cli"]
    for words in (["--help"], ["metrics"]):
        out.append({"what": f"assay {words[0]}", "wall_s": [_run([*assay, *words])[0] for _ in range(passes)], "loads": []})
    return [{**row, "bound_s": BOUNDS.get(str(row["what"]))} for row in out]


def median(row: dict[str, Any]) -> float:
    """Of its passes."""
    return statistics.median(row["wall_s"])
