"""What the audit finds in published traces of real models; skipped where the traces are not beside the clone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from analysis.audit import audit, audit_tables
from analysis.trace import CountsTrace, DocumentRow, LayerMeta, TraceBatch, TraceMeta
from experiments.imported_trace import Said
from experiments.importing import Reading
from experiments.inspecting import findings, opened
from tests.references.memory_trace import meta

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there: real traces live beside the clone, not in it")
ESFT, OLMOE = DATA / "deepseek-ai__ESFT", DATA / "allenai__OLMoE"


@dataclass(frozen=True)
class AsPublished:
    """ESFT's rows in the order of their slots in the file."""

    meta: TraceMeta
    documents: Sequence[DocumentRow]
    batch: TraceBatch

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        yield self.batch


def test_first_tokens_of_esft_are_sinks_and_its_sequences_share_a_template() -> None:
    for task, documents, spoilt in (("law", 33, ()), ("intent", 127, ("domains", "intervals"))):  # 4 % and 25 % of the rows
        found = {one.code: one for one in findings(opened(ESFT / f"{task}.npz"))}
        assert set(found) == {"first_token_sinks", "shared_prefix"}
        assert found["first_token_sinks"].count == 26 and f"of {documents} first tokens" in found["first_token_sinks"].words
        assert f"{documents} of {documents} documents" in found["shared_prefix"].words
        assert found["shared_prefix"].invalidates == spoilt and not found["first_token_sinks"].invalidates


def test_without_its_template_nothing_of_esft_withholds_a_verdict() -> None:
    trace = opened(ESFT / "intent.npz", Reading(said=Said(leave_out_first=16)))
    found = findings(trace)
    assert not any(one.invalidates for one in found) and "shared_prefix" not in {one.code for one in found}


def test_the_slots_of_esft_are_unsorted_at_the_source() -> None:
    trace = opened(ESFT / "intent.npz")
    assert not isinstance(trace, CountsTrace)
    with np.load(ESFT / "intent.npz", allow_pickle=False) as file:
        ids, weights, lengths = file["expert_ids"], file["weight_e4"], file["doc_len"]
    document = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    position = (np.arange(len(document)) - np.repeat(np.cumsum(lengths) - lengths, lengths)).astype(np.int32)
    batch = TraceBatch(document, position, None, tuple(ids), tuple((one / 1e4).astype(np.float16) for one in weights))
    found = {one.code: one for one in audit(AsPublished(trace.meta, trace.documents, batch))}
    assert found["unsorted_slots"].share > 0.985  # 0.8 % of the published rows are in the order of their weights
    assert set(found) == {"unsorted_slots", "first_token_sinks", "shared_prefix"}


def test_gpt_oss_lacks_its_prompts_and_has_twenty_documents() -> None:
    found = {one.code: one for one in findings(opened(DATA / "gpt-oss-20b" / "gptoss20b_traces_0.npz"))}
    assert set(found) == {"ends_missing", "few_documents"}
    assert "before the first row, in 20 documents" in found["ends_missing"].words


@pytest.mark.parametrize(("name", "k"), [("olmoe", 8), ("mistral", 2)])
def test_counts_of_olmoe_and_mixtral_pair_equal_ranks(name: str, k: int) -> None:
    assert findings(opened(OLMOE / f"{name}_counts.npz")) == ()  # the reader leaves the tables of equal ranks out
    with np.load(OLMOE / f"{name}_counts.npz", allow_pickle=False) as file:
        columns = {key: file[key] for key in file.files}
    domains = [one for one in sorted(key.removeprefix("expert_counts__") for key in columns) if f"expert_counts_crosslayer__{one}" in columns]
    counts = np.stack([columns[f"expert_counts__{one}"] for one in domains], axis=1)
    layers = tuple(LayerMeta(f"layer {i}", i, "decoder", counts.shape[2], k) for i in range(len(counts)))
    for prefix, codes in (("expert_counts_crosslayer__", {"rank_paired"}), ("expert_counts_crosslayer_top1__", set())):
        tables = np.stack([columns[f"{prefix}{one}"] for one in domains], axis=1)
        trace = CountsTrace(replace(meta(1, counts.shape[2], k, 1), layers=layers), tuple(domains), tuple(counts),
                            pairs={(i, i + 1): table for i, table in enumerate(tables)})
        assert {one.code for one in audit_tables(trace)} == codes
