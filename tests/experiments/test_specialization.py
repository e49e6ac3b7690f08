"""The seed's toolkit on models in memory: every method and argument that it names, what is refused, and models of several architectures."""

from __future__ import annotations

import csv
import inspect
import json

import numpy as np
import pytest
import torch
import transformers

from analysis.metrics.specialization import mi_E_D
from experiments.specialization import ExpertSpecializationAnalyzer, bootstrap_metric, compare_models, compute_all_metrics
from tests.experiments.sources.tiny_checkpoints import CONFIGS, randomise, tokenizer

WORDS = {"code": "def f return import class", "news": "minister said market today police"}
SEEDS_METHODS = {  # seed 004, G: name -> arguments
    "__init__": ["model", "tokenizer", "device"], "extract_features": ["dataloader", "max_samples"], "compute_affinity_matrix": ["features"],
    "compute_domain_purity": ["features"], "compute_silhouette_score": ["features"], "visualize_token_clustering": ["features", "save_path"],
    "visualize_affinity_heatmap": ["affinity_matrix", "save_path"], "extract_expert_keywords": ["features", "top_k"],
    "generate_report": ["features", "save_dir"]}


def batches(n=30, domains=("code", "news")):
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for number in range(n):
        domain = domains[number % len(domains)]
        texts.append(" ".join(rng.choice(WORDS[domain].split(), 12)))
        labels.append(domain)
    return [{"texts": texts[i : i + 8], "domain_labels": labels[i : i + 8]} for i in range(0, n, 8)]


def analyzer(kind, **options):
    torch.manual_seed(0)
    config = CONFIGS[kind]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomise(model)
    return ExpertSpecializationAnalyzer(model, tokenizer(), device="cpu", max_length=96, **options)


@pytest.fixture(scope="module")
def mixtral():
    return analyzer("mixtral")


@pytest.fixture(scope="module")
def features(mixtral):
    return mixtral.extract_features(batches(), max_samples=200)


def test_every_method_and_argument_of_the_seed_is_there():
    for name, arguments in SEEDS_METHODS.items():
        given = list(inspect.signature(getattr(ExpertSpecializationAnalyzer, name)).parameters)[1:]
        assert given[: len(arguments)] == arguments, name
    assert inspect.signature(ExpertSpecializationAnalyzer).parameters["device"].default == "cuda"
    assert inspect.signature(ExpertSpecializationAnalyzer.extract_features).parameters["max_samples"].default == 10_000
    assert inspect.signature(ExpertSpecializationAnalyzer.extract_expert_keywords).parameters["top_k"].default == 20


def test_routing_of_every_document_is_counted_and_vectors_only_of_the_sample(features):
    loads = features.counts.loads
    assert loads.documents_H.tolist() == [15, 15]
    assert len(features.run.inputs.document_T) == 200
    assert int(loads.tokens.sum()) > 200


def test_metrics_are_the_librarys(mixtral, features):
    found = compute_all_metrics(features, "mine", mixtral)
    tables = np.stack([features.counts.loads.by_domain(layer) for layer in range(2)])
    assert found["mi_E_D"].plug_in == pytest.approx(float(mi_E_D(tables).mean()))
    np.testing.assert_allclose(np.nanmean(found["affinity_matrix"], axis=1)[np.isfinite(found["affinity_matrix"]).all(axis=1)], 1.0)
    assert found["model"] == "mine"
    assert found["gram_orthogonality"].value is not None
    assert 0 < found["held_out_loss"].value < 20


