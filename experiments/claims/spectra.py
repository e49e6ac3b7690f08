"""SPECTRA in a run: arms trained with several seeds, evidence from their routing and features, planted answers as controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.stages.arm_sweep import CONFIRM, SWEEP
from experiments.stages.arms import ARMS, collected
from experiments.stages.audit_arms import AUDIT_ARMS, of_judged_pair
from experiments.stages.context import Context
from experiments.stages.stage import StageOf

if TYPE_CHECKING:
    from hypotheses.spectra_evidence import SpectraEvidence, SpectraSettings

RESTS_ON = ("loads", "domains", "intervals")
BEFORE: tuple[StageOf, ...] = (SWEEP, ARMS, AUDIT_ARMS)
AFTER: tuple[StageOf, ...] = (CONFIRM,)
PLANTED = {"specialists": {"loyal_share": "2/3", "outputs": "orthogonal", "loss": "the baseline's",
                           "baseline_experts_without_a_token": "about 1/4"},
           "permuted": {"domains": "permuted over documents, anew for each seed",
                        "outputs": "of two trainings of the baseline, drawn for each seed"},
           "hash": {"routing": "by a hash of the token type"},
           "worse": {"experts_without_a_token": "about 1/4", "outputs": "one way", "loss": "0.2 nats per token higher"}}


def evidence(context: Context, trace: Any) -> SpectraEvidence:  # noqa: ARG001
    """Every arm of the run; the run's own trace is the baseline's first, and among them."""
    from experiments.arm_runs import differences_of
    from hypotheses.spectra_evidence import SpectraEvidence

    arms = collected(context)
    corpus = context.read_json("corpus/manifest.json")
    domains = tuple(corpus.get("documents", {})) + tuple(corpus.get("empty_domains", ()))
    strings = json.loads((context.directory / "frequency" / "token_strings.json").read_text(encoding="utf-8"))
    topics = {one.id: one.topic for one in context.corpus.documents if one.topic is not None}
    return SpectraEvidence(arms, settings(context), domains, differences=differences_of(arms), token_strings=strings, topics=topics)


def further_findings(context: Context) -> list[dict[str, Any]]:
    """What the audit found in the arms of the judged pair."""
    return of_judged_pair(context)


def settings(context: Context) -> SpectraSettings:
    """The declared knobs, as the evaluation takes them."""
    from hypotheses.spectra_evidence import SpectraSettings

    uncertainty, campaign = context.experiment.uncertainty, context.experiment.campaign
    return SpectraSettings(seed=context.experiment.seed, level=uncertainty.level, n_bootstrap=uncertainty.n_bootstrap, n_null=uncertainty.n_null,
                           umap=campaign is not None and campaign.umap)


def plant(context: Context) -> dict[str, Any]:  # noqa: ARG001
    """What is planted; controls are read from the arms at hand with another answer, and nothing of them is stored."""
    return {"planted": PLANTED, "unreachable": None}


def control_trace(kind: str) -> Path:
    """The routing that a control of one trace would be read from: the baseline's, for these controls change what is read."""
    del kind
    return Path("trace")


def control_evidence(context: Context, kind: str) -> SpectraEvidence:
    """The judged pair with a planted answer."""
    from hypotheses.spectra_controls import KINDS, planted

    (known,) = (one for one in KINDS if one == kind)
    return planted(evidence(context, None), known)
