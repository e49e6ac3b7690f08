"""Plain facts of a SPECTRA evaluation: sample sizes, arms with what differs, training, and caveats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.comparison import SEED_VERDICT_FLOOR
from hypotheses.spectra_evidence import ArmRun, SpectraEvidence
from hypotheses.spectra_runs import SPLIT
from hypotheses.topology_parts import Row

TRAINING_COLUMNS = ("arm", "seed", "steps", "seconds", "held_out_nats", "parameters", "top_k", "n_experts", "tokens_seen", "causal", "data_order")
CHECK_COLUMNS = ("arm", "seed", "kind", "name", "words", "layer", "value", "tolerance")
ALIKE = 0.95  # share of first choices below which evaluation is said to route otherwise than training did
CURVE_COLUMNS = ("arm", "seed", "curve", "step", "value")


@dataclass(frozen=True)
class Equation:
    """What a router's equations promise of a trained model: the largest misfit that counts as met, and in words what is measured."""

    words: str
    tolerance: float


EQUATIONS = {
    "row_sums": Equation("rows of the plan sum to 1: exact by construction, the last half-step is theirs", 1e-3),
    "column_sums": Equation("columns of the transport plan approach N/E with the iterations (misfit as a share of it)", 0.05),
    "gram_diagonal": Equation("centroids of the experts have norm 1: by construction", 1e-3),
}


def facts(evidence: SpectraEvidence, gate: str | None) -> dict[str, Any]:
    """Everything that is stated beside the estimates, but for the seed's own rule."""
    run = next((runs[0] for runs in evidence.arms.values() if runs), None)
    documents = [] if run is None else [row for row in run.trace.documents if row.split == SPLIT]
    found = Counter(row.domain for row in documents)
    layers = () if run is None else run.trace.meta.layers
    return {
        "n_documents": len(documents), "n_documents_per_domain": {name: found[name] for name in sorted({*found, *evidence.domains})},
        "n_layers_left_out": 0 if run is None else int(run.trace.meta.details.get("moe_layers_of_model", len(layers))) - len(layers),
        "resampled": "training seed; documents for checkpoints", "split": SPLIT, "seed": evidence.settings.seed,
        "baseline": evidence.baseline, "treatment": evidence.treatment, "n_pairs": len(evidence.pairs),
        "seeds": {name: [one.seed for one in runs] for name, runs in evidence.arms.items()},
        "differences": {name: list(what) for name, what in evidence.differences.items()}, "confounded": gate,
        "layers": [{"key": layer.key, "depth": layer.depth, "n_experts": layer.n_experts, "top_k": layer.top_k} for layer in layers],
        "optimised": {name: sorted(set().union(*(one.optimised for one in runs))) for name, runs in evidence.arms.items() if runs},
        "constrained": {name: sorted(set().union(*(one.constrained for one in runs))) for name, runs in evidence.arms.items() if runs},
        "causal": {name: all(one.causal for one in runs) for name, runs in evidence.arms.items() if runs},
        "caveats": caveats(evidence, gate),
    }


def caveats(evidence: SpectraEvidence, gate: str | None) -> list[str]:
    """What a reader of these numbers has to know first."""
    out = [] if gate is None else [f"the judged pair is {gate}"]
    n = len(evidence.pairs)
    if n < SEED_VERDICT_FLOOR:
        out.append(f"{n} training seeds in both arms, {SEED_VERDICT_FLOOR} needed for a verdict on a method: what is said of these checkpoints is "
                   "not said of the method")
    out.append("a domain here is a source of text: format and typography differ with the topic, and experts may follow either")
    out += [f"{name} differs from {evidence.baseline} in more than its router: {', '.join(what)}"
            for name, what in evidence.differences.items() if what]
    out += unlike_training([run for pair in evidence.pairs for run in pair])
    out += [f"{name} is not causal: later tokens of a sequence change the routing of earlier ones"
            for name, runs in evidence.arms.items() if any(not run.causal for run in runs)]
    single = [name for name, runs in evidence.arms.items() if len(runs) == 1]
    if single:
        out.append(f"one training seed: {', '.join(single)}; shown for orientation, nothing is said of these methods")
    return out


def unlike_training(runs: Sequence[ArmRun]) -> list[str]:
    """Equations that trained models do not meet, and how far evaluation routes otherwise than training did, by arm."""
    out = []
    for arm in dict.fromkeys(run.arm for run in runs):
        of_arm = [run for run in runs if run.arm == arm]
        for name, equation in EQUATIONS.items():
            values = [float(value) for run in of_arm for value in run.training.checks.get(name, ())]
            missed = [value for value in values if value > equation.tolerance]
            if missed:
                out.append(f"{arm} does not meet its own equation on the trained models: {equation.words}; the misfit is up to {max(missed):.2g}"
                           f"{_after(of_arm)}, above the declared {equation.tolerance:g} in {len(missed)} of {len(values)} layers of trainings")
        shares = [float(share) for run in of_arm for share in run.training.agreement.get("first_choice", ())]
        if shares and min(shares) < ALIKE:
            out.append(f"routing of {arm} in training and in evaluation agree on the first choice of {_range(shares)} of the tokens,"
                       " by layer and training: what is measured in evaluation is not the routing that was trained")
    return out


def _words(run: ArmRun, name: str) -> str:
    """What is measured, with the iterations that the transport had."""
    return "" if name not in EQUATIONS else EQUATIONS[name].words + (_after([run]) if name == "column_sums" else "")


def _range(shares: Sequence[float]) -> str:
    ends = dict.fromkeys((f"{min(shares):.0%}", f"{max(shares):.0%}"))
    return " to ".join(ends)


def _after(runs: Sequence[ArmRun]) -> str:
    iterations = {run.facts.get("router_options", {}).get("iterations") for run in runs} - {None}
    return f" after {' or '.join(map(str, sorted(iterations)))} iterations" if iterations else ""


def training_rows(runs: Sequence[ArmRun]) -> list[Row]:
    """What was trained, on what, for how long, and how good it is."""
    return [{"arm": run.arm, "seed": run.seed, "steps": run.training.steps, "seconds": run.training.seconds,
             "held_out_nats": run.training.held_out_nats, "parameters": run.conditions.parameters,
             "top_k": run.conditions.top_k, "n_experts": run.conditions.n_experts,
             "tokens_seen": run.conditions.tokens_seen, "causal": int(run.causal), "data_order": run.data_order[:12]} for run in runs]


def check_rows(runs: Sequence[ArmRun]) -> list[Row]:
    """Equations on the trained models and agreement of training-mode with evaluation-mode routing, by layer."""
    rows: list[Row] = []
    for run in runs:
        for kind, found in (("equation", run.training.checks), ("agreement", run.training.agreement)):
            rows += [{"arm": run.arm, "seed": run.seed, "kind": kind, "name": name, "words": _words(run, name),
                      "layer": layer, "value": float(value), "tolerance": EQUATIONS[name].tolerance if name in EQUATIONS else None}
                     for name, values in found.items() for layer, value in enumerate(values)]
    return rows


def curve_rows(runs: Sequence[ArmRun]) -> list[Row]:
    """Losses along the training, each term by name."""
    rows: list[Row] = []
    for run in runs:
        curves: Mapping[str, Any] = run.training.curves
        steps = curves.get("step", ())
        rows += [{"arm": run.arm, "seed": run.seed, "curve": name, "step": int(step), "value": float(value)}
                 for name, values in curves.items() if name != "step" for step, value in zip(steps, values, strict=True)]
    return rows
