"""Where and with what something was made: versions, commit, machine, command line, and the checksums of a checkpoint."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tracking.atomic import sha256_file

LIBRARIES = ("moe-assay", "numpy", "scipy", "pyarrow", "numba", "pandas", "polars", "scikit-learn", "torch", "transformers", "tokenizers",
             "safetensors", "accelerate", "bitsandbytes", "torchao", "optuna", "mlflow", "matplotlib", "pydantic", "datasets")
ENVIRONMENT = ("ASSAY_ROOT", "MLFLOW_TRACKING_URI", "MOE_KILL_AT", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
               "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "PYTHONHASHSEED",
               "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE",
               "TRANSFORMERS_OFFLINE", "LANG", "LC_ALL", "TZ")  # nothing else of the environment is ever recorded
CHECKPOINT = (".safetensors", ".json", ".model", ".txt", ".jinja", ".tiktoken")  # what a model and its tokenizer are read from
SOURCE = Path(__file__).resolve().parent.parent
SECRET = re.compile(r"(token|secret|password|passwd|api_?key|credential)", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\b(hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{8,}")


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions by distribution name, read without importing anything; what is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def commit(directory: Path = SOURCE) -> dict[str, Any]:
    """{"commit", "dirty"} of the git checkout whose top is `directory`; commit is None, with a reason, where there is none."""
    def git(*words: str) -> str:
        done = subprocess.run(("git", "-C", str(directory), *words), capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != directory.resolve():
            return {"commit": None, "dirty": None, "reason": f"{directory.name} is not the top of a git checkout"}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError) as error:
        return {"commit": None, "dirty": None, "reason": f"git: {type(error).__name__}"}


def machine() -> dict[str, Any]:
    """Cores that this process may use, memory in bytes, platform, processor; nothing that names a person."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpus": len(os.sched_getaffinity(0)), "memory_bytes": pages, "platform": platform.platform(), "processor": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The allowed variables that are set; user and password are cut out of addresses."""
    given = os.environ if variables is None else variables
    return {name: masked(given[name]) for name in ENVIRONMENT if name in given}


def masked(text: str) -> str:
    """`text` without passwords in addresses and without what looks like an access token."""
    return SECRET_VALUE.sub("***", re.sub(r"://[^/@\s]+@", "://***@", text))


def command_line(arguments: Sequence[str] | None = None) -> list[str]:
    """The arguments of this process; values of options whose names sound secret are masked."""
    shown = []
    hide = False
    for argument in sys.argv if arguments is None else arguments:
        name, equals, _ = argument.rpartition("=")
        if hide:
            shown.append("***")
        elif equals and SECRET.search(name):
            shown.append(f"{name}=***")
        else:
            shown.append(masked(argument))
        hide = not equals and argument.startswith("-") and SECRET.search(argument) is not None
    return shown


def snapshot() -> dict[str, Any]:
    """All of the above, as plain values for JSON."""
    return {"versions": versions(), "source": commit(), "machine": machine(), "command": command_line(), "environment": environment()}


def checkpoint_sha256(directory: Path, endings: Sequence[str] = CHECKPOINT) -> tuple[str, dict[str, str]]:
    """(SHA-256 over names and contents, SHA-256 by file) of a checkpoint directory; only files with `endings`, hidden ones never.

    Raises FileNotFoundError where there is no such file.
    """
    files = {path.relative_to(directory).as_posix(): sha256_file(path) for path in sorted(directory.rglob("*"))
             if path.is_file() and path.suffix in endings and not any(part.startswith(".") for part in path.relative_to(directory).parts)}
    if not files:
        raise FileNotFoundError(f"{directory}: no file ending in {', '.join(endings)}; name a checkpoint directory in safetensors")
    total = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())).encode())
    return total.hexdigest(), files
