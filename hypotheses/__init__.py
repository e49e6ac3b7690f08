"""Claims, one module each: `h01_var.py` holds the hypothesis named "var" and its evaluate()."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypotheses.claim import Evaluation, Hypothesis

MODULE = re.compile(r"h(?P<number>\d\d)_(?P<name>\w+)")


class UnknownHypothesisError(ValueError):
    """No module of this package has that name; the message lists those that are known."""


def _modules() -> dict[str, str]:
    """Hypothesis name -> module name, by number; h00 is the file to copy, not a claim."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    matches = [match for match in map(MODULE.fullmatch, found) if match and match["number"] != "00"]
    return {match["name"]: match[0] for match in matches}


def names() -> tuple[str, ...]:
    """Names of all hypotheses, in the order of their numbers."""
    return tuple(_modules())


def module(name: str) -> ModuleType:
    """The module of a hypothesis. Raises UnknownHypothesisError."""
    modules = _modules()
    if name not in modules:
        close = difflib.get_close_matches(name, modules, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownHypothesisError(f"no hypothesis named {name!r}; {meant}known: {', '.join(modules)}; add hypotheses/hNN_{name}.py")
    return importlib.import_module(f"{__name__}.{modules[name]}")


def find(name: str) -> Hypothesis:
    """The hypothesis named `name`: the one Hypothesis of its module. Raises UnknownHypothesisError."""
    from hypotheses.claim import Hypothesis

    declared = [value for value in vars(module(name)).values() if isinstance(value, Hypothesis)]
    if len(declared) != 1 or declared[0].name != name:
        raise TypeError(f"hypotheses.{_modules()[name]}: declare exactly one Hypothesis, with name={name!r}; found {len(declared)}")
    return declared[0]


def evaluator(name: str) -> Callable[[Any], Evaluation]:
    """The evaluate() of a hypothesis: from its evidence to an Evaluation."""
    evaluate: Callable[[Any], Evaluation] = module(name).evaluate
    return evaluate
