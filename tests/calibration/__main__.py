"""`python -m tests.calibration`: size of every test and coverage of every interval, as a table; fails where one is off."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tests.calibration.checks import Outcome, every, outcomes

TITLE = """# Calibration: size of every test, coverage of every interval

Made by `make calibrate`. Every interval and every test of `analysis` is run here on documents whose truth is known, thousands of times over:
{replicates} replicates in {studies} studies, {minutes:.0f} minutes. An interval at 95 % should hold the truth in 95 of 100 replicates; a test
at 5 % should reject in at most 5 of 100 where there is nothing to find. `found` is the frequency, `window` what the method claims, and `allowed`
the window widened by three Monte-Carlo errors. The worlds have topics, sticky tokens, template prefixes, unequal lengths and token budgets, so
that tokens of one document are alike, as they are in text: whatever counts tokens as independent fails here, as the last table shows. The second
table is the one to read before trusting a number: it says where a sound method does not keep its nominal frequency, and why. Its windows are no
claim of the method: they were set from what trial runs found, so that a change is noticed.
"""
HEADER = "| method | world | nominal | window | allowed | found | replicates | |\n|---|---|---|---|---|---|---|---|"
SECTIONS = (("Methods", lambda claim: not claim.mutant and not claim.limit), ("Known limits", lambda claim: bool(claim.limit) and not claim.mutant),
            ("Wrong methods that the suite must catch", lambda claim: claim.mutant))


def row(one: Outcome) -> str:
    """One line of the table."""
    (low, high), (least, most), claim = one.claim.window, one.allowed, one.claim
    verdict = ("caught" if one.passed else "NOT CAUGHT") if claim.mutant else ("ok" if one.passed else "OFF")
    world = one.study.world + (f". {claim.limit}" if claim.limit else "")
    return (f"| {claim.name} | {world} | {claim.kind} {claim.nominal:g} | {low:g} to {high:g} | {least:.3f} to {most:.3f} "
            f"| {one.frequency:.3f} | {one.replicates} | {verdict} |")


def markdown(found: list[Outcome], seconds: float) -> str:
    """The page: what it is, then tables of sound methods, of known limits and of mutants."""
    counted = {one.study.name: one.replicates for one in found}
    parts = [TITLE.format(replicates=f"{sum(counted.values()):,}", studies=len(counted), minutes=max(1, seconds / 60))]
    for title, belongs in SECTIONS:
        chosen = [row(one) for one in found if belongs(one.claim)]
        if chosen:
            parts.append(f"## {title}\n\n{HEADER}\n" + "\n".join(chosen) + "\n")
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Run the chosen studies; 1 where a claim is off or a mutant is not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("only", nargs="*", help="words that a study's name must hold")
    parser.add_argument("--share", type=float, default=1.0, help="share of the replicates (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--json", type=Path, help="write the frequencies here")
    options = parser.parse_args(argv)
    names = [name for name in every() if all(word in name for word in options.only)]
    if not names:
        parser.error(f"no study of that name; there are: {', '.join(every())}")
    found, began, last = [], time.monotonic(), ""
    print(HEADER)
    for one in outcomes(names, options.share, options.seed, options.processes):
        if one.study.name != last:
            last = one.study.name
            print(f"<!-- {time.monotonic() - began:.0f} s: {last} -->")
        found.append(one)
        print(row(one), flush=True)
    seconds = time.monotonic() - began
    print(f"\n{len(found)} claims in {seconds:.0f} s, {sum(not one.passed for one in found)} of them not as they must be")
    if options.markdown:
        options.markdown.write_text(markdown(found, seconds), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([{"study": one.study.name, "claim": one.claim.name, "world": one.study.world, "kind": one.claim.kind,
                                             "nominal": one.claim.nominal, "window": one.claim.window, "frequency": one.frequency,
                                             "replicates": one.replicates, "mutant": one.claim.mutant, "limit": one.claim.limit,
                                             "source": one.claim.source, "passed": one.passed} for one in found], indent=1), encoding="utf-8")
    return 0 if all(one.passed for one in found) else 1


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one thread a process: what is spawned inherits it
    sys.exit(main())
