"""Small Mixtral models, trained on the spot when no checkpoint is given and saved like any other."""

from __future__ import annotations

from pathlib import Path

from experiments.corpora.document import Corpus
from experiments.progress import Progress
from experiments.specs import TestbedSpec

__all__ = ["train"]


def train(spec: TestbedSpec, corpus: Corpus, out: Path, progress: Progress) -> Path:
    """Train the declared Mixtral on the training documents and save it in `out`, an ordinary checkpoint directory; see training.train."""
    from experiments.testbed.training import train as train_now

    return train_now(spec, corpus, out, progress)
