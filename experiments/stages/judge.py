"""Judge: estimates and controls against the criteria, with what the register says of them, into findings.json."""

from __future__ import annotations

from typing import Any

import hypotheses
from experiments import evaluation_files
from experiments.stages.audit import flawed
from experiments.stages.context import Context
from hypotheses.findings import findings_to_json
from hypotheses.judge import judge
from tracking.atomic import write_bytes


def run(context: Context) -> dict[str, Any]:
    """One finding per hypothesis; the whole file is written or none of it."""
    from experiments.registration import note_of

    findings = []
    for name in context.experiment.hypotheses:
        directory = context.directory / "analysis" / name
        controls = {control: evaluation_files.load(context.directory / "controls" / control / name) for control in hypotheses.find(name).controls}
        findings.append(judge(hypotheses.find(name), evaluation_files.load(directory), controls=controls,
                              registration=note_of(context.experiment, name, context.root, run=context.directory.name),
                              flawed=flawed(context, name)))
    write_bytes(context.directory / "findings.json", findings_to_json(findings).encode())
    return {finding.hypothesis: finding.verdict for finding in findings}
