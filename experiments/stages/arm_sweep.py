"""Sweep of SPECTRA's losses: trials trained and measured on calibration documents; the chosen point with fresh seeds on test documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.domain_labels import DomainDocuments, domain_estimates
from analysis.loads import document_loads
from analysis.trace import DocumentRow
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

CALIBRATION, FRESH = "calibration", 1_000  # first seed of a confirmation, beyond those of any arm
NOT_ASKED = {"sweep": "not asked for: campaign.sweep is absent"}


def run(context: Context) -> dict[str, Any]:
    """Every trial; no test document is read."""
    campaign = context.experiment.campaign
    if campaign is None or campaign.sweep is None:
        return NOT_ASKED
    spec = campaign.sweep
    with context.progress.stage("sweep", None, "trainings") as task:
        def train(knobs: Params, steps: int) -> Measured:
            found = measured(context, _trained(context, context.experiment.spectra.model_copy(update=dict(knobs)), steps))
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


def measured(context: Context, checkpoint: Path) -> Measured:
    """I(E;D), mean over layers, on the calibration documents, and the loss on calibration windows."""
    from experiments.specialization_features import MemoryStore, MemoryTrace

    source = HuggingFaceSource.open(context.experiment.source.model_copy(update={"model": str(checkpoint)}), Silent())
    documents = [one for one in routed_documents(context.corpus, source) if one.split == CALIBRATION]
    store = MemoryStore()
    source.collect(documents, store, Silent())
    rows = tuple(DocumentRow(one.document, one.id, one.domain, one.split) for one in documents)
    loads = document_loads(MemoryTrace(source.meta, rows, [store.shards[number] for number in sorted(store.shards)]), CALIBRATION,
                           salt=str(context.experiment.seed))
    source.close()
    held = DomainDocuments(loads.selected, loads.domain, len(loads.domains))
    bits = [domain_estimates("mi_E_D", held, layer).item().value for layer in range(len(loads.layers))]
    nats = json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))["held_out_nats"]
    known = [one for one in bits if one is not None]
    return (float(np.mean(known)) if len(known) == len(bits) else float("nan")), float("nan") if nats is None else float(nats)


def confirm(context: Context) -> dict[str, Any]:
    """The chosen point with fresh seeds on test documents, with calibration less test shown as optimism."""
    outcome, campaign = context.read_json(f"sweep/{OUTCOME_FILE}"), context.experiment.campaign
    if campaign is None or campaign.sweep is None or not outcome.get("chosen"):
        return NOT_ASKED if campaign is None or campaign.sweep is None else {"confirmed": False}
    chosen = outcome["chosen"]
    spectra = context.experiment.spectra.model_copy(update={name: chosen[name] for name in outcome["knobs"]})
    rows = [_on_test(context, _trained(context, spectra, campaign.sweep.steps, FRESH + number), FRESH + number)
            for number in range(campaign.sweep.confirm_seeds)]
    confirmed = {name: _over_seeds([row[name] for row in rows], unit) for name, unit in (("mi_E_D", "bits"), ("loss", "nats per token"))}
    optimism = {name: None if one["value"] is None else chosen[name] - one["value"] for name, one in confirmed.items()}
    found = {"fresh": rows, "confirmed": confirmed, "optimism": optimism}
    write_json(context.directory / "sweep" / CONFIRMED_FILE, plain(found))
    return {"confirmed": True}


def _on_test(context: Context, checkpoint: Path, seed: int) -> dict[str, Any]:
    from experiments.arm_runs import arm_run
    from experiments.testbed.arm_collection import Wanted, collect_all
    from experiments.testbed.campaign import Trained
    from hypotheses.spectra_evidence import SpectraSettings
    from hypotheses.spectra_runs import RunCounts

    campaign = context.experiment.campaign
    assert campaign is not None
    trained = Trained(TREATMENT, seed, checkpoint)
    wanted = Wanted(context.experiment.source, campaign, routed_documents(context.corpus, context.source), context.directory / "sweep" / "arms")
    collect_all([trained], wanted, Silent())
    counts = RunCounts(arm_run(wanted.of(trained)), SpectraSettings(seed=context.experiment.seed))
    return {"seed": seed, "mi_E_D": counts.domain_draws()["mi_E_D"].estimates()[-1].value,
            "loss": counts.loss_draws()["held_out_loss"].estimates()[-1].value}


def _over_seeds(values: list[float | None], unit: str) -> dict[str, Any]:
    from hypotheses.spectra_method import mean_over_seeds

    return mean_over_seeds(values, unit=unit, level=0.95).to_json()


SWEEP = StageOf("sweep", run, ("sweep/sweep.json",), ("collect",), publishes=True)
CONFIRM = StageOf("confirm", confirm, ("sweep/confirmed.json",), ("sweep", "analyse"), opens_test=True)
