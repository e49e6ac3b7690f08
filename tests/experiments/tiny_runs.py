"""A tiny run of the whole command on the made-up corpus, in this process or in a child of a server that has the imports behind it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from experiments import cli

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
ROOT = Path(__file__).resolve().parents[2]
PRELOADED = ("tests.experiments.tiny_runs", "experiments.pipeline", "experiments.sources.huggingface", "experiments.testbed", "analysis.figures",
             "transformers.models.mixtral.modeling_mixtral")
for name in cli.NOISY:  # said once by the server, where nobody asked
    logging.getLogger(name).setLevel(logging.ERROR)


def arguments(corpus: Path, *more: str, experiment: str = "var") -> list[str]:
    """`assay run` at the tiny profile on a JSONL corpus."""
    return ["run", experiment, "--profile", "tiny", "--dataset", "jsonl", "--corpus-path", str(corpus), *more]


def run_directory(root: Path) -> Path:
    """The one run under `root`."""
    (state,) = root.glob("*/state.json")
    return state.parent


def stages(directory: Path) -> dict[str, dict[str, Any]]:
    """Stages of a run by name, as its state has them."""
    return dict(json.loads((directory / "state.json").read_text(encoding="utf-8"))["stages"])


def sequences(directory: Path) -> dict[str, int]:
    """When each stage began, in the run's own count: the same number, if it was not done again."""
    return {name: stage["sequence"] for name, stage in stages(directory).items()}


@dataclass
class Child:
    """A real process at work on a root; its words are in a file."""

    process: ForkServerProcess
    words: Path

    def end(self, timeout_s: float = 120) -> int:
        """Exit status, negative for a signal."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, f"still at work after {timeout_s:.0f} s: {self.said}"
        return self.process.exitcode

    @property
    def said(self) -> str:
        """Standard output and errors so far."""
        return self.words.read_text(encoding="utf-8")


def start(root: Path, argv: list[str], *, kill_at: str | None = None, uri: str = NOWHERE) -> Child:
    """A child that carries out `assay argv`; kill_at: where it kills itself."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    words = root.with_name(f"{root.name}-{len(list(root.parent.glob(f'{root.name}-*.txt'))):03d}.txt")
    words.touch()
    variables = {"ASSAY_ROOT": str(root), "MLFLOW_TRACKING_URI": uri, "MOE_KILL_AT": kill_at or ""}
    process = context.Process(target=_work, args=(argv, variables, str(words)))
    process.start()
    return Child(process, words)


def _work(argv: list[str], variables: dict[str, str], words: str) -> None:
    os.environ.update(variables)
    if not variables["MOE_KILL_AT"]:
        os.environ.pop("MOE_KILL_AT")
    file = os.open(words, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    sys.exit(cli.main(argv))
