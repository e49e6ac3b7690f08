"""Seed 004's metrics, D.3, of features that were extracted from one model: estimates over its documents, mean over layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.domain_labels import DomainDocuments
from analysis.estimate import Estimate
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_runs import RunCounts

if TYPE_CHECKING:
    from hypotheses.spectra_evidence import ArmRun


@dataclass(frozen=True)
class Features:
    """What was extracted from one model: its run (routing of every document, router inputs of a sample, expert vectors) and words.

    layer: the layer that pictures and matrices show, the last one. missing: what this model did not give, and why. scratch: where routing and
    inputs lie until nobody holds these features any more; None where they lie elsewhere.
    """

    run: ArmRun
    token_strings: Sequence[str]
    settings: SpectraSettings = SpectraSettings()
    missing: Mapping[str, str] = field(default_factory=dict)
    scratch: TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def counts(self) -> RunCounts:
        """Its documents, counted once."""
        return RunCounts(self.run, self.settings)

    @property
    def layer(self) -> int:
        """The layer shown."""
        return len(self.run.trace.meta.layers) - 1

    def documents(self, layer: int | None = None) -> DomainDocuments:
        """Selections of each document at one layer, with its domain."""
        return self.counts.in_domains(self.layer if layer is None else layer)


def compute_affinity_matrix(features: Features | ArrayLike, domain_labels: Sequence[Any] | NDArray[Any] | None = None, *,
                            layer: int | None = None) -> NDArray[np.float64]:
    """Affinity P(e|d) / P(e), domains weighing alike [E, D]; NaN for an unused expert. Columns by the name of the domain.

    As in the seed's C.2 also of plain arrays: experts [T] or [T, k] (-1 for none) with the domain of each token [T].
    """
    from analysis.metrics.specialization import affinity

    if isinstance(features, Features):
        return np.asarray(affinity(features.documents(layer).table()), np.float64)
    if domain_labels is None:
        raise ValueError("domain_labels: give the domain of each token beside the experts, or features from extract_features")
    from experiments.specialization_tokens import selections

    return np.asarray(affinity(selections(features, domain_labels)[0]), np.float64)


def compute_domain_purity(features: Features) -> dict[str, Estimate]:
    """Purity in three forms: cross-fitted (to read), token-weighted and the seed's in-sample ones, gated."""
    return {name: one.estimates(features.settings.level)[-1] for name, one in features.counts.purity_draws().items() if name.startswith("purity")}


def compute_silhouette_score(features: Features) -> Estimate:
    """Mean silhouette less that of permuted labels; its null is what random linear routers reach above permuted labels."""
    from hypotheses.spectra_tokens import silhouette_draws

    return _one(features, silhouette_draws(features.counts)[0], "silhouette", "no router input was kept")


def compute_expert_diversity(features: Features) -> Estimate:
    """Divergence of the experts' token types beyond documents; the seed's NMI never sees a token."""
    from hypotheses.spectra_tokens import diversity_draws

    return _one(features, diversity_draws(features.counts), "diversity_jsd_excess", "no token type occurs 20 times")


def compute_routing_confidence(features: Features) -> Estimate:
    """Confidence of the full softmax, mean over tokens."""
    return _one(features, features.counts.confidence_draws(), "confidence", "no probabilities were recorded")


def compute_representation_similarity(features: Features) -> Estimate:
    """Mean distance of the experts' mean outputs on one probe set, 1 - cosine."""
    return _outputs(features, "repr_output")


def compute_gram_orthogonality(features: Features) -> Estimate:
    """Root mean square cosine between the experts' mean outputs; 1 / sqrt(d) is what random directions give.

    Of features, not of a model as the seed has it: outputs need tokens, and only the same ones make experts comparable.
    """
    return _outputs(features, "gram_rms")


def compute_all_metrics(features: Features, model_name: str) -> dict[str, Any]:
    """Every metric of the seed for one checkpoint; the affinity matrix is of the last layer."""
    counts, level = features.counts, features.settings.level
    return {"model": model_name, "affinity_matrix": compute_affinity_matrix(features), "domains": list(counts.domains),
            "mi_E_D": compute_domain_information(features), "domain_purity": compute_domain_purity(features),
            "silhouette_score": compute_silhouette_score(features), "expert_diversity": compute_expert_diversity(features),
            "routing_confidence": compute_routing_confidence(features), "repr_similarity": compute_representation_similarity(features),
            "gram_orthogonality": compute_gram_orthogonality(features),
            "collapse_rate": counts.usage_draws()["collapse_rate"].estimates(level)[-1],
            "held_out_loss": counts.loss_draws()["held_out_loss"].estimates(level)[-1], "missing": dict(features.missing)}


def compute_domain_information(features: Features) -> Estimate:
    """I(domain; expert) in bits, the headline: what affinity and purity are two views of."""
    return features.counts.domain_draws()["mi_E_D"].estimates(features.settings.level)[-1]


def estimate_named(name: str) -> Callable[[Features], Estimate] | None:
    """The function of that name which gives one number; of the purities the cross-fitted one. None for any other name."""
    if name == compute_domain_purity.__name__:
        return lambda features: compute_domain_purity(features)["purity_cross_fitted"]
    numbers = (compute_silhouette_score, compute_expert_diversity, compute_routing_confidence, compute_representation_similarity,
               compute_gram_orthogonality, compute_domain_information)
    return {one.__name__: one for one in numbers}.get(name)


def _outputs(features: Features, name: str) -> Estimate:
    if "outputs" in features.missing:
        return Estimate.undefined(features.missing["outputs"])
    return _one(features, features.counts.output_draws(), name, "no probe document")


def _one(features: Features, draws: Mapping[str, Any], name: str, why: str) -> Estimate:
    found: Estimate = draws[name].estimates(features.settings.level)[-1] if name in draws else Estimate.undefined(why)
    return found
