"""Each flaw is found at its mildest, at a middling and at a gross severity, and says what it must; nothing is found where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.audit import CODES, FAMILIES, FINDINGS, TABLE_FINDINGS, audit, differing_meta, invalidating
from analysis.audit.flaw import SHOWN, flaw
from analysis.audit.words import declared_sum
from analysis.trace import TraceBatch, TraceError
from tests.analysis.audit.flaws import PLANTED, changed, planted, rows, whole, with_rows
from tests.analysis.audit.worlds import World, clean, drawn_world, meta_of
from tests.references.memory_trace import MemoryTrace

BESIDE = {  # what else is true of a trace with the flaw
    "padding": {"one_type_dominates"}, "one_type_dominates": {"padding", "dependent_documents", "shared_prefix"},
    "warm_up": {"counted_twice", "mixed_runs"}, "other_beginning": {"mixed_runs"}, "dependent_documents": {"shared_prefix", "first_token_sinks"},
    "shared_prefix": {"first_token_sinks"},
}
CLEAN_SHORT, CLEAN_LONG, MOST_ALARMS = 12, 200, 2  # 1 % of 200


@pytest.mark.parametrize("name", PLANTED)
def test_a_flaw_is_found_at_every_severity_and_no_other(name: str) -> None:
    code, shares = PLANTED[name][0], []
    for severity in range(3):
        found = {one.code: one for one in audit(planted(name, severity))}
        assert code in found, (name, severity, sorted(found))
        assert set(found) - {code} <= BESIDE.get(name, set()), (name, severity, sorted(found))
        one = found[code]
        shares.append(one.share)
        assert 0 < one.count <= one.of or code == "few_documents"
        assert 0 < one.share <= 1 and one.words and len(one.where) <= SHOWN + 1
        slight = one.share < CODES[code].material
        assert one.severity == ("warning" if slight else CODES[code].severity) and set(one.invalidates) <= set(FAMILIES)
        assert one.invalidates == (() if slight else CODES[code].invalidates)
    if code not in ("slot_order_unknown", "dense_layers", "small_sample", "few_documents", "physical_ids"):
        assert shares[0] <= shares[1] <= shares[2]


def test_every_code_has_a_planted_flaw_or_is_of_tables() -> None:
    of_tables = {"common_factor", "sums_disagree", "rank_paired", "differing_meta"}
    assert {code for code, _ in PLANTED.values()} | of_tables == set(CODES)
    for kind in CODES.values():
        assert kind.title and kind.consequence and kind.remedy
        assert bool(kind.invalidates) == (kind.severity == "invalidating")
    assert len({look.__name__ for look in (*FINDINGS, *TABLE_FINDINGS)}) == len(FINDINGS) + len(TABLE_FINDINGS)
    with pytest.raises(KeyError):
        flaw("no_such_code", 1, 1, "rows", "words")


def test_clean_traces_raise_no_alarm() -> None:
    assert _alarms(CLEAN_SHORT) == []


@pytest.mark.slow
def test_two_hundred_clean_traces_raise_at_most_two_alarms() -> None:
    assert len({seed for seed, _ in _alarms(CLEAN_LONG)}) <= MOST_ALARMS


def _alarms(n: int) -> list[tuple[int, str]]:
    """Findings of clean traces with topics and ragged lengths, of any shape."""
    return [(seed, one.code) for seed in range(n) for one in audit(clean(drawn_world(np.random.default_rng([9, seed])), 1_000 + seed))]


def test_numbers_of_the_findings() -> None:
    trace = clean(World())
    n = len(whole(trace))
    doubled = {one.code: one for one in audit(planted("counted_twice", 2))}["counted_twice"]
    assert (doubled.count, doubled.of, doubled.unit) == (60, 120, "documents") and "whole pass" in doubled.words
    keys = {one.code: one for one in audit(planted("duplicate_keys", 1))}["duplicate_keys"]
    assert keys.count == round(0.02 * n) and keys.of == n + keys.count
    gaps = {one.code: one for one in audit(planted("first_tokens_missing", 2))}["ends_missing"]
    assert gaps.count == 8 * 60
    beyond = {one.code: one for one in audit(planted("ids_beyond_range", 0))}["ids_beyond_range"]
    assert beyond.count == 1 and "off by one?" in beyond.words
    missing = {one.code: one for one in audit(planted("missing_entropies", 0))}["missing_entropies"]
    batch = whole(planted("missing_entropies", 0))
    assert batch.entropy_nats is not None
    type_ = int(batch.types[np.isnan(batch.entropy_nats[0])][0])
    assert missing.count == 1 and f"carry {int((batch.types == type_).sum()):,} occurrences" in missing.words
    triple = {one.code: one for one in audit(planted("repeated_operations", 2))}["repeated_operations"]
    assert "written 3 times" in triple.words and triple.count == 60


def test_warm_up_says_what_the_entropy_would_be_without_it() -> None:
    trace, flawed = clean(World()), planted("warm_up", 2)
    one = next(one for one in audit(flawed) if one.code == "warm_up")
    bits = []
    for some in (flawed, trace):
        loads = [np.bincount(ids.ravel(), minlength=16) for ids in whole(some).ids]
        bits.append(np.mean([-(p[p > 0] * np.log2(p[p > 0])).sum() for p in (load / load.sum() for load in loads)]))
    assert f"{bits[0]:.2f} bits with them and {bits[1]:.2f} without" in one.words


def test_order_of_shards_names_of_experts_and_cut_documents_do_not_matter() -> None:
    trace = planted("dependent_documents", 1)
    expected = {one.code: one.count for one in audit(trace)}
    batch = whole(trace)
    cut = [with_rows(trace, batch), replace(trace, shards=[_slice(batch, a, a + 100) for a in range(0, len(batch), 100)])]
    rng = np.random.default_rng(0)
    names = [rng.permutation(16).astype(np.uint8) for _ in batch.ids]
    renamed = with_rows(trace, changed(batch, ids=[name[ids] for name, ids in zip(names, batch.ids)]))
    starts = [*np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1]])[::10].tolist(), len(batch)]
    back = replace(trace, shards=[_slice(batch, a, b) for a, b in zip(starts[-2::-1], starts[:0:-1])])
    for one in (*cut, renamed, back):
        assert {found.code: found.count for found in audit(one)} == expected


def _slice(batch: TraceBatch, start: int, end: int) -> TraceBatch:
    return rows(batch, slice(start, end))


def test_no_types_no_weights_no_rows() -> None:
    trace = clean(World())
    bare = replace(whole(trace), token_id=None, weights=None, entropy_nats=None, simpson=None, top1_prob=None)
    assert [one.code for one in audit(with_rows(trace, bare))] == ["slot_order_unknown"]
    again = planted("counted_twice", 1)
    assert "counted_twice" in {one.code for one in audit(with_rows(again, replace(whole(again), token_id=None)))}
    assert {one.code for one in audit(MemoryTrace(trace.meta, [], []))} <= {"few_documents", "slot_order_unknown"}


def test_a_row_of_a_document_that_is_not_listed_is_refused() -> None:
    trace = clean(World(documents=40))
    with pytest.raises(TraceError, match="list of documents"):
        audit(_Unlisted(trace.meta, trace.documents[:-1], trace.shards))


class _Unlisted(MemoryTrace):
    """Gives all rows, whatever documents it lists."""

    def batches(self, *, split=None, layers=None):  # type: ignore[no-untyped-def]
        yield from self.shards


def test_parts_of_two_models_differ() -> None:
    meta = meta_of(World())
    assert differing_meta([meta]) is None and differing_meta([meta, meta]) is None
    found = differing_meta([meta, replace(meta, model="other", vocabulary_size=7), meta])
    assert found is not None and (found.count, found.of) == (1, 3) and "model" in found.words and "vocabulary_size" in found.words


def test_a_few_dependent_documents_are_a_warning_and_many_withhold_a_verdict() -> None:
    for code, few, many in (("counted_twice", 4, 5), ("dependent_documents", 4, 5)):
        assert flaw(code, few, 100, "documents", "").invalidates == () and flaw(code, few, 100, "documents", "").severity == "warning"
        assert flaw(code, many, 100, "documents", "").invalidates == ("intervals",)
    assert flaw("duplicate_keys", 1, 10**9, "rows", "").severity == "invalidating"


def test_slots_of_equal_weights_are_no_order_and_a_vouched_order_is_no_finding() -> None:
    trace = clean(World())
    batch = whole(trace)
    even = tuple(np.full(one.shape, 0.5, np.float16) for one in batch.ids)
    by_id = replace(batch, ids=tuple(np.sort(one, axis=1) for one in batch.ids), weights=even)
    assert "slots_by_id" in {one.code for one in audit(with_rows(trace, by_id))}
    bare = with_rows(trace, replace(batch, weights=None))
    (unknown,) = audit(bare)
    assert (unknown.code, unknown.invalidates) == ("slot_order_unknown", ("slots",))
    vouched = replace(bare, meta=replace(bare.meta, details={"slot_order": "falling score"}))
    assert audit(vouched) == ()
    sets = with_rows(vouched, replace(by_id, weights=None))
    assert [one.code for one in audit(sets)] == ["slots_by_id"]  # what the source says is not what it did


@pytest.mark.parametrize(("length", "spoils"), [(8, ()), (64, ("domains", "intervals"))])
def test_a_template_spoils_domains_from_a_tenth_of_the_rows_on(length: int, spoils: tuple[str, ...]) -> None:
    trace = clean(World(length=160))
    batch = whole(trace)
    lengths = np.bincount(batch.document)
    longest = int(lengths.argmax())
    start = int(np.flatnonzero(batch.document == longest)[0])
    part = np.minimum(length, lengths // 3)  # less than half: documents stay independent
    alike = batch.position < part[batch.document]
    moved = rows(batch, np.where(alike, start + batch.position, np.arange(len(batch))))
    found = {one.code: one for one in audit(with_rows(trace, replace(moved, document=batch.document, position=batch.position)))}
    assert found["shared_prefix"].invalidates == spoils and (found["shared_prefix"].share >= 0.1) == bool(spoils)
    assert "dependent_documents" not in found


def test_a_template_is_counted_in_the_domain_that_has_most_of_it() -> None:
    trace = clean(World())
    batch, names = whole(trace), [row.domain for row in trace.documents]
    smallest = min(sorted(set(names)), key=names.count)
    start = int(np.flatnonzero(batch.document == int(np.bincount(batch.document).argmax()))[0])
    inside = np.isin(batch.document, [row.document for row in trace.documents if row.domain == smallest]) & (batch.position < 24)
    moved = rows(batch, np.where(inside, start + batch.position, np.arange(len(batch))))
    found = {one.code: one for one in audit(with_rows(trace, replace(moved, document=batch.document, position=batch.position)))}
    own = int(np.isin(batch.document, [row.document for row in trace.documents if row.domain == smallest]).sum())
    assert found["shared_prefix"].of == own and found["shared_prefix"].unit == f"rows of {smallest}"
    assert found["shared_prefix"].where[0].startswith(smallest)


def test_what_a_flaw_spoils_until_it_is_accepted() -> None:
    flaws = audit(planted("counted_twice", 1))
    assert [one.code for one in invalidating(flaws, ("intervals",))] == ["counted_twice"]
    assert invalidating(flaws, ("router_entropy",)) == () and invalidating(flaws, ("intervals",), {"counted_twice"}) == ()


@pytest.mark.parametrize(("words", "meaning"), [
    ("softmax/k", ("one", 1.0)), ("sigmoid/k x 2.5", ("one", 2.5)), ("softmax", ("below", 1.0)), ("softmax x 6", ("below", 6.0)),
    ("sigmoid", ("unknown", 1.0)), ("softmax probability of the chosen, not renormalised", ("below", 1.0)), ("absent", ("unknown", 1.0)),
    ("top-k of softmax, renormalised", ("one", 1.0)), ("softmax over the k chosen", ("one", 1.0)), ("softmax/k; softmax", ("unknown", 1.0)),
    ("softmax/k (the weights fit sigmoid/k and softmax/k alike)", ("one", 1.0)),
])
def test_what_the_meta_says_of_weights(words: str, meaning: tuple[str, float]) -> None:
    assert declared_sum(words) == meaning
