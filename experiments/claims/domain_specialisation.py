"""Domain specialisation in a run: the trace itself, and planted routing that follows domains, and that follows none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import atlas_claims
from experiments.atlas_claims import evidence
from experiments.stages.context import Context
from experiments.stages.stage import StageOf

__all__ = ["AFTER", "BEFORE", "COUNTS", "control_trace", "evidence", "plant"]

NAME = "domain_specialisation"
RESTS_ON = ("loads", "domains", "intervals")
COUNTS = True  # counts alone are evidence, of points
BEFORE: tuple[StageOf, ...] = ()
AFTER: tuple[StageOf, ...] = ()


def control_trace(kind: str) -> Path:
    """Directory of a control's trace inside the run directory."""
    return atlas_claims.control_trace(kind, NAME)


def plant(context: Context) -> dict[str, Any]:
    """Store the control traces; returns what was planted."""
    from analysis.atlas_controls import SPECIALISATION

    return atlas_claims.plant(context, NAME, SPECIALISATION)
