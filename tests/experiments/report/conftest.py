"""A made-up but consistent VAR evaluation, with as many layers, experts and choices as a test asks for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from analysis.estimate import Estimate
from analysis.trace import LayerMeta, TraceMeta
from experiments.report import ReportContent, TraceFacts
from hypotheses.claim import CriterionFinding, Evaluation, Finding
from hypotheses.h01_var import VAR


def estimate(value: float, half: float, unit: str, **more: Any) -> Estimate:
    return Estimate(value, value - half, value + half, unit, "document", 412, "group jackknife", **more)


def routing_stats(rng: np.random.Generator, n_layers: int, n_types: int, n_experts: int) -> dict[str, Any]:
    corpus = np.sort(rng.zipf(1.25, n_types).clip(1, 200_000))[::-1]
    n_v = rng.poisson(corpus * 0.3) + 1
    columns: dict[str, list[Any]] = {}
    for layer in range(n_layers):
        entropy = (math.log(n_experts) * (0.55 + 0.05 * layer / n_layers) - 0.04 * np.log(n_v)
                   + rng.normal(0, 0.35, n_types) / (1 + 0.1 * np.log(n_v))).clip(0.01, math.log(n_experts))
        share = (0.35 + 0.6 / np.sqrt(n_v) + rng.normal(0, 0.05, n_types)).clip(0, 1)
        rows = {"token_id": np.arange(n_types), "token_str": np.array([f"tok{i}" for i in range(n_types)]), "frequency": n_v, "mean_entropy": entropy,
                "std_entropy": np.where(n_v > 1, 0.2, np.nan), "mean_confidence": 1 - entropy / 4, "std_confidence": np.where(n_v > 1, 0.1, np.nan),
                "routing_consistency": share, "top_expert": rng.integers(0, n_experts, n_types), "min_entropy": entropy * 0.7,
                "max_entropy": entropy * 1.3, "layer": np.full(n_types, layer), "entropy_unit": np.array(["nats"] * n_types), "n_docs": n_v // 2 + 1,
                "corpus_frequency": corpus, "collision": np.where(n_v > 1, share * 0.8, np.nan), "collision_kappa": share * 0.7,
                "consistency_rarefied": np.where(n_v >= 50, share * 0.95, np.nan), "consistency_null": (0.2 + 0.75 / np.sqrt(n_v)).clip(0, 1),
                "eligible": (n_v >= 50) & (entropy < 0.2404 * math.log(n_experts) + 0.7)}
        for name, column in rows.items():
            columns.setdefault(name, []).append(column)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def finding(estimates: dict[str, Estimate], outcomes: tuple[str, str, str] = ("refuted", "inconclusive", "refuted")) -> Finding:
    judged = tuple(CriterionFinding(criterion, estimates[criterion.metric], outcome, "the whole interval lies on the wrong side of the bound",
                                    "about 1,240 test documents instead of 412" if outcome == "inconclusive" else None, "insufficient", "insufficient")
                   for criterion, outcome in zip(VAR.criteria, outcomes, strict=True))
    verdict = "refuted" if "refuted" in outcomes else "inconclusive" if "inconclusive" in outcomes else "supported"
    return Finding("var", VAR.title, VAR.claim, VAR.fingerprint, verdict, "rank_correlation is refuted", "rank_correlation", judged,
                   seed_verdict={"verdict": "NOT SUPPORTED", "rho": -0.21, "p": 1e-9, "n_types": 812, "share": 0.18, "coverage": 0.07})


def evaluation(n_layers: int, n_types: int, n_experts: int, seed: int) -> Evaluation:
    rng = np.random.default_rng(seed)
    rho = dict(n=812, n_of="types", null=0.01, null_low=-0.06, null_high=0.07, p=1.2e-9)
    estimates = {"freq_entropy_rho": estimate(-0.18, 0.07, "rho", **rho),
                 "entropy_share_below": estimate(0.285, 0.02, "share of occurrences", null=0.28, null_low=0.27, null_high=0.29),
                 "fastpath_coverage": estimate(0.062, 0.011, "share of occurrences")}
    by_layer = {name: tuple(estimate(e.value + rng.normal(0, 0.05), 0.05, e.unit) for _ in range(n_layers)) for name, e in estimates.items()}
    stats = routing_stats(rng, n_layers, n_types, n_experts)
    return Evaluation(estimates, by_layer, {"routing_stats": stats}, {"min_type_count": 50, "n_documents": 412})


@pytest.fixture
def make_content():
    return content


def content(n_layers: int = 4, n_types: int = 1500, n_experts: int = 16, top_k: int = 2, seed: int = 0, **changes: Any) -> ReportContent:
    measured = evaluation(n_layers, n_types, n_experts, seed)
    layers = tuple(LayerMeta(f"model.layers.{i}.mlp.gate", i, "decoder", n_experts, top_k) for i in range(n_layers))
    meta = TraceMeta("checkpoints/testbed", "9f2c" * 16, layers, "softmax", "softmax_logits", "softmax over all experts, renormalised over the top k",
                     "ab12" * 16, 2048, "assay 0.1.0 huggingface", {"torch": "2.9", "transformers": "5.20"}, {"dtype": "float32"})
    trace = TraceFacts(meta, 253_118, {"padding": 8_120, "special": 590}, {"verdict": "conforms", "checked": "256 tokens"}, (), "c0ff" * 16)
    fields: dict[str, Any] = dict(finding=finding(dict(measured.estimates)), evaluation=measured, trace=trace,
                                  corpus={"name": "six_domains", "documents": {"code": 120, "math": 115}},
                                  provenance={"command": "make experiment EXP=var PROFILE=quick", "commit": "0123abc", "seed": 0})
    return ReportContent(**{**fields, **changes})
