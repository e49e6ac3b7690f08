"""One predictor and its ablation per source domain, trained, applied to every test document, and scored beside the baselines."""
# L layer, G jackknife group

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.gates import NO_DATA
from analysis.planes import Planes, planes
from analysis.trace import DocumentRow, RoutingTrace
from experiments.predictor.imported import read_predictions
from experiments.predictor.predictions import Predictions, about, save
from experiments.predictor.processes import work_side_by_side
from experiments.predictor.recipe import PredictorError, documents_digest, recipe_of, record_of
from experiments.predictor.scoring import (
    ACROSS,
    LEARNT,
    TABLES,
    Guessed,
    Targets,
    max_groups,
    predicted_layers,
    scores_of,
    table_guesses,
    why_missing,
)
from experiments.predictor.spec import PredictorSpec
from experiments.progress import Progress, Silent
from hypotheses.claim import fingerprint
from hypotheses.topology_evidence import ABLATION, PROPHET, PredictionScores, PredictorEvidence

PREDICTOR, PREDICTIONS = "predictor", "predictions.parquet"


@dataclass(frozen=True)
class Sources:
    """What predictors learn from and are scored on: planes of each source domain, and of all test documents."""

    by_domain: Mapping[str, Planes]
    scored: Planes
    documents: tuple[DocumentRow, ...]
    missing: Mapping[str, str] = field(default_factory=dict)  # domain -> why no predictor is trained on it

    @classmethod
    def of(cls, trace: RoutingTrace, spec: PredictorSpec, *, learn_from: str = "calibration", score_on: str = "test") -> Sources:
        """Documents of the split `learn_from` by domain, at most spec.source_tokens of each, and all of `score_on`."""
        documents = tuple(trace.documents)
        by_domain, missing = {}, {}
        for domain in sorted({row.domain for row in documents}):
            numbers = [row.document for row in documents if row.domain == domain and row.split == learn_from]
            if numbers:
                by_domain[domain] = planes(trace, learn_from, documents=numbers, max_rows=spec.source_tokens)
            else:
                missing[domain] = f"{NO_DATA}: no {learn_from} document of {domain} to learn from"
        return cls(by_domain, planes(trace, score_on), documents, missing)


