"""Keywords and representative tokens of experts, for reading and never as evidence (seed 004, E.1 and E.2).

E expert, V token type, T token, K slot. Experts are the documents of the TF-IDF: one token as one document, as in the seed's code, makes
every term frequency 0 or 1 and every score a matter of rarity. Words are chosen on some documents and judged on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.arithmetic import Float, divide
from analysis.kernels import Int
from analysis.metrics.joint_tables import checked_ids

CHARACTERISTIC = 3.0  # z of a keyword (metrics specification 2.5, E.1)
SEED_WORDS, SEED_SAMPLES = 20, 10


def _counts(counts_EV: ArrayLike, name: str = "counts_EV") -> Int:
    n = np.asarray(counts_EV)
    if n.ndim != 2:
        raise ValueError(f"{name} has shape {n.shape}: give selections of each expert on each type, [E, V]")
    if not np.issubdtype(n.dtype, np.integer) or (n < 0).any():
        raise ValueError(f"{name}: give integer counts from 0, not weights")
    return n.astype(np.int64)


def class_tfidf(counts_EV: ArrayLike) -> Float:
    """Class TF-IDF, experts as documents: n_ev / n_e * ln(1 + A / n_v), A the mean selections of a used expert [E, V], at least 0.

    NaN for an unused expert and for a type without selections. ValueError for a single used expert: its words characterise the corpus.
    Source: Grootendorst 2022 (BERTopic).
    """
    n = _counts(counts_EV).astype(np.float64)
    load, frequency = n.sum(axis=1, keepdims=True), n.sum(axis=0)
    used = int((load > 0).sum())
    if used < 2:
        raise ValueError(f"counts_EV: {used} used expert(s); TF-IDF compares experts, so give the counts of at least two")
    return divide(n, load) * np.log1p(divide(n.sum() / used, frequency))


def log_odds(counts_EV: ArrayLike, prior_tokens: float | None = None) -> tuple[Float, Float]:
    """Log odds of each type under an expert against all others, and z, with an informative Dirichlet prior: two arrays [E, V].

    delta = ln[(y + a) / (n + a0 - y - a)] - the same of the other experts' counts; z = delta / sqrt(1 / (y + a) + 1 / (y' + a)), the prior
    a_v = a0 n_v / N. prior_tokens: a0, by default one per type that occurs. NaN for an unused expert, for a type without selections or
    one that is all there is, and where the others have no selections. Tokens of one document repeat each other, so z is too large: it
    chooses words, and held-out documents judge them. Source: Monroe, Colaresi & Quinn 2008, eq. 16-22.
    """
    y = _counts(counts_EV).astype(np.float64)
    load, frequency, total = y.sum(axis=1, keepdims=True), y.sum(axis=0), float(y.sum())
    strength = float((frequency > 0).sum()) if prior_tokens is None else float(prior_tokens)
    if not strength > 0 and total:
        raise ValueError(f"prior_tokens={prior_tokens}: give a prior of more than 0 tokens")
    prior = divide(frequency, total) * strength
    rest, rest_load = frequency - y, total - load
    defined = (frequency > 0) & (frequency < total) & (load > 0) & (rest_load > 0)
    odds = divide(y + prior, load + strength - y - prior)
    rest_odds = divide(rest + prior, rest_load + strength - rest - prior)
    delta = np.log(np.where(defined, divide(odds, rest_odds), np.nan))
    spread = np.sqrt(divide(1.0, y + prior) + divide(1.0, rest + prior))
    return delta, divide(delta, spread)


@dataclass(frozen=True)
class Keyword:
    """A type that characterises an expert: its id, text, score (z, or TF-IDF), log odds against the other experts, selections."""

    type: int
    text: str
    score: float
    log_odds: float
    count: int


def expert_keywords(counts_EV: ArrayLike, texts: Sequence[str], *, most: int = SEED_WORDS, least_z: float = CHARACTERISTIC,
                    method: str = "log_odds") -> tuple[tuple[Keyword, ...], ...]:
    """Keywords of each expert, best first (ties by type id): types with z > least_z, or of largest class TF-IDF; at most `most`.

    method: "log_odds" or "class_tfidf"; "token_tfidf", the seed's one token as one document, is refused (ValueError). An unused expert,
    or one that nothing characterises, has none.
    """
    if method == "token_tfidf":
        raise ValueError("method='token_tfidf': with one token as one document every term frequency is 0 or 1 and the score says only how "
                         "rare a word is; take 'log_odds' or 'class_tfidf', where experts are the documents")
    if method not in ("log_odds", "class_tfidf"):
        raise ValueError(f"method={method!r}: there are 'log_odds' and 'class_tfidf'")
    n = _counts(counts_EV)
    if len(texts) < n.shape[1]:
        raise ValueError(f"texts: {len(texts)} for {n.shape[1]} types; give the text of every type")
    delta, z = log_odds(n)
    score = z if method == "log_odds" else class_tfidf(n)
    above = score > (least_z if method == "log_odds" else 0.0)
    rows = []
    for expert in range(len(n)):
        chosen = np.flatnonzero(above[expert] & (n[expert] > 0))
        best = chosen[np.argsort(-score[expert, chosen], kind="stable")][:most]
        rows.append(tuple(Keyword(int(v), texts[v], float(score[expert, v]), float(delta[expert, v]), int(n[expert, v])) for v in best))
    return tuple(rows)


@dataclass(frozen=True)
class Agreement:
    """Keywords of one expert, judged on documents that did not choose them.

    judged: keywords that occur in the held-out documents; same_sign: share of them that still lean to the expert (log odds > 0);
    confirmed: share with held-out z above the threshold; chance: share of all held-out types that lean to the expert, which same_sign
    must beat; label: texts of confirmed keywords. Shares are None with `reason` where nothing could be judged.
    """

    expert: int
    chosen: int
    judged: int
    same_sign: float | None
    confirmed: float | None
    chance: float | None
    label: tuple[str, ...]
    reason: str | None = None


def held_out_agreement(keywords: Sequence[Sequence[Keyword]], held_out_EV: ArrayLike, *, least_z: float = CHARACTERISTIC) -> tuple[Agreement, ...]:
    """Agreement of each expert's keywords with the counts [E, V] of held-out documents, over types that occur there."""
    n = _counts(held_out_EV, "held_out_EV")
    if len(keywords) != len(n):
        raise ValueError(f"keywords: of {len(keywords)} experts, but held_out_EV has {len(n)}; give the same layer")
    delta, z = log_odds(n)
    rows = []
    for expert, words in enumerate(keywords):
        judged = [word for word in words if not np.isnan(z[expert, word.type])]
        known = ~np.isnan(delta[expert])
        if not judged:
            reason = "no keyword" if not words else "no_data: no keyword occurs in the held-out documents, or the expert is unused there"
            rows.append(Agreement(expert, len(words), 0, None, None, None, (), reason))
            continue
        types = np.array([word.type for word in judged])
        kept = z[expert, types] > least_z
        rows.append(Agreement(expert, len(words), len(judged), float((delta[expert, types] > 0).mean()), float(kept.mean()),
                              float((delta[expert, known] > 0).mean()), tuple(w.text for w, k in zip(judged, kept) if k)))
    return tuple(rows)


