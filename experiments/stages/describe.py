"""Describe: the atlas of the run's trace, kept as an evaluation of which nothing is judged."""

from __future__ import annotations

from typing import Any

from experiments import atlas_claims, evaluation_files
from experiments.stages.context import Context

DIRECTORY = "description"


def run(context: Context) -> dict[str, Any]:
    """Describe the judged documents, or the counts where only those were kept."""
    from hypotheses.atlas_evaluation import describe

    with context.progress.stage("describe", 5, unit="parts") as task:
        found = describe(atlas_claims.evidence(context, context.routing), told=lambda _: task.advance())
    evaluation_files.save(found, context.directory / DIRECTORY)
    return {"tables": sorted(found.tables)}
