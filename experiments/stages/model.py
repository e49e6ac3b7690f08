"""Model: the testbed is trained (or found trained); any other model is opened, checked, and left as it is."""

from __future__ import annotations

import json
from typing import Any

from experiments.stages.context import Context
from tracking.atomic import write_json


def run(context: Context) -> dict[str, Any]:
    """Make sure that the model, or every model of a campaign, is there; a testbed's training record is copied into the run."""
    if not context.experiment.source.is_testbed:
        return {"model": context.experiment.source.model}
    training = json.loads((context.checkpoint / "training.json").read_text(encoding="utf-8"))
    write_json(context.directory / "training.json", training)
    arms = [] if context.experiment.campaign is None else [one.directory.name for one in context.trained]
    return {"model": context.checkpoint.name, **({"arms": arms} if arms else {})}
