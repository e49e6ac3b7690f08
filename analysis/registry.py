"""The register of metrics: what each one takes and gives, its unit and range, when it is undefined, where it comes from.

A metric is one function of count tables (or vectors) under `@metric`. Metrics of additive tables take leading batch axes, so that
totals, jackknife groups and bootstrap replicates are one call; they give NaN exactly where `undefined` says, and analysis.estimation
turns that NaN into an Estimate with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

Bound = float | Callable[..., float]
Function = TypeVar("Function", bound=Callable[..., Any])

_REGISTER: dict[str, Metric] = {}


@dataclass(frozen=True)
class Metric:
    """One registered metric.

    takes: kinds of its positional arguments, by which tests make examples (see tests/analysis/examples.py). additive: the arguments
    are sums over documents, with leading batch axes. bounds: numbers, or functions of the arguments; None where unbounded.
    estimator: the interval that the specification asks for. seed: name of the seed's quantity; seed_form: whether this function is the
    seed's own formula, which is reported beside the corrected one and never judged.
    """

    id: str
    function: Callable[..., Any]
    unit: str
    bounds: tuple[Bound | None, Bound | None]
    undefined: str
    source: str
    takes: tuple[str, ...]
    additive: bool
    estimator: str
    invariant: tuple[str, ...]
    seed: str | None
    seed_form: bool

    @property
    def definition(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def range_of(self, *arguments: Any) -> tuple[float | None, float | None]:
        """Least and largest plug-in value for these arguments; None where unbounded."""
        low, high = (bound(*arguments) if callable(bound) else bound for bound in self.bounds)
        return low, high


def metric(
    id: str, *, unit: str, bounds: tuple[Bound | None, Bound | None], undefined: str, source: str, takes: tuple[str, ...],
    additive: bool = True, estimator: str = "group jackknife", invariant: tuple[str, ...] = ("relabelling",), seed: str | None = None,
    seed_form: bool = False,
) -> Callable[[Function], Function]:
    """Register a function as the metric `id`; the function itself is returned unchanged. ValueError for an id that is taken."""
    def register(function: Function) -> Function:
        if id in _REGISTER and _REGISTER[id].function.__qualname__ != function.__qualname__:
            raise ValueError(f"metric {id!r} is registered twice: {_REGISTER[id].function.__module__} and {function.__module__}")
        _REGISTER[id] = Metric(id, function, unit, bounds, undefined, source, takes, additive, estimator, invariant, seed, seed_form)
        return function

    return register


def find(id: str) -> Metric:
    """The metric of that id; KeyError names the nearest ones."""
    from difflib import get_close_matches

    register = every()
    if id not in register:
        near = ", ".join(get_close_matches(id, register, n=3)) or "`assay metrics` shows them"
        raise KeyError(f"no metric {id!r}; did you mean: {near}")
    return register[id]


def every() -> dict[str, Metric]:
    """All metrics by id; a family is a module of analysis.metrics."""
    import analysis.metrics

    for family in iter_modules(analysis.metrics.__path__):
        import_module(f"analysis.metrics.{family.name}")
    return dict(_REGISTER)
