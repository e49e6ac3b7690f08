"""The fast path: the router is not evaluated for eligible tokens, nothing else changes, and losses are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from experiments.declaration import SourceSpec
from experiments.progress import Silent
from experiments.sources.doctor import doctor
from experiments.sources.errors import SourceError
from experiments.sources.huggingface import HuggingFaceSource
from experiments.sources.lookup_routing import LayerTable, measure_losses, replace_routers
from tests.experiments.sources import tiny_checkpoints
from tests.experiments.sources.capturing import documents, opened


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.save("mixtral", tmp_path_factory.mktemp("mixtral"))


def tables(source: HuggingFaceSource) -> dict[int, LayerTable]:
    rng = np.random.default_rng(3)
    size = source.meta.vocabulary_size
    return {n: LayerTable(np.argsort(rng.random((size, layer.n_experts)), axis=1)[:, :layer.top_k],
                          np.full((size, layer.top_k), 1 / layer.top_k, np.float32)) for n, layer in enumerate(source.meta.layers)}


def types(source: HuggingFaceSource, text: str) -> NDArray[np.bool_]:
    chosen = np.zeros(source.meta.vocabulary_size, dtype=bool)
    chosen[source.tokenize([text])[0]] = True
    return chosen


def test_losses_equal_those_of_single_documents(mixtral: Path) -> None:
    source = opened(mixtral)
    losses = measure_losses(source, documents(source), Silent())
    for row, document in enumerate(documents(source)):
        ids = torch.tensor([[0, *document.token_ids]])
        with torch.no_grad():
            log_p = torch.log_softmax(source.opened.model(ids).logits[0].double(), dim=-1)
        want = -sum(float(log_p[place, token]) for place, token in enumerate(document.token_ids))
        assert losses.loss_sum[row] == pytest.approx(want, rel=1e-5)
        assert losses.n_tokens[row] == len(document.token_ids)
    assert losses.seconds > 0


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe", "deepseek_v3", "gpt_oss", "granitemoe", "phimoe"])
def test_eligible_tokens_never_reach_the_router(architecture: str, tmp_path: Path) -> None:
    source = opened(tiny_checkpoints.save(architecture, tmp_path))
    given = documents(source)
    eligible = {n: types(source, "e ") for n in range(len(source.meta.layers))}
    hit = sum(int(eligible[0][list(document.token_ids)].sum()) for document in given)
    total = sum(len(document.token_ids) + 1 for document in given)  # with <s>
    before = measure_losses(source, given, Silent())
    with replace_routers(source, tables(source), eligible) as calls:
        during = measure_losses(source, given, Silent())
    after = measure_losses(source, given, Silent())
    assert set(calls.looked_up.values()) == {hit} and set(calls.received.values()) == {total - hit}
    assert calls.share_saved == pytest.approx(hit / total)
    assert not np.allclose(before.loss_sum, during.loss_sum)
    np.testing.assert_array_equal(before.loss_sum, after.loss_sum)  # the routers are back


def test_a_table_for_nothing_changes_nothing(mixtral: Path) -> None:
    source = opened(mixtral)
    nothing = {n: np.zeros(source.meta.vocabulary_size, dtype=bool) for n in range(2)}
    with replace_routers(source, tables(source), nothing) as calls:
        same = measure_losses(source, documents(source), Silent())
    np.testing.assert_allclose(same.loss_sum, measure_losses(source, documents(source), Silent()).loss_sum, rtol=1e-6)
    assert calls.share_saved == 0


def test_a_table_that_repeats_the_router_changes_nothing(mixtral: Path) -> None:
    """Layer 0 of a model whose first router sees one token type: the looked-up route is the router's own."""
    source = opened(mixtral)
    given = [document for document in documents(source) if document.id == "doc-2"]  # "a", one token
    route: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    handle = source.opened.sites[0].module.register_forward_hook(lambda _m, _args, output: route.append(output))
    before = measure_losses(source, given, Silent())
    handle.remove()
    token, size = given[0].token_ids[0], source.meta.vocabulary_size
    ids, weights = np.zeros((size, 2), np.int64), np.zeros((size, 2), np.float32)
    ids[token], weights[token] = route[-1][2][1].numpy(), route[-1][1][1].numpy()
    eligible = np.arange(size) == token
    with replace_routers(source, {0: LayerTable(ids, weights)}, {0: eligible}) as calls:
        during = measure_losses(source, given, Silent())
    assert during.loss_sum == pytest.approx(before.loss_sum, rel=1e-6)
    assert calls.received == {0: 1} and calls.looked_up == {0: 1}


def test_one_layer_alone(mixtral: Path) -> None:
    source = opened(mixtral)
    every = np.ones(source.meta.vocabulary_size, dtype=bool)
    with replace_routers(source, {1: tables(source)[1]}, {1: every}) as calls:
        measure_losses(source, documents(source), Silent())
    assert calls.received == {1: 12} and set(calls.looked_up) == {1}  # <s> of ten documents, one <s> and one </s> inside


def test_long_rows_make_a_table() -> None:
    table = LayerTable.from_rows(np.array([5, 5, 7, 7]), np.array([0, 1, 0, 1]), np.array([3, 1, 0, 2]), np.array([0.7, 0.3, 0.6, 0.4]), 9)
    assert table.ids.shape == (9, 2) and table.ids[5].tolist() == [3, 1] and table.weights[7].tolist() == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize(("architecture", "reason"), [("switch", "encoder-decoder"), ("llama4", "does not return"),
                                                      ("jetmoe", "does not return"), ("doge", "does not return")])
def test_refused_where_it_cannot_be_done(architecture: str, reason: str, tmp_path: Path) -> None:
    source = opened(tiny_checkpoints.save(architecture, tmp_path))
    eligible = {n: types(source, "e") for n in range(len(source.meta.layers))}
    with pytest.raises(SourceError, match=reason), replace_routers(source, tables(source), eligible):
        pass


def test_a_table_of_wrong_shape_or_ids_is_refused(mixtral: Path) -> None:
    source = opened(mixtral)
    size = source.meta.vocabulary_size
    every = {0: np.ones(size, dtype=bool)}
    with pytest.raises(SourceError, match=r"must be \(320, 2\)"), replace_routers(source, {0: LayerTable(np.zeros((3, 2), np.int64),
                                                                                  np.zeros((3, 2), np.float32))}, every):
        pass
    with pytest.raises(SourceError, match="must be distinct"), replace_routers(source, {0: LayerTable(np.zeros((size, 2), np.int64),
                                                                               np.ones((size, 2), np.float32))}, every):
        pass


@pytest.mark.parametrize("architecture", ["mixtral", "switch", "deepseek_v3"])
def test_the_doctor_reports(architecture: str, tmp_path: Path) -> None:
    found = doctor(SourceSpec(model=str(tiny_checkpoints.save(architecture, tmp_path)), device="cpu"))
    text = "\n".join(found.lines())
    assert found.ok and "verdict    ready" in text and "executed as selected: True" in text
    assert sum(found.routers.values()) == len(found.layers) == len(found.layer_table)
    assert found.need.expert_bytes > 0 and found.free > 0


def test_the_doctor_says_why_not(tmp_path: Path) -> None:
    found = doctor(SourceSpec(model=str(tiny_checkpoints.save("nllb_moe", tmp_path)), device="cpu"))
    assert not found.ok and "experts 0 and 1" in found.lines()[-1]
