"""What a run does for each hypothesis beside what it does for all: one module each, found by the hypothesis' name.

A module has `evidence(context, trace)`, what the hypothesis' evaluate() takes; `plant(context)`, which stores the control traces and
returns what was planted; `BEFORE` and `AFTER`, its own stages before the analysis and after it. `control_trace` says where a control lies.
`NEEDS`, where a module has it, names the columns without which a trace that was recorded elsewhere cannot be judged.
A claim whose controls are more than one stored trace has `control_evidence(context, kind)` beside it.
`RESTS_ON` names what the criteria are made of: a finding of the audit that invalidates some of it leaves them without an outcome.
A claim that is judged from further traces has `further_findings(context)`, what the audit found in those, each with `trace`, its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from experiments.stages.stage import StageOf

if TYPE_CHECKING:
    from experiments.stages.context import Context


class Claim(Protocol):
    """The functions of a claim's module."""

    BEFORE: tuple[StageOf, ...]
    AFTER: tuple[StageOf, ...]

    def evidence(self, context: Context, trace: Any) -> Any:
        """What the hypothesis is judged from, for the run's own trace or for a control."""

    def plant(self, context: Context) -> dict[str, Any]:
        """Store every control trace of the hypothesis; a second call goes on where the first one died. Returns what was planted."""

    def control_trace(self, kind: str) -> Path:
        """Directory of a control's trace inside the run directory."""


def takes_counts(claim: Claim) -> bool:
    """Whether counts without tokens are evidence for it; of such traces others refuse."""
    return bool(getattr(claim, "COUNTS", False))


def control_evidence(claim: Claim) -> Callable[[Context, str], Any] | None:
    """A claim's own control_evidence(context, kind), where a control is more than one stored trace; None where it has none."""
    found: Callable[[Context, str], Any] | None = getattr(claim, "control_evidence", None)
    return found


def rests_on(claim: Claim) -> tuple[str, ...]:
    """Families of numbers (analysis.audit) that its criteria are made of; all, where the module does not say."""
    from analysis.audit import FAMILIES

    return tuple(getattr(claim, "RESTS_ON", FAMILIES))


def further_findings(claim: Claim, context: Context) -> Sequence[Mapping[str, Any]]:
    """What the audit found in traces that the claim is judged from beside the run's own; none, where the module does not say."""
    found: Callable[[Context], Sequence[Mapping[str, Any]]] | None = getattr(claim, "further_findings", None)
    return () if found is None else found(context)


def of(name: str) -> Claim:
    """The module of a hypothesis. LookupError, with the remedy, for a hypothesis that has none."""
    try:
        return cast(Claim, importlib.import_module(f"{__name__}.{name}"))
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise LookupError(f"hypothesis {name!r}: nothing says how a run makes its evidence; add experiments/claims/{name}.py "
                          "with evidence(), plant(), control_trace(), BEFORE and AFTER") from None