def test_token_ids_with_a_mask_give_what_texts_give(mixtral, features):
    given = []
    for batch in batches():
        rows = [mixtral.source.tokenize([text])[0] for text in batch["texts"]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [2] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        labels = [[name] * longest for name in batch["domain_labels"]]
        given.append({"input_ids": ids, "attention_mask": mask, "domain_labels": labels})
    again = mixtral.extract_features(given, max_samples=200)
    np.testing.assert_array_equal(again.counts.loads.by_domain(0), features.counts.loads.by_domain(0))


@pytest.mark.parametrize(("batch", "message"), [
    ({"texts": ["a b"]}, "no domain_labels"), ({"domain_labels": ["code"]}, "give texts"),
    ({"texts": ["a b"], "domain_labels": [["code", "news"]]}, "in one document"),
    ({"texts": ["a b", "c d"], "domain_labels": ["code", "news"], "document_ids": ["x", "x"]}, "a document has one domain"),
    ({"texts": ["a b"], "domain_labels": ["code", "news"]}, "2 domain_labels for 1")])
def test_batches_that_mean_nothing_are_refused(mixtral, batch, message):
    with pytest.raises(ValueError, match=message):
        mixtral.extract_features([batch])


def test_rows_of_one_document_are_resampled_together(mixtral):
    halves = [{**batch, "document_ids": [f"{i // 4}-{name}" for i, name in enumerate(batch["domain_labels"])]} for batch in batches(8)]
    assert mixtral.extract_features(halves, max_samples=50).counts.loads.documents_H.tolist() == [2, 2]


def test_bootstrap_is_over_documents_and_tokens_are_refused(features):
    by_name = bootstrap_metric("mi_E_D", features, n_bootstrap=99)
    by_function = bootstrap_metric(mi_E_D, features, n_bootstrap=99)
    assert by_name.plug_in == pytest.approx(by_function.plug_in)
    assert by_name.resampled == "document"
    for refused in (lambda: bootstrap_metric("mi_E_D", features, unit="token"), lambda: bootstrap_metric(np.mean, [{"embeddings": 1.0}] * 50)):
        with pytest.raises(ValueError, match="token bootstrap covers 25 %"):
            refused()


def test_models_are_compared_over_training_seeds_only():
    rng = np.random.default_rng(0)
    a = rng.normal(0.3, 0.02, 5)
    found = compare_models(a, a + rng.normal(0.1, 0.02, 5))
    assert found["significant"] is True
    assert found["difference"].resampled == "seed"
    assert found["p_sign_flip"] == 0.0625  # the least that five seeds allow
    assert compare_models(a[:4], a[:4] + [0.1, 0.11, 0.1, 0.12])["significant"] is None
    assert compare_models(a[:2], a[:2] + [0.1, 0.2])["difference"].value is None
    for refused in (lambda: compare_models(rng.normal(size=1000), rng.normal(size=1000)), lambda: compare_models(a, a, units="replicates")):
        with pytest.raises(ValueError, match="p near 0 whatever the models"):
            refused()


@pytest.mark.slow  # every figure is drawn
def test_the_report_has_the_seeds_files(mixtral, features, tmp_path, monkeypatch):
    from experiments.report import figure_files

    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    found = mixtral.generate_report(features, tmp_path / "results" / "expert_analysis")
    names = {path.name for path in found.iterdir()}
    assert names >= {"token_clustering_tsne.pdf", "expert_affinity_heatmap.pdf", "routing_flow_sankey.html", "expert_representation_pca.pdf",
                     "domain_purity_bar.pdf", "metrics.json", "experts.csv"}
    metrics = json.loads((found / "metrics.json").read_text())
    assert metrics["domains"] == ["code", "news"]
    assert len(list(csv.DictReader((found / "experts.csv").open()))) == 16
    path = mixtral.visualize_affinity_heatmap(mixtral.compute_affinity_matrix(features), tmp_path / "heat.pdf")
    assert path.exists()
    assert path.with_suffix(".png").exists()


def test_keywords_are_words_of_the_documents(mixtral, features):
    found = mixtral.extract_expert_keywords(features, top_k=5)
    assert len(found) == 8
    assert all(score > 3 for words in found for _, score in words)


@pytest.mark.parametrize("kind", ["olmoe"])
def test_other_architectures_are_captured(kind):
    one = analyzer(kind)
    found = one.compute_all_metrics(one.extract_features(batches(16), max_samples=60))
    assert found["mi_E_D"].value is not None
    assert found["gram_orthogonality"].value is not None or found["missing"]["outputs"]
