"""A finished predictor applied to the rows of planes, those of another trace too."""
# T token (row), L layer, K slot in the top-k, E expert

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from analysis.planes import Planes
from experiments.predictor.layout import lay_out, slots
from experiments.predictor.model import guesses, scores_of
from experiments.predictor.predictions import Predictions
from experiments.predictor.recipe import documents_digest, record_of, same_layers
from experiments.predictor.training import open_predictor
from experiments.testbed.training import one_thread

TOKENS_AT_ONCE = 1024  # fixed, as sums of another length may differ in their last bits


def predict(directory: Path, planes: Planes, *, device: str = "auto") -> Predictions:
    """Experts that the predictor in `directory` expects at every row and layer: first choices, and sets of the layer's k.

    A slot is predicted from lower layers of its token and from earlier tokens of its document, never from itself or what comes later.
    Raises PredictorError where layers, experts or k are not those that it was trained on.
    """
    record = record_of(directory)
    model, spec = open_predictor(directory, device)
    same_layers(tuple(model.layers), planes.layers, str(directory))
    sets = tuple(np.empty((layer.top_k, len(planes)), layer.id_dtype) for layer in planes.layers)
    with one_thread(), torch.inference_mode():
        slots_TLK = torch.from_numpy(slots(planes)).to(next(model.parameters()).device)
        blocks = lay_out(planes, range(len(planes.document)), spec.reach)
        for batch, warm in blocks.batches(max(1, TOKENS_AT_ONCE // spec.reach), spec.blocks):
            scores_TLE, rows = scores_of(model, slots_TLK, batch, warm)
            ranked = guesses(scores_TLE, max(layer.top_k for layer in planes.layers)).cpu().numpy()
            for index, ids in enumerate(sets):
                ids[:, rows] = ranked[:, index, : len(ids)].T
    about = {"predictor": record["fingerprint"], "weights_sha256": record["weights_sha256"], "documents": documents_digest(planes)}
    return Predictions(planes.layers, sets, about)
