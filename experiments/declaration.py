"""Experiments as data: TOML in, frozen models out, every error at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from experiments.problems import DeclarationError, Problem, did_you_mean, of_validation
from experiments.specs import (
    AnalysisSpec,
    CorpusSpec,
    CountKnob,
    DatasetSource,
    EntropyKnob,
    FastPathSpec,
    Frozen,
    KnobsSpec,
    SourceSpec,
    SweepSpec,
    TestbedSpec,
    UncertaintySpec,
)

__all__ = [
    "AnalysisSpec", "CorpusSpec", "CountKnob", "DatasetSource", "DeclarationError", "EntropyKnob", "Experiment", "FastPathSpec", "Frozen",
    "KnobsSpec", "Problem", "SourceSpec", "SweepSpec", "TestbedSpec", "UncertaintySpec", "choose_profile", "declared_names",
    "declared_path", "load", "resolved",
]

DECLARED = Path(__file__).parent / "declared"


class Experiment(Frozen):
    """One declaration with its profile and overrides applied; `name` is the file's stem."""

    name: str
    profile: str
    title: str
    hypotheses: tuple[str, ...]
    seed: Annotated[int, Field(ge=0)] = 0
    source: SourceSpec = SourceSpec()
    testbed: TestbedSpec = TestbedSpec()
    corpus: CorpusSpec = CorpusSpec()
    uncertainty: UncertaintySpec = UncertaintySpec()
    analysis: AnalysisSpec = AnalysisSpec()
    sweep: SweepSpec = SweepSpec()
    fastpath: FastPathSpec = FastPathSpec()
    overrides: tuple[str, ...] = ()  # the --set texts, as given


def choose_profile(profile: str | None, model: str | None) -> str:
    """The profile of a run: the one given, else `gpu` where a model is given, else `quick`."""
    return profile or ("gpu" if model else "quick")


def declared_names() -> tuple[str, ...]:
    """Experiments that ship with the project."""
    return tuple(sorted(path.stem for path in DECLARED.glob("*.toml")))


def declared_path(experiment: str) -> Path:
    """The file of an experiment given by name or by path. Raises DeclarationError when there is neither."""
    for path in (Path(experiment), DECLARED / f"{experiment}.toml"):
        if path.suffix == ".toml" and path.is_file():
            return path
    raise DeclarationError([Problem(experiment, "experiment", "no such file, and no declared experiment of that name",
                                    did_you_mean(experiment, declared_names(), what="declared"))])


def load(path: Path | str, profile: str = "quick", overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in `path`, overlaid with [profile.NAME] and then with `key.sub=value` overrides in TOML syntax.

    Raises DeclarationError with every problem at once.
    """
    file = declared_path(str(path))
    tables = _read(file)
    profiles = tables.pop("profile", {})
    problems: list[Problem] = []
    layers: list[tuple[str, Mapping[str, Any]]] = [(str(file), tables)]
    layers += _profile_layers(file, profiles, profile, problems)
    layers += _override_layers(overrides, problems)
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged = deep_merge(merged, layer)
    merged |= {"name": file.stem, "profile": profile, "overrides": list(overrides)}
    experiment = _validated(merged, layers, problems)
    if problems or experiment is None:
        raise DeclarationError(problems)
    return experiment


def resolved(experiment: Experiment) -> dict[str, Any]:
    """Plain values of the whole declaration, defaults included."""
    return experiment.model_dump(mode="json")


def deep_merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `overlay`; tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = deep_merge(merged[key], value) if both else value
    return merged


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:  # its text ends with line and column
        raise DeclarationError([Problem(str(file), "syntax", str(error), "correct the TOML there")]) from None
    except UnicodeDecodeError as error:
        raise DeclarationError([Problem(str(file), "encoding", f"byte {error.start} is not UTF-8", "save the file as UTF-8")]) from None


def _profile_layers(file: Path, profiles: Any, profile: str, problems: list[Problem]) -> list[tuple[str, Mapping[str, Any]]]:
    """The chosen overlay, after those that it extends."""
    if not isinstance(profiles, dict):
        problems.append(Problem(str(file), "profile", "not a table", "write [profile.quick]"))
        return []
    layers: list[tuple[str, Mapping[str, Any]]] = []
    name: Any = profile
    seen: list[Any] = []
    while name is not None:
        if name in seen or not isinstance(profiles.get(name), dict):
            why = "extends itself" if name in seen else "no such profile"
            problems.append(Problem(str(file), f"profile.{name}", why, did_you_mean(str(name), profiles, what="profiles here")))
            break
        seen.append(name)
        overlay = dict(profiles[name])
        following = overlay.pop("extends", None)
        layers.insert(0, (f"{file} [profile.{name}]", overlay))
        name = following
    return layers


def _override_layers(overrides: Sequence[str], problems: list[Problem]) -> list[tuple[str, Mapping[str, Any]]]:
    layers: list[tuple[str, Mapping[str, Any]]] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        try:
            layers.append((f"--set {text}", tomllib.loads(f"{key} = {value}\n")))
        except tomllib.TOMLDecodeError as error:
            remedy = "values are TOML: text in quotes, as in --set 'source.model=\"name\"'" if equals else "write --set key.sub=value"
            problems.append(Problem(f"--set {text}", key.strip() or "key", str(error), remedy))
    return layers


def _validated(merged: dict[str, Any], layers: Sequence[tuple[str, Mapping[str, Any]]], problems: list[Problem]) -> Experiment | None:
    from experiments.crosschecks import crosschecks

    def place(location: Sequence[int | str]) -> str:
        return next((name for name, layer in reversed(layers) if _reaches(layer, location)), layers[0][0])

    for location, message, remedy in crosschecks(merged):
        problems.append(Problem(place(location), ".".join(map(str, location)), message, remedy))
    try:
        return Experiment.model_validate_json(json.dumps(merged, default=str), strict=True)
    except ValidationError as error:
        for found, message, remedy in of_validation(error, Experiment):
            problems.append(Problem(place(found), ".".join(map(str, found)), message, remedy))
    return None


def _reaches(layer: Any, location: Sequence[int | str]) -> bool:
    """Whether a layer sets the field at `location`."""
    for step in location:
        if isinstance(step, int) or isinstance(layer, list):
            return True
        if not isinstance(layer, Mapping) or step not in layer:
            return False
        layer = layer[step]
    return True