def train_all(sources: Sources, spec: PredictorSpec, directory: Path, progress: Progress) -> dict[tuple[str, str], Predictions]:
    """(predictor, source domain) -> predictions for all scored rows, of Prophet and of its ablation.

    What is finished in `directory` is kept, so that the same call goes on after an interruption; spec.processes of them at a time, each on
    one thread, with the same bits as one after the other.
    """
    specs = {PROPHET: spec, ABLATION: spec.ablated()}
    tasks = [_Task(name, domain, directory / folder(domain) / name, specs[name]) for domain in sources.by_domain for name in LEARNT]
    waiting = [task for task in tasks if not task.is_done(sources)]
    n_processes = min(spec.processes, len(waiting))
    if n_processes > 1:
        dealt = [[task for place, task in enumerate(waiting) if (place + place // len(LEARNT)) % n_processes == i] for i in range(n_processes)]
        with progress.stage("predictors", len(waiting), "predictors") as stage:
            work_side_by_side(_do_share, [(share, sources) for share in dealt], stage.advance)
    else:
        for task in waiting:
            task.do(sources, progress)
    return {(task.name, task.domain): read_predictions(task.directory / PREDICTIONS, sources.scored, sources.documents) for task in tasks}


def evidence(sources: Sources, learnt: Mapping[tuple[str, str], Predictions], seed: int, *, learning: Mapping[str, Sequence[Any]] | None = None,
             origin: str = "", home_only: bool = False) -> PredictorEvidence:
    """Counts of every predictor and baseline, by source, target, layer and group of the target's documents; torch is not needed.

    learnt: (predictor, source domain) -> predictions, trained here or imported; home_only: they learnt from all domains, so that none is
    foreign to them. Baselines are fitted on all documents of the source, those that Prophet held out for its curve included; a source without
    any has its predictions alone. Layers that have none before them are left out: they have no Markov table.
    """
    layers = _layers_guessed(sources.scored, learnt)
    fitted = sorted({*sources.by_domain, *(domain for _, domain in learnt)})
    n_targets = len({row.domain for row in sources.documents})
    n_targets = len({row.domain for row in sources.documents})
    n_groups = max_groups([sources.scored.layers[i] for i in layers], len(fitted), n_targets)
    targets = Targets.of(sources.scored, sources.documents, n_groups)
    domains = list(targets.range_of)
    scores: dict[tuple[str, str, str], PredictionScores] = {}
    missing = {f"{'tables' if domain in fitted else PROPHET} from {domain}": why for domain, why in sources.missing.items()}
    if not sources.by_domain:
        missing |= dict.fromkeys(TABLES, f"{NO_DATA}: no documents to fit it on")
    for source in fitted:
        learns = source in sources.by_domain
        guessed = table_guesses(sources.by_domain[source], sources.scored, sources.documents, seed, layers) if learns else {}
        guessed |= {name: Guessed.of(one) for (name, domain), one in learnt.items() if domain == source}
        for name in (*LEARNT, *(TABLES if learns else ())):
            if name not in guessed:
                missing.setdefault(name, f"{NO_DATA}: no such predictor was trained or imported")
            elif any(guessed[name].first[index] is None for index in layers):
                missing[name] = why_missing(name, sources.scored, layers)
            else:
                wanted = domains if name in ACROSS and not (home_only and name in LEARNT) else [domain for domain in domains if domain == source]
                scores |= {(name, source, target): one for target, one in scores_of(guessed[name], targets, wanted, layers).items()}
    return PredictorEvidence(layers, scores, targets.n_documents, learning or {}, missing, origin)


def _layers_guessed(scored: Planes, learnt: Mapping[tuple[str, str], Predictions]) -> tuple[int, ...]:
    """The layers with one before them that every learnt predictor guessed."""
    found = tuple(i for i in predicted_layers(scored.layers) if all(one.sets[i] is not None for one in learnt.values()))
    if not found:
        raise PredictorError("predictions: no layer that all of them speak of and that has a layer before it; import those of later layers too")
    return found


def learning_curves(sources: Sources, directory: Path) -> dict[str, list[Any]]:
    """Columns source, epoch, layer (place), mi_bits, loss, accuracy of Prophet on held-out documents of its source; NaN where undefined."""
    out: dict[str, list[Any]] = {name: [] for name in ("source", "epoch", "layer", "mi_bits", "loss", "accuracy")}
    place = {layer.key: index for index, layer in enumerate(sources.scored.layers)}
    for domain in sources.by_domain:
        curve = record_of(directory / folder(domain) / PROPHET / PREDICTOR)["curve"]
        out["source"] += [domain] * len(curve["epoch"])
        out["epoch"] += curve["epoch"]
        out["layer"] += [place[key] for key in curve["layer"]]
        for name, column in (("mi_bits", "mi"), ("loss", "held_out_nats"), ("accuracy", "accuracy")):
            out[name] += [float("nan") if value is None else value for value in curve[column]]
    return out


def folder(domain: str) -> str:
    """A directory's name for a domain, whatever characters it has."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", domain)[:40].strip("_-")
    return domain if readable == domain != "" else f"{readable or 'domain'}-{hashlib.sha256(domain.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class _Task:
    """One predictor to train and apply."""

    name: str
    domain: str
    directory: Path
    spec: PredictorSpec

    def is_done(self, sources: Sources) -> bool:
        """Whether its predictions for these very rows, by the predictor of this declaration, are there."""
        path = self.directory / PREDICTIONS
        wanted = {"predictor": fingerprint(recipe_of(self.spec, sources.by_domain[self.domain])), "documents": documents_digest(sources.scored)}
        return path.exists() and wanted.items() <= about(path).items()

    def do(self, sources: Sources, progress: Progress) -> None:
        """Train, predict, save."""
        from experiments.predictor.predict import predict
        from experiments.predictor.training import train

        train(sources.by_domain[self.domain], self.spec, self.directory / PREDICTOR, progress)
        found = predict(self.directory / PREDICTOR, sources.scored, device=self.spec.device)
        save(self.directory / PREDICTIONS, found, sources.scored, sources.documents)


def _do_share(share: tuple[Sequence[_Task], Sources], done: Callable[[], None]) -> None:
    tasks, sources = share
    for task in tasks:
        task.do(sources, Silent())
        done()
