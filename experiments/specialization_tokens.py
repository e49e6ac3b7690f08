"""Seed 004's functions on plain arrays of tokens: flows from domains to experts, keywords and samples of an expert.

T token, K slot, E expert, H domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.kernels import Int
from analysis.keywords import ChosenTokens, expert_keywords, representative_samples

SEED_WORDS, SEED_SAMPLES = 20, 10


def selections(token_assignments: ArrayLike, domain_labels: Sequence[Any] | NDArray[Any]) -> tuple[Int, list[str]]:
    """Selections [H, E] of experts [T] or [T, K] by tokens of each domain, and the domains by name; -1 is no expert. ValueError if unlike."""
    experts, labels = _experts(token_assignments), np.asarray([str(one) for one in domain_labels])
    if len(labels) != len(experts):
        raise ValueError(f"domain_labels: {len(labels)} labels for {len(experts)} tokens")
    names, place = np.unique(labels, return_inverse=True)
    n_experts, counted = int(experts.max(initial=-1)) + 1, experts >= 0
    cells = (place[:, None] * n_experts + experts)[counted]
    return np.bincount(cells, minlength=len(names) * n_experts).reshape(len(names), n_experts).astype(np.int64), names.tolist()


def _experts(token_assignments: ArrayLike) -> Int:
    experts = np.asarray(token_assignments)
    if experts.ndim not in (1, 2) or not np.issubdtype(experts.dtype, np.integer):
        raise ValueError(f"expert assignments of shape {experts.shape} and type {experts.dtype}: give expert numbers, [T] or [T, K]")
    return experts.reshape(len(experts), -1).astype(np.int64)


def compute_domain_expert_flows(token_assignments: ArrayLike, domain_labels: Sequence[Any] | NDArray[Any]) -> dict[str, Any]:
    """Links of the seed's Sankey diagram, C.3: `source` (domain), `target` (domains + expert) and `value` (selections, above 0), and `label`s."""
    table, names = selections(token_assignments, domain_labels)
    source, expert = np.nonzero(table)
    return {"source": source.tolist(), "target": (len(names) + expert).tolist(), "value": table[source, expert].tolist(),
            "label": [*names, *(f"E{number}" for number in range(table.shape[1]))]}


def extract_expert_keywords(expert_id: int, token_texts: Sequence[str], expert_assignments: ArrayLike, top_k: int = SEED_WORDS,
                            ) -> list[tuple[str, float]]:
    """Words of one expert with their z (log odds against the other experts, Dirichlet prior, z > 3), best first; E.1.

    The seed's TF-IDF has one token as one document, where term frequency is 1 and says nothing. expert_assignments: [T] or [T, K], -1 none.
    """
    experts = _experts(expert_assignments)
    if len(token_texts) != len(experts):
        raise ValueError(f"token_texts: {len(token_texts)} texts for {len(experts)} tokens")
    n_experts = max(int(experts.max(initial=-1)), expert_id) + 1
    words, place = np.unique(np.asarray([str(one) for one in token_texts]), return_inverse=True)
    cells = (experts * len(words) + place[:, None])[experts >= 0]
    counts = np.bincount(cells, minlength=n_experts * len(words)).reshape(n_experts, len(words)).astype(np.int64)
    return [(word.text, word.score) for word in expert_keywords(counts, words.tolist(), most=top_k)[expert_id]]


def get_representative_samples(expert_id: int, samples: Sequence[Any], expert_assignments: ArrayLike, n: int = SEED_SAMPLES, *,
                               routing_weights: ArrayLike, document_ids: Sequence[Any] | None = None) -> list[tuple[Any, float]]:
    """Samples of largest routing weight on one expert with that weight, best first; E.2. Of one document at most one, if document_ids are given.

    routing_weights: of the same shape as expert_assignments; the seed takes them from the surrounding scope.
    """
    experts = _experts(expert_assignments)
    weights = np.asarray(routing_weights, np.float64).reshape(len(experts), -1)
    if len(samples) != len(experts):
        raise ValueError(f"samples: {len(samples)} for {len(experts)} assignments")
    rows = np.arange(len(experts))
    of = rows if document_ids is None else np.unique(np.asarray([str(one) for one in document_ids]), return_inverse=True)[1]
    tokens = ChosenTokens(of, rows, experts, weights, np.arange(int(of.max(initial=-1)) + 1))
    n_experts = max(int(experts.max(initial=-1)), expert_id) + 1
    return [(samples[one.position], one.weight) for one in representative_samples(tokens, n_experts, n)[expert_id]]
