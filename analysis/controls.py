"""Controls: routing planted on a run's own documents, types and counts, so that the right verdict is known.

The law, for an occurrence of type v in document d at layer l:

    x = slope * s_v + sqrt(1 - slope^2) * e_vl + 0.3 * g_d + 0.6 * n        e, g, n independent standard normal
    p1 = 1/E + (1 - 1/E) / (1 + exp(-(centre + 1.5 x)))                     the rest even over the other E - 1 experts

s_v is the normal score of the type's corpus frequency among the judged types (clipped beyond them), e_vl the type's own
effect at a layer, g_d one shift per document over all layers, n the occurrence. Entropy and simpson are closed forms of p1.
The first choice is the type's preferred expert with probability 0.9, else a random one; the other slots are random; weights
are renormalised over the slots. Positive: slope gives a population Spearman 5 standard errors beyond the bound, centre puts
low-entropy share and coverage well above theirs. Negative: slope 0, so frequency says nothing of entropy, and a lower centre,
which puts low-entropy share and coverage well below theirs; e_vl, g and n are the same. So every criterion by itself is supported
by the one and refuted by the other.

D document, L MoE layer, V token type, T token, K slot, E expert, Q quadrature node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.kernels import Float, Int
from analysis.metrics.entropy import even_rest_nats
from analysis.metrics.frequency import midranks
from analysis.resampling import generator
from analysis.rows import join, take, whole_documents
from analysis.trace import LayerMeta, RoutingTrace, TraceBatch

Kind = Literal["positive", "negative"]
STEEPNESS, DOCUMENT_SD, OCCURRENCE_SD, PREFERRED = 1.5, 0.3, 0.6, 0.9
ERRORS_BEYOND = 5.0
ERROR_FACTOR = 1.25  # documents' part of the two-way error, beside that of the types
LOW_ENTROPY_SHARE, COVERAGE_OF_FREQUENT = 0.45, 0.85  # positive: at least
NEGATIVE_SHARE, NEGATIVE_COVERAGE = 0.15, 0.25  # negative: at most
COVERAGE_NEEDED = 0.45  # share of occurrences in frequent types below which no table can cover 40 %


@dataclass(frozen=True)
class ControlAim:
    """What the controls are planted against: the bound of rho, entropy thresholds [L] in nats, smallest counts."""

    thresholds_nats: Float
    rho_bound: float = -0.4
    min_type_count: int = 50
    frequency_threshold: int = 50
    seed: int = 0


@dataclass(frozen=True)
class ControlPlan:
    """The law with its numbers. score: s_v [V]; unreachable: why the positive control cannot come out supported, if it cannot."""

    aim: ControlAim
    layers: tuple[LayerMeta, ...]
    document_ids: dict[int, str]
    score: Float
    slope: float
    centre: float
    negative_centre: float
    facts: dict[str, Any]
    unreachable: str | None

    def centre_of(self, kind: Kind) -> float:
        """Where the latent scale is centred: high enough for the positive control's shares, low enough for the negative's."""
        return self.centre if kind == "positive" else self.negative_centre

    def type_effect(self, kind: Kind, layer: int) -> Float:
        """slope * s_v + sqrt(1 - slope^2) * e_vl of each type [V]."""
        slope = self.slope if kind == "positive" else 0.0
        own = generator(self.aim.seed, "control_types", layer).normal(size=len(self.score))
        effect: Float = slope * self.score + math.sqrt(1 - slope**2) * own
        return effect


def plan_controls(trace: RoutingTrace, frequency_V: Int, aim: ControlAim) -> ControlPlan:
    """Choose slope and centre from the run's own types and counts. Reads rows of calibration and test, no routing column."""
    n_types = trace.meta.vocabulary_size
    counts = {split: _type_counts(trace, split, n_types) for split in ("calibration", "test")}
    judged = np.flatnonzero(counts["test"] >= aim.min_type_count)
    m = len(judged)
    error = ERROR_FACTOR * math.sqrt((1 + aim.rho_bound**2 / 2) / max(m - 3, 1))
    target = math.tanh(math.atanh(aim.rho_bound) - ERRORS_BEYOND * error)
    slope = 2 * math.sin(math.pi * abs(target) / 6)
    ids = {d.document: d.id for d in trace.documents}
    bare = ControlPlan(aim, trace.meta.layers, ids, normal_scores(frequency_V, judged), slope, 0.0, 0.0, {}, None)
    frequent = counts["calibration"] >= aim.frequency_threshold
    mass = float(counts["test"][frequent].sum() / max(counts["test"].sum(), 1))
    centre, coverage, share = _centre(bare, "positive", counts["test"], frequent, (COVERAGE_OF_FREQUENT * mass, LOW_ENTROPY_SHARE))
    low_centre, low_coverage, low_share = _centre(bare, "negative", counts["test"], frequent, (NEGATIVE_COVERAGE, NEGATIVE_SHARE))
    facts = {"planted_rho": target, "slope": slope, "centre": centre, "n_types_judged": m, "expected_coverage": coverage,
             "expected_low_entropy_share": share, "negative_centre": low_centre, "negative_expected_coverage": low_coverage,
             "negative_expected_low_entropy_share": low_share, "share_in_frequent_types": mass, "standard_errors_beyond": ERRORS_BEYOND}
    unreachable = None
    if mass < COVERAGE_NEEDED:
        unreachable = (f"types with {aim.frequency_threshold} calibration occurrences hold {mass:.0%} of the test occurrences: "
                       "no table can cover 40 %; collect more calibration documents")
    elif m < 10:
        unreachable = (f"{m} judged types: no planted correlation stands {ERRORS_BEYOND:g} errors beyond its bound; "
                       "collect more test documents")
    return ControlPlan(aim, bare.layers, bare.document_ids, bare.score, slope, centre, low_centre, facts, unreachable)


