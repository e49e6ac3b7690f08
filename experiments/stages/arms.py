"""Arms: every trained arm's routing of the same documents, with what its metrics need beside it, under arms/ in the run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.collection import routed_documents
from experiments.stages.context import Context
from experiments.stages.stage import StageOf
from tracking.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypotheses.spectra_evidence import ArmRun

DIRECTORY, CURVES = "arms", "arms/curves.json"


def run(context: Context) -> dict[str, Any]:
    """Collect what is not collected yet, and write every training curve into one table; returns each arm's trace digest."""
    from experiments.arm_runs import curve_rows
    from experiments.testbed.arm_collection import Wanted, collect_all

    campaign = context.experiment.campaign
    assert campaign is not None
    documents = routed_documents(context.corpus, context.source)
    collect_all(context.trained, Wanted(context.experiment.source, campaign, documents, context.directory / DIRECTORY), context.progress)
    runs = collected(context)
    write_json(context.directory / CURVES, curve_rows(runs))
    return {f"{one.arm}-{one.seed}": one.trace.digest for of_arm in runs.values() for one in of_arm}  # type: ignore[attr-defined]


def collected(context: Context) -> Mapping[str, Sequence[ArmRun]]:
    """Runs of every arm, as the stage left them."""
    from experiments.arm_runs import arm_runs
    from experiments.testbed.campaign import seeds_of

    campaign = context.experiment.campaign
    assert campaign is not None
    return arm_runs(context.directory / DIRECTORY, seeds_of(campaign, context.experiment.testbed.seed))


ARMS = StageOf("arms", run, ("arms/*/*.json", "arms/*/*.np?", "arms/*/trace/*", CURVES), ("corpus", "model", "collect"),
              publishes=True, opens_test=True, feeds=True)
