"""The evidence of a hypothesis: a trace with the type counts and settings of the run; the same for the run's trace and its controls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from experiments.stages.collect import kept_type_counts
from experiments.stages.context import Context

if TYPE_CHECKING:
    from analysis.trace import RoutingTrace
    from hypotheses.var_evidence import VarEvidence, VarSettings


def var_settings(context: Context) -> VarSettings:
    """The declared thresholds and resampling numbers, as the evaluation takes them."""
    from analysis.metrics.entropy import EntropyThreshold
    from hypotheses.var_evidence import VarSettings

    experiment = context.experiment
    return VarSettings(
        frequency_threshold=experiment.analysis.frequency_threshold, min_type_count=experiment.analysis.min_type_count,
        entropy_threshold=EntropyThreshold(experiment.analysis.entropy_share, "normalised"), n_bootstrap=experiment.uncertainty.n_bootstrap,
        n_null=experiment.uncertainty.n_null, seed=experiment.seed, level=experiment.uncertainty.level)


def var_evidence(context: Context, trace: RoutingTrace) -> VarEvidence:
    """What VAR is judged from, for `trace`."""
    from hypotheses.var_evidence import VarEvidence

    counts = kept_type_counts(context)
    strings = json.loads((context.directory / "frequency" / "token_strings.json").read_text(encoding="utf-8"))
    corpus = context.read_json("corpus/manifest.json")
    domains = tuple(corpus.get("documents", {})) + tuple(corpus.get("empty_domains", ()))
    return VarEvidence(trace, counts.matrix(), strings, var_settings(context), counts.domains, domains)
