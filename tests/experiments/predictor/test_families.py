from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.metrics.prediction import PredictionTables, ScoredDocuments, compare_predictor
from analysis.planes import planes
from analysis.trace import DocumentRow
from experiments.predictor.families import Sources, evidence, folder, learning_curves, train_all
from experiments.predictor.predictions import Predictions
from experiments.predictor.recipe import PredictorError
from experiments.predictor.scoring import Guessed, Targets, max_groups, predicted_layers, right_by_group, scores_of
from experiments.progress import Silent
from hypotheses.topology_evidence import ABLATION, PROPHET, PredictorEvidence
from tests.references.memory_trace import MemoryTrace

from .planted import KEPT, SMALL, metas, planted_trace

HOSTILE = "../../etc/passwd\n\x1b[31m"
SHORT = SMALL.model_copy(update={"epochs": 3})


@pytest.fixture(scope="module")
def trace() -> MemoryTrace:
    return planted_trace(n_documents=80, domains=("code", HOSTILE))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def sources(trace: MemoryTrace) -> Sources:
    return Sources.of(trace, SHORT)


@pytest.fixture(scope="module")
def learnt(sources: Sources, directory: Path) -> Mapping[tuple[str, str], Predictions]:
    return train_all(sources, SHORT, directory, Silent())


@pytest.fixture(scope="module")
def found(sources: Sources, learnt: Mapping[tuple[str, str], Predictions], directory: Path) -> PredictorEvidence:
    return evidence(sources, learnt, 0, learning=learning_curves(sources, directory))


def test_every_table_counts_every_test_token_of_its_target(found: PredictorEvidence, trace: MemoryTrace) -> None:
    test = planes(trace, "test")
    domain = {row.document: row.domain for row in trace.documents}
    assert found.layers == (1, 2) and found.n_documents == {"code": 20, HOSTILE: 20} and not found.missing
    assert found.sources == found.targets == tuple(sorted(("code", HOSTILE)))
    assert set(found.baselines) == {"uniform", "modal", "token_type", "previous_layer", "ordered_pair"}
    for (_, _, target), scores in found.scores.items():
        rows = np.repeat([domain[int(number)] == target for number in test.document], test.lengths)
        for place, layer in enumerate(found.layers):
            joint, recall = scores.joint_LGPY[place], scores.recall_LG2[place]
            n_experts, k = test.layers[layer].n_experts, test.layers[layer].top_k
            assert joint.shape == (20, n_experts, n_experts) and recall.shape == (20, 2)
            assert np.array_equal(joint.sum(axis=(0, 1)), np.bincount(test.ids[layer][0][rows], minlength=n_experts))
            assert np.array_equal(recall[:, 1], k * joint.sum(axis=(1, 2)))


def test_tables_agree_with_counting_token_by_token(found: PredictorEvidence, learnt: Mapping[tuple[str, str], Predictions],
                                                   trace: MemoryTrace) -> None:
    test = planes(trace, "test")
    code = [place for place, number in enumerate(test.document) if trace.documents[number].domain == "code"]
    scores = found.scores[PROPHET, HOSTILE, "code"]
    one = learnt[PROPHET, HOSTILE]
    for index, layer in enumerate(found.layers):
        joint, recall = np.zeros_like(scores.joint_LGPY[index]), np.zeros_like(scores.recall_LG2[index])
        for group, place in enumerate(code):  # as many groups as documents, in hash order
            for row in range(test.starts[place], test.starts[place + 1]):
                joint[group, one.first[layer][row], test.ids[layer][0, row]] += 1
                recall[group] += len(set(one.sets[layer][:, row]) & set(test.ids[layer][:, row])), test.layers[layer].top_k
        assert np.array_equal(joint, scores.joint_LGPY[index]) and np.array_equal(recall, scores.recall_LG2[index])
        assert np.array_equal(right_by_group(scores)[index], np.trace(joint, axis1=1, axis2=2))


def accuracy(found: PredictorEvidence, name: str, source: str = "code", target: str = "code") -> np.ndarray:
    scores = found.scores[name, source, target]
    return right_by_group(scores).sum(axis=1) / np.array([table.sum() for table in scores.joint_LGPY])


