"""The seed's toolkit on models in memory: every method and argument that it names, what is refused, and models of several architectures."""

from __future__ import annotations

import csv
import gc
import inspect
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from analysis.estimate import Estimate
from analysis.metrics.specialization import mi_E_D
from experiments import specialization
from experiments.specialization import (
    ExpertSpecializationAnalyzer,
    Features,
    bootstrap_metric,
    compare_models,
    compute_affinity_matrix,
    compute_all_metrics,
    compute_domain_expert_flows,
    compute_domain_information,
    compute_domain_purity,
    compute_silhouette_score,
    extract_expert_keywords,
    get_representative_samples,
)
from experiments.specialization_comparison import Bootstrapped, routed_documents
from tests.experiments.sources.tiny_checkpoints import CONFIGS, randomise, tokenizer

NONE = inspect.Parameter.empty
WORDS = {"code": "def f return import class", "news": "minister said market today police"}
SEEDS_METHODS = {  # seed 004, G: name -> arguments with their defaults
    "__init__": {"model": NONE, "tokenizer": NONE, "device": "cuda"}, "extract_features": {"dataloader": NONE, "max_samples": 10_000},
    "compute_affinity_matrix": {"features": NONE}, "compute_domain_purity": {"features": NONE}, "compute_silhouette_score": {"features": NONE},
    "visualize_token_clustering": {"features": NONE, "save_path": NONE},
    "visualize_affinity_heatmap": {"affinity_matrix": NONE, "save_path": NONE}, "extract_expert_keywords": {"features": NONE, "top_k": 20},
    "generate_report": {"features": NONE, "save_dir": NONE}}
SEEDS_FUNCTIONS = {  # D.3, D.4, E.1, E.2, and C.2 and C.3, which are called and never written out
    "compute_all_metrics": {"features": NONE, "model_name": NONE}, "compute_affinity_matrix": {"features": NONE},
    "compute_domain_purity": {"features": NONE}, "compute_silhouette_score": {"features": NONE}, "compute_expert_diversity": {"features": NONE},
    "compute_routing_confidence": {"features": NONE}, "compute_representation_similarity": {"features": NONE},
    "bootstrap_metric": {"metric_fn": NONE, "features": NONE, "n_bootstrap": 1000},
    "compare_models": {"metric_switch": NONE, "metric_SPECTRA": NONE},
    "extract_expert_keywords": {"expert_id": NONE, "token_texts": NONE, "expert_assignments": NONE, "top_k": 20},
    "get_representative_samples": {"expert_id": NONE, "samples": NONE, "expert_assignments": NONE, "n": 10},
    "compute_domain_expert_flows": {"token_assignments": NONE, "domain_labels": NONE}}
SEEDS_RESULTS = {"model", "affinity_matrix", "domain_purity", "silhouette_score", "expert_diversity", "routing_confidence", "repr_similarity",
                 "gram_orthogonality"}


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


SEEDS = [(ExpertSpecializationAnalyzer, name, {"self": NONE, **arguments}) for name, arguments in SEEDS_METHODS.items()]
SEEDS += [(specialization, name, arguments) for name, arguments in SEEDS_FUNCTIONS.items()]


@pytest.mark.parametrize(("owner", "name", "arguments"), SEEDS, ids=[f"{getattr(owner, '__name__', '')}.{name}" for owner, name, _ in SEEDS])
def test_every_method_and_argument_of_the_seed_is_there(owner, name, arguments):
    given = inspect.signature(getattr(owner, name)).parameters
    assert {key: one.default for key, one in list(given.items())[: len(arguments)]} == arguments
    more = list(given.values())[len(arguments):]  # what is added to the seed's arguments has a default, or stands for what it takes from its scope
    assert all(one.default is not NONE or one.name == "routing_weights" for one in more)


