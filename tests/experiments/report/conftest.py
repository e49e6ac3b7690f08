"""A made-up but consistent VAR evaluation, with as many layers, experts and choices as a test asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.estimate import Estimate
from analysis.trace import LayerMeta, TraceMeta
from experiments.report import ReportContent, TraceFacts, write
from hypotheses.claim import Evaluation, Finding
from hypotheses.h01_var import VAR
from hypotheses.judge import judge

N_DOCUMENTS = 672


def estimate(value: float, half: float, unit: str, **more: Any) -> Estimate:
    return Estimate(value, value - half, value + half, unit, "document", N_DOCUMENTS, "group jackknife", **more)


def routing_stats(rng: np.random.Generator, n_layers: int, n_types: int, n_experts: int, top_k: int) -> dict[str, Any]:
    corpus = np.sort(np.maximum(1, (60_000 / (1 + np.arange(n_types)) ** 1.05 * rng.lognormal(0, 0.4, n_types)).astype(int)))[::-1]
    n_v = rng.binomial(corpus, 0.3) + 1
    top = math.log(n_experts) if n_experts > 1 else 0.0
    columns: dict[str, list[Any]] = {}
    for layer in range(n_layers):
        mean = top * (0.5 + 0.12 * layer / n_layers) - 0.03 * np.log(n_v)
        entropy = (mean + rng.normal(0, 0.5, n_types) / (1 + 0.12 * np.log(n_v))).clip(0.01 * top, top)
        steady = (0.25 + 0.12 * rng.standard_normal(n_types)).clip(top_k / max(n_experts, 2) / 2, 1)
        rows = {
            "token_id": np.arange(n_types),
            "token_str": [f"tok{i}" for i in range(n_types)],
            "frequency": n_v,
            "mean_entropy": entropy,
            "std_entropy": np.where(n_v > 1, 0.2, np.nan),
            "mean_confidence": np.exp(-entropy),
            "std_confidence": np.where(n_v > 1, 0.1, np.nan),
            "routing_consistency": (steady + 0.7 / np.sqrt(n_v)).clip(0, 1),
            "top_expert": rng.integers(0, n_experts, n_types),
            "min_entropy": entropy * 0.7,
            "max_entropy": entropy * 1.3,
            "layer": np.full(n_types, layer),
            "entropy_unit": ["nats"] * n_types,
            "n_docs": n_v // 2 + 1,
            "corpus_frequency": corpus,
            "collision": np.where(n_v > 1, steady * 0.8, np.nan),
            "collision_kappa": np.where(n_v > 1, steady * 0.7, np.nan),
            "consistency_rarefied": np.where(n_v >= 50, steady + 0.07, np.nan),
            "consistency_null": (0.1 + 0.85 / np.sqrt(n_v)).clip(0, 1),
            "mean_position": np.full(n_types, 40.0),
            "dispersion": (n_v / 4000).clip(0, 1),
            "eligible": (n_v >= 50) & (entropy < 0.2404 * top + 0.35),
        }
        for name, column in rows.items():
            columns.setdefault(name, []).append(column)
    return {name: sum(parts, []) if isinstance(parts[0], list) else np.concatenate(parts) for name, parts in columns.items()}


def binned(rng: np.random.Generator, stats: dict[str, Any], n_layers: int) -> dict[str, Any]:
    edges = np.geomspace(1, stats["corpus_frequency"].max() + 1, 15)
    rows: dict[str, list[float]] = {}
    for layer in range(n_layers):
        mine = stats["layer"] == layer
        n_v, entropy = stats["corpus_frequency"][mine], stats["mean_entropy"][mine]
        which = np.searchsorted(edges, n_v, side="right") - 1
        for b in np.unique(which):
            value, n = float(entropy[which == b].mean()), int((which == b).sum())
            null = float(entropy.mean()) + rng.normal(0, 0.01)
            row = {
                "layer": layer,
                "bin_low": edges[b],
                "bin_high": edges[b + 1],
                "n_types": n,
                "mean_entropy": value,
                "low": value - 0.3 / n**0.5,
                "high": value + 0.3 / n**0.5,
                "null_mean": null,
                "null_low": null - 0.15 / n**0.5,
                "null_high": null + 0.15 / n**0.5,
            }
            for name, number in row.items():
                rows.setdefault(name, []).append(number)
    return {name: np.array(column) for name, column in rows.items()}


def histogram(n_layers: int, top: float) -> dict[str, Any]:
    edges = np.linspace(0, max(top, 0.1), 61)
    left, right = np.tile(edges[:-1], n_layers), np.tile(edges[1:], n_layers)
    weight = np.exp(-((left / max(top, 0.1) - 0.45) ** 2) / 0.05)
    return {"layer": np.repeat(np.arange(n_layers), 60), "left": left, "right": right, "count": (1e4 * weight).astype(int)}


def sensitivity(n_layers: int, rho: float) -> dict[str, Any]:
    counts = (1, 10, 20, 50, 100, 200)
    rows = [
        (layer, n, rho + 0.25 / (1 + i) + 0.02 * layer / n_layers, 0.05 + 0.02 * i, 2000 // (1 + i))
        for layer in (*range(n_layers), -1)
        for i, n in enumerate(counts)
    ]
    layer, n, value, half, types = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "layer": layer,
        "min_count": n,
        "rho": value,
        "low": value - half,
        "high": value + half,
        "n_types": types,
        "p": value * 0 + 1e-4,
        "null": value * 0 + 0.01,
        "null_low": value * 0 - 0.04,
        "null_high": value * 0 + 0.06,
    }


def grid() -> dict[str, Any]:
    counts, shares = np.meshgrid([5, 10, 20, 50, 100, 200, 500], np.linspace(0.05, 0.75, 15), indexing="ij")
    coverage = (shares**2 * 1.5 * (1 - np.log(counts) / 12)).clip(0, 1)
    return {
        "min_count": counts.ravel(),
        "max_entropy_share_of_lnE": shares.ravel(),
        "coverage": coverage.ravel(),
        "agreement": 1 - shares.ravel() / 2,
    }


def tables(rng: np.random.Generator, n_layers: int, n_types: int, n_experts: int, top_k: int, rho: float) -> dict[str, Any]:
    stats = routing_stats(rng, n_layers, n_types, n_experts, top_k)
    m = np.unique(np.geomspace(1, n_types, 60).astype(int))
    coverage = np.cumsum(np.sort(stats["frequency"][:n_types])[::-1])[m - 1] / stats["frequency"][:n_types].sum()
    return {
        "routing_stats": stats,
        "frequency_bins": binned(rng, stats, n_layers),
        "rho_sensitivity": sensitivity(n_layers, rho),
        "entropy_histogram": histogram(n_layers, math.log(n_experts) if n_experts > 1 else 0.0),
        "threshold_grid": grid(),
        "cumulative_coverage": {"m": m, "coverage": coverage, "low_entropy": coverage * 0.12},
    }


def estimates(rho: float, share: float, coverage: float) -> dict[str, Estimate]:
    occurrences = "share of occurrences"
    two_way = {"n": 412, "n_of": "types", "null": 0.01, "null_low": -0.06, "null_high": 0.07}
    found = {
        "freq_entropy_rho": replace(estimate(rho, 0.071, "rho", p=1.2e-9, **two_way), resampled="document x type"),
        "freq_entropy_rho_partial": estimate(rho * 0.8, 0.08, "rho", **two_way),
        "freq_entropy_rho_seed": estimate(rho + 0.2, 0.04, "rho", n=1980, n_of="types", p=0.02),
        "entropy_share_below": estimate(share, 0.021, occurrences, null=share - 0.004, null_low=share - 0.02, null_high=share + 0.012),
        "entropy_share_below_half_nat": estimate(share * 0.6, 0.018, occurrences),
        "entropy_share_below_half_bit": estimate(share * 0.3, 0.01, occurrences),
        "entropy_mean_nats": estimate(1.412, 0.03, "nats"),
        "entropy_mean_normalised": estimate(0.51, 0.01, "share of ln E"),
        "fastpath_coverage": estimate(coverage, 0.012, occurrences),
        "fastpath_coverage_calibration": estimate(coverage + 0.01, 0.018, occurrences),
        "fastpath_coverage_seed": estimate(coverage + 0.02, 0.011, occurrences),
        "fastpath_optimism": estimate(0.01, 0.015, occurrences),
        "fastpath_agreement": estimate(0.71, 0.03, "share of covered occurrences"),
        "fastpath_type_share": estimate(0.043, 0.01, "share of types"),
        "collision": estimate(0.205, 0.006, "share"),
        "consistency_modal": estimate(0.412, 0.005, "share"),
        "consistency_rarefied": estimate(0.331, 0.006, "share"),
        "zipf_r2": Estimate(0.93, None, None, "1", "nothing", 0, "least squares"),
        "zipf_exponent": Estimate(1.04, None, None, "1", "nothing", 0, "maximum likelihood"),
        "top_1000_coverage": estimate(0.893, 0.004, occurrences),
    }
    return {name: found[name] for name in found}


def evaluation(n_layers: int, n_types: int, n_experts: int, top_k: int, seed: int, measured: dict[str, Estimate]) -> Evaluation:
    rng = np.random.default_rng(seed)
    rho = measured["freq_entropy_rho"].value or -0.2
    by_layer = {
        name: tuple(
            e if e.value is None else replace(e, value=e.value + s, low=e.low + s - 0.02, high=e.high + s + 0.02)
            for s in rng.normal(0, 0.03, n_layers)
        )
        for name, e in measured.items()
        if e.value is None or e.low is not None
    }
    facts = {
        "min_type_count": 50,
        "n_documents": N_DOCUMENTS,
        "n_documents_per_domain": {"code": 336, "math": 336},
        "n_types_judged": 412,
        "n_tokens": 251_000,
        "seed_rule": {
            "rho": rho + 0.2,
            "p": 0.02,
            "n_types": 1980,
            "share": 0.06,
            "coverage": 0.08,
            "eligible_types": 61,
            "eligible_share": 0.031,
            "mean_entropy": 1.43,
            "std_entropy": 0.31,
            "mean_consistency": 0.52,
            "top_consistency": 0.44,
            "zipf_r2": 0.93,
            "top_coverage": 0.9,
            "population": "test documents, first MoE layer, every token type seen",
        },
    }
    return Evaluation(measured, by_layer, tables(rng, n_layers, n_types, n_experts, top_k, rho), facts)


def sweep(rng: np.random.Generator) -> dict[str, Any]:
    trials = []
    for i, (n, h) in enumerate(zip(rng.integers(5, 500, 154), rng.uniform(0.05, 0.75, 154), strict=True)):
        trials.append(
            {
                "number": i,
                "min_count": int(n),
                "max_entropy": float(h),
                "table_k": 2,
                "coverage": float(0.9 * h - 0.02 * np.log(n) + 0.12),
                "agreement": float(1 - 0.5 * h**1.5),
                "origin": "grid" if i < 90 else "asked",
            }
        )
    for trial in trials:
        trial["on_front"] = not any(o["coverage"] > trial["coverage"] and o["agreement"] > trial["agreement"] for o in trials)
    shares = {
        "coverage": {"min_count": 0.12, "max_entropy": 0.84, "table_k": 0.04},
        "agreement": {"min_count": 0.02, "max_entropy": 0.6, "table_k": 0.38},
    }
    return {
        "trials": trials,
        "importances": [{"objective": name, "shares": one, "reason": None} for name, one in shares.items()],
        "n_cells": 3075,
        "n_undefined": 12,
        "space": {"min_agreement": 0.9},
        "reason": None,
        "chosen": {"min_count": 12, "max_entropy": 0.36, "table_k": 2, "coverage": 0.39, "agreement": 0.902},
        "confirmed": {"coverage": estimate(0.37, 0.013, "share").to_json(), "agreement": estimate(0.897, 0.011, "share").to_json()},
        "optimism": {"coverage": estimate(0.02, 0.013, "share").to_json(), "agreement": estimate(0.005, 0.011, "share").to_json()},
    }


def fastpath(n_layers: int) -> dict[str, Any]:
    changes = {"all layers": 0.021, "random table, all layers": 0.38} | {f"layer {i} alone": 0.004 + 0.002 * i for i in range(n_layers)}
    return {
        "measured": True,
        "documents": 120,
        "tokens": 44_812,
        "baseline_loss_nats": 4.8712,
        "baseline_seconds": 9.4,
        "variants": [
            {
                "name": name,
                "layers": [0],
                "loss_change": estimate(change, 0.004, "nats per token").to_json(),
                "router_rows_evaluated": 168_000,
                "router_rows_looked_up": 11_248,
                "share_saved": 0.062,
                "share_saved_of_these_layers": 0.062,
                "seconds": 9.1,
                "baseline_seconds": 9.4,
            }
            for name, change in changes.items()
        ],
    }


def content(
    n_layers: int = 4,
    n_types: int = 2000,
    n_experts: int = 16,
    top_k: int = 2,
    seed: int = 0,
    rho: float = -0.182,
    share: float = 0.285,
    coverage: float = 0.062,
    **changes: Any,
) -> ReportContent:
    measured = evaluation(n_layers, n_types, n_experts, top_k, seed, estimates(rho, share, coverage))
    return of_evaluation(measured, n_layers, n_experts, top_k, seed, **changes)


def control(rho: float, share: float, coverage: float) -> Evaluation:
    return Evaluation(
        estimates(rho, share, coverage),
        facts={"n_documents": N_DOCUMENTS, "n_documents_per_domain": {"code": 336, "math": 336}, "n_types_judged": 412},
    )


def of_evaluation(measured: Evaluation, n_layers: int, n_experts: int, top_k: int, seed: int = 0, **changes: Any) -> ReportContent:
    finding: Finding = judge(VAR, measured, controls={"positive": control(-0.55, 0.5, 0.6), "negative": control(0.01, 0.05, 0.01)})
    layers = tuple(LayerMeta(f"model.layers.{i}.mlp.gate", i, "decoder", n_experts, top_k) for i in range(n_layers))
    meta = TraceMeta(
        "checkpoints/testbed",
        "9f2c" * 16,
        layers,
        "softmax",
        "softmax_logits",
        "softmax over all experts, renormalised over the top k",
        "ab12" * 16,
        2048,
        "assay 0.1.0 huggingface",
        {"torch": "2.9", "transformers": "5.20"},
        {"dtype": "float32"},
    )
    trace = TraceFacts(meta, 253_118, {"padding": 8_120, "special": 590}, {"verdict": "conforms", "checked": "256 tokens"}, (), "c0ff" * 16)
    fields: dict[str, Any] = {
        "finding": finding,
        "evaluation": measured,
        "trace": trace,
        "corpus": {
            "spec": {"name": "six_domains"},
            "sha256": "77aa" * 16,
            "n_documents": 800,
            "dropped": {"near-duplicate": {"code": 3}},
            "documents": {name: {"train": 240, "calibration": 48, "test": 112} for name in ("code", "math")},
            "bytes": {"code": 1, "math": 2},
        },
        "provenance": {"command": "make experiment EXP=var PROFILE=quick", "commit": "0123abc", "seed": 0},
        "training": {"steps": 300, "held-out cross-entropy (nats per token)": 4.87, "usage entropy by layer": [0.994, 0.991, 0.995, 0.993]},
        "sweep": sweep(np.random.default_rng(seed)),
        "fastpath": fastpath(n_layers),
    }
    return ReportContent(**{**fields, **changes})


@pytest.fixture
def make_content():
    return content


@pytest.fixture
def make_evaluation():
    return evaluation


@pytest.fixture
def make_estimates():
    return estimates


@pytest.fixture
def content_of():
    return of_evaluation


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run directory with a whole report of two layers."""
    directory = tmp_path_factory.mktemp("run")
    write(directory, content(n_layers=2, n_types=300))
    return directory
