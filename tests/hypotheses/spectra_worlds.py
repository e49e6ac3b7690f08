"""Arms without training: runs of a baseline and a treatment whose specialisation, orthogonality, loads and loss are set by hand.

planted(): experts of the treatment keep to domains and their outputs are orthogonal; some of the baseline collapse. null(): both arms follow one law.
orthogonal_only(): outputs are orthogonal, routing follows the baseline's law.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.comparison import Conditions
from analysis.trace import DocumentRow, LayerMeta, TraceBatch, TraceMeta
from hypotheses.spectra_evidence import ArmRun, Representations, RouterInputs, SpectraEvidence, SpectraSettings, Training
from tests.references.memory_trace import MemoryTrace

DOMAINS = ("code", "math", "news")
VOCABULARY, WIDTH = 60, 24


@dataclass(frozen=True)
class Law:
    """How an arm behaves: pull of tokens to the experts of their domain, cosine shared by expert outputs, nats per token, unevenness of loads."""

    loyalty: float = 0.1
    common: float = 1.0
    nats: float = 4.7
    dead: int = 0


@dataclass(frozen=True)
class World:
    """Sizes of everything."""

    seeds: int = 5
    test: int = 52
    calibration: int = 10
    length: int = 24
    layers: int = 2
    experts: int = 8
    k: int = 2
    types: bool = True


def documents(world):
    rows = []
    for domain in DOMAINS:
        for number in range(world.test + world.calibration):
            rows.append(DocumentRow(len(rows), f"{domain}/{number}", domain, "test" if number < world.test else "calibration"))
    return rows


def tokens(world):
    """Token types, a third of them common to all domains: the same for every arm and seed."""
    rng = np.random.default_rng(17)
    lengths = [int(rng.integers(world.length // 2, world.length * 3 // 2)) for _ in documents(world)]
    types = []
    for row, n in zip(documents(world), lengths, strict=True):
        d = DOMAINS.index(row.domain)
        own = 20 + d * 13 + rng.integers(0, 13, n)
        types.append(np.where(rng.random(n) < 0.5, rng.integers(0, 20, n), own).astype(np.int32))
    return types


def run(arm, seed, law, world=World(), **fields):
    rng = np.random.default_rng([seed, *arm.encode()])
    rows, types = documents(world), tokens(world)
    metas = tuple(LayerMeta(f"layers.{i}.gate", i, "decoder", world.experts, world.k) for i in range(world.layers))
    meta = TraceMeta(arm, str(seed), metas, "softmax", "softmax_logits", "top-k", "tokenizer", VOCABULARY, "tests")
    document = np.concatenate([np.full(len(one), row.document, np.int32) for row, one in zip(rows, types, strict=True)])
    position = np.concatenate([np.arange(len(one), dtype=np.int32) for one in types])
    type_ = np.concatenate(types)
    domain = np.array([DOMAINS.index(row.domain) for row in rows])[document]
    topic = rng.standard_normal((len(rows), world.experts)) * 0.3  # documents differ
    ids, weights, simpson, entropy, top1 = [], [], [], [], []
    jitter = 1 + 0.1 * rng.standard_normal()
    for _ in metas:
        of_type = rng.standard_normal((VOCABULARY, world.experts))
        logits = of_type[type_] + topic[document] + rng.gumbel(size=(len(document), world.experts))
        own = np.arange(world.experts)[None, :] % len(DOMAINS) == domain[:, None]
        logits = logits + 6.0 * law.loyalty * jitter * own
        logits[:, :law.dead] = -30.0
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        p = np.exp(log_p)
        best = np.argsort(-p, axis=1, kind="stable")[:, :world.k]
        ids.append(best.astype(np.uint8))
        chosen = np.take_along_axis(p, best, axis=1)
        weights.append((chosen / chosen.sum(axis=1, keepdims=True)).astype(np.float16))
        simpson.append((p * p).sum(axis=1))
        entropy.append(-(p * np.maximum(log_p, -50)).sum(axis=1))
        top1.append(p.max(axis=1))
    columns = [np.array(one, np.float32) for one in (entropy, simpson, top1)]
    batch = TraceBatch(document, position, type_ if world.types else None, tuple(ids), tuple(weights), *columns)
    trace = MemoryTrace(meta, rows, [batch])
    sizes = np.array([len(one) for one in types], np.int64)
    difficulty = np.random.default_rng(3).normal(0, 0.3, len(rows))
    nats = (law.nats + difficulty + rng.normal(0, 0.01)) * sizes
    conditions = Conditions(100_000, world.k, world.experts, 50_000, "documents")
    given = {"data_order": f"order {seed}", "optimised": frozenset({"gram_rms"}) if arm == "spectra" else frozenset({"usage_entropy_bits"})}
    return ArmRun(arm, seed, trace, nats, sizes, inputs(batch, rows, rng, world), representations(rng, law, world), conditions,
                  training=Training(20, 3.0, {"step": np.array([0.0, 10.0]), "loss": np.array([7.0, law.nats])},
                                    {"sinkhorn_rows": [1e-6] * world.layers}, {"first_choice": [0.9] * world.layers}, law.nats),
                  **(given | fields))


def inputs(batch, rows, rng, world):
    test = {row.document for row in rows if row.split == "test"}
    kept = np.flatnonzero(np.isin(batch.document, list(test)))[::6]
    first = np.stack([one[kept, 0] for one in batch.ids]).astype(np.int32)
    centres = rng.standard_normal((world.layers, world.experts, WIDTH))
    vectors = [(centres[layer, first[layer]] + rng.standard_normal((len(kept), WIDTH))).astype(np.float16) for layer in range(world.layers)]
    return RouterInputs(batch.document[kept], batch.position[kept], vectors, first)


def representations(rng, law, world, probes=30):
    own = np.stack([np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0][:world.experts] for _ in range(world.layers)])
    shared = rng.standard_normal(WIDTH)
    shared = law.common * (1 + 0.05 * rng.standard_normal()) * shared / np.linalg.norm(shared)
    sums = (own + shared)[None] * 40 + rng.standard_normal((probes, world.layers, world.experts, WIDTH))
    centroids = rng.standard_normal((world.layers, world.experts, WIDTH))
    return Representations(sums.astype(np.float32), np.full(probes, 40), tuple(f"probe/{i}" for i in range(probes)), centroids,
                           np.full((world.layers, world.experts), 50), tuple(own.astype(np.float32)), np.ones((world.layers, world.experts)))


def evidence(baseline, treatment, world=World(), *, others=(), settings=None, **fields):
    collapsing = [replace(baseline, dead=baseline.dead + seed % 2) if baseline.dead else baseline for seed in range(world.seeds)]
    arms = {"switch_top2": [run("switch_top2", seed, law, world) for seed, law in enumerate(collapsing)],
            "spectra": [run("spectra", seed, treatment, world) for seed in range(world.seeds)]}
    arms |= {name: [run(name, 0, law, world)] for name, law in others}
    strings = [f"\u0120w{v}" if v % 7 else "<b>&\u0120" for v in range(VOCABULARY)]
    return SpectraEvidence(arms, settings or SpectraSettings(n_bootstrap=99, n_tokens_drawn=60), DOMAINS, token_strings=strings, **fields)


SPECIALISED = Law(loyalty=0.4, common=0.05)
ORTHOGONAL = Law(common=0.05)
COLLAPSING = Law(dead=2)  # and three in every other seed


def planted(world=World(), **fields):
    return evidence(COLLAPSING, SPECIALISED, world, **fields)


def null(world=World(), **fields):
    return evidence(Law(), Law(), world, **fields)


def orthogonal_only(world=World(), **fields):
    return evidence(Law(), ORTHOGONAL, world, **fields)


def with_conditions(one, **changed):
    """The evidence with other conditions in every run of the treatment."""
    arms = dict(one.arms)
    arms[one.treatment] = [replace(run_, conditions=replace(run_.conditions, **changed)) for run_ in arms[one.treatment]]
    return replace(one, arms=arms)