def test_routing_of_every_document_is_counted_and_vectors_only_of_the_sample(features):
    loads = features.counts.loads
    assert loads.documents_H.tolist() == [15, 15]
    assert len(features.run.inputs.document_T) == 200
    assert int(loads.tokens.sum()) > 200


def test_metrics_are_the_librarys(mixtral, features):
    found = compute_all_metrics(features, "mine")
    assert set(found) >= SEEDS_RESULTS
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
    ({"texts": ["a b"], "domain_labels": ["code", "news"]}, "2 domain_labels for 1"),
    ({"input_ids": [[5, 99_999]], "domain_labels": ["code"]}, "token ids from 5 to 99999, the model knows 0 to")])
def test_batches_that_mean_nothing_are_refused(mixtral, batch, message):
    with pytest.raises(ValueError, match=message):
        mixtral.extract_features([batch])


def test_rows_of_one_document_are_resampled_together(mixtral):
    halves = [{**batch, "document_ids": [f"{i // 4}-{name}" for i, name in enumerate(batch["domain_labels"])]} for batch in batches(8)]
    assert mixtral.extract_features(halves, max_samples=50).counts.loads.documents_H.tolist() == [2, 2]


def test_bootstrap_is_over_documents_and_tokens_are_refused(features):
    by_name = bootstrap_metric("mi_E_D", features, n_bootstrap=99).estimate
    by_function = bootstrap_metric(mi_E_D, features, n_bootstrap=99).estimate
    assert by_name.plug_in == pytest.approx(by_function.plug_in)
    assert by_name.resampled == "document"
    own = bootstrap_metric(compute_silhouette_score, features, n_bootstrap=99).estimate
    assert own.plug_in == pytest.approx(compute_silhouette_score(features).plug_in)
    purity = bootstrap_metric(compute_domain_purity, features, n_bootstrap=99).estimate
    assert purity.plug_in == pytest.approx(compute_domain_purity(features)["purity_cross_fitted"].plug_in)
    one_token = {"embeddings": np.zeros(4), "expert_ids": np.array([1, 2]), "routing_weights": np.array([0.6, 0.4]), "domain_labels": "code"}
    tokens = {"expert_ids": np.zeros(9, int), "domain_labels": ["code"] * 9}
    for refused in (lambda: bootstrap_metric("mi_E_D", features, unit="token"), lambda: bootstrap_metric(np.mean, [{"embeddings": 1.0}] * 50),
                    lambda: bootstrap_metric(len, [one_token] * 50), lambda: bootstrap_metric(len, [tokens])):
        with pytest.raises(ValueError, match="token bootstrap covers 25 %"):
            refused()
    flat = {"expert_ids": np.zeros((9, 2), int), "embeddings": np.zeros((9, 4)), "domain_labels": ["code"] * 9}
    for rows_of_tokens in (flat, {**flat, "document_ids": list(range(9))}, {**tokens, "expert_ids": np.zeros((9, 1, 2), int)}):
        with pytest.raises(ValueError, match="document_ids.*token bootstrap covers 25 %"):
            bootstrap_metric(len, [rows_of_tokens])
    with pytest.raises(ValueError, match="an id needs features from extract_features"):
        bootstrap_metric("mi_E_D", listed(features))


