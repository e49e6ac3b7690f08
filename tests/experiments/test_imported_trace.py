"""Foreign traces joined into one: domains, splits, numbers, refusals; and their way into a store that a death does not spoil."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.trace import CountsTrace, DocumentRow, TraceBatch, TraceError, TraceMeta
from experiments.imported_trace import PER_PART, Draw, ImportedTrace, Opened, Said, joined, opened, sha256_of
from experiments.importing import Reading, whole
from experiments.readers.contract import SPLIT, ForeignCounts, ReadError, ReadOptions, Remark
from experiments.stages.imported import store
from tests.experiments.readers.test_esft import written
from tests.synthetic_trace import make_batch, make_meta
from tracking import count_tables
from tracking.traces import StoredTrace

QUIET_DRAW = Draw(0.7, "assay")


class Quiet:
    """A progress that says nothing."""

    def stage(self, *_: object) -> Quiet:
        return self

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, n: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


class Foreign:
    """Documents of 10 to 20 tokens, two a batch, without token ids."""

    def __init__(self, domain: str, n_documents: int, *, split: str = SPLIT, seed: int = 0, **meta: object) -> None:
        self.meta: TraceMeta = make_meta(((16, 2), (8, 2)), **meta)
        self.documents: Sequence[DocumentRow] = tuple(DocumentRow(n, f"{domain}/{n}", domain, split) for n in range(n_documents))
        self.remarks = (Remark("made_up", "drawn for a test", 3),)
        rows = make_batch(np.random.default_rng(seed), self.meta, self.documents, tokens=(10, 20))
        self.rows = replace(rows, token_id=None)
        self.decoded: list[int] = []

    def batches(self, *, after: int = -1) -> Iterator[tuple[int, TraceBatch]]:
        for number in range(after + 1, (len(self.documents) + 1) // 2):
            self.decoded.append(number)
            mine = np.isin(self.rows.document, [2 * number, 2 * number + 1])
            parts = {name: tuple(column[mine] for column in getattr(self.rows, name)) for name in ("ids", "weights")}
            reals = {name: getattr(self.rows, name)[:, mine] for name in ("entropy_nats", "simpson", "top1_prob")}
            yield number, TraceBatch(self.rows.document[mine], self.rows.position[mine], None, **parts, **reals)


def part(name: str, trace: Foreign | ForeignCounts) -> Opened:
    return Opened(Path(name), "made-up", f"{len(name):064d}", trace)


def two(**second: object) -> ImportedTrace:
    trace = joined([part("a.x", Foreign("code", 5)), part("bb.x", Foreign("news", 4, seed=1, **second))], QUIET_DRAW)
    assert isinstance(trace, ImportedTrace)
    return trace


def said(*details: dict[str, object]) -> dict[str, object]:
    """What the common meta says where each part's meta says `details`."""
    parts = [part(f"{n}.x", Foreign(f"d{n}", 3, seed=n, details=one)) for n, one in enumerate(details)]
    return {name: value for name, value in joined(parts, QUIET_DRAW).meta.details.items() if name != "imported"}


def test_what_one_part_doubts_is_in_doubt_and_what_all_vouch_for_is_vouched_for() -> None:
    assert said({"documents_are": "passes"}, {}) == {"documents_are": "passes"}
    assert said({"documents_are": "passes"}, {"documents_are": "blocks"}) == {"documents_are": "passes; blocks"}
    assert said({"slot_order": "falling"}, {}) == {} and said({"slot_order": "falling"}, {"slot_order": "falling"}) == {"slot_order": "falling"}
    assert said({"moe_layers_of_model": 2}, {"moe_layers_of_model": 4}) == {"moe_layers_of_model": 4}
    one, other = ({"special_tokens": {"prefix": [n], "suffix": [], "without_rows": [n, 9]}} for n in (1, 2))
    assert said(one, {}) == {} and said(one, one) == one
    assert said(one, other) == {"special_tokens": {"prefix": [1, 2], "suffix": [], "without_rows": [1, 2, 9]}}


