"""Findings about which rows there are: keys that come again, decisions written several times, tokens without a row, constant traffic."""

from __future__ import annotations

import numpy as np

from analysis.arithmetic import entropy_bits
from analysis.audit.changes import largest_change
from analysis.audit.copies import names
from analysis.audit.flaw import Flaw, flaw
from analysis.audit.observed import Observed
from analysis.kernels import Int

FEWEST_RUNS = 8  # runs of equal rows in a document, all of lengths with one factor, before that is no chance
CONSTANT_SHARE = 0.002  # of rows
EARLY = 0.2  # share of a domain's rows before a change that is called a beginning
LEAST_EFFECT = 0.15  # of a change, 1 being that of renamed experts; our own domains, ordered by length, show 0.03


def duplicate_keys(seen: Observed) -> Flaw | None:
    """Rows whose (document, position) another row has."""
    documents = seen.documents
    surplus = documents.rows - documents.keys.covered(len(documents.rows))
    if not surplus.any():
        return None
    return flaw("duplicate_keys", int(surplus.sum()), seen.n_rows, "rows", f"{int(surplus.sum()):,} rows repeat a (document, position) in "
                f"{int((surplus > 0).sum()):,} documents", names(seen, np.flatnonzero(surplus)))


def repeated_operations(seen: Observed) -> Flaw | None:
    """Documents in which equal rows come in twos, threes, ... throughout."""
    documents = seen.documents
    found = (documents.run_gcd > 1) & (documents.runs >= FEWEST_RUNS)
    if not found.any():
        return None
    factors = np.bincount(documents.run_gcd[found])
    return flaw("repeated_operations", int(found.sum()), len(found), "documents", f"every routing decision is written {int(factors.argmax())} times "
                f"in {int(found.sum()):,} documents", names(seen, np.flatnonzero(found)))


def tokens_missing(seen: Observed) -> Flaw | None:
    """Positions without a row between the first and the last of a document; the meta's `special_tokens` explain them."""
    documents = seen.documents
    between = np.where(documents.rows > 0, documents.most - documents.least + 1 - documents.keys.covered(len(documents.rows)), 0)
    total = int(between.sum())
    if not total or isinstance(seen.meta.details.get("special_tokens"), dict):
        return None
    return flaw("tokens_missing", total, total + seen.n_rows, "tokens", f"{total:,} positions between others have no row, in "
                f"{int((between > 0).sum()):,} documents", names(seen, np.flatnonzero(between)))


def ends_missing(seen: Observed) -> Flaw | None:
    """Positions without a row before a document's first and, where the meta's `document_lengths` (by document) tell, after its last."""
    documents = seen.documents
    there = documents.rows > 0
    before = np.where(there, documents.least, 0)
    if isinstance(seen.meta.details.get("special_tokens"), dict):
        before = np.zeros_like(before)
    after = np.where(there, np.maximum(_lengths(seen) - documents.most - 1, 0), 0)
    total = int((before + after).sum())
    if not total:
        return None
    words = ", ".join(f"{int(part.sum()):,} {what}" for part, what in ((before, "before the first row"), (after, "after the last row")) if part.any())
    return flaw("ends_missing", total, total + seen.n_rows, "tokens", f"{words}, in {int((before + after > 0).sum()):,} documents",
                names(seen, np.flatnonzero(before + after)))


def _lengths(seen: Observed) -> Int:
    declared = seen.meta.details.get("document_lengths")
    known = declared if isinstance(declared, dict) else {}
    return np.array([int(known.get(str(one.document)) or known.get(one.document) or 0) for one in seen.documents.documents], np.int64)


def warm_up(seen: Observed) -> Flaw | None:
    """Long runs of one routing decision, whole documents of it, or first documents that load other experts than all later ones."""
    constant = seen.documents.constant
    rows = int(constant.sum())
    if rows and rows >= CONSTANT_SHARE * seen.n_rows:
        with_, without = _entropies(seen)
        chosen = np.flatnonzero(constant)
        chosen = chosen[np.argsort(seen.documents.arrival[chosen])]
        return flaw("warm_up", rows, seen.n_rows, "rows", f"{rows:,} rows repeat one decision in long runs; entropy of loads, mean over layers, is "
                    f"{with_:.2f} bits with them and {without:.2f} without", names(seen, chosen))
    return _change(seen, early=True)


def mixed_runs(seen: Observed) -> Flaw | None:
    """A place where the loads of a domain change by more than its documents differ: two models, settings or engines in one trace."""
    return _change(seen, early=False)


def _change(seen: Observed, *, early: bool) -> Flaw | None:
    experts = np.array([layer.n_experts for layer in seen.meta.layers])
    change = largest_change(*seen.blocks.shares(), experts)
    if change is None or not change.beyond_documents or change.effect < LEAST_EFFECT:
        return None
    before = change.rows_before / change.rows
    if (before <= EARLY) != early:
        return None
    count = change.rows_before if early else min(change.rows_before, change.rows - change.rows_before)
    return flaw("warm_up" if early else "mixed_runs", count, seen.n_rows, "rows", f"after {before:.0%} of the rows loads change by "
                f"{change.statistic / change.largest:.1f} times the largest change among shuffled documents", [f"after {change.rows_before:,} rows"])


def _entropies(seen: Observed) -> tuple[float, float]:
    with_ = [float(entropy_bits(one.loads)) for one in seen.layers.layers]
    without = [float(entropy_bits(one.loads - one.constant)) for one in seen.layers.layers]
    return float(np.mean(with_)), float(np.mean(without))
