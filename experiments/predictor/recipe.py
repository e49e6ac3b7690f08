"""What decides the weights of a predictor, and whose a directory is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analysis.planes import Planes
from analysis.trace import LayerMeta
from experiments.predictor.spec import PredictorSpec
from hypotheses.claim import canonical_json
from tracking.atomic import read_sealed, write_json

RECIPE_VERSION = 1  # raised when a change of this package changes what is learnt
RECIPE, RECORD, WEIGHTS = "recipe.json", "predictor.json", "predictor.safetensors"
DELETE = "delete the directory and train again"

Recipe = dict[str, Any]


class PredictorError(RuntimeError):
    """A predictor that cannot be trained or applied as asked; the message names place, field and remedy."""


def documents_digest(planes: Planes) -> str:
    """SHA-256 of what a predictor can learn from: layers, ids, positions and where documents begin."""
    digest = hashlib.sha256(canonical_json([asdict(layer) for layer in planes.layers]))
    for array in (*planes.ids, planes.position, planes.starts):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def recipe_of(spec: PredictorSpec, planes: Planes) -> Recipe:
    """Everything that decides the weights: declaration, layers, digest of the documents, version of this package."""
    layers = [asdict(layer) for layer in planes.layers]
    return {"spec": spec.learnt, "layers": layers, "documents": documents_digest(planes), "version": RECIPE_VERSION}


def claim(directory: Path, recipe: Recipe) -> bool:
    """Whether `directory` holds the finished predictor of this recipe; makes it if it is new. PredictorError if it is another's."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RECIPE
    if path.exists():
        there = _read(path)
        if there != recipe:
            raise PredictorError(f"{directory}: holds a predictor of another recipe ({'; '.join(_differences(there, recipe))}); "
                                 "train into another directory, or delete this one")
    elif any(directory.iterdir()):
        raise PredictorError(f"{directory}: holds files but no {RECIPE}, so it is not a predictor's directory; train into an empty one")
    else:
        write_json(path, recipe)
    return (directory / RECORD).exists()


def _read(path: Path) -> Recipe:
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise PredictorError(f"{path}: not a recipe ({error}); {DELETE}") from error


def _differences(there: Recipe, declared: Recipe) -> list[str]:
    def flat(recipe: Recipe) -> dict[str, Any]:
        spec = recipe.get("spec")
        return {key: value for key, value in recipe.items() if key != "spec"} | (spec if isinstance(spec, dict) else {"spec": spec})

    was, wanted = flat(there), flat(declared)
    return [f"{key}: {_short(was.get(key))} there, {_short(wanted.get(key))} asked" for key in wanted | was if was.get(key) != wanted.get(key)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


def record_of(directory: Path) -> dict[str, Any]:
    """What was written when the predictor was finished: recipe, parameters, curve, SHA-256 of the weights. PredictorError without one."""
    if not (directory / RECORD).exists():
        raise PredictorError(f"{directory}: holds no finished predictor ({RECORD} is missing); train it, or name its directory")
    return read_sealed(directory / RECORD, DELETE)


def layers_of(record: dict[str, Any]) -> tuple[LayerMeta, ...]:
    """Layers that a finished predictor was trained on."""
    return tuple(LayerMeta(**layer) for layer in record["recipe"]["layers"])


def same_layers(learnt: Sequence[LayerMeta], given: Sequence[LayerMeta], where: str) -> None:
    """PredictorError where layers, their experts or k differ from those that a predictor was trained on."""
    if len(learnt) != len(given):
        raise PredictorError(f"{where}: trained on {len(learnt)} layers, applied to {len(given)}; choose the layers "
                             f"{', '.join(layer.key for layer in learnt)}")
    for one, other in zip(learnt, given):
        for field in ("key", "n_experts", "top_k"):
            was, found = getattr(one, field), getattr(other, field)
            if was != found:
                raise PredictorError(f"{where}: layer {one.key}: {field} {was} when trained, {found} in the trace; "
                                     "apply it to a trace of the same model and layers, or train one on this trace")
