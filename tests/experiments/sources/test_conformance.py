"""Formula fitting against known formulas, agreement, discovery, batch plan and decoders; no model needed for most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.sources import TokenDocument
from experiments.sources.batching import plan_shards
from experiments.sources.conformance import agreement
from experiments.sources.decoding import Decision, decoder_for
from experiments.sources.errors import SourceError
from experiments.sources.formula import fit_formula
from experiments.sources.reduction import Reading, log_scores, reduce_decision
from experiments.sources.routers import choose_layers, find_routers
from tests.experiments.sources import tiny_checkpoints
from tests.experiments.sources.capturing import opened

GENERATOR = torch.Generator().manual_seed(5)
LOGITS = torch.randn(200, 8, generator=GENERATOR)
IDS = LOGITS.topk(2, dim=-1).indices
SCALE = 0.5 + torch.rand(8, generator=GENERATOR)


def normed(x: torch.Tensor) -> torch.Tensor:
    return x / x.sum(dim=-1, keepdim=True)


FORMULAS = {
    "softmax": torch.softmax(LOGITS, -1).gather(-1, IDS),
    "softmax/k": normed(torch.softmax(LOGITS, -1).gather(-1, IDS)),
    "softmax x 6": 6 * torch.softmax(LOGITS, -1).gather(-1, IDS),
    "softmax/k x 0.5": 0.5 * normed(torch.softmax(LOGITS, -1).gather(-1, IDS)),
    "sigmoid": torch.sigmoid(LOGITS).gather(-1, IDS),
    "sigmoid/k": normed(torch.sigmoid(LOGITS).gather(-1, IDS)),
    "sigmoid/k x 2.5": 2.5 * normed(torch.sigmoid(LOGITS).gather(-1, IDS)),
    "softmax/k x per-expert scale": normed(torch.softmax(LOGITS, -1).gather(-1, IDS)) * SCALE[IDS],
    "sqrtsoftplus/k x 1.5": 1.5 * normed(nn.functional.softplus(LOGITS).sqrt().gather(-1, IDS)),
}


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_formula_is_found(text: str, dtype: torch.dtype) -> None:
    found = fit_formula(LOGITS, FORMULAS[text].to(dtype), IDS, probability=False)
    assert found.text.startswith(text if dtype is torch.float32 else text.split(" x ")[0])
    assert found.score == text.split("/")[0].split(" ")[0]


def test_weights_of_no_known_formula_are_called_other() -> None:
    assert fit_formula(LOGITS, torch.rand(200, 2), IDS, probability=False).text == "other"


def test_scores_that_are_zero_outside_the_chosen_have_weights_that_sum_to_one():
    weights = torch.tensor([2 / 3, 1 / 3]).expand(200, 2)
    scores = torch.zeros(200, LOGITS.shape[-1]).scatter(1, IDS, weights)
    assert fit_formula(scores, weights, IDS, probability=True).text == "softmax/k"
    part = torch.softmax(LOGITS, dim=-1)
    assert fit_formula(part, part.gather(1, IDS), IDS, probability=True).text == "softmax"


def test_one_expert_with_weight_one_cannot_tell_the_score() -> None:
    found = fit_formula(LOGITS, torch.ones(200, 1), IDS[:, :1], probability=False)
    assert "alike" in found.text and found.score == "softmax"


def test_agreement_counts_rows_and_forgives_ties() -> None:
    wrong = IDS.clone()
    wrong[:10, 0] = LOGITS[:10].argmin(dim=-1)
    assert agreement(LOGITS, IDS) == 1
    assert agreement(LOGITS, wrong) == pytest.approx(0.95)
    assert agreement(torch.zeros(3, 4), torch.tensor([[2, 3]] * 3)) == 1


def test_entropy_of_known_distributions() -> None:
    """Closed forms: ln E for equal logits, 0 for one certain expert, ln 2 for two equal ones."""
    logits = torch.tensor([[0.0, 0, 0, 0], [500.0, 0, 0, 0], [300.0, 300.0, 0, 0]])
    decision = Decision(logits, torch.full((3, 2), 0.5), torch.tensor([[1, 0], [1, 0], [1, 0]]))
    columns = reduce_decision(decision, torch.arange(3), Reading("softmax", top_k_of_scores=False))
    assert columns.entropy_nats.tolist() == pytest.approx([1.3862944, 0, 0.6931472], abs=1e-6)
    assert columns.simpson.tolist() == pytest.approx([0.25, 1, 0.5]) and columns.top1_prob.tolist() == pytest.approx([0.25, 1, 0.5])
    assert columns.ids.tolist() == [[0, 1]] * 3 and columns.tied.tolist() == [1, 1, 1]


def test_sigmoid_scores_are_normalised_before_their_entropy() -> None:
    s = torch.sigmoid(LOGITS.double())
    want = (s / s.sum(-1, keepdim=True)).log()
    assert torch.allclose(log_scores(LOGITS, "sigmoid").double(), want, atol=1e-5)


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x, "?"


def test_an_output_that_no_decoder_reads_is_refused_with_its_shape() -> None:
    with pytest.raises(SourceError, match=r"router Odd returns \(float32\[2, 3\], str\), which no decoder reads"):
        decoder_for(Odd())(Odd(), Odd()(torch.zeros(2, 3)))


def test_an_unknown_router_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.mixtral import modeling_mixtral

    class MixtralTopKRouter(modeling_mixtral.MixtralTopKRouter):
        def forward(self, hidden_states: Any) -> Any:
            logits, weights, ids = super().forward(hidden_states)
            return {"logits": logits}, weights, ids

    directory = tiny_checkpoints.save("mixtral", tmp_path)
    monkeypatch.setattr(modeling_mixtral, "MixtralTopKRouter", MixtralTopKRouter)
    with pytest.raises(SourceError, match="router MixtralTopKRouter returns"):
        opened(directory)


def test_a_router_that_does_not_choose_the_top_k_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.mixtral import modeling_mixtral

    plain = modeling_mixtral.MixtralTopKRouter.forward

    def second_best(self: Any, hidden_states: Any) -> Any:
        logits, _, _ = plain(self, hidden_states)
        weights, ids = torch.softmax(logits, -1).topk(3, dim=-1)
        return logits, weights[:, 1:], ids[:, 1:]

    directory = tiny_checkpoints.save("mixtral", tmp_path)
    monkeypatch.setattr(modeling_mixtral.MixtralTopKRouter, "forward", second_best)
    with pytest.raises(SourceError, match="choose the top-2 of their scores, and nothing in the router explains it"):
        opened(directory)


def test_a_router_that_returns_probabilities_is_read_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.0 to mid-2026 returned softmaxed logits for Qwen-MoE and OLMoE (routers.md, fact 5)."""
    from transformers.models.mixtral import modeling_mixtral

    plain = modeling_mixtral.MixtralTopKRouter.forward

    def softmaxed(self: Any, hidden_states: Any) -> Any:
        logits, weights, ids = plain(self, hidden_states)
        return torch.softmax(logits.float(), -1), weights, ids

    directory = tiny_checkpoints.save("mixtral", tmp_path)
    logits_meta = opened(directory)
    monkeypatch.setattr(modeling_mixtral.MixtralTopKRouter, "forward", softmaxed)
    source = opened(directory)
    assert source.meta.details["conformance"]["layers"]["model.layers.0.mlp.gate"]["returns"] == "probabilities"
    assert source.meta.weights_mean == logits_meta.meta.weights_mean == "softmax/k" and source.meta.entropy_of == "softmax_logits"


