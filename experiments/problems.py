"""What is wrong with a declaration: every problem with its file, field and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where (`file` may be a profile of it, or a --set), which field, what, and what to do."""

    file: str
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.message}; {self.remedy}"


class DeclarationError(ValueError):
    """A declaration that cannot be run; the message lists every problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = f"the declaration has {count} mistake{'s' if count != 1 else ''}:"
        super().__init__("\n  ".join((heading, *map(str, self.problems))))


def did_you_mean(word: str, known: Iterable[str], *, what: str = "known") -> str:
    """A remedy for a misspelt name: the closest known one, or all of them."""
    listed = list(known)
    close = difflib.get_close_matches(word, listed, n=1)
    return f"did you mean {close[0]!r}?" if close else f"{what}: {', '.join(listed) or 'none'}"


def known_fields(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, ...]:
    """Names of the fields of the table at `location` below `model`."""
    for step in location:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        nested = _models_in(field.annotation) if field else []
        if not nested:
            return ()
        model = nested[0]
    return tuple(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def of_validation(error: ValidationError, model: type[BaseModel]) -> list[tuple[tuple[int | str, ...], str, str]]:
    """(location, message, remedy) of each error that pydantic found."""
    return [(one["loc"], *_words(one, model)) for one in error.errors(include_url=False)]


def _words(one: Any, model: type[BaseModel]) -> tuple[str, str]:
    location, kind, context = one["loc"], one["type"], one.get("ctx", {})
    if kind == "extra_forbidden":
        return "no such key", did_you_mean(str(location[-1]), known_fields(model, location[:-1]), what="keys of this table")
    if kind == "missing":
        return "missing", f"add {location[-1]} = ..."
    if kind == "refused":
        return context["message"], context["remedy"]
    shown = f"{one['msg'][:1].lower()}{one['msg'][1:]}, not {one['input']!r}"
    if kind == "literal_error":
        words = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        return shown, did_you_mean(str(one["input"]), words, what="one of")
    return shown, "correct the value"
