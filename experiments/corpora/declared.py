"""Corpus declarations that ship with the project: one TOML file each, of the fields of CorpusSpec."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from experiments.corpora.document import CorpusError
from experiments.specs import CorpusSpec

DIRECTORY = Path(__file__).parents[1] / "declared" / "corpora"


def declared_names() -> tuple[str, ...]:
    """Names of the declared corpora, sorted."""
    return tuple(sorted(path.stem for path in DIRECTORY.glob("*.toml")))


def declared(name: str) -> CorpusSpec:
    """The declared corpus of this name. Raises CorpusError naming those there are, or the file and what is wrong in it."""
    if name not in declared_names():
        raise CorpusError(f"no declared corpus {name!r}; there are {', '.join(declared_names())}")
    path = DIRECTORY / f"{name}.toml"
    try:
        return CorpusSpec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise CorpusError(f"{path}: {error}; correct the file") from None