def plant(batches: Iterator[TraceBatch], plan: ControlPlan, kind: Kind) -> Iterator[TraceBatch]:
    """The same rows (document, position, token_id) with planted routing. Each document's draws depend on its id and the seed alone."""
    effects = [plan.type_effect(kind, layer) for layer in range(len(plan.layers))]
    for batch in whole_documents(batches):
        starts = np.flatnonzero(np.r_[True, batch.document[1:] != batch.document[:-1]])
        ends = np.r_[starts[1:], len(batch)]
        centre = plan.centre_of(kind)
        planted = [_plant_document(take(batch, slice(a, b)), plan, effects, centre) for a, b in zip(starts.tolist(), ends.tolist())]
        yield _joined(planted)


def normal_scores(frequency_V: Int, judged: Int) -> Float:
    """Normal score of each type's frequency among the judged types [V]; types beyond them get the score of the nearest end."""
    from scipy.special import ndtri

    if not len(judged):
        return np.zeros(len(frequency_V))
    values = frequency_V[judged].astype(np.float64)
    scores = ndtri((midranks(values) - 0.5) / len(values))
    scores = (scores - scores.mean()) / (scores.std() or 1.0)
    order = np.argsort(values, kind="stable")
    out: Float = np.interp(frequency_V.astype(np.float64), values[order], scores[order])
    return out


def top_probability(latent: Float, centre: float, n_experts: int) -> Float:
    """p1 of the law for centre + 1.5 x."""
    from scipy.special import expit

    floor = 1 / n_experts
    p: Float = floor + (1 - floor) * expit(centre + STEEPNESS * latent)
    return p


def _type_counts(trace: RoutingTrace, split: str, n_types: int) -> Int:
    out = np.zeros(n_types, np.int64)
    for batch in trace.batches(split=split):
        out += np.bincount(batch.types, minlength=n_types)
    return out


def _centre(plan: ControlPlan, kind: Kind, n_V: Int, frequent: NDArray[np.bool_],
            targets: tuple[float, float]) -> tuple[float, float, float]:
    """Centre with the coverage and low-entropy share expected there.

    targets: of coverage and share. Positive: the smallest centre that reaches both; negative: the largest that stays below both.
    """
    types = np.flatnonzero(n_V)
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    weights = weights / weights.sum()
    noise = nodes * math.hypot(DOCUMENT_SD, OCCURRENCE_SD)
    effects = [plan.type_effect(kind, layer)[types] for layer in range(len(plan.layers))]
    share_of = n_V[types] / max(n_V.sum(), 1)

    def expected(centre: float) -> tuple[float, float]:
        coverage, low = 0.0, 0.0
        for layer, effect, limit in zip(plan.layers, effects, plan.aim.thresholds_nats):
            nats = even_rest_nats(top_probability(effect[:, None] + noise, centre, layer.n_experts), layer.n_experts)
            coverage += float(share_of @ ((nats @ weights < limit) & frequent[types])) / len(effects)
            low += float(share_of @ ((nats < limit) @ weights)) / len(effects)
        return coverage, low

    low_end, high_end = -4.0, 12.0
    for _ in range(40):
        middle = (low_end + high_end) / 2
        coverage, low = expected(middle)
        reached = (coverage >= targets[0], low >= targets[1])
        if all(reached) if kind == "positive" else any(reached):
            high_end = middle
        else:
            low_end = middle
    chosen = high_end if kind == "positive" else low_end
    return chosen, *expected(chosen)


def _plant_document(rows: TraceBatch, plan: ControlPlan, effects: list[Float], centre: float) -> TraceBatch:
    rng = generator(plan.aim.seed, "control_document", plan.document_ids[int(rows.document[0])])
    shift = DOCUMENT_SD * rng.normal()
    columns: dict[str, list[Any]] = {name: [] for name in ("ids", "weights", "entropy", "simpson", "top")}
    for number, (layer, effect) in enumerate(zip(plan.layers, effects)):
        latent = effect[rows.types] + shift + OCCURRENCE_SD * rng.normal(size=len(rows))
        p1 = top_probability(latent, centre, layer.n_experts).astype(np.float32).astype(np.float64)
        rest = (1 - p1) / max(layer.n_experts - 1, 1)
        columns["ids"].append(_experts(rows.types, number, layer, rng))
        kept = np.column_stack([p1, *[rest] * (layer.top_k - 1)])
        columns["weights"].append((kept / kept.sum(axis=1, keepdims=True)).astype(np.float16))
        columns["entropy"].append(even_rest_nats(p1, layer.n_experts).astype(np.float32))
        columns["simpson"].append((p1**2 + (1 - p1) * rest).astype(np.float32))
        columns["top"].append(p1.astype(np.float32))
    return TraceBatch(rows.document, rows.position, rows.types, tuple(columns["ids"]), tuple(columns["weights"]),
                      np.stack(columns["entropy"]), np.stack(columns["simpson"]), np.stack(columns["top"]))


def _experts(token_id: NDArray[Any], number: int, layer: LayerMeta, rng: np.random.Generator) -> NDArray[Any]:
    """Expert ids [T, K], distinct: the preferred expert first with probability PREFERRED, all else random."""
    keys = rng.random((len(token_id), layer.n_experts))
    preferred = (token_id.astype(np.int64) * 7919 + 104729 * number) % layer.n_experts
    loyal = np.flatnonzero(rng.random(len(token_id)) < PREFERRED)
    keys[loyal, preferred[loyal]] = -1
    return np.argsort(keys, axis=1)[:, : layer.top_k].astype(layer.id_dtype)


def _joined(parts: list[TraceBatch]) -> TraceBatch:
    while len(parts) > 1:
        parts = [join(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    return parts[0]
