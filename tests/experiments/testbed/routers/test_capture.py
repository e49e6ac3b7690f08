"""Checkpoints with the testbed's routers go through the same loading, checks and capture as any other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.progress import Silent
from experiments.sources.huggingface import HuggingFaceSource
from tests.experiments.sources.capturing import Shelf, documents, opened, rows_of
from tests.experiments.sources.tiny_checkpoints import tokenizer

from .small_models import ARMS, decided, model


def saved(arm: str, directory: Path, **more: object) -> Path:
    model(arm, **more).save_pretrained(directory)
    tokenizer(prefix=False).save_pretrained(directory)
    return directory


def collected(source: HuggingFaceSource) -> tuple[Shelf, list]:
    shelf, asked = Shelf(), documents(source)
    source.collect(asked, shelf, Silent())
    return shelf, asked


@pytest.mark.parametrize("arm", ["switch", "hash", "random", "expert_choice", "spectra", "spectra_no_expression"])
def test_rows_are_what_the_router_decides_for_the_document_alone(arm: str, tmp_path: Path) -> None:
    source = opened(saved(arm, tmp_path))
    assert [site.key for site in source.opened.sites] == [f"model.layers.{n}.mlp.gate" for n in range(3)]
    assert all(layer["executed_as_selected"] for layer in source.meta.details["conformance"]["layers"].values())
    assert source.meta.details["router"]["name"] == ARMS[arm][0]
    shelf, asked = collected(source)
    for document in asked[:4]:
        heard = decided(source.opened.model, torch.tensor([document.token_ids]))
        batch, rows = rows_of(shelf, document.document)
        kept = batch.position[rows]
        for layer, (scores, weights, ids, *rest) in enumerate(heard):
            order = np.argsort(-weights.numpy(), axis=1, kind="stable")
            taken = np.take_along_axis(weights.numpy(), order, axis=1)[kept] > 0
            want = np.take_along_axis(ids.numpy(), order, axis=1)[kept]
            assert (batch.ids[layer][rows] == want)[taken].all()
            assert batch.weights[layer][rows].astype(float) == pytest.approx(np.sort(weights.numpy(), axis=1)[kept, ::-1], abs=2e-3)
            p = scores.numpy() if arm == "hash" else torch.softmax(scores, dim=-1).numpy()
            entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)
            assert batch.entropy_nats[layer][rows] == pytest.approx(entropy[kept], abs=2e-3)
            if rest:
                assert ((batch.dropped[layer][rows] > 0) == (~rest[0].numpy()[kept]).any(axis=1)).all()


def test_a_router_over_the_batch_is_run_one_document_at_a_time(tmp_path: Path) -> None:
    assert opened(saved("expert_choice", tmp_path / "choice")).meta.details["batch_plan"]["batch_size"] == 1
    assert opened(saved("spectra", tmp_path / "plain")).meta.details["batch_plan"]["batch_size"] == 4
    options = {"dimension": 10, "sinkhorn_inference": True}
    source = opened(saved("spectra", tmp_path / "mixed", router_options=options))
    assert source.meta.details["batch_plan"]["batch_size"] == 1
    assert source.meta.details["router"] == {"name": "spectra", **options}
    assert json.loads((tmp_path / "mixed" / "config.json").read_text())["router_options"] == options


def test_expert_choice_says_why_its_experts_are_not_the_top_k(tmp_path: Path) -> None:
    found = opened(saved("expert_choice", tmp_path)).meta.details["conformance"]["layers"]
    assert {layer["selection"] for layer in found.values()} == {"experts choose tokens"}


def test_an_ordinary_mixtral_has_no_router_record(tmp_path: Path) -> None:
    from tests.experiments.sources.tiny_checkpoints import save

    assert "router" not in opened(save("mixtral", tmp_path)).meta.details


def test_slots_that_a_quota_leaves_empty_are_marked_as_dropped(tmp_path: Path) -> None:
    """Nearly uniform plans and little room, so that a document's own tokens fill the experts they all want."""
    options = {"dimension": 10, "sinkhorn_inference": True, "quota": True, "eps": 5.0, "iterations": 1, "capacity_factor": 0.5}
    source = opened(saved("spectra", tmp_path, router_options=options))
    shelf, asked = Shelf(), documents(source)
    report = source.collect(asked, shelf, Silent())
    assert all(0 < share <= 1 for share in report.dropped.values())
    for document in asked[:4]:
        heard = decided(source.opened.model, torch.tensor([document.token_ids]))
        batch, rows = rows_of(shelf, document.document)
        for layer, (_, weights, _, kept) in enumerate(heard):
            order = np.argsort(-weights.numpy(), axis=1, kind="stable")
            empty = ~np.take_along_axis(kept.numpy(), order, axis=1)[batch.position[rows]]
            assert (batch.dropped[layer][rows] == (empty * [1, 2]).sum(axis=1)).all()
            assert (batch.weights[layer][rows][empty] == 0).all()
    assert opened(saved("spectra_quota", tmp_path / "training")).meta.details["batch_plan"]["batch_size"] == 4  # none in evaluation


def test_a_router_without_a_quota_reports_no_drops(tmp_path: Path) -> None:
    source = opened(saved("spectra", tmp_path))
    shelf, asked = Shelf(), documents(source)
    assert source.collect(asked, shelf, Silent()).dropped == {}
    assert all(batch.dropped is None for batch in shelf.shards.values())
