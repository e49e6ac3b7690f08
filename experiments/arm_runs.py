"""Collected arms of a run directory, as the evidence that SPECTRA is judged from; arrays stay on disk until they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.comparison import Conditions
from hypotheses.spectra_evidence import BASELINE, ArmRun, Representations, RouterInputs, Training

if TYPE_CHECKING:
    from tracking.traces import StoredTrace

CAPACITY_FACTOR = 1.25  # of routers with a capacity, unless declared: ceil(1.25 N k / E) (testbed specification 3)
FACTS = ("parameters", "cpu_seconds", "fingerprint", "held_out_nats_by_domain", "load", "versions", "windows")


def arm_runs(directory: Path, seeds: Mapping[str, Sequence[int]]) -> dict[str, list[ArmRun]]:
    """Runs of each arm in the order of its seeds, from <directory>/<arm>-<seed>. FileNotFoundError for one that was not collected."""
    return {arm: [arm_run(directory / f"{arm}-{seed}") for seed in of_arm] for arm, of_arm in seeds.items()}


def arm_run(directory: Path) -> ArmRun:
    """One collected arm with one seed."""
    from experiments.testbed.arms import arm_of
    from tracking.traces import StoredTrace

    about, training = (_json(directory / name) for name in ("features.json", "training.json"))
    trace, arm = StoredTrace.open(directory / "trace"), arm_of(about["arm"])
    numbers = [row.document for row in trace.documents]
    losses, options = _arrays(directory / "losses.npz"), training["recipe"]["spec"]["router_options"]
    return ArmRun(
        arm=about["arm"], seed=about["seed"], trace=trace, loss_nats_D=losses["loss_nats"][numbers], tokens_D=losses["tokens"][numbers],
        inputs=_inputs(directory, trace), representations=_representations(directory, trace), conditions=_conditions(about, training),
        data_order=training["data_order"], training=_training(training), optimised=arm.optimised,
        constrained=arm.constrained, fillers=_limited(training["recipe"]["spec"]["router"], options), scored=arm.scored,
        causal=arm.causal and not options.get("sinkhorn_inference", False),
        facts={"says": arm.says, "expert_width": training["recipe"]["spec"]["intermediate"], "checkpoint": about["checkpoint"],
               "router_options": options, **{name: training.get(name) for name in FACTS}})


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _inputs(directory: Path, trace: StoredTrace) -> RouterInputs:
    arrays = _arrays(directory / "inputs.npz")
    vectors = [np.load(directory / f"inputs_{layer}.npy", mmap_mode="r", allow_pickle=False) for layer in range(len(trace.meta.layers))]
    return RouterInputs(arrays["document"], arrays["position"], vectors, arrays["first"])


def _representations(directory: Path, trace: StoredTrace) -> Representations:
    arrays = _arrays(directory / "representations.npz")
    routing = tuple(arrays[f"routing_{layer}"] for layer in range(len(trace.meta.layers)))
    return Representations(arrays["probe"], arrays["probe_tokens"], tuple(arrays["probe_ids"].tolist()), arrays["centroid"],
                           arrays["centroid_count"], tuple(one for one in routing if one.size), arrays["expert_norm"])


def _limited(router: str, options: Mapping[str, Any]) -> bool:
    """Whether slots stay empty in evaluation, as the router's `limited` says."""
    return router == "expert_choice" or bool(options.get("quota") and options.get("sinkhorn_inference"))


def _conditions(about: Mapping[str, Any], training: Mapping[str, Any]) -> Conditions:
    spec = training["recipe"]["spec"]
    options = spec["router_options"]
    limited = spec["router"] == "expert_choice" or options.get("quota", False)
    capacity = options.get("capacity_factor", CAPACITY_FACTOR) if limited else None
    return Conditions(training["parameters"], spec["top_k"], spec["experts"], training["tokens_seen"], about["evaluation_documents"], capacity)


def _training(training: Mapping[str, Any]) -> Training:
    curves = {name: np.array([row[place] for row in training["losses"]], np.float64) for place, name in enumerate(training["columns"])}
    return Training(training["recipe"]["spec"]["steps"], training["cpu_seconds"], curves, training["checks"], training["agreement"],
                    training["held_out_nats"])


def differences_of(arms: Mapping[str, Sequence[ArmRun]]) -> dict[str, tuple[str, ...]]:
    """What differs from the baseline beside the router, by arm; without the baseline nothing can be said, and every arm says so."""
    from experiments.testbed.arms import arm_of, differences

    if not arms.get(BASELINE):
        return dict.fromkeys(arms, (f"the baseline {BASELINE} was not trained",))
    base = arms[BASELINE][0].conditions
    found = {}
    for name, runs in arms.items():
        of = runs[0].conditions
        unlike = list(differences(arm_of(name), of.parameters or 0, base.parameters or 1, base.top_k or 0))
        if arm_of(name).causal and not all(run.causal for run in runs):
            unlike.append("not causal: Sinkhorn routing over the batch decides in evaluation too, so that later tokens decide the experts of "
                          "earlier ones")
        by_seed = {run.seed: run for run in arms[BASELINE]}
        if any(run.seed in by_seed and run.data_order != by_seed[run.seed].data_order for run in runs):
            unlike.append("training data: other batches, or in another order")
        if of.evaluation_documents != base.evaluation_documents:
            unlike.append("evaluation documents: others")
        found[name] = tuple(unlike)
    return found


def curve_rows(arms: Mapping[str, Sequence[ArmRun]]) -> list[dict[str, Any]]:
    """Training curves in long form: arm, seed, step, term, value."""
    return [{"arm": run.arm, "seed": run.seed, "step": int(step), "term": term, "value": float(value)}
            for runs in arms.values() for run in runs for term, values in run.training.curves.items() if term != "step"
            for step, value in zip(run.training.curves["step"], values, strict=True)]
