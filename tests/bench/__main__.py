"""`make bench`: our counting beside the usual ways, as ratios of one run; a table on stdout, JSON with --out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench import all_counts, bootstrap, evaluation, null, store, type_statistics
from tests.bench.measure import Yard, compare
from tests.bench.rows import Sample, Sizes

ROOT = Path(__file__).resolve().parents[2]
LONG = Sizes(tokens=500_000, vocabularies=(2_048, 32_768), loop_tokens=10_000, replicates=999, rival_replicates=5, null_draws=99, rival_draws=2,
             store_tokens=150_000, evaluated_tokens=150_000, evaluations=3, bound_mib=448)
SHORT = Sizes(tokens=100_000, vocabularies=(2_048, 32_768), loop_tokens=4_000, replicates=199, rival_replicates=4, null_draws=19, rival_draws=2,
              store_tokens=60_000, evaluated_tokens=40_000, evaluations=2, bound_mib=352)
FORM = 1  # of the JSON; raise it when a workload changes, so that runs are not compared that cannot be


def machine() -> dict[str, Any]:
    model = "unknown"
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        model = next((line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), model)
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": platform.platform(), "load": [round(load, 1) for load in os.getloadavg()]}


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy", "numba", "pandas", "polars", "pyarrow")}


def commit() -> str:
    """The commit, with + where tracked files differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def measure(sizes: Sizes, root: Path) -> dict[str, Any]:
    """Everything, the yard first and last."""
    begun, yard, rows = time.perf_counter(), Yard(), []

    def say(what: str) -> None:
        print(f"[{time.perf_counter() - begun:5.0f} s] {what}", file=sys.stderr, flush=True)

    yard.walk()
    samples = [Sample.of(sizes.tokens, vocabulary) for vocabulary in sizes.vocabularies]
    for sample in samples:
        say(f"per-type statistics, {sample.meta.vocabulary_size:,} types")
        rows += compare(type_statistics.workload(sizes, sample), sizes.alternations)
        rows += compare(all_counts.workload(sample), sizes.alternations)
    say("bootstrap")
    rows += compare(bootstrap.workload(sizes, samples[0]), sizes.alternations)
    say("null")
    rows += compare(null.workload(sizes, samples[0]), sizes.alternations)
    say("trace store")
    for workload in store.workloads(root / "store", Sample.of(sizes.store_tokens, 2_048)):
        rows += compare(workload, sizes.alternations)
    if sys.platform.startswith("linux"):
        say("evaluate()")
        rows.append(evaluation.whole_evaluation(root / "evaluate", sizes))
        say("a trace larger than memory")
        rows.append(evaluation.beyond_memory(root / "beyond", sizes))
    else:
        say("peak memory and its bound are measured on Linux only: evaluate() and the streamed trace are left out")
    yard.walk()
    say("done")
    return {"form": FORM, "sizes": vars(sizes), "machine": machine(), "versions": versions(), "commit": commit(), "yard_s": yard.passes,
            "wall_s": time.perf_counter() - begun, "rows": rows}


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(measured: dict[str, Any]) -> str:
    """Markdown: a line per rival; a ratio above 1 says how many times longer the rival takes."""
    yard = sum(measured["yard_s"]) / len(measured["yard_s"])
    lines = ["| workload | ours, s | yards | rate | against | theirs / ours (min-max) |", "|---|--:|--:|--:|---|--:|"]
    notes: dict[str, str] = {}
    for row in measured["rows"]:
        walls = sorted(row["ours"]["wall_s"])
        middle = walls[len(walls) // 2]
        first = row["workload"] not in notes
        notes[row["workload"]] = f"{row['note']}. Agreement: {row['agreed']}."
        cells = [row["workload"], number(middle), number(middle / yard), f"{number(row['rate'])} {row['unit']}"] if first else [""] * 4
        if "rival" in row:
            against = row["rival"] + (f" ({row['rival_note']})" if row["rival_note"] else "")
            cells += [against, f"**{number(row['ratio'])}** ({number(row['ratio_low'])}-{number(row['ratio_high'])})"]
        else:
            cells += [f"peak {row['peak_mib']:.0f} MiB", ""]
        lines.append(f"| {' | '.join(cells)} |")
    first_yard, last_yard = measured["yard_s"][0], measured["yard_s"][-1]
    what = measured["machine"]
    head = (f"{what['cpu']}, {what['cores']} cores, load {what['load'][0]}; commit {measured['commit']}; "
            + ", ".join(f"{name} {found}" for name, found in measured["versions"].items())
            + f"; yard {first_yard * 1e3:.0f} ms first, {last_yard * 1e3:.0f} ms last; {measured['wall_s']:.0f} s in all")
    return "\n".join([head, "", *lines, "", *(f"- {name}: {note}" for name, note in notes.items())])


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Markdown: every ratio of an earlier run beside this one's. Raises ValueError where the two did different work."""
    if any(before[name] != now[name] for name in ("form", "sizes")):
        raise ValueError("--against: that run measured other sizes or another form of the bench; run both alike")
    then = {(row["workload"], row["rival"]): row for row in before["rows"] if "rival" in row}
    lines = [f"| theirs / ours | {before['commit']} | {now['commit']} |", "|---|--:|--:|"]
    for row in now["rows"]:
        if (earlier := then.get((row["workload"], row.get("rival")))) is not None:
            lines.append(f"| {row['workload']}: {row['rival']} | {number(earlier['ratio'])} | {number(row['ratio'])} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    parser.add_argument("--against", type=Path, help="JSON of an earlier run, to show its ratios beside this one's")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as root:
        measured = measure(SHORT if asked.quick else LONG, Path(root))
    measured = json.loads(json.dumps(measured))
    print(table(measured))
    if asked.out:
        asked.out.write_text(json.dumps(measured, indent=1) + "\n")
    if asked.against:
        print("\n" + changes(json.loads(asked.against.read_text()), measured))


if __name__ == "__main__":
    main()
