"""Controls of the SPECTRA claim: the run's own arms with a planted answer, read through the same counts, draws and seeds.

specialists. The treatment sends tokens to experts of their domain (two in three; the rest evenly by hash), outputs are orthogonal, its loss is the
baseline's, and about a quarter of the baseline's experts hand their tokens to others: every criterion must be supported. permuted. Domain labels
permuted over documents, anew for each training seed and alike in both arms; outputs of both arms are those of two trainings of the baseline, drawn
for each seed: nothing rises but by chance, and a level 95 % criterion calls it risen in about one of forty runs, which then have no verdict. hash.
The treatment routes by a hash of the token type, which learns nothing. worse. About a quarter of the treatment's experts get no token, its outputs
point one way, its loss is four margins above.

A row's draws depend on the training seed, its document's id and its position (its token type under hash) alone. T token, K slot, E expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Int, mix
from analysis.nulls import document_keys
from analysis.resampling import generator
from analysis.trace import DocumentRow, LayerMeta, RoutingTrace, TraceBatch, TraceError, TraceMeta
from hypotheses.spectra_evidence import ArmRun, SpectraEvidence

Kind = Literal["specialists", "permuted", "hash", "worse"]
KINDS: tuple[Kind, ...] = ("specialists", "permuted", "hash", "worse")
LOYAL = 2 / 3  # share of a specialist's tokens
EMPTY = 4  # one in so many experts is never chosen where loads are planted bad, and one more in every other seed: equal changes have no spread
LOSS_NOISE, LOSS_WORSE = 0.002, 0.2  # nats per token; a loss without any spread between seeds could not be judged
OUTPUT_NOISE, COMMON = 0.1, 3.0
Experts = Callable[[TraceBatch, int, Int], Int]  # rows, layer, the experts that each row has [T, K] -> those that it shall have


@dataclass(frozen=True)
class PlantedTrace:
    """A trace whose documents may carry other domains and whose rows may carry other experts; columns that hold no more are absent."""

    trace: RoutingTrace
    rows: Sequence[DocumentRow]
    experts: Experts | None = None

    @property
    def meta(self) -> TraceMeta:
        """Of the trace."""
        return self.trace.meta

    @property
    def documents(self) -> Sequence[DocumentRow]:
        """The documents, with the planted domains."""
        return self.rows

    def batches(self, *, split: str | None = None, layers: Sequence[int] | None = None) -> Iterator[TraceBatch]:
        """Rows of the trace with the planted experts."""
        chosen = range(len(self.meta.layers)) if layers is None else layers
        for batch in self.trace.batches(split=split, layers=layers):
            if self.experts is None:
                yield batch
                continue
            ids = tuple(self.experts(batch, layer, np.asarray(batch.ids[place], np.int64)).astype(self.meta.layers[layer].id_dtype)
                        for place, layer in enumerate(chosen))
            yield replace(batch, ids=ids, weights=None, entropy_nats=None, simpson=None, top1_prob=None, dropped=None)


def planted(evidence: SpectraEvidence, kind: Kind) -> SpectraEvidence:
    """The judged pair of the evidence with a planted answer; only what criteria rest on is evaluated of it.

    Raises TraceError where routing by a hash of token types is asked of a trace without them.
    """
    plant = {"specialists": _specialists, "permuted": _permuted, "hash": _hash, "worse": _worse}[kind]
    baselines, treatments = [], []
    pairs = evidence.pairs
    dealt = dealt_pairs(len(pairs), generator(evidence.settings.seed, "dealt outputs"))
    for (baseline, treatment), (first, second) in zip(pairs, dealt, strict=True):
        a, b = plant(baseline, treatment, (pairs[first][0], pairs[second][0]))
        baselines.append(a)
        treatments.append(b)
    return replace(evidence, arms={evidence.baseline: baselines, evidence.treatment: treatments},
                   settings=replace(evidence.settings, judged_only=True))


def dealt_pairs(n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """For each of n training seeds two different trainings: neighbours in a circle of random order, which of them stands for the baseline by coin.

    So differences are of either sign alike. Without the coins they would sum to 0 around the circle whatever the trainings are, and nothing
    could fail on it. A single training can only be held against itself.
    """
    order = rng.permutation(n).tolist()
    around = zip(order, order[1:] + order[:1], strict=True)
    return [(second, first) if coin else (first, second) for (first, second), coin in zip(around, rng.integers(0, 2, n).tolist(), strict=True)]


Dealt = tuple[ArmRun, ArmRun]


def _specialists(baseline: ArmRun, treatment: ArmRun, _: Dealt) -> tuple[ArmRun, ArmRun]:
    trace, domain = treatment.trace, _domain_of(treatment.trace.documents)
    keys, n_domains = document_keys(trace.documents, treatment.seed), int(domain.max(initial=0)) + 1

    def experts(batch: TraceBatch, layer: int, _ids: Int) -> Int:
        meta = trace.meta.layers[layer]
        key = _row_keys(keys, batch, layer)
        loyal = _uniform(key) < LOYAL
        own = np.arange(meta.n_experts)[None, :] % n_domains == domain[batch.document][:, None]
        return _drawn(key, meta, np.where(loyal[:, None] & own, 1.0, 0.0))

    sums = np.asarray(treatment.representations.probe_PLEd)
    towards = _orthogonal(sums, treatment.seed)
    made = replace(treatment, trace=PlantedTrace(trace, trace.documents, experts),
                   representations=replace(treatment.representations, probe_PLEd=towards), loss_nats_D=_loss(baseline, treatment, 0.0))
    return replace(baseline, trace=_collapsed(baseline)), made


def _collapsed(run: ArmRun) -> PlantedTrace:
    """The run's routing, but for experts that hand their tokens to others, drawn by the row's key among those that the token has not chosen."""
    trace, keys = run.trace, document_keys(run.trace.documents, run.seed)

    def experts(batch: TraceBatch, layer: int, ids: Int) -> Int:
        meta = trace.meta.layers[layer]
        chosen = np.zeros((len(batch), meta.n_experts))
        row, slot = np.nonzero((ids >= 0) & (ids < meta.n_experts))
        chosen[row, ids[row, slot]] = 1.0
        return _drawn(_row_keys(keys, batch, layer), meta, np.where(used_experts(meta, run.seed), chosen, -1.0))

    return PlantedTrace(trace, trace.documents, experts)


def used_experts(meta: LayerMeta, seed: int) -> NDArray[np.bool_]:
    """Experts [E] that a planted collapse leaves; at least as many as a token needs."""
    n_empty = min(max(meta.n_experts // EMPTY, 1) + seed % 2, meta.n_experts - meta.top_k)
    return np.asarray(np.arange(meta.n_experts) >= n_empty)


def _permuted(baseline: ArmRun, treatment: ArmRun, dealt: Dealt) -> tuple[ArmRun, ArmRun]:
    documents = baseline.trace.documents
    domains = [row.domain for row in documents]
    rng = generator(baseline.seed, "permuted domains")
    for split in sorted({row.split for row in documents}):
        members = [place for place, row in enumerate(documents) if row.split == split]
        for place, other in zip(members, rng.permutation(members).tolist(), strict=True):
            domains[place] = documents[other].domain
    moved = {row.id: domain for row, domain in zip(documents, domains, strict=True)}

    def of(run: ArmRun) -> RoutingTrace:
        return PlantedTrace(run.trace, [replace(row, domain=moved.get(row.id, row.domain)) for row in run.trace.documents])

    made = []
    for run, other in zip((baseline, treatment), dealt, strict=True):
        outputs = replace(run.representations, probe_PLEd=other.representations.probe_PLEd)
        made.append(replace(run, trace=of(run), representations=outputs))
    return made[0], made[1]


def _hash(baseline: ArmRun, treatment: ArmRun, _: Dealt) -> tuple[ArmRun, ArmRun]:
    trace, seed = treatment.trace, treatment.seed

    def experts(batch: TraceBatch, layer: int, _ids: Int) -> Int:
        if batch.token_id is None:
            raise TraceError("column token_id: absent; routing by a hash of the token type cannot be planted, take a trace that records it")
        with np.errstate(over="ignore"):
            key = mix(mix(batch.token_id.astype(np.uint64) + np.uint64(1)) + np.uint64(1_000 * (seed + 1) + layer))
        return _drawn(key, trace.meta.layers[layer], None)

    return baseline, replace(treatment, trace=PlantedTrace(trace, trace.documents, experts))


def _worse(baseline: ArmRun, treatment: ArmRun, _: Dealt) -> tuple[ArmRun, ArmRun]:
    trace = treatment.trace
    keys = document_keys(trace.documents, treatment.seed)

    def experts(batch: TraceBatch, layer: int, _ids: Int) -> Int:
        meta = trace.meta.layers[layer]
        return _drawn(_row_keys(keys, batch, layer), meta, np.broadcast_to(used_experts(meta, treatment.seed), (len(batch), meta.n_experts)
                                                                           ).astype(np.float64))

    sums = np.asarray(baseline.representations.probe_PLEd, np.float64)
    size = np.sqrt((sums**2).mean()) or 1.0
    rng = generator(treatment.seed, "one direction")
    common = np.ones(sums.shape[-1]) * size * COMMON * (1 + OUTPUT_NOISE * rng.standard_normal())
    made = replace(treatment, trace=PlantedTrace(trace, trace.documents, experts),
                   representations=replace(treatment.representations, probe_PLEd=(sums + common).astype(np.float32)),
                   loss_nats_D=_loss(baseline, treatment, LOSS_WORSE))
    return baseline, made


def _domain_of(documents: Sequence[DocumentRow]) -> Int:
    """Number of the domain of each document number."""
    names = sorted({row.domain for row in documents})
    out = np.zeros(max((row.document for row in documents), default=-1) + 1, np.int64)
    for row in documents:
        out[row.document] = names.index(row.domain)
    return out


def _row_keys(keys: NDArray[np.uint64], batch: TraceBatch, layer: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return mix(mix(keys[batch.document] + batch.position.astype(np.uint64)) + np.uint64(layer + 1))


def _uniform(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.asarray((keys >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _drawn(key: NDArray[np.uint64], meta: LayerMeta, first: NDArray[np.float64] | None) -> Int:
    """k different experts of each row in an order drawn by its key; those with a larger `first` [T, E] come before all others."""
    with np.errstate(over="ignore"):
        score = _uniform(mix(key[:, None] ^ mix(np.arange(1, meta.n_experts + 1, dtype=np.uint64))[None, :]))
    if first is not None:
        score = score + 2.0 * first
    return np.argsort(-score, axis=1, kind="stable")[:, : meta.top_k].astype(np.int64)


def _orthogonal(sums_PLEd: NDArray[np.floating], seed: int) -> NDArray[np.float32]:
    """Outputs of the same size along one random orthogonal frame per layer, with a little noise per document; beyond d experts frames repeat."""
    n_documents, n_layers, n_experts, width = sums_PLEd.shape
    rng = generator(seed, "orthogonal outputs")
    size = float(np.sqrt((np.asarray(sums_PLEd, np.float64) ** 2).mean())) or 1.0
    frames = []
    for _ in range(n_layers):
        parts = [np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(-(-n_experts // width))]
        frames.append(np.concatenate(parts)[:n_experts])
    noise = OUTPUT_NOISE * rng.standard_normal(sums_PLEd.shape) / np.sqrt(width)
    out: NDArray[np.float32] = (size * np.sqrt(width) * (np.stack(frames)[None] + noise)).astype(np.float32)
    return out


def _loss(baseline: ArmRun, treatment: ArmRun, above: float) -> NDArray[np.float64]:
    """The baseline's losses of the same documents, moved by `above` nats per token and a little by seed."""
    of = {row.id: (nats, tokens) for row, nats, tokens in
          zip(baseline.trace.documents, baseline.loss_nats_D.tolist(), baseline.tokens_D.tolist(), strict=True)}
    shift = above + LOSS_NOISE * float(generator(treatment.seed, "planted loss").standard_normal())
    nats = []
    for row, tokens in zip(treatment.trace.documents, treatment.tokens_D.tolist(), strict=True):
        had, n = of.get(row.id, (0.0, 0))
        nats.append(tokens * ((had / n if n else 0.0) + shift))
    return np.array(nats, np.float64)