@pytest.mark.parametrize("metric", [compute_silhouette_score, compute_domain_information, compute_domain_purity])
def test_the_level_of_an_interval_is_the_one_asked_for(features, metric):
    wide, narrow = (bootstrap_metric(metric, features, n_bootstrap=99, level=level).estimate for level in (0.99, 0.5))
    assert (wide.level, narrow.level) == (0.99, 0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def listed(features):
    """The seed's list of batches, D.2, padded with the last token."""
    found = []
    for one in routed_documents(features):
        found.append({key: np.asarray(one[key])[None] for key in ("expert_ids", "routing_weights", "domain_labels")}
                     | {"document_ids": [one["document_ids"]]})
    return found


def first_choices_of_code_on_the_first_expert(documents):
    code = [one for one in documents if one["domain_labels"][0] == "code"]
    return sum((one["expert_ids"][:, 0] == 0).sum() for one in code) / sum(len(one["expert_ids"]) for one in code)


def test_the_seeds_list_of_features_is_resampled_by_document(features):
    mean, lower, upper = bootstrap_metric(first_choices_of_code_on_the_first_expert, listed(features), n_bootstrap=199)
    again = bootstrap_metric(first_choices_of_code_on_the_first_expert, features, n_bootstrap=199)
    assert lower < mean < upper
    assert (mean, lower, upper) == pytest.approx(tuple(again))
    assert mean == pytest.approx(first_choices_of_code_on_the_first_expert(list(routed_documents(features))))
    assert again.estimate.n_units == 30
    assert "too_few_documents" in again.estimate.gate
    by_domain = sorted(listed(features), key=lambda one: one["domain_labels"][0, 0])
    paired = [{**one, "document_ids": [f"{number // 3}"]} for number, one in enumerate(by_domain)]  # thirds of one document
    thirds = bootstrap_metric(first_choices_of_code_on_the_first_expert, paired, n_bootstrap=9).estimate
    assert (thirds.n_units, thirds.value) == (10, pytest.approx(mean))
    flat = [{key: one[key][0] for key in ("expert_ids", "routing_weights", "domain_labels")}
            | {"document_ids": one["document_ids"] * len(one["expert_ids"][0])} for one in listed(features)]
    assert tuple(bootstrap_metric(first_choices_of_code_on_the_first_expert, flat, n_bootstrap=199)) == pytest.approx((mean, lower, upper))
    mixed = [{"expert_ids": np.zeros((1, 2, 2), int), "domain_labels": [["code", "news"]]}]
    with pytest.raises(ValueError, match="code, news in one document"):
        bootstrap_metric(len, mixed)


def test_models_are_compared_over_training_seeds_only():
    rng = np.random.default_rng(0)
    a = rng.normal(0.3, 0.02, 5)
    found = compare_models(a, a + rng.normal(0.1, 0.02, 5))
    assert found["significant"] is True
    assert found["t_statistic"] < 0 < found["difference"].value  # ttest_ind(metric_switch, metric_SPECTRA): SPECTRA's values are larger
    assert compare_models(metric_switch=a + [0.1, 0.2, 0.1, 0.2, 0.1], metric_SPECTRA=a)["t_statistic"] > 0
    assert found["difference"].resampled == "seed"
    assert found["p_sign_flip"] == 0.0625  # the least that five seeds allow
    assert compare_models(a[:4], a[:4] + [0.1, 0.11, 0.1, 0.12])["significant"] is None
    assert compare_models(a[:2], a[:2] + [0.1, 0.2])["difference"].value is None
    assert found["reason"] == "5 values of each method, taken as training seeds on the caller's word"
    made = Bootstrapped(Estimate(0.3, 0.2, 0.4, "", "document", 30, "basic document bootstrap"))
    assert tuple(made) == (0.3, 0.2, 0.4)  # what the seed returns, and no three trainings
    for refused in (lambda: compare_models(rng.normal(size=1000), rng.normal(size=1000)), lambda: compare_models(a, a, units="replicates"),
                    lambda: compare_models(made, made), lambda: compare_models(a, [made] * 5)):
        with pytest.raises(ValueError, match="p near 0 whatever the models"):
            refused()


def test_affinity_and_flows_of_plain_arrays():
    experts, labels = np.array([[0, 1], [0, 2], [1, 2], [1, -1]]), ["code", "code", "news", "news"]
    flows = compute_domain_expert_flows(experts, labels)
    assert flows == {"label": ["code", "news", "E0", "E1", "E2"], "source": [0, 0, 0, 1, 1], "target": [2, 3, 4, 3, 4], "value": [2, 1, 1, 2, 1]}
    p = np.array([[2 / 4, 1 / 4, 1 / 4], [0, 2 / 3, 1 / 3]])  # P(e|d)
    assert compute_affinity_matrix(experts, labels) == pytest.approx((p / p.mean(axis=0)).T)
    with pytest.raises(ValueError, match="3 labels for 4 tokens"):
        compute_affinity_matrix(experts, labels[:3])
    with pytest.raises(ValueError, match="give the domain of each token"):
        compute_affinity_matrix(experts)


def test_keywords_and_samples_of_plain_arrays():
    texts = ["def", "return", "said", "minister"] * 30
    experts = np.array([0, 0, 1, 1] * 30)
    assert {word for word, _ in extract_expert_keywords(0, texts, experts)} == {"def", "return"}
    assert len(extract_expert_keywords(1, texts, experts, top_k=1)) == 1
    weights = np.linspace(0.1, 0.9, 120)
    assert get_representative_samples(1, list(range(120)), experts, n=3, routing_weights=weights) == [
        (119, pytest.approx(0.9)), (118, pytest.approx(weights[118])), (115, pytest.approx(weights[115]))]
    of_one = get_representative_samples(1, list(range(120)), experts, routing_weights=weights, document_ids=["a"] * 60 + ["b"] * 60)
    assert [sample for sample, _ in of_one] == [119, 59]


class Batches:
    """n documents of words, made as they are asked for."""

    def __init__(self, n, length):
        self.n, self.length = n, length

    def __iter__(self):
        rng = np.random.default_rng(0)
        for start in range(0, self.n, 8):
            names = [("code", "news")[number % 2] for number in range(start, min(start + 8, self.n))]
            yield {"texts": [" ".join(rng.choice(WORDS[name].split(), self.length)) for name in names], "domain_labels": names}


def test_features_are_streamed_to_disk_in_bounded_memory():
    """Growth per token of the most that is held at a time: token ids, and nothing of the routing."""
    torch.manual_seed(0)
    config = CONFIGS["mixtral"]()
    config.num_hidden_layers = 8
    model = transformers.AutoModelForCausalLM.from_config(config)
    one = ExpertSpecializationAnalyzer(model, tokenizer(), device="cpu", max_length=96)
    one.source.opened = replace(one.source.opened, spec=one.source.opened.spec.model_copy(update={"documents_per_shard": 8}))
    one.extract_features(Batches(8, 40), max_samples=50)  # what is made once
    peak, tokens = [], []
    for n in (40, 160):
        tracemalloc.start()
        found = one.extract_features(Batches(n, 40), max_samples=50)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        tokens.append(int(found.run.tokens_D.sum()) + n)
    routing = 8 * (2 * (1 + 2) + 3 * 4)  # bytes a token: ids, weights, and three numbers, in every layer
    assert (peak[1] - peak[0]) / (tokens[1] - tokens[0]) < routing / 4


def test_what_lies_on_disk_goes_with_the_features(mixtral):
    found = mixtral.extract_features(batches(16), max_samples=40)
    there = Path(found.scratch.name)
    assert list(there.glob("trace/*.parquet"))
    assert len(found.run.inputs.vectors) == 2
    assert all(isinstance(one, np.memmap) for one in found.run.inputs.vectors)
    assert isinstance(replace(found, token_strings=()), Features)
    del found
    gc.collect()
    assert not there.exists()


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


def test_tokens_of_a_single_domain_flow_too(mixtral, tmp_path, monkeypatch):
    from experiments.report import figure_files
    from experiments.specialization_pictures import _save_experts
    from hypotheses.spectra_experts import expert_rows

    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    found = mixtral.extract_features(batches(8, ("code",)), max_samples=40)
    _save_experts(found, expert_rows(found.counts, found.token_strings), tmp_path)
    page = (tmp_path / "routing_flow_sankey.html").read_text()
    assert '"type":"sankey"' in page
    assert "no token was routed" not in page


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
