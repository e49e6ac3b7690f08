"""What was measured, as Markdown: gates, stages, every rival; and beside an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from tests.bench.stages import gates, rivals_of_stages

Measured = Mapping[str, Any]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def head(measured: Measured) -> str:
    """Where and with what."""
    what = measured["machine"]
    yards = measured["yard_s"]
    return (f"{what['cpu']}, {what['cores']} cores, load {what['load'][0]} at the beginning and {what['load_after'][0]} at the end; commit "
            f"{measured['commit']}; " + ", ".join(f"{name} {found}" for name, found in measured["versions"].items())
            + f"; yard {yards[0] * 1e3:.0f} ms first, {yards[-1] * 1e3:.0f} ms last, {min(yards) * 1e3:.0f}-{max(yards) * 1e3:.0f} ms between; "
            f"{measured['wall_s']:.0f} s in all. BLAS on one thread.")


def gate_table(measured: Measured) -> str:
    """A line per target."""
    lines = ["| target | measured | bound | |", "|---|--:|--:|---|"]
    for gate in gates(measured):
        least = "at least" if gate["at_least"] else "at most"
        lines.append(f"| {gate['gate']} | {number(gate['measured'])} {gate['unit']} | {least} {number(gate['bound'])} | "
                     f"{'met' if gate['met'] else '**missed**'}{'; ' + gate['note'] if gate['note'] else ''} |")
    return "\n".join(lines)


def stage_table(measured: Measured) -> str:
    """A line per stage of seed 000; the other ways by the sum of their parts."""
    naive, library = (rivals_of_stages(measured["rows"], kind) for kind in ("naive", "library"))
    few, many = measured["sizes"]["stage_draws"]
    for found in (naive, library):
        found["d"] = found["c"] * many / few
    lines = ["| stage | adds: CPU s | yards | with those before: wall s | CPU s | yards | stage alone, as first written: s | best libraries: s |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for one in measured["stages"]:
        own, whole, letter = one["own"], one["whole"], one["stage"]
        threads = f", {one['threads']} threads" if one["threads"] > 1 else ""
        cells = [f"{letter}: {one['name']}{threads}", number(own["cpu_s"]), number(own["yards"]),
                 *(number(whole[name]) for name in ("wall_s", "cpu_s", "yards"))]
        cells += [number(found[letter]) if letter in found else "" for found in (naive, library)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(measured: Measured) -> str:
    """A line per rival; a ratio above 1 says how many times longer the rival takes."""
    yard = median(measured["yard_s"])
    lines = ["| workload | ours, s | yards | rate | against | theirs / ours (min-max) |", "|---|--:|--:|--:|---|--:|"]
    notes: dict[str, str] = {}
    for row in measured["rows"]:
        middle = median(row["ours"]["wall_s"])
        first = row["workload"] not in notes
        notes[row["workload"]] = "; ".join(part for part in (row["note"], f"agreement: {row['agreed']}" if row["agreed"] else "") if part)
        cells = [row["workload"], number(middle), number(middle / yard), f"{number(row['rate'])} {row['unit']}"] if first else [""] * 4
        if "rival" in row:
            against = row["rival"] + (f" ({row['rival_note']})" if row["rival_note"] else "")
            cells += [against, f"**{number(row['ratio'])}** ({number(row['ratio_low'])}-{number(row['ratio_high'])})"]
        else:
            cells += [f"peak {row['peak_mib']:.0f} MiB" if "peak_mib" in row else "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {name}: {note}." for name, note in notes.items())])


def whole(measured: Measured) -> str:
    """Every table with its heading."""
    memory = "".join(f"\n- {one['name']}: {one['peak_mib']:.0f} MiB, {one['peak_mib'] - one['before_mib']:.0f} more than before it"
                     for one in measured["memory"])
    documents = measured["sizes"]["seed_documents"]
    parts = [head(measured), "## Targets", gate_table(measured), f"## Seed 000: {documents:,} documents x 32 tokens x 12 layers"]
    parts.append(stage_table(measured))
    parts += ["Peak memory of a process of its own:\n" + memory] if memory else []
    lines = [f"- {one['what']}: {median(one['wall_s']):.3f} s ({min(one['wall_s']):.3f}-{max(one['wall_s']):.3f})"
             + (f", loads {', '.join(one['loads'])}" if one["loads"] else "") for one in measured["start"]]
    parts += ["Start, each in a process of its own; imports without the interpreter's own start:\n\n" + "\n".join(lines)] if lines else []
    return "\n\n".join([*parts, "## Every workload", table(measured)])


def page(measured: Measured) -> str:
    """A page of the project's documents."""
    return ("# Benchmarks\n\nWritten by `make bench ARGS='--markdown docs/benchmarks.md'`. Every other way is shown to give our numbers before it is "
            ""
            "timed; times are taken in turn within the run, so that a ratio holds though the machine's speed changes. A yard is one plain pass "
            "over 66 layer pairs x 1.19 million tokens: this machine's counting limit at that moment, in CPU seconds for the stages. What ran "
            "on a slice says so and is scaled.\n\n" + whole(measured) + "\n")


def changes(before: Measured, now: Measured) -> str:
    """Markdown: every ratio of an earlier run, and every stage, beside this one's. Raises ValueError where the two did different work."""
    if any(before[name] != now[name] for name in ("form", "sizes")):
        raise ValueError("--against: that run measured other sizes or another form of the bench; run both alike")
    then = {(row["workload"], row["rival"]): row for row in before["rows"] if "rival" in row}
    lines = [f"| theirs / ours; yards of stages | {before['commit']} | {now['commit']} |", "|---|--:|--:|"]
    of_stages = {one["stage"]: one for one in before["stages"]}
    for one in now["stages"]:
        if one["stage"] in of_stages:
            lines.append(f"| stage {one['stage']} | {number(of_stages[one['stage']]['own']['yards'])} | {number(one['own']['yards'])} |")
    for row in now["rows"]:
        if (earlier := then.get((row["workload"], row.get("rival")))) is not None:
            lines.append(f"| {row['workload']}: {row['rival']} | {number(earlier['ratio'])} | {number(row['ratio'])} |")
    return "\n".join(lines)