def test_layers_of_the_model_are_said_where_the_files_do_not() -> None:
    one = [part("a.x", Foreign("code", 3))]
    assert joined(one, QUIET_DRAW, Said(7)).meta.details["moe_layers_of_model"] == 7
    with pytest.raises(ReadError, match="2 layers were recorded, and the model is said to have 1"):
        joined(one, QUIET_DRAW, Said(1))


def test_the_first_rows_of_every_document_are_left_out() -> None:
    parts = [part("a.x", Foreign("code", 5)), part("bb.x", Foreign("news", 4, seed=1))]
    every, rest = joined(parts, QUIET_DRAW), joined(parts, QUIET_DRAW, Said(leave_out_first=3))
    assert isinstance(every, ImportedTrace) and isinstance(rest, ImportedTrace) and every.digest != rest.digest
    assert rest.meta.details["rows_left_out_first"] == 3
    for (_, whole_), (_, kept) in zip(every.numbered(), rest.numbered(), strict=True):
        late = whole_.position >= 3
        assert np.array_equal(kept.document, whole_.document[late]) and np.array_equal(kept.ids[1], whole_.ids[1][late])
        assert set(kept.document.tolist()) == set(whole_.document.tolist()) and int(kept.position.min()) == 3
    with pytest.raises(ReadError, match="rows, of which the first 15 would be left out"):
        list(joined(parts, QUIET_DRAW, Said(leave_out_first=15)).numbered())
    counts = [part("c.x", ForeignCounts(make_meta(((8, 2),)), ("code",), (np.ones((1, 8), np.int64),)))]
    with pytest.raises(ReadError, match="holds counts and no rows"):
        joined(counts, QUIET_DRAW, Said(leave_out_first=1))


def test_documents_of_both_files_are_numbered_through_and_dealt_by_their_id() -> None:
    trace = two()
    assert [row.document for row in trace.documents] == list(range(9))
    assert [row.domain for row in trace.documents] == ["code"] * 5 + ["news"] * 4
    assert [row.split for row in trace.documents] == [QUIET_DRAW.split(row.id) for row in trace.documents]
    assert {row.split for row in trace.documents} == {"calibration", "test"}
    alone = joined([part("bb.x", Foreign("news", 4, seed=1))], QUIET_DRAW)
    assert [row.split for row in alone.documents] == [row.split for row in trace.documents[5:]], "a split depends on no other document"


def test_shares_of_the_draw_are_those_asked_for() -> None:
    share = np.mean([Draw(0.7, "x").split(f"document {n}") == "test" for n in range(20_000)])
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / 20_000)


def test_splits_of_a_source_that_has_them_are_kept() -> None:
    trace = joined([part("a.x", Foreign("code", 3, split="calibration"))], QUIET_DRAW)
    assert isinstance(trace, ImportedTrace) and {row.split for row in trace.documents} == {"calibration"}


def test_rows_come_by_split_and_layer() -> None:
    trace, foreign = two(), Foreign("code", 5)
    every = np.concatenate([batch.document for batch in trace.batches()])
    assert sorted(set(every.tolist())) == list(range(9))
    for split in ("calibration", "test"):
        for batch in trace.batches(split=split, layers=[1]):
            assert {trace.documents[number].split for number in batch.document.tolist()} == {split}
            assert len(batch.ids) == 1 and batch.entropy_nats is not None and batch.entropy_nats.shape == (1, len(batch))
    first = next(trace.batches(layers=[1]))
    assert np.array_equal(first.ids[0], foreign.rows.ids[1][:len(first)])


def test_two_models_are_not_one_trace() -> None:
    with pytest.raises(ReadError, match=r"a\.x and bb\.x are not of one model[\s\S]*revision"):
        two(revision="another")


def test_a_file_given_twice_is_named() -> None:
    with pytest.raises(ReadError, match=r"a\.x and b\.x: document 'code/0' .*more than once \(3 such ids\)"):
        joined([part("a.x", Foreign("code", 3)), part("b.x", Foreign("code", 3))], QUIET_DRAW)


