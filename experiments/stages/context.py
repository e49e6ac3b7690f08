"""What the stages of one run share: the declaration, the directory, and things that are loaded once and only when needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.declaration import Experiment
from experiments.progress import Progress, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analysis.trace import CountsTrace
    from experiments.corpora import Corpus
    from experiments.imported_trace import ImportedTrace
    from experiments.sources.huggingface import HuggingFaceSource
    from experiments.testbed.campaign import Trained
    from tracking.traces import StoredTrace


def stored_routing(directory: Path) -> StoredTrace | CountsTrace:
    """A stored trace, or stored counts."""
    from tracking import count_tables
    from tracking.traces import StoredTrace

    return count_tables.load(directory) if count_tables.is_counts(directory) else StoredTrace.open(directory)


@dataclass
class Context:
    """One run under way. directory: the run directory; root: where runs, caches and the ledger live."""

    experiment: Experiment
    directory: Path
    root: Path
    progress: Progress
    _handed: Corpus | None = None
    task: Task | None = None  # of the stage under way

    def tell(self, part: str) -> None:
        """Show what the stage under way is at."""
        if self.task is not None:
            self.task.note(part)
            self.task.advance(1)

    @property
    def cache(self) -> Path:
        """What can be made again from declarations: downloads, prepared corpora, testbed models."""
        return self.root / "cache"

    def hand(self, corpus: Corpus) -> None:
        """Give documents that were loaded before the run began. Raises CorpusError if they are not those that this run began with."""
        self._same_documents(corpus)
        self._handed = corpus

    @cached_property
    def corpus(self) -> Corpus:
        """The documents. Raises CorpusError if they are not those that this run began with."""
        from experiments import corpora

        corpus = self._handed or corpora.load(self.experiment.corpus, self.cache, self.progress)
        self._same_documents(corpus)
        return corpus

    def _same_documents(self, corpus: Corpus) -> None:
        from experiments import corpora

        manifest = self.directory / "corpus" / "manifest.json"
        if manifest.exists():
            began = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
            if began != corpus.digest:
                raise corpora.CorpusError(f"{manifest}: sha256: the run began with documents {began[:12]}, now they are {corpus.digest[:12]}; "
                                          "restore the corpus files, or start a run of the new ones with --new")

    @cached_property
    def imported(self) -> ImportedTrace | CountsTrace:
        """The trace that was recorded elsewhere. Raises TraceError if its files are not those that this run began with."""
        from analysis.trace import CountsTrace, TraceError
        from experiments.stages.imported import counts_digest, open_declared

        trace = open_declared(self.experiment.trace)
        began = self.read_json("corpus/manifest.json").get("sha256")
        now = counts_digest(trace) if isinstance(trace, CountsTrace) else trace.digest
        if began not in (None, now):
            raise TraceError(f"{', '.join(self.experiment.trace.paths)}: the run began with other files or splits ({began[:12]}, now "
                             f"{now[:12]}); restore them, or start a run of the new ones with --new")
        return trace

    @cached_property
    def topics(self) -> Mapping[str, str]:
        """Topic of each document that has one, by document id; a trace that was recorded elsewhere has none."""
        if self.experiment.trace.given:
            return {}
        return {one.id: one.topic for one in self.corpus.documents if one.topic is not None}

    @cached_property
    def source(self) -> HuggingFaceSource:
        """The model with its capture, loaded on first use. Raises SourceError where the routing was recorded elsewhere."""
        from experiments.sources.errors import SourceError
        from experiments.sources.huggingface import HuggingFaceSource

        if self.experiment.trace.given:
            raise SourceError("the routing was recorded elsewhere, so there is no model to run")
        spec = self.experiment.source
        if spec.is_testbed:
            spec = spec.model_copy(update={"model": str(self.checkpoint)})
        return HuggingFaceSource.open(spec, self.progress)

    @cached_property
    def trained(self) -> Sequence[Trained]:
        """Every training of the declared campaign, finished. Raises TestbedError where none is declared."""
        from experiments.testbed.campaign import train_all
        from experiments.testbed.recipe import TestbedError

        experiment = self.experiment
        if experiment.campaign is None:
            raise TestbedError(f"{experiment.name}: campaign: not declared; add a [campaign] table with the arms to train")
        return train_all(experiment.campaign, experiment.testbed, experiment.spectra, self.corpus, self.cache / "models", self.progress)

    @cached_property
    def checkpoint(self) -> Path:
        """Directory of the testbed's trained model; of a campaign, the baseline's with the first seed."""
        if self.experiment.campaign is not None:
            from experiments.testbed.campaign import baseline_of

            return baseline_of(self.trained).directory
        from experiments import testbed
        from experiments.testbed.recipe import recipe_of
        from hypotheses.claim import fingerprint

        recipe = fingerprint(recipe_of(self.experiment.testbed, self.corpus))
        return testbed.train(self.experiment.testbed, self.corpus, self.cache / "models" / f"mixtral-{recipe[:12]}", self.progress)

    @cached_property
    def trace(self) -> StoredTrace:
        """The collected routing, checksums verified on reading. Raises TraceError where only counts were kept."""
        from analysis.trace import CountsTrace, TraceError

        if isinstance(self.routing, CountsTrace):
            raise TraceError(f"{self.directory / 'trace'}: only counts were kept, no tokens; what is asked needs a trace with rows")
        return self.routing

    @cached_property
    def routing(self) -> StoredTrace | CountsTrace:
        """What the run describes and judges: its trace, or the counts where only those were kept."""
        return stored_routing(self.directory / "trace")

    def read_json(self, relative: str) -> dict[str, Any]:
        """A JSON file of the run directory; empty, if the stage that writes it has not run."""
        path = self.directory / relative
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
