"""What published traces of real models show, through the library's own path; skipped where the traces are not beside the clone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.arithmetic import mutual_information_bits
from analysis.domain_labels import DomainDocuments
from analysis.label_permutation import label_null
from analysis.loads import document_loads
from analysis.metrics.association import association_tests
from analysis.metrics.entropy_estimators import entropy
from analysis.metrics.frequency import spearman
from analysis.metrics.specialization import mi_E_D_pooled
from analysis.registry import find
from analysis.survey import Row, SurveyPlan, survey
from analysis.trace import CountsTrace, RoutingTrace
from experiments.importing import whole

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there: real traces live beside the clone, not in it")


def esft(task: str) -> RoutingTrace:
    trace = whole(DATA / "deepseek-ai__ESFT" / f"{task}.npz")
    assert not isinstance(trace, CountsTrace)
    return trace


def counts(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / "allenai__OLMoE" / name, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def two_tasks() -> DomainDocuments:
    """Loads of every sequence of both tasks, task as domain, all 26 layers."""
    loads = [document_loads(esft(task), "test", salt="0") for task in ("law", "intent")]
    layers = tuple(np.concatenate([one.selected[layer] for one in loads]) for layer in range(26))
    return DomainDocuments(layers, np.repeat([0, 1], [len(one.tokens) for one in loads]), 2)


def test_rows_of_a_real_trace_are_hardly_ever_in_the_order_of_their_weights() -> None:
    for task in ("law", "intent"):
        with np.load(DATA / "deepseek-ai__ESFT" / f"{task}.npz") as file:
            weights = file["weight_e4"].astype(np.int64)
        sorted_rows = (np.diff(weights, axis=2) <= 0).all(axis=2).mean()
        assert 0.005 < sorted_rows < 0.012  # 0.8 % by the count that was made of the published text
        batch = next(esft(task).batches(layers=[0]))
        assert batch.weights is not None and (np.diff(batch.weights[0].astype(float), axis=1) <= 0).all()


def test_permuting_tokens_understates_the_null_of_sequences(two_tasks: DomainDocuments) -> None:
    """MI(task; expert) per layer: the 95th percentile of the null is many times larger when whole sequences change task."""
    rng = np.random.default_rng(0)
    ratios = []
    for layer in (0, 12, 25):
        one = two_tasks.at(layer)
        sequences = label_null(one, lambda tables: mutual_information_bits(tables)[:, None], rng, n_draws=199, keep=True)
        assert sequences.null is not None
        total = one.layers[0].sum(axis=0)
        size = int(one.layers[0][one.domain == 0].sum())
        first = rng.multivariate_hypergeometric(total, size, 199)
        tokens = mutual_information_bits(np.stack([first, total - first], axis=1))
        ratios.append(np.quantile(sequences.null[:, 0], 0.95) / np.quantile(tokens, 0.95))
    assert min(ratios) > 5


def test_law_and_intent_route_differently_by_sequence(two_tasks: DomainDocuments) -> None:
    tests = association_tests(two_tasks, np.random.default_rng(1), n_draws=199)
    assert all(test.p_permutation == pytest.approx(1 / 200) and test.status == "tested" for test in tests)
    assert all(test.naive_p == 0 or test.naive_p < 1e-100 for test in tests)


@pytest.fixture(scope="module")
def layer_rows() -> list[Row]:
    return list(survey(esft("intent"), SurveyPlan(n_shifts=19, sections=("layers",))))


def test_a_survey_says_what_sixty_four_experts_need(layer_rows: list[Row]) -> None:
    """8,222 tokens cannot carry information between layers of 64 experts: the number is there, gated, with what it would take."""
    rows = [row for row in layer_rows if row.metric == "mi_first_choice"]
    assert len(rows) == 26
    assert all(row.status == "gated" and "undersampled: 8222 tokens" in str(row.reason) for row in rows)
    assert all(row.estimate.plug_in is not None and row.estimate.value is not None and row.estimate.plug_in > row.estimate.value for row in rows)


def test_composition_alone_gives_information(layer_rows: list[Row]) -> None:
    """What remains when the token pairing is broken inside documents is bias and composition, and no coupling of the layers."""
    rows = {row.metric: row for row in layer_rows if len(row.layers) == 2}
    null = rows["mi_excess"].estimate.null
    assert null is not None and null > 0.2


def test_every_count_of_the_published_tables_is_there() -> None:
    for name, experts in (("mistral_counts.npz", 8), ("olmoe_counts.npz", 64)):
        table = counts(name)
        tokens, k = int(table["tokens"]), int(table["top_k"])
        for domain in ("github", "arxiv", "c4", "book", "wikipedia"):
            assert table[f"expert_counts__{domain}"].shape == (3, experts)
            assert (table[f"expert_counts__{domain}"].sum(axis=1) == tokens * k).all()
            assert (table[f"expert_counts_top1__{domain}"].sum(axis=1) == tokens).all()
            crossing = table[f"expert_counts_crosslayer_top1__{domain}"]
            np.testing.assert_array_equal(crossing.sum(axis=2), table[f"expert_counts_top1__{domain}"][:2])


def test_olmoe_specialises_by_domain_and_mixtral_hardly() -> None:
    """As the OLMoE paper says (arXiv 2409.02060); the tables have no documents, so that these are points without intervals."""
    domains = ("github", "arxiv", "c4", "book", "wikipedia")
    shares = {}
    for name in ("mistral_counts.npz", "olmoe_counts.npz"):
        table = counts(name)
        counts_LDE = np.stack([table[f"expert_counts__{domain}"] for domain in domains], axis=1)
        shares[name] = mi_E_D_pooled(counts_LDE)
    assert (shares["olmoe_counts.npz"] > 5 * shares["mistral_counts.npz"]).all()


def test_rank_paired_tables_are_not_those_of_first_choices() -> None:
    """The published cross-layer tables pair rank r with rank r only; information read from them is another number."""
    table = counts("olmoe_counts.npz")
    paired, first = (float(mutual_information_bits(table[f"expert_counts_crosslayer{kind}__wikipedia"][0])) for kind in ("", "_top1"))
    assert abs(paired - first) > 0.1
    value = find("mi_first_choice").function(table["expert_counts_crosslayer_top1__wikipedia"])
    assert ((value > 0) & (value < 6)).all()


def test_the_entropy_of_a_types_experts_follows_its_frequency_by_sampling_alone() -> None:
    """Types redrawn from the layer's own marginal give a rank correlation near the largest, with no routing by type at all."""
    table = counts("olmoe_vocab_github.npz")
    chosen = table["layer_idx"] == 1
    types, place = np.unique(table["token_id"][chosen], return_inverse=True)
    counts_VE = np.zeros((len(types), 64), np.int64)
    np.add.at(counts_VE, (place, table["expert"][chosen].astype(np.int64)), table["count"][chosen])
    n = counts_VE.sum(axis=1)
    share = counts_VE.sum(axis=0) / n.sum()
    redrawn = np.random.default_rng(0).multinomial(n, share)
    null = spearman(n, entropy(redrawn))
    observed = spearman(n, entropy(counts_VE))
    assert null > 0.9 and null > observed
