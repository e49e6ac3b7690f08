"""Seed 004's toolkit for a model of one's own: features of its experts, every metric, pictures and a report, by the seed's names.

    analyzer = ExpertSpecializationAnalyzer(model, tokenizer, device="cpu")
    features = analyzer.extract_features(batches)                      # texts (or input_ids) with the domain of each document
    analyzer.generate_report(features, save_dir="results/expert_analysis")

One checkpoint is one checkpoint: intervals are over its documents and say nothing of a method. Methods are compared over training seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.comparison import MAX_SIGN_FLIPS, method_estimate, seed_comparison
from analysis.domain_labels import DomainDocuments, basic_estimates, bootstrap_tables
from analysis.estimate import Estimate
from analysis.resampling import basic_interval, generator, refuse_tokens
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_experts import keywords_of, readable
from hypotheses.spectra_runs import RunCounts

if TYPE_CHECKING:
    from experiments.sources.huggingface import HuggingFaceSource
    from hypotheses.spectra_evidence import ArmRun

SEED_WORDS, SEED_BOOTSTRAP = 20, 1_000
NOT_REPLICATES = ("a t test of bootstrap replicates has p near 0 whatever the models, for p falls with the number of replicates; give one value per "
                  "training seed (units=\"seeds\"), or compare two checkpoints by documents with analysis.paired_draws")


@dataclass(frozen=True)
class Features:
    """What was extracted from one model: its run (routing of every document in memory, router inputs of a sample, expert vectors) and words.

    layer: the layer that pictures and matrices show, the last one. missing: what this model did not give, and why.
    """

    run: ArmRun
    token_strings: Sequence[str]
    settings: SpectraSettings = SpectraSettings()
    missing: Mapping[str, str] = field(default_factory=dict)

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
        loads = self.counts.loads
        return DomainDocuments((loads.selected[self.layer if layer is None else layer],), loads.domain, len(loads.domains))


class ExpertSpecializationAnalyzer:
    """Expert specialization of a transformers mixture-of-experts model in memory, under the names of seed 004, G.

    layers: blocks to look at (None: every MoE layer; they need the same number of experts). Raises SourceError for a model whose routers are
    not known, or that does not route as its outputs say.
    """

    def __init__(self, model: Any, tokenizer: Any, device: str = "cuda", *, layers: Sequence[int] | None = None, batch_size: int = 16,
                 max_length: int = 512, seed: int = 0) -> None:
        from experiments.declaration import SourceSpec
        from experiments.sources.huggingface import HuggingFaceSource
        from experiments.sources.opening import opened_from

        spec = SourceSpec(batch_size=batch_size, max_length=max_length, layers=None if layers is None else tuple(layers))
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.source: HuggingFaceSource = HuggingFaceSource(opened_from(model, tokenizer, device, spec))
        self.settings = SpectraSettings(seed=seed)

    def extract_features(self, dataloader: Iterable[Mapping[str, Any]], max_samples: int = 10_000) -> Features:
        """Run every document of the batches through the model, streamed; keep the router inputs of at most `max_samples` tokens.

        dataloader: batches with `texts` [B] or `input_ids` [B, S] (with `attention_mask`), `domain_labels` [B] or [B, S] (one domain a document),
        and `document_ids` [B] if the rows are not documents of their own. All routing is counted whatever max_samples. ValueError for batches
        without documents, and for a document of two domains.
        """
        from experiments.specialization_features import extract

        return extract(self.source, dataloader, max_samples, self.settings)

    def compute_affinity_matrix(self, features: Features, layer: int | None = None) -> NDArray[np.float64]:
        """Affinity P(e|d) / P(e), domains weighing alike [E, D]; NaN for an unused expert. Columns by the name of the domain."""
        from analysis.metrics.specialization import affinity

        return np.asarray(affinity(features.documents(layer).table()), np.float64)

    def compute_domain_purity(self, features: Features) -> dict[str, Estimate]:
        """Purity in three forms, mean over layers: cross-fitted (to read), token-weighted and the seed's in-sample ones, gated."""
        return {name: one[-1] for name, one in self._estimates(features.counts.purity_draws()).items() if name.startswith("purity")}

    def compute_silhouette_score(self, features: Features) -> Estimate:
        """Mean silhouette less that of permuted labels, mean over layers; its null is what random linear routers reach above permuted labels."""
        from hypotheses.spectra_tokens import silhouette_draws

        return self._one(silhouette_draws(features.counts)[0], "silhouette", "no router input was kept")

    def compute_expert_diversity(self, features: Features) -> Estimate:
        """Divergence of the experts' token types beyond documents, mean over layers; the seed's NMI never sees a token."""
        from hypotheses.spectra_tokens import diversity_draws

        return self._one(diversity_draws(features.counts), "diversity_jsd_excess", "no token type occurs 20 times")

    def compute_routing_confidence(self, features: Features) -> Estimate:
        """Confidence of the full softmax, mean over tokens and layers."""
        return self._one(features.counts.confidence_draws(), "confidence", "no probabilities were recorded")

    def compute_representation_similarity(self, features: Features) -> Estimate:
        """Mean distance of the experts' mean outputs on one probe set, 1 - cosine, mean over layers."""
        return self._outputs(features, "repr_output")

    def compute_gram_orthogonality(self, features: Features) -> Estimate:
        """Root mean square cosine between the experts' mean outputs, mean over layers; 1 / sqrt(d) is what random directions give."""
        return self._outputs(features, "gram_rms")

    def visualize_token_clustering(self, features: Features, save_path: str | Path) -> Path:
        """t-SNE of at most 3,000 router inputs of the last layer, saved as PDF and PNG."""
        from experiments.specialization_pictures import save_token_clustering

        return save_token_clustering(features, Path(save_path))

    def visualize_affinity_heatmap(self, affinity_matrix: ArrayLike, save_path: str | Path, domains: Sequence[str] = ()) -> Path:
        """An affinity matrix [E, D] as log2, saved as PDF and PNG. domains: names of its columns."""
        from experiments.specialization_pictures import save_affinity

        return save_affinity(np.asarray(affinity_matrix, np.float64), list(domains), Path(save_path))

    def extract_expert_keywords(self, features: Features, top_k: int = SEED_WORDS, layer: int | None = None) -> list[list[tuple[str, float]]]:
        """Keywords of each expert with their z (log odds, Dirichlet prior, z > 3); empty for an expert that nothing characterises."""
        found = keywords_of(features.counts, features.token_strings, features.layer if layer is None else layer, top_k)
        return [[(readable(word.text), word.score) for word in words] for words in found]

    def generate_report(self, features: Features, save_dir: str | Path) -> Path:
        """Every metric as JSON, tables as CSV, pictures under the seed's names; returns the directory. Nothing is judged of one checkpoint."""
        from experiments.specialization_pictures import save_report

        return save_report(self, features, Path(save_dir))

    def compute_all_metrics(self, features: Features, model_name: str = "") -> dict[str, Any]:
        """See compute_all_metrics."""
        return compute_all_metrics(features, model_name or str(getattr(self.model.config, "name_or_path", "")) or type(self.model).__name__, self)

    def _outputs(self, features: Features, name: str) -> Estimate:
        if "outputs" in features.missing:
            return Estimate.undefined(features.missing["outputs"])
        return self._one(features.counts.output_draws(), name, "no probe document")

    def _one(self, draws: Mapping[str, Any], name: str, why: str) -> Estimate:
        found: Estimate = draws[name].estimates()[-1] if name in draws else Estimate.undefined(why)
        return found

    def _estimates(self, draws: Mapping[str, Any]) -> dict[str, list[Estimate]]:
        return {name: one.estimates() for name, one in draws.items()}


