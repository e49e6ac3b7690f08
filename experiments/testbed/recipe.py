"""What decides the weights of a testbed, and whose a directory is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.corpora.document import Corpus
from experiments.specs import TestbedSpec
from tracking.atomic import write_json

RECIPE_VERSION = 1  # raised when a change of this package changes what is learnt
ARM_VERSION = 3  # the same for arms of a comparison of routers

Recipe = dict[str, Any]


class TestbedError(RuntimeError):
    """A testbed that cannot be trained as declared; the message names directory, field and remedy."""

    __test__ = False


def recipe_of(spec: TestbedSpec, corpus: Corpus) -> Recipe:
    """Everything that decides the weights: declaration, corpus digest, version of this package."""
    return {"spec": spec.model_dump(mode="json"), "corpus": corpus.digest, "version": RECIPE_VERSION}


def claim(out: Path, recipe: Recipe) -> bool:
    """Whether `out` holds the finished model of this recipe; makes the directory if it is new. Raises TestbedError if it is another's."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "recipe.json"
    if path.exists():
        there = json.loads(path.read_text())
        if there != recipe:
            changed = "; ".join(_differences(there, recipe))
            raise TestbedError(f"{out}: holds a testbed of another recipe ({changed}); train into another directory, or delete this one")
    elif any(not child.name.startswith(".") for child in out.iterdir()):
        raise TestbedError(f"{out}: holds files but no recipe.json, so it is not a testbed directory; train into an empty one")
    else:
        write_json(path, recipe)
    return (out / "training.json").exists()


def _differences(there: Recipe, declared: Recipe) -> list[str]:
    was, wanted = (dict(recipe["spec"]) | {"corpus": recipe["corpus"], "version": recipe["version"]} for recipe in (there, declared))
    return [f"{key}: {was.get(key)} there, {wanted.get(key)} declared" for key in wanted | was if was.get(key) != wanted.get(key)]