@dataclass(frozen=True)
class ChosenTokens:
    """Tokens of one layer with their sets, for representative samples.

    document: [T] number; position: [T] in the document; experts: [T, K], -1 where a slot was dropped; weights: [T, K] combine weights;
    rank_D: rank of each document number by hash, so that ties do not depend on the order of files.
    """

    document: Int
    position: Int
    experts: NDArray[np.signedinteger]
    weights: NDArray[np.floating]
    rank_D: Int

    def __post_init__(self) -> None:
        shape = np.shape(self.experts)
        if len(shape) != 2 or np.shape(self.weights) != shape or not len(self.document) == len(self.position) == shape[0]:
            raise ValueError(f"experts {shape}, weights {np.shape(self.weights)}: give both as [T, K] with document and position [T]")
        if not np.isfinite(self.weights).all():
            raise ValueError("weights: a combine weight is not finite; leave the token out or collect it again")


@dataclass(frozen=True)
class Sample:
    """A token with a large combine weight on an expert."""

    document: int
    position: int
    weight: float


def representative_samples(tokens: ChosenTokens, n_experts: int, most: int = SEED_SAMPLES) -> tuple[tuple[Sample, ...], ...]:
    """Per expert the tokens with the largest combine weight on it, at most one a document; ties by document hash, then position.

    Gives n_experts tuples of at most `most`. ValueError for ids outside -1..n_experts-1, and for an expert
    twice in one top-k.
    """
    experts = checked_ids(tokens.experts, n_experts, "experts")
    row, slot = np.nonzero(experts >= 0)
    expert, weight = experts[row, slot], np.asarray(tokens.weights, np.float64)[row, slot]
    rank = np.asarray(tokens.rank_D)[tokens.document[row]]
    order = np.lexsort((tokens.position[row], rank, -weight, expert))
    row, weight, expert, rank = row[order], weight[order], expert[order], rank[order]
    pair = expert * (int(rank.max(initial=0)) + 1) + rank
    first = np.sort(np.unique(pair, return_index=True)[1])  # the best token of each expert in each document
    bounds = np.searchsorted(expert[first], np.arange(n_experts + 1))
    return tuple(
        tuple(Sample(int(tokens.document[row[i]]), int(tokens.position[row[i]]), float(weight[i])) for i in first[low:high][:most])
        for low, high in zip(bounds[:-1], bounds[1:]))
