"""Whether a trace is what it seems: one function per flaw, each with its count, share, consequence and remedy.

`observe` reads a trace once; each function of FINDINGS looks at what was seen, and returns a Flaw or None. `audit` asks all of them.
Sources that kept counts only are asked by `audit_tables`, several traces of one experiment by `differing_meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict

from analysis.audit import choices, copies, keys, reals, sample, tables, tokens
from analysis.audit.flaw import CODES, FAMILIES, Flaw, Kind, flaw
from analysis.audit.observed import Observed, observe
from analysis.trace import CountsTrace, RoutingTrace, TraceMeta

__all__ = ["CODES", "FAMILIES", "FINDINGS", "TABLE_FINDINGS", "Flaw", "Kind", "Observed", "audit", "audit_tables", "differing_meta",
           "invalidating", "observe"]

FINDINGS: tuple[Callable[[Observed], Flaw | None], ...] = (
    keys.duplicate_keys, keys.repeated_operations, copies.counted_twice, copies.repeated_rows, keys.warm_up, keys.mixed_runs,
    choices.ids_beyond_range, choices.repeated_choice, choices.physical_ids, choices.dense_layers, choices.repeated_layers,
    choices.unsorted_slots, choices.slots_by_id, choices.slot_order_unknown, reals.missing_entropies, reals.weights_sum, reals.entropy_range,
    tokens.padding, tokens.special_tokens, tokens.one_type_dominates, tokens.first_token_sinks, keys.tokens_missing,
    keys.ends_missing, copies.documents_not_texts, copies.dependent_documents, copies.shared_prefix, copies.few_documents, sample.small_sample,
)
TABLE_FINDINGS: tuple[Callable[[CountsTrace], Flaw | None], ...] = (
    tables.negative_counts, tables.sums_disagree, tables.common_factor, tables.repeated_domains, tables.dense_tables, tables.repeated_tables,
    tables.rank_paired, tables.small_tables,
)


def audit(trace: RoutingTrace, split: str | None = None) -> tuple[Flaw, ...]:
    """Every flaw of the documents of `split` (all, if None). TraceError where the trace cannot be read. The same trace gives the same flaws."""
    seen = observe(trace, split)
    return tuple(found for look in FINDINGS if (found := look(seen)) is not None)


def audit_tables(trace: CountsTrace) -> tuple[Flaw, ...]:
    """Every flaw of additive tables."""
    return tuple(found for look in TABLE_FINDINGS if (found := look(trace)) is not None)


def differing_meta(metas: Sequence[TraceMeta]) -> Flaw | None:
    """Fields of meta in which parts of one experiment differ; None for fewer than two, or alike."""
    if len(metas) < 2:
        return None
    first, differing = asdict(metas[0]), {}
    for number, other in enumerate(metas[1:], 2):
        fields = [name for name, value in asdict(other).items() if name != "details" and value != first[name]]
        if fields:
            differing[number] = fields
    if not differing:
        return None
    return flaw("differing_meta", len(differing), len(metas), "parts", f"fields that differ from the first part's: "
                f"{', '.join(sorted({name for names in differing.values() for name in names}))}",
                [f"part {number}: {', '.join(names)}" for number, names in differing.items()])


def invalidating(flaws: Sequence[Flaw], families: Collection[str], accepted: Collection[str] = ()) -> tuple[Flaw, ...]:
    """Flaws that spoil some of the families and were not accepted by their code."""
    return tuple(one for one in flaws if one.code not in accepted and set(one.invalidates) & set(families))