def test_experts_that_run_other_ids_than_were_chosen_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.mixtral import modeling_mixtral

    plain = modeling_mixtral.MixtralExperts.forward
    directory = tiny_checkpoints.save("mixtral", tmp_path)

    def block(self: Any, hidden_states: Any) -> Any:
        shape = hidden_states.shape
        flat = hidden_states.view(-1, shape[-1])
        _, weights, ids = self.gate(flat)
        return self.experts(flat, (ids + 1) % 8, weights).view(shape)

    assert plain is not None
    monkeypatch.setattr(modeling_mixtral.MixtralSparseMoeBlock, "forward", block)
    with pytest.raises(SourceError, match="the experts were run with other ids than the router returned"):
        opened(directory)


def test_a_class_declared_bare_or_in_a_list_is_found() -> None:
    class Gate(nn.Module):
        pass

    class Bare(nn.Module):
        _can_record_outputs = {"router_logits": [Gate]}

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.ModuleDict({"moe": Gate()}), nn.ModuleDict({"moe": Gate()})])

    sites, left_out = find_routers(Bare())
    assert [(site.key, site.depth, site.stack) for site in sites] == [("layers.0.moe", 0, "decoder"), ("layers.1.moe", 1, "decoder")]
    assert left_out == [] and choose_layers(sites, (1,)) == sites[1:]


def test_siblings_that_are_not_recorded_are_found_by_their_name() -> None:
    class DeepHashRouter(nn.Module):
        pass

    sites, _ = find_routers(nn.ModuleDict({"mlp": DeepHashRouter()}))
    assert [site.class_name for site in sites] == ["DeepHashRouter"]


def test_the_plan_depends_on_lengths_alone() -> None:
    documents = [TokenDocument(n, f"d{n}", "x", "test", tuple(range(10, 10 + length))) for n, length in enumerate((5, 1, 9, 5, 30))]
    plan = plan_shards(documents, 20, frozenset({0}), 2)
    assert [[document.document for document in shard.documents] for shard in plan.shards] == [[4, 2], [0, 3], [1]]
    assert (plan.n_cut, plan.tokens_cut, plan.n_rows) == (1, 10, 5 + 1 + 9 + 5 + 20)
    assert plan_shards(documents[::-1], 20, frozenset({0}), 2).shards == plan.shards