def test_a_store_filled_in_two_goes_is_the_same_trace(tmp_path: Path) -> None:
    store(two(), tmp_path / "whole", Quiet())
    broken = two()
    batches = broken.numbered

    def dies(finished: frozenset[int] = frozenset()) -> Iterator[tuple[int, TraceBatch]]:
        for number, batch in batches(finished):
            if number == PER_PART + 1:
                raise KeyboardInterrupt
            yield number, batch

    broken.numbered = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        store(broken, tmp_path / "parts", Quiet())
    again = two()
    report = store(again, tmp_path / "parts", Quiet())
    assert [part.trace.decoded for part in again.parts] == [[], [1]], "what is stored is not decoded again"  # type: ignore[union-attr]
    stored = StoredTrace.open(tmp_path / "parts")
    assert stored.digest == StoredTrace.open(tmp_path / "whole").digest == stored.verify()
    assert store(two(), tmp_path / "parts", Quiet())["rows"] == stored.n_tokens, "a third call finds it whole"
    assert report["rows"] == stored.n_tokens and report["documents"] == 9
    assert [remark["file"] for remark in report["remarks"]] == ["a.x", "bb.x"]
    assert all(batch.token_id is None for batch in stored.batches())


def test_one_trace_fills_token_ids_always_or_never(tmp_path: Path) -> None:
    from tracking.traces import TraceWriter

    meta, documents = make_meta(), tuple(DocumentRow(n, f"d{n}", "code", "test") for n in range(2))
    writer = TraceWriter.create_or_resume(tmp_path / "t", meta, documents)
    rng = np.random.default_rng(0)
    writer.write_shard(0, make_batch(rng, meta, documents[:1]), [0])
    with pytest.raises(TraceError, match="token_id.* in some shards only"):
        writer.write_shard(1, replace(make_batch(rng, meta, documents[1:]), token_id=None), [1])


def counts(domain: str, **changes: object) -> ForeignCounts:
    meta = make_meta(((4, 2), (3, 1)))
    given = {"meta": meta, "domains": (domain,), "counts": (np.array([[4, 3, 2, 1]]), np.array([[1, 2, 2]])), "tokens": np.array([5]),
             "pairs": {(0, 1): np.ones((1, 4, 3), np.int64)}, "types": (np.array([[0, 1, 7, 2]]), np.array([[0, 2, 7, 1]]))}
    return ForeignCounts(**{**given, **changes})  # type: ignore[arg-type]


def test_counts_of_two_files_lie_side_by_side_and_survive_the_store(tmp_path: Path) -> None:
    trace = joined([part("a.x", counts("code")), part("b.x", counts("news"))], QUIET_DRAW)
    assert isinstance(trace, CountsTrace) and trace.domains == ("code", "news") and trace.first is None
    assert trace.types is not None and trace.types[1].tolist() == [[0, 2, 7, 1], [1, 2, 7, 1]]
    count_tables.save(trace, tmp_path)
    back = count_tables.load(tmp_path)
    assert back.domains == trace.domains and back.meta == trace.meta and back.tokens is not None and back.tokens.tolist() == [5, 5]
    assert all(np.array_equal(one, other) for one, other in zip(back.counts, trace.counts))
    assert back.pairs[0, 1].shape == (2, 4, 3)


def test_layers_beyond_a_hundred_keep_their_order(tmp_path: Path) -> None:
    meta = make_meta(((4, 2),) * 103)
    count_tables.save(CountsTrace(meta, ("code",), tuple(np.full((1, 4), n) for n in range(103))), tmp_path)
    assert [int(table[0, 0]) for table in count_tables.load(tmp_path).counts] == list(range(103))