def compute_all_metrics(features: Features, model_name: str, analyzer: ExpertSpecializationAnalyzer) -> dict[str, Any]:
    """Every metric of seed 004, D.3, for one checkpoint: estimates over its documents, mean over layers; the affinity matrix of the last layer."""
    counts = features.counts
    return {"model": model_name, "affinity_matrix": analyzer.compute_affinity_matrix(features), "domains": list(counts.domains),
            "mi_E_D": counts.domain_draws()["mi_E_D"].estimates()[-1], "domain_purity": analyzer.compute_domain_purity(features),
            "silhouette_score": analyzer.compute_silhouette_score(features), "expert_diversity": analyzer.compute_expert_diversity(features),
            "routing_confidence": analyzer.compute_routing_confidence(features),
            "repr_similarity": analyzer.compute_representation_similarity(features),
            "gram_orthogonality": analyzer.compute_gram_orthogonality(features),
            "collapse_rate": counts.usage_draws()["collapse_rate"].estimates()[-1],
            "held_out_loss": counts.loss_draws()["held_out_loss"].estimates()[-1],
            "missing": dict(features.missing)}


def bootstrap_metric(metric_fn: str | Callable[[NDArray[np.float64]], float], features: Features, n_bootstrap: int = SEED_BOOTSTRAP, *,
                     unit: str = "document", layer: int | None = None, level: float = 0.95) -> Estimate:
    """Plug-in value with the basic interval of a bootstrap of whole documents inside domains.

    metric_fn: id of a metric of counts_DE, or a function of the selections [D, E] of one layer (the last, if None). Never the mean of the
    replicates, which doubles the bias. unit="token", and features that are no Features but single tokens, are refused (ValueError): tokens
    of one document share its topic, and such intervals cover 25 % instead of 95 %.
    """
    refuse_tokens(unit if isinstance(features, Features) else "token")
    documents = features.documents(layer)
    rng = generator(features.settings.seed, "bootstrap_metric")
    if isinstance(metric_fn, str):
        found: Estimate = basic_estimates(metric_fn, documents, rng, level=level, n_replicates=n_bootstrap).item()
        return found
    value = float(metric_fn(documents.table().astype(np.float64)))
    drawn = np.array([float(metric_fn(table)) for tables in bootstrap_tables(documents, "counts_DE", n_bootstrap, rng) for table in tables])
    low, high = basic_interval(np.asarray(value), drawn[~np.isnan(drawn)], level)
    return Estimate(value, float(low), float(high), "", "document", len(documents.domain), "basic document bootstrap", level, plug_in=value)


