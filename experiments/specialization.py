"""Seed 004's toolkit for a model of one's own: features of its experts, every metric, pictures and a report, by the seed's names.

    analyzer = ExpertSpecializationAnalyzer(model, tokenizer, device="cpu")
    features = analyzer.extract_features(batches)                      # texts (or input_ids) with the domain of each document
    analyzer.generate_report(features, save_dir="results/expert_analysis")

One checkpoint is one checkpoint: intervals are over its documents and say nothing of a method. Methods are compared over training seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.estimate import Estimate
from experiments.specialization_comparison import bootstrap_metric, compare_models
from experiments.specialization_metrics import (
    Features,
    compute_affinity_matrix,
    compute_all_metrics,
    compute_domain_information,
    compute_domain_purity,
    compute_expert_diversity,
    compute_gram_orthogonality,
    compute_representation_similarity,
    compute_routing_confidence,
    compute_silhouette_score,
)
from experiments.specialization_tokens import SEED_WORDS, compute_domain_expert_flows, extract_expert_keywords, get_representative_samples
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_experts import keywords_of, readable

if TYPE_CHECKING:
    from experiments.sources.huggingface import HuggingFaceSource


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
        """See compute_affinity_matrix."""
        return compute_affinity_matrix(features, layer=layer)

    def compute_domain_purity(self, features: Features) -> dict[str, Estimate]:
        """See compute_domain_purity."""
        return compute_domain_purity(features)

    def compute_silhouette_score(self, features: Features) -> Estimate:
        """See compute_silhouette_score."""
        return compute_silhouette_score(features)

    def compute_expert_diversity(self, features: Features) -> Estimate:
        """See compute_expert_diversity."""
        return compute_expert_diversity(features)

    def compute_routing_confidence(self, features: Features) -> Estimate:
        """See compute_routing_confidence."""
        return compute_routing_confidence(features)

    def compute_representation_similarity(self, features: Features) -> Estimate:
        """See compute_representation_similarity."""
        return compute_representation_similarity(features)

    def compute_gram_orthogonality(self, features: Features) -> Estimate:
        """See compute_gram_orthogonality."""
        return compute_gram_orthogonality(features)

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
        return compute_all_metrics(features, model_name or str(getattr(self.model.config, "name_or_path", "")) or type(self.model).__name__)


__all__ = ["ExpertSpecializationAnalyzer", "Features", "bootstrap_metric", "compare_models", "compute_affinity_matrix", "compute_all_metrics",
           "compute_domain_expert_flows", "compute_domain_information", "compute_domain_purity", "compute_expert_diversity",
           "compute_gram_orthogonality", "compute_representation_similarity", "compute_routing_confidence", "compute_silhouette_score",
           "extract_expert_keywords", "get_representative_samples"]