def test_prophet_and_the_markov_table_know_the_chain_and_the_others_do_not(found: PredictorEvidence) -> None:
    for source in found.sources:
        for target in found.targets:
            assert (accuracy(found, PROPHET, source, target) > KEPT - 0.1).all()
            assert (accuracy(found, "previous_layer", source, target) > KEPT - 0.05).all()
            assert (accuracy(found, ABLATION, source, target) < 0.3).all()
    for name in ("uniform", "modal", "token_type"):
        assert (accuracy(found, name) < 0.35).all()


def test_predictors_compare_and_the_ablation_gains_less(found: PredictorEvidence) -> None:
    documents = ScoredDocuments(found.n_documents["code"])
    tables = {name: PredictionTables(found.scores[name, "code", "code"].joint_LGPY[0], found.scores[name, "code", "code"].recall_LG2[0])
              for name in (PROPHET, ABLATION, *found.baselines)}
    baselines = {name: tables[name] for name in found.baselines}
    whole, ablated = (compare_predictor(tables[name], baselines, documents) for name in (PROPHET, ABLATION))
    assert whole.best_baseline in ("previous_layer", "ordered_pair") and whole.predictor.mi.value > 1.5
    assert whole.gains["modal"].low > 1 > 0.2 > ablated.gains["modal"].high


def test_the_learning_curve_has_a_row_per_source_epoch_and_layer(found: PredictorEvidence) -> None:
    assert {len(column) for column in found.learning.values()} == {2 * 3 * 3}
    assert set(found.learning["layer"]) == {0, 1, 2} and set(found.learning["source"]) == {"code", HOSTILE}
    assert found.learning["mi_bits"][8] > 1.5 and abs(found.learning["mi_bits"][6]) < 0.3  # the last epoch's third and first layer


