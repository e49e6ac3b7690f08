import pytest
from pydantic import ValidationError

from experiments.predictor.model import build
from experiments.predictor.spec import PredictorSpec

from .planted import metas


def test_the_default_has_about_80_thousand_parameters_at_4_layers_of_16_experts() -> None:
    layers = metas(((16, 2),) * 4)
    whole, ablated = (sum(p.numel() for p in build(spec, layers).parameters()) for spec in (PredictorSpec(), PredictorSpec().ablated()))
    assert 70_000 < whole < 90_000
    assert abs(whole - ablated) / whole < 0.02  # the ablation loses sight, not size


@pytest.mark.parametrize(("fields", "message"), [
    ({"hidden": 50, "heads": 4}, "no multiple of heads"), ({"context_tokens": 15, "blocks": 2}, "no multiple of blocks"),
    ({"epochs": 0}, "greater than 0"), ({"dropout": 1.0}, "less than 1"), ({"hiden": 48}, "Extra inputs"),
    ({"held_out": 0}, "greater than 0"), ({"lr": float("nan")}, "finite"),
])
def test_what_cannot_be_built_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PredictorSpec(**fields)


def test_where_and_how_it_runs_decides_nothing_that_is_learnt() -> None:
    assert PredictorSpec(device="cpu", processes=2, source_tokens=7).learnt == PredictorSpec().learnt
    assert PredictorSpec(seed=1).learnt != PredictorSpec().learnt != PredictorSpec().ablated().learnt
