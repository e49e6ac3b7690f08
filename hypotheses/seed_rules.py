"""What the seeds themselves would have said: their grade bands and binary rules, shown beside our verdict and never instead of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hypotheses.claim import Band

GRADES = ("excellent", "good", "acceptable", "insufficient")  # best to worst

# Seed 003, "What Makes a Good Result?". The seed leaves -.3, 30 % and 40 % undefined; each is closed on the side its words allow.
SEED_003_RHO = (Band("excellent", below=-0.6), Band("good", below=-0.4), Band("acceptable", below=-0.3), Band("insufficient"))
SEED_003_SHARE = (Band("excellent", above=0.5), Band("good", above=0.4), Band("acceptable", at_least=0.3), Band("insufficient"))
SEED_003_COVERAGE = (Band("excellent", above=0.6), Band("good", above=0.5), Band("acceptable", above=0.4), Band("insufficient"))

SEED_003_MAX_RHO, SEED_003_MAX_P, SEED_003_MIN_SHARE, SEED_003_MIN_COVERAGE = -0.4, 0.01, 0.30, 0.40


def grade(value: float, bands: Sequence[Band]) -> str:
    """The first (best) band that holds `value`. Raises ValueError where no band does."""
    for band in bands:
        if band.holds(value):
            return band.grade
    raise ValueError(f"no band holds {value}; end the bands with one without bounds")


def lowest(grades: Iterable[str | None]) -> str | None:
    """The worst of several grades; None when one is missing or there are none, since a minimum needs all of them."""
    listed = list(grades)
    known = [one for one in listed if one is not None]
    return max(known, key=GRADES.index) if known and len(known) == len(listed) else None


def _shown_p(p: float) -> str:
    return "p < 1e-300" if p < 1e-300 else f"p = {p:.3g}"


def seed_003(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Seed 003, "Success Criteria": rho < -0.4 and p < .01, share >= 30 %, coverage > 40 %, all on point estimates.

    facts: rho, p, n_types, share, coverage as the seed computes them. Returns supported (None where an input is missing), words, lines.
    """
    missing = [key for key in ("rho", "p", "n_types", "share", "coverage") if facts.get(key) is None]
    if missing:
        return {"supported": None, "words": "VAR Hypothesis: the seed's rule cannot be computed", "lines": [],
                "reason": f"no {', '.join(missing)}", "rule": "seed 003"}
    rho, p, n, share, coverage = (facts[key] for key in ("rho", "p", "n_types", "share", "coverage"))
    checks = (
        (rho < SEED_003_MAX_RHO and p < SEED_003_MAX_P,
         f"Spearman correlation between frequency and entropy: rho = {rho:.3f}, {_shown_p(p)}, n = {n:,} types (rho < -0.4, p < 0.01)"),
        (share >= SEED_003_MIN_SHARE, f"{share:.1%} of tokens have low entropy (< 0.5) (at least 30 %)"),
        (coverage > SEED_003_MIN_COVERAGE, f"Fast-path routing can cover {coverage:.1%} of token occurrences (> 40 %)"),
    )
    supported = all(passed for passed, _ in checks) and not any(math.isnan(x) for x in (rho, p, share, coverage))
    return {"supported": supported, "words": "VAR Hypothesis SUPPORTED" if supported else "VAR Hypothesis NOT SUPPORTED",
            "lines": [{"passed": bool(passed), "text": text} for passed, text in checks], "rule": "seed 003",
            "p": p, "n_types": n}


SEED_000_LAYERS, SEED_000_DOMAINS, SEED_000_R = 1.5, 0.5, 0.8


def seed_000(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Seed 000, "Main Claims": cross-layer MI > 1.5 bits, cross-domain MI > 0.5 bits and > 0 for all pairs, MI(Prophet) > MI(random), r > 0.8.

    On point estimates; its cross-domain MI has no value, so transferred information is read in its place. facts: cross_layer_mi,
    cross_domain_mi, cross_domain_min, predictor_mi, random_mi, mi_accuracy_r. Returns supported (None where one is missing), words, lines.
    """
    asked = (
        ("cross_layer_mi", SEED_000_LAYERS, "Cross-layer MI", "bits"),
        ("cross_domain_mi", SEED_000_DOMAINS, "Cross-domain MI (transferred)", "bits"),
        ("cross_domain_min", 0.0, "Cross-domain MI (transferred) of the least pair", "bits"),
        ("predictor_mi", float(facts.get("random_mi") or 0.0), "MI(Prophet, actual)", "bits"),
        ("mi_accuracy_r", SEED_000_R, "MI against accuracy, r", ""))
    lines = [{"passed": bool(facts[key] > bound), "text": f"{words} = {facts[key]:.3f} {unit}".strip() + f" (> {bound:g})"}
             for key, bound, words, unit in asked if facts.get(key) is not None]
    missing = [words for key, _, words, _ in asked if facts.get(key) is None]
    if missing:
        return {"supported": None, "words": "Topology: the seed's rule cannot be computed in full", "lines": lines,
                "reason": f"no {', '.join(missing)}", "rule": "seed 000"}
    supported = all(line["passed"] for line in lines)
    return {"supported": supported, "words": "Prophet learns topology SUPPORTED" if supported else "Prophet learns topology NOT SUPPORTED",
            "lines": lines, "rule": "seed 000"}


SEED_004_MAX_P = 0.01  # metrics specification 6; the table's template prints < 0.001 for all rows but one


def seed_004(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Seed 004, F: every row of its table, in the seed's own forms, better for SPECTRA with p < .01 of its t test (D.4), on point estimates.

    facts: rows, each with label, form, baseline, treatment, better ("higher" or "lower"), expected (texts of both arms) and p. Returns
    supported (None where a row has no number, or is better and has no p), words, lines.
    """
    rows = facts.get("rows", ())
    known = [row for row in rows if row["baseline"] is not None and row["treatment"] is not None]
    lines, undecided = [], []
    for row in known:
        better = row["treatment"] > row["baseline"] if row["better"] == "higher" else row["treatment"] < row["baseline"]
        p, form = row.get("p"), f" ({row['form']})" if row.get("form") else ""
        undecided += [row["label"]] if better and p is None else []
        guess = " against ".join(one or "no guess" for one in row["expected"]) if any(row["expected"]) else ""
        lines.append({"passed": bool(better and p is not None and p < SEED_004_MAX_P),
                      "text": f"{row['label']}{form}: {row['baseline']:.3f} to {row['treatment']:.3f} ({row['better']} is better), "
                              + ("no p" if p is None else _shown_p(p)) + (f"; the seed expects {guess}" if guess else "")})
    if not rows or len(known) < len(rows) or undecided:
        missing = ", ".join(row["label"] for row in rows if row not in known)
        reason = "; ".join(one for one in (f"no {missing or 'any row'}" if missing or not rows else "",
                                           f"no p of {', '.join(undecided)}, which needs two trainings that differ" if undecided else "") if one)
        return {"supported": None, "words": "SPECTRA: the seed's table cannot be filled in full", "lines": lines, "reason": reason,
                "rule": "seed 004"}
    supported = all(line["passed"] for line in lines)
    return {"supported": supported, "words": "SPECTRA improves every row of the seed's table" if supported else
            "SPECTRA does not improve every row of the seed's table", "lines": lines, "rule": "seed 004"}


RULES: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"seed_003": seed_003, "seed_000": seed_000, "seed_004": seed_004}