@pytest.mark.slow
def test_it_goes_on_after_an_interruption_and_in_processes_of_their_own_with_the_same_bits(
        sources: Sources, learnt: Mapping[tuple[str, str], Predictions], directory: Path, tmp_path: Path) -> None:
    first = directory / "code" / PROPHET
    copied = tmp_path / "code" / PROPHET
    (copied / "predictor").mkdir(parents=True)
    for path in first.rglob("*.*"):
        (copied / path.relative_to(first)).write_bytes(path.read_bytes())
    before = (copied / "predictions.parquet").stat().st_mtime_ns
    again = train_all(sources, SHORT.model_copy(update={"processes": 2}), tmp_path, Silent())
    assert (copied / "predictions.parquet").stat().st_mtime_ns == before
    assert again.keys() == learnt.keys()
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert all((directory / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_predictions_for_other_rows_are_made_again(sources: Sources, trace: MemoryTrace, directory: Path, tmp_path: Path,
                                                   learnt: Mapping[tuple[str, str], Predictions]) -> None:
    for path in directory.rglob("*.*"):
        (tmp_path / path.relative_to(directory)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path.relative_to(directory)).write_bytes(path.read_bytes())
    fewer = Sources(sources.by_domain, planes(trace, "test", max_rows=400), sources.documents)
    found = train_all(fewer, SHORT, tmp_path, Silent())
    n = len(fewer.scored)
    for key, one in found.items():
        assert all(np.array_equal(a, b[:, :n]) for a, b in zip(one.sets, learnt[key].sets))


def test_without_token_ids_a_first_layer_or_documents_the_reason_is_given(tmp_path: Path) -> None:
    trace = planted_trace(n_documents=40, layers=((4, 1), (4, 1)), typed=False)
    rows = [DocumentRow(row.document, row.id, row.domain, "test" if row.domain == "news" else row.split) for row in trace.documents]
    sources = Sources.of(MemoryTrace(trace.meta, rows, trace.shards), SHORT)
    assert sources.missing == {"news": "no_data: no calibration document of news to learn from"}
    found = evidence(sources, {}, 0)
    assert found.targets == ("code", "news") and found.sources == ("code",)
    assert found.missing[PROPHET] == found.missing[ABLATION] == "no_data: no such predictor was trained or imported"
    assert found.missing["token_type"] == "no_data: the trace does not record token ids"
    assert found.missing["ordered_pair"].startswith("k=1: no ordered pair of choices in layer model.layers.0")
    assert set(found.baselines) == {"uniform", "modal", "previous_layer"}


def test_one_layer_is_predicted_from_its_past_without_a_markov_table(tmp_path: Path) -> None:
    trace = planted_trace(n_documents=8, layers=((4, 2),), domains=("code",))
    spec = SMALL.model_copy(update={"epochs": 1})
    sources = Sources.of(trace, spec)
    found = evidence(sources, train_all(sources, spec, tmp_path, Silent()), 0)
    why = "no_data: one MoE layer; there is no layer before it"
    assert found.layers == (0,) and found.missing == {"previous_layer": why, "ordered_pair": why}
    assert (PROPHET, "code", "code") in found.scores


def test_imported_predictions_of_later_layers_only(sources: Sources, learnt: Mapping[tuple[str, str], Predictions]) -> None:
    made = Predictions(sources.scored.layers, (None, None, learnt[PROPHET, "code"].sets[2]), {"imported": "elsewhere"})
    found = evidence(sources, {(PROPHET, "code"): made}, 0)
    assert found.layers == (2,) and (PROPHET, HOSTILE, "code") not in found.scores and found.scores[PROPHET, "code", "code"].recall_LG2 is not None
    with pytest.raises(PredictorError, match="no layer that all of them speak of"):
        evidence(sources, {(PROPHET, "code"): Predictions(made.layers, (made.sets[2], None, None), {})}, 0)


def test_baselines_do_not_depend_on_the_order_of_documents(trace: MemoryTrace, sources: Sources) -> None:
    (shard,) = trace.shards
    order = np.lexsort((shard.position, -shard.document))
    turned = MemoryTrace(trace.meta, trace.documents, [replace(shard, document=shard.document[order], position=shard.position[order],
                                                               token_id=shard.token_id[order], ids=tuple(ids[order] for ids in shard.ids))])
    one, other = evidence(sources, {}, 3), evidence(Sources.of(turned, SHORT), {}, 3)
    for key, scores in one.scores.items():
        assert all(np.array_equal(a, b) for a, b in zip(scores.joint_LGPY, other.scores[key].joint_LGPY))
    key = ("uniform", "code", "code")
    assert not np.array_equal(one.scores[key].joint_LGPY[0], evidence(sources, {}, 4).scores[key].joint_LGPY[0])


def test_a_source_is_cut_to_whole_documents(trace: MemoryTrace) -> None:
    sources = Sources.of(trace, SHORT.model_copy(update={"source_tokens": 300}))
    whole = Sources.of(trace, SHORT)
    for domain, of_domain in sources.by_domain.items():
        assert 200 < len(of_domain) <= 300
        assert set(of_domain.document) < set(whole.by_domain[domain].document)


def test_names_of_folders() -> None:
    assert folder("code") == "code"
    names = [folder(name) for name in (HOSTILE, "..", "a/b", "a\\b", "é", "", "x" * 300, "con.", "A b")]
    assert len(set(names)) == len(names) and all(0 < len(name) < 60 and set(name) <= set("abcdefghijklmnopqrstuvwxyzA0123456789_-") for name in names)


def test_groups_stay_inside_a_domain_and_shrink_with_many_experts() -> None:
    trace = planted_trace(n_documents=40, domains=("a", "b", "c"))
    test = planes(trace, "test")
    targets = Targets.of(test, trace.documents, 4)
    assert targets.range_of == {"a": (0, 4), "b": (4, 8), "c": (8, 12)} and targets.n_groups == 12
    for domain, (start, stop) in targets.range_of.items():
        rows = np.repeat([trace.documents[number].domain == domain for number in test.document], test.lengths)
        assert set(targets.group_T[rows]) == set(range(start, stop))
    assert max_groups(metas(((16, 2),) * 3), 6, 6) == 100
    assert 20 <= max_groups(metas(((128, 8),) * 12), 6, 6) < 100


def test_layers_that_can_be_predicted() -> None:
    layers = metas(((4, 1),) * 3)
    assert predicted_layers(layers) == (1, 2) and predicted_layers(layers[:1]) == (0,) and predicted_layers(()) == ()
    stacks = [layer.__class__(layer.key, layer.depth, stack, 4, 1) for layer, stack in zip(layers, ("encoder", "decoder", "decoder"))]
    assert predicted_layers(stacks) == (2,)


def test_a_layer_that_was_not_guessed_cannot_be_scored(sources: Sources, learnt: Mapping[tuple[str, str], Predictions]) -> None:
    targets = Targets.of(sources.scored, sources.documents)
    guessed = Guessed.of(Predictions(sources.scored.layers, (None, *learnt[PROPHET, "code"].sets[1:]), {}))
    with pytest.raises(ValueError, match="layer model.layers.0.mlp.gate was not guessed"):
        scores_of(guessed, targets, ["code"], (0, 1))
