"""Every architecture against the independent reference: ids, weights, entropy, simpson, first probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.progress import Silent
from experiments.sources.errors import SourceError
from tests.experiments.sources import tiny_checkpoints
from tests.experiments.sources.capturing import Shelf, documents, expected, opened, rows_of
from tests.references.routing_reference import ROUTING, dropped_by_capacity

# What the conformance check must find, from routers.md §3 and the model cards' formulas.
FORMULA = {
    "mixtral": "softmax/k", "olmoe": "softmax", "qwen3_moe": "softmax/k", "deepseek_v3": "sigmoid/k x 2.5", "deepseek_v2": "softmax",
    "gpt_oss": "softmax/k", "granitemoe": "softmax/k", "phimoe": "sparsemixer", "switch": "softmax", "ernie4_5_moe": "softmax/k",
    "llama4": "sigmoid", "jamba": "softmax", "jetmoe": "softmax/k", "doge": "softmax/k", "gemma4": "softmax/k x per-expert scale",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tiny_checkpoints.save(architecture, root / architecture)
        return made[architecture]

    return get


def compare(source: Any, architecture: str, shelf: Shelf) -> None:
    for document in documents(source):
        batch, rows = rows_of(shelf, document.document)
        for index, layer in enumerate(source.meta.layers):
            want = expected(source, architecture, document, layer.key)
            np.testing.assert_array_equal(batch.ids[index][rows], want.ids, err_msg=f"{layer.key} of {document.id}")
            assert batch.weights is not None and batch.entropy_nats is not None
            assert batch.simpson is not None and batch.top1_prob is not None
            np.testing.assert_allclose(batch.weights[index][rows], want.weights, rtol=2e-3, atol=1e-5)
            np.testing.assert_allclose(batch.entropy_nats[index, rows], want.entropy_nats, rtol=2e-4, atol=1e-5)
            np.testing.assert_allclose(batch.simpson[index, rows], (want.q**2).sum(axis=1), rtol=2e-4, atol=1e-6)
            np.testing.assert_allclose(batch.top1_prob[index, rows], want.q.max(axis=1), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", sorted(ROUTING))
def test_equals_the_reference(architecture: str, checkpoints: Any) -> None:
    source, shelf = opened(checkpoints(architecture)), Shelf()
    source.collect(documents(source), shelf, Silent())
    assert source.meta.weights_mean == FORMULA[architecture]
    compare(source, architecture, shelf)


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe", "deepseek_v3", "gpt_oss", "phimoe"])
def test_left_padding_gives_the_same_rows(architecture: str, checkpoints: Any) -> None:
    source, shelf = opened(checkpoints(architecture)), Shelf()
    source.padding_side = "left"
    source.collect(documents(source), shelf, Silent())
    compare(source, architecture, shelf)


def test_switch_refuses_left_padding(checkpoints: Any) -> None:
    source = opened(checkpoints("switch"))
    source.padding_side = "left"
    with pytest.raises(SourceError, match="uses up expert capacity"):
        source.collect(documents(source), Shelf(), Silent())


def test_deepseek_v3_chooses_by_bias_and_groups(checkpoints: Any) -> None:
    source, shelf = opened(checkpoints("deepseek_v3")), Shelf()
    source.collect(documents(source), shelf, Silent())
    bias = source.opened.sites[0].module.e_score_correction_bias
    assert bool((bias != 0).all())
    verdict = source.meta.details["conformance"]["layers"][source.meta.layers[0].key]
    assert verdict["selection"] == "e_score_correction_bias and groups"
    assert verdict["agreement"] < 0.9  # topk(logits) would have been the wrong experts
    assert source.meta.score_function == "sigmoid" and source.meta.entropy_of == "normalised_scores"
    assert [layer.depth for layer in source.meta.layers] == [1, 2]  # first_k_dense_replace = 1


def test_switch_keeps_the_choice_and_marks_what_capacity_dropped(checkpoints: Any) -> None:
    source, shelf = opened(checkpoints("switch")), Shelf()
    report = source.collect(documents(source), shelf, Silent())
    assert [layer.stack for layer in source.meta.layers] == ["encoder", "decoder"]
    for document in documents(source):
        batch, rows = rows_of(shelf, document.document)
        assert batch.dropped is not None
        # Without special tokens inside, kept rows are all rows; the encoder's </s> comes after, the decoder's start takes a place before.
        if any(token in (0, 1, 2) for token in document.token_ids):
            continue
        encoder = expected(source, "switch", document, source.meta.layers[0].key).ids[:, 0]
        np.testing.assert_array_equal(batch.dropped[0][rows] > 0, dropped_by_capacity(encoder, 4))
        assert (batch.dropped[1][rows] > 0).sum() >= (dropped_by_capacity(batch.ids[1][rows, 0], 4)).sum()
    assert all(0 < share < 1 for share in report.dropped.values())


def test_every_row_has_a_decision_in_both_stacks(checkpoints: Any) -> None:
    source, shelf = opened(checkpoints("switch")), Shelf()
    report = source.collect(documents(source), shelf, Silent())
    assert report.rows == sum(len(batch) for batch in shelf.shards.values())
    assert all(len(ids) == len(batch) for batch in shelf.shards.values() for ids in batch.ids)
    assert report.n_special == len(documents(source)) + 2  # one </s> after each document, and <s>, </s> inside the seventh


def test_attention_routers_are_left_out_and_said_so(checkpoints: Any) -> None:
    source = opened(checkpoints("jetmoe"))
    assert [layer.key for layer in source.meta.layers] == ["model.layers.0.mlp.router", "model.layers.1.mlp.router"]
    assert source.meta.details["routers_left_out"] == [f"model.layers.{n}.self_attention.experts.router" for n in (0, 1)]


def test_nllb_is_refused_by_name(checkpoints: Any) -> None:
    with pytest.raises(SourceError, match="NllbMoeTop2Router is refused.*experts 0 and 1"):
        opened(checkpoints("nllb_moe"))


def test_a_dense_model_lists_what_it_is_made_of(checkpoints: Any) -> None:
    with pytest.raises(SourceError, match="no router found; modules seen: .*LlamaMLP"):
        opened(checkpoints("llama"))
