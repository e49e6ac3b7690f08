"""Experiments as data: TOML in, frozen models out, every error at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from experiments.layers import (
    DECLARED,
    Layer,
    deep_merge,
    merged,
    override_layers,
    profile_layers,
    read_toml,
    with_corpora,
    written_out,
)
from experiments.predictor.spec import PredictorSpec
from experiments.problems import DeclarationError, Problem, did_you_mean, of_validation
from experiments.specs import (
    AnalysisSpec,
    AtlasSpec,
    AuditSpec,
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
    TopologySpec,
    TraceSpec,
    UncertaintySpec,
)
from experiments.testbed.campaign_spec import CampaignSpec, SpectraSpec

__all__ = [
    "AnalysisSpec", "AtlasSpec", "AuditSpec", "CorpusSpec", "CountKnob", "DatasetSource", "DeclarationError", "EntropyKnob", "Experiment",
    "FastPathSpec", "Frozen", "KnobsSpec", "PredictorSpec", "Problem", "SourceSpec", "SpectraSpec", "SweepSpec", "TestbedSpec",
    "TopologySpec", "TraceSpec", "UncertaintySpec", "choose_profile",
    "declared_names", "declared_path", "load", "resolved",
]


class Experiment(Frozen):
    """One declaration with its profile and overrides applied; `name` is the file's stem."""

    name: str
    profile: str
    title: str
    hypotheses: tuple[str, ...]
    seed: Annotated[int, Field(ge=0)] = 0
    source: SourceSpec = SourceSpec()
    trace: TraceSpec = TraceSpec()
    testbed: TestbedSpec = TestbedSpec()
    corpus: CorpusSpec = CorpusSpec()
    audit: AuditSpec = AuditSpec()
    uncertainty: UncertaintySpec = UncertaintySpec()
    analysis: AnalysisSpec = AnalysisSpec()
    sweep: SweepSpec = SweepSpec()
    fastpath: FastPathSpec = FastPathSpec()
    topology: TopologySpec = TopologySpec()
    atlas: AtlasSpec = AtlasSpec()
    predictor: PredictorSpec = PredictorSpec()
    campaign: CampaignSpec | None = None  # several testbed models that differ in their router; the baseline's first stands for the run
    spectra: SpectraSpec = SpectraSpec()
    overrides: tuple[str, ...] = ()  # the --set texts, as given
    file: Annotated[str, Field(exclude=True)] = ""  # where it was read; says nothing about what is done


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
    """The experiment in `path` (or declared under that name), overlaid with [profile.NAME], then with `key.sub=value` overrides.

    Raises DeclarationError with every problem at once.
    """
    file = declared_path(str(path))
    tables = read_toml(file)
    profiles = tables.pop("profile", {})
    reserved = [key for key in ("name", "overrides") if key in tables]
    problems = [Problem(str(file), key, "set by the loader, not by the file", "delete the key") for key in reserved]
    below = with_corpora([(str(file), tables), *profile_layers(file, profiles, profile, problems)], problems)
    said = with_corpora(override_layers(overrides, problems), problems)
    together: dict[str, Any] = {}  # as one layer: the order of --set does not matter
    for _, layer in said:
        together = deep_merge(together, layer)
    full = written_out(merged([*below, ("--set", together)]), problems)
    full |= {"name": file.stem, "profile": profile, "overrides": list(overrides), "file": str(file.resolve())}
    experiment = _validated(full, [*below, *said], problems)
    if problems or experiment is None:
        raise DeclarationError(problems)
    return experiment


def resolved(experiment: Experiment) -> dict[str, Any]:
    """Plain values of the whole declaration, defaults included."""
    return experiment.model_dump(mode="json")


def _validated(tables: dict[str, Any], layers: Sequence[Layer], problems: list[Problem]) -> Experiment | None:
    from experiments.crosschecks import crosschecks

    def place(location: Sequence[int | str]) -> str:
        return next((name for name, layer in reversed(layers) if _reaches(layer, location)), layers[0][0])

    for location, message, remedy in crosschecks(tables):
        problems.append(Problem(place(location), ".".join(map(str, location)), message, remedy))
    try:
        return Experiment.model_validate_json(json.dumps(tables, default=str), strict=True)
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
