"""`python -m tests.calibration`: size of every test and coverage of every interval, as a table; fails where one is off."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.calibration.checks import Outcome, every, outcomes

TITLE = """# Calibration: size of every test, coverage of every interval

Made by `make calibrate`. Allowed is the window that a method claims, and three Monte-Carlo errors.

"""
HEADER = "| method | world | nominal | allowed | found | replicates | |\n|---|---|---|---|---|---|---|"


def row(one: Outcome) -> str:
    """One line of the table."""
    low, high = one.check.window
    verdict = ("caught" if one.passed else "NOT CAUGHT") if one.check.mutant else ("ok" if one.passed else "OFF")
    return (f"| {one.check.name} | {one.check.world} | {one.check.kind} {one.check.nominal:g} | {low:g} to {high:g} ± {3 * one.error:.3f} "
            f"| {one.frequency:.3f} | {one.replicates} | {verdict} |")


def markdown(found: list[Outcome]) -> str:
    """The tables of sound methods and of mutants."""
    parts = []
    for title, mutant in (("Methods", False), ("Wrong methods that the suite must catch", True)):
        chosen = [row(one) for one in found if one.check.mutant == mutant]
        parts.append(f"## {title}\n\n{HEADER}\n" + "\n".join(chosen))
    return "\n\n".join(parts) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the chosen checks; 1 where one is off or a mutant is not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("only", nargs="*", help="words that a check's name must hold")
    parser.add_argument("--share", type=float, default=1.0, help="share of the replicates (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--json", type=Path, help="write the frequencies here")
    options = parser.parse_args(argv)
    names = [name for name in every() if all(word in name for word in options.only)]
    found, began = [], time.monotonic()
    print(HEADER)
    for one in outcomes(names, options.share, options.seed, options.processes):
        found.append(one)
        print(row(one), flush=True)
    words = f"\n{len(found)} checks in {time.monotonic() - began:.0f} s, {sum(not one.passed for one in found)} of them not as they must be"
    print(words)
    if options.markdown:
        options.markdown.write_text(TITLE + markdown(found), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([{"name": one.check.name, "world": one.check.world, "kind": one.check.kind, "nominal": one.check.nominal,
                                             "window": one.check.window, "frequency": one.frequency, "replicates": one.replicates,
                                             "mutant": one.check.mutant, "passed": one.passed} for one in found], indent=1), encoding="utf-8")
    return 0 if all(one.passed for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