def test_counts_that_are_none_and_damaged_counts_are_refused(tmp_path: Path) -> None:
    trace = joined([part("a.x", counts("code"))], QUIET_DRAW)
    assert isinstance(trace, CountsTrace)
    with pytest.raises(TraceError, match=r"counts, layer .*expected int64 \[1, 4\]"):
        count_tables.save(replace(trace, counts=(trace.counts[0] - 2, trace.counts[1])), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    count_tables.save(trace, tmp_path)
    raw = bytearray((tmp_path / count_tables.TABLES).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / count_tables.TABLES).write_bytes(raw)
    with pytest.raises(TraceError, match="expected sha256 .* import the file again"):
        count_tables.load(tmp_path)


def test_rows_and_counts_are_not_mixed() -> None:
    foreign = Foreign("code", 3)
    with pytest.raises(ReadError, match=r"rows and counts cannot be one trace \(a\.x: rows, b\.x: counts\)"):
        joined([part("a.x", foreign), part("b.x", counts("news", meta=foreign.meta))], QUIET_DRAW)


def test_what_no_reader_knows_is_refused_with_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ReadError, match="of none of the formats .*esft.*--mapping"):
        whole(tmp_path / "notes.txt")
    with pytest.raises(ReadError, match="no such file"):
        opened([tmp_path / "absent"], [ReadOptions()])
    with pytest.raises(ReadError, match="format 'nothing': not known; one of"):
        opened([tmp_path / "notes.txt"], [ReadOptions()], "nothing")


def test_a_folder_is_known_by_names_and_bytes_not_by_where_it_lies(tmp_path: Path) -> None:
    for where in ("one", "two"):
        (tmp_path / where / "sub").mkdir(parents=True)
        (tmp_path / where / "sub" / "a").write_text("1")
    assert sha256_of(tmp_path / "one") == sha256_of(tmp_path / "two")
    (tmp_path / "two" / "sub" / "a").rename(tmp_path / "two" / "sub" / "b")
    assert sha256_of(tmp_path / "one") != sha256_of(tmp_path / "two")


def test_a_whole_file_is_described_in_one_split(tmp_path: Path) -> None:
    trace = whole(written(tmp_path))
    assert isinstance(trace, ImportedTrace) and {row.split for row in trace.documents} == {"test"}


def test_lengths_of_documents_are_told_under_the_common_numbers() -> None:
    parts = [part("a.x", Foreign("code", 2, details={"document_lengths": {"0": 11, "1": 12}})),
             part("bb.x", Foreign("news", 2, seed=1, details={"document_lengths": {"1": 21}}))]
    trace = joined(parts, QUIET_DRAW)
    assert trace.meta.details["document_lengths"] == {"0": 11, "1": 12, "3": 21}


def unsorted(path: Path) -> Path:
    """Three documents of ten rows in gpt-oss' packed form, every second row with its slots by rising weight: 5 rows a document."""
    ids, probabilities = np.tile([1, 2], (30, 1, 1)).astype(np.uint8), np.tile(np.float32([0.75, 0.25]), (30, 1, 1))
    probabilities[::2] = probabilities[::2, :, ::-1]
    np.savez(path, doc_id=np.array(["a/b/c", "a/b/d", "a/b/e"]), doc_len=np.array([10, 10, 10]), first_pos=np.zeros(3, np.int64), expert_ids=ids,
             prob_bf16=(probabilities.view(np.uint32) >> 16).astype(np.uint16))
    return path


def test_what_was_met_is_counted_once_however_often_an_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.readers._rows.ROWS_PER_BATCH", 10)
    path = unsorted(tmp_path / "x.npz")

    def trace() -> ImportedTrace:
        found = whole(path, Reading(ReadOptions(n_experts=8)))
        assert isinstance(found, ImportedTrace)
        return found

    broken = trace()
    batches = broken.numbered

    def dies(finished: frozenset[int] = frozenset()) -> Iterator[tuple[int, TraceBatch]]:
        for number, batch in batches(finished):
            if number == 2:
                raise KeyboardInterrupt
            yield number, batch

    broken.numbered = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        store(broken, tmp_path / "out", Quiet())
    for _ in range(3):
        met = {one["code"]: (one["count"], one["share"]) for one in store(trace(), tmp_path / "out", Quiet())["remarks"]}
        assert met == {"sorted_by_weight": (15, 0.5)}
    next((tmp_path / "out").glob("remarks-*.json")).unlink()
    met = {one["code"]: (one["count"], one["share"]) for one in store(trace(), tmp_path / "out", Quiet())["remarks"]}
    assert met == {"sorted_by_weight": (10, 0.5), "remarks_incomplete": (1, None)}