def compare_models(metric_switch: ArrayLike, metric_spectra: ArrayLike, *, units: str = "seeds") -> dict[str, Any]:
    """Two methods by one value per training seed, paired: difference with its t interval, t, p of the t test and of sign flips.

    Three seeds give an interval, five a verdict (`significant` is None below). units other than "seeds", and more values than trainings can be
    (20), are refused (ValueError): bootstrap replicates, documents and tokens are no trainings.
    """
    a, b = np.asarray(metric_switch, np.float64).ravel(), np.asarray(metric_spectra, np.float64).ravel()
    if units != "seeds" or max(len(a), len(b)) > MAX_SIGN_FLIPS:
        what = f"units={units!r}" if units != "seeds" else f"{max(len(a), len(b))} values are no training seeds"
        raise ValueError(f"{what}: {NOT_REPLICATES}")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} training seeds: give the same seeds of both, paired by their data order")
    found = method_estimate(b - a, unit="")
    test = seed_comparison(b - a) if found.value is not None else None
    significant = None if test is None or found.gate or found.low is None or found.high is None else not found.low <= 0 <= found.high
    return {"difference": found, "t_statistic": None if test is None else test.t, "p_value": None if test is None else test.p_t,
            "p_sign_flip": found.p, "significant": significant, "reason": found.reason or found.gate}


__all__ = ["ExpertSpecializationAnalyzer", "Features", "bootstrap_metric", "compare_models", "compute_all_metrics"]
