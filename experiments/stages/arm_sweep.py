"""Sweep of SPECTRA's losses: trials trained and measured on calibration documents; the chosen point with fresh seeds on test documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from experiments.arm_sweep import CONFIRMED_FILE, OUTCOME_FILE, Measured, sweep, to_json
from experiments.collection import routed_documents
from experiments.evaluation_files import plain
from experiments.progress import Silent
from experiments.sources.huggingface import HuggingFaceSource
from experiments.stages.context import Context
from experiments.stages.stage import StageOf
from experiments.testbed.campaign_spec import SpectraSpec
from hypotheses.spectra_evidence import TREATMENT
from tracking.atomic import write_json
from tracking.studies import Params

CALIBRATION, TEST = "calibration", "test"
FRESH = 1_000  # first seed of a confirmation, beyond those of any arm
NAMES = {"mi_E_D": "bits", "loss": "nats per token"}
NOT_ASKED = {"sweep": "not asked for: campaign.sweep is absent"}


def run(context: Context) -> dict[str, Any]:
    """Every trial; no test document is read."""
    campaign = context.experiment.campaign
    if campaign is None or campaign.sweep is None:
        return NOT_ASKED
    spec = campaign.sweep
    with context.progress.stage("sweep", None, "trainings") as task:
        def train(knobs: Params, steps: int) -> Measured:
            found = measured(context, _trained(context, context.experiment.spectra.model_copy(update=dict(knobs)), steps), CALIBRATION)
            task.advance(1)
            return found

        outcome = sweep(spec, context.directory / "sweep", context.experiment.seed, train)
    write_json(context.directory / "sweep" / OUTCOME_FILE, plain(to_json(outcome)))
    return {"complete": outcome.n_complete, "pruned": outcome.n_pruned, "chosen": outcome.chosen}


def _trained(context: Context, spectra: SpectraSpec, steps: int, seed: int | None = None) -> Path:
    """Checkpoint of the SPECTRA arm with other options, trained unless it is in the cache."""
    from experiments.testbed import material
    from experiments.testbed.arm_training import Training, train_arm
    from experiments.testbed.arms import arm_of, matched

    experiment, cache = context.experiment, context.cache / "models"
    prepared = material.stored(experiment.testbed, context.corpus, cache, Silent())
    base = experiment.testbed.model_copy(update={"steps": steps, "seed": experiment.testbed.seed if seed is None else seed})
    fitted = matched(arm_of(TREATMENT), base, spectra, int(material.about(prepared)["vocabulary"]))
    training = Training(TREATMENT, fitted, spectra, context.corpus.digest)
    return train_arm(training, prepared, cache / training.name, Silent())


def measured(context: Context, checkpoint: Path, split: str) -> Measured:
    """I(E;D), mean over layers, and the loss, of the split's whole documents: the same estimators for trials and for their confirmation."""
    from experiments.specialization_features import SPLIT, run_of
    from hypotheses.spectra_evidence import SpectraSettings
    from hypotheses.spectra_runs import RunCounts

    source = HuggingFaceSource.open(context.experiment.source.model_copy(update={"model": str(checkpoint)}), Silent())
    every = [one for one in routed_documents(context.corpus, source) if one.split == split]
    documents = [replace(one, document=number, split=SPLIT) for number, one in enumerate(every)]  # what is counted, whatever it is for
    with TemporaryDirectory(prefix="assay-sweep-") as scratch:
        counts = RunCounts(run_of(source, documents, Path(scratch), tokens=1, probes=0)[0], SpectraSettings(seed=context.experiment.seed))
        bits, nats = (draws.estimates()[-1].value for draws in (counts.domain_draws()["mi_E_D"], counts.loss_draws()["held_out_loss"]))
    source.close()
    return float("nan") if bits is None else bits, float("nan") if nats is None else nats


def confirm(context: Context) -> dict[str, Any]:
    """The chosen point with fresh seeds on calibration and on test documents.

    optimism: the chosen trial's value less the fresh seeds' on test documents; choosing: the part of it that is there on the same calibration
    documents already, what picking the best of many trials brings.
    """
    outcome, campaign = context.read_json(f"sweep/{OUTCOME_FILE}"), context.experiment.campaign
    if campaign is None or campaign.sweep is None or not outcome.get("chosen"):
        return NOT_ASKED if campaign is None or campaign.sweep is None else {"confirmed": False}
    chosen, spec = outcome["chosen"], campaign.sweep
    spectra = context.experiment.spectra.model_copy(update={name: chosen[name] for name in outcome["knobs"]})
    rows: list[dict[str, Any]] = []
    for seed in range(FRESH, FRESH + spec.confirm_seeds):
        checkpoint = _trained(context, spectra, spec.steps, seed)
        calibration, test = (dict(zip(NAMES, measured(context, checkpoint, split), strict=True)) for split in (CALIBRATION, TEST))
        rows.append({"seed": seed, **test, "calibration": calibration})
    confirmed = {name: _over_seeds([row[name] for row in rows], unit) for name, unit in NAMES.items()}
    fresh = {name: _over_seeds([row["calibration"][name] for row in rows], unit) for name, unit in NAMES.items()}
    found = {"fresh": rows, "steps": spec.steps, "confirmed": confirmed,
             "optimism": _less(chosen, confirmed), "calibration": fresh, "choosing": _less(chosen, fresh)}
    write_json(context.directory / "sweep" / CONFIRMED_FILE, plain(found))
    return {"confirmed": True}


def _less(chosen: Mapping[str, float], others: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: None if one["value"] is None else chosen[name] - one["value"] for name, one in others.items()}


def _over_seeds(values: list[float], unit: str) -> dict[str, Any]:
    from hypotheses.spectra_method import mean_over_seeds

    return mean_over_seeds([None if isnan(one) else one for one in values], unit=unit, level=0.95).to_json()


SWEEP = StageOf("sweep", run, ("sweep/sweep.json",), ("collect",), publishes=True)
CONFIRM = StageOf("confirm", confirm, ("sweep/confirmed.json",), ("sweep", "analyse"), opens_test=True)
