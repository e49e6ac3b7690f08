"""Routing recomputed from a router's input and weights in float64 numpy, each architecture from its paper's formula.

Shares nothing with the capture: no hooks on outputs, no torch, no decoders.  T token, E expert, K slot, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """ids, weights [T, K] by descending weight, ties to the lowest id; q [T, E] the distribution whose entropy is recorded."""

    ids: NDArray[np.int64]
    weights: Array
    q: Array

    @property
    def entropy_nats(self) -> Array:
        return -np.sum(self.q * np.log(np.where(self.q > 0, self.q, 1.0)), axis=1)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def best(scores: Array, k: int) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def ordered(ids: NDArray[np.int64], weights: Array, q: Array) -> Reference:
    order = np.lexsort((ids, -weights), axis=1)
    return Reference(np.take_along_axis(ids, order, 1), np.take_along_axis(weights, order, 1), q)


def in_best_groups(scores: Array, groups: int, kept: int, n_best: int) -> NDArray[np.bool_]:
    """Experts in the `kept` groups of largest sum of their `n_best` scores."""
    by_group = scores.reshape(len(scores), groups, -1)
    value = np.sort(by_group, axis=2)[:, :, -n_best:].sum(axis=2)
    chosen = np.zeros((len(scores), groups), dtype=bool)
    np.put_along_axis(chosen, best(value, kept), True, axis=1)
    return np.repeat(chosen, by_group.shape[2], axis=1)


def mixtral(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """Mixtral (arXiv 2401.04088): softmax over the k largest logits."""
    logits = x @ p["weight"].T + p.get("bias", 0.0)
    ids = best(logits, c.num_experts_per_tok)
    return ordered(ids, softmax(np.take_along_axis(logits, ids, 1)), softmax(logits))


def plain_softmax(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """OLMoE (arXiv 2409.02060), Jamba: softmax over all experts, not renormalised."""
    q = softmax(x @ p["weight"].T)
    ids = best(q, c.num_experts_per_tok)
    return ordered(ids, np.take_along_axis(q, ids, 1), q)


def deepseek_v3(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """DeepSeek-V3 (arXiv 2412.19437): chosen by sigmoid plus bias within the best groups, weighted by sigmoid alone."""
    s = sigmoid(x @ p["weight"].T)
    biased = s + p["e_score_correction_bias"]
    biased = np.where(in_best_groups(biased, c.n_group, c.topk_group, 2), biased, -np.inf)
    ids = best(biased, c.num_experts_per_tok)
    w = np.take_along_axis(s, ids, 1)
    return ordered(ids, w / w.sum(1, keepdims=True) * c.routed_scaling_factor, s / s.sum(1, keepdims=True))


def deepseek_v2(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """DeepSeek-V2 (arXiv 2405.04434): device-limited softmax, a group is worth its best expert."""
    q = softmax(x @ p["weight"].T)
    allowed = np.where(in_best_groups(q, c.n_group, c.topk_group, 1), q, 0.0)
    ids = best(allowed, c.num_experts_per_tok)
    return ordered(ids, np.take_along_axis(q, ids, 1) * c.routed_scaling_factor, q)


def ernie(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """ERNIE 4.5: chosen by softmax plus bias, weighted by softmax renormalised over the chosen."""
    q = softmax(x @ p["weight"].T)
    ids = best(q + p["moe_statics.e_score_correction_bias"].reshape(-1), c.moe_k)
    w = np.take_along_axis(q, ids, 1)
    return ordered(ids, w / w.sum(1, keepdims=True), q)


def phimoe(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """SparseMixer-v2 (arXiv 2409.12136): each of two choices weighted by a softmax over logits within 2 eps of the best one left."""
    logits = x @ p["weight"].T
    rows = np.arange(len(logits))
    first = logits.argmax(1)
    without = logits.copy()
    without[rows, first] = -np.inf
    second = without.argmax(1)

    def share(choice: NDArray[np.int64], pool: Array) -> Array:
        top = pool.max(1, keepdims=True)
        near = (top - logits) / np.maximum(np.abs(logits), top) <= 2 * c.router_jitter_noise
        e = np.where(near, np.exp(pool - top), 0.0)
        return e[rows, choice] / e.sum(1)

    weights = np.stack([share(first, logits), share(second, without)], axis=1)
    return ordered(np.stack([first, second], axis=1), weights, softmax(logits))


def llama4(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """Llama 4: sigmoid of the k largest logits."""
    logits = x @ p["weight"].T
    ids = best(logits, c.num_experts_per_tok)
    s = sigmoid(logits)
    return ordered(ids, np.take_along_axis(s, ids, 1), s / s.sum(1, keepdims=True))


def switch(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """Switch Transformer (arXiv 2101.03961), before capacity: the most probable expert, weighted by its probability."""
    q = softmax(x @ p["classifier.weight"].T)
    ids = best(q, 1)
    return ordered(ids, np.take_along_axis(q, ids, 1), q)


def jetmoe(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """JetMoE (arXiv 2404.07413): softmax over the k largest logits."""
    return mixtral(x, {"weight": p["layer.weight"]}, c)


def gemma4(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """Gemma 4: of the normalised, scaled input; renormalised softmax times a scale per expert."""
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + c.rms_norm_eps) * p["scale"] / np.sqrt(x.shape[1])
    q = softmax(x @ p["proj.weight"].T)
    ids = best(q, c.top_k_experts)
    w = np.take_along_axis(q, ids, 1)
    return ordered(ids, w / w.sum(1, keepdims=True) * p["per_expert_scale"][ids], q)


def doge(x: Array, p: Mapping[str, Array], c: Any) -> Reference:
    """Doge (product keys): the rows of both key tables are cut from one flat projection, so x is a single document."""
    flat = (x @ p["router_gate.weight"].T).reshape(2, len(x), -1)
    scores = (flat[0][:, :, None] + flat[1][:, None, :]).reshape(len(x), -1)
    ids = best(scores, c.num_experts_per_tok)
    return ordered(ids, softmax(np.take_along_axis(scores, ids, 1)), softmax(scores))


def dropped_by_capacity(ids_S: NDArray[np.int64], capacity: int) -> NDArray[np.bool_]:
    """Switch: in reading order, a sequence's tokens beyond an expert's capacity are dropped."""
    taken: dict[int, int] = {}
    dropped = np.zeros(len(ids_S), dtype=bool)
    for place, expert in enumerate(ids_S.tolist()):
        taken[expert] = taken.get(expert, 0) + 1
        dropped[place] = taken[expert] > capacity
    return dropped


ROUTING: dict[str, Callable[[Array, Mapping[str, Array], Any], Reference]] = {
    "mixtral": mixtral, "qwen3_moe": mixtral, "gpt_oss": mixtral, "granitemoe": mixtral, "olmoe": plain_softmax, "jamba": plain_softmax,
    "deepseek_v3": deepseek_v3, "deepseek_v2": deepseek_v2, "ernie4_5_moe": ernie, "phimoe": phimoe, "llama4": llama4, "switch": switch,
    "jetmoe": jetmoe, "gemma4": gemma4, "doge": doge,
}
