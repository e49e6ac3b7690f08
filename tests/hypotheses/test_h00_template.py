"""The file to copy works as it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from hypotheses.h00_template import TEMPLATE, evaluate
from hypotheses.judge import judge

EXPERTS = (8, 16)
LAYERS = tuple(LayerMeta(f"layer.{i}", i, "decoder", n, 2) for i, n in enumerate(EXPERTS))
META = TraceMeta("made up", "0", LAYERS, "softmax", "softmax_logits", "renormalised", "0", 100, "test")


@dataclass(frozen=True)
class Trace:
    """Documents whose normalised entropies are given, the same for all tokens of a document."""

    share_D: tuple[float, ...]
    tokens_D: tuple[int, ...]
    has_entropy: bool = True
    meta: TraceMeta = META

    @property
    def documents(self) -> tuple[DocumentRow, ...]:
        return tuple(DocumentRow(i, f"doc-{i}", ("code", "news")[i % 2], "test") for i in range(len(self.share_D)))

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        for i, (share, n) in enumerate(zip(self.share_D, self.tokens_D, strict=True)):
            zeros = np.zeros(n, np.int32)
            entropy = np.array([[share * math.log(experts)] * n for experts in EXPERTS], np.float32) if self.has_entropy else None
            yield TraceBatch(zeros + i, zeros, zeros, tuple(np.zeros((n, 2), np.uint8) for _ in EXPERTS), entropy_nats=entropy)


def shares(n: int, centre: float) -> tuple[float, ...]:
    return tuple(np.random.default_rng(0).normal(centre, 0.05, n).clip(0, 1).tolist())


def test_a_decided_router_supports_and_an_undecided_one_refutes():
    for centre, verdict in ((0.3, "supported"), (0.8, "refuted")):
        assert judge(TEMPLATE, evaluate(Trace(shares(200, centre), (10,) * 200))).verdict == verdict


def test_the_value_is_the_ratio_mean_and_the_interval_is_students():
    share = shares(60, 0.4)
    one = evaluate(Trace(share, (7,) * 60)).estimates["entropy_mean_normalised"]
    half = 2.0009953780882674 * np.std(share, ddof=1) / math.sqrt(60)  # t_{.975, 59}; equal sizes: the jackknife is the plain mean's
    np.testing.assert_allclose([one.value, one.low, one.high], [np.mean(share), np.mean(share) - half, np.mean(share) + half], rtol=1e-6)


def test_few_documents_are_inconclusive_and_one_has_no_spread():
    finding = judge(TEMPLATE, evaluate(Trace(shares(40, 0.3), (10,) * 40)))
    assert (finding.verdict, "40 test documents, the floor is 100" in finding.reason) == ("inconclusive", True)
    one = evaluate(Trace((0.3,), (10,))).estimates["entropy_mean_normalised"]
    assert one.reason == "one document: no spread between documents"


def test_a_trace_without_entropies_has_a_reason():
    finding = judge(TEMPLATE, evaluate(Trace(shares(120, 0.3), (10,) * 120, has_entropy=False)))
    assert finding.verdict == "inconclusive"
    assert "no entropies" in finding.reason
