"""The layers of a declaration: the file, a profile and those it extends, then --set; merged in that order, shorthands written out."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.problems import DeclarationError, Problem, did_you_mean
from experiments.specs import CorpusSpec

DECLARED = Path(__file__).parent / "declared"
OF_ONE = ("sources", "path", "domains", "one_domain", "num_samples", "documents_per_domain", "max_bytes_per_domain")  # of one corpus only

Layer = tuple[str, Mapping[str, Any]]  # where it stands, and its tables


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises DeclarationError with line and column of a syntax error."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:  # its text ends with line and column
        raise DeclarationError([Problem(str(file), "syntax", str(error), "correct the TOML there")]) from None
    except UnicodeDecodeError as error:
        raise DeclarationError([Problem(str(file), "encoding", f"byte {error.start} is not UTF-8", "save the file as UTF-8")]) from None


def profile_layers(file: Path, profiles: Any, profile: str, problems: list[Problem]) -> list[Layer]:
    """The chosen overlay after those that it extends; a file without any profile has the plain `quick` only."""
    if not isinstance(profiles, dict):
        problems.append(Problem(str(file), "profile", "not a table", "write [profile.quick]"))
        return []
    if not profiles and profile == "quick":
        return []
    layers: list[Layer] = []
    name: Any = profile
    seen: list[Any] = []
    while name is not None:
        if name in seen or not isinstance(name, str) or not isinstance(profiles.get(name), dict):
            why = "extends itself" if name in seen else "no such profile"
            problems.append(Problem(str(file), f"profile.{name}", why, did_you_mean(str(name), profiles, what="profiles here")))
            break
        seen.append(name)
        overlay = dict(profiles[name])
        following = overlay.pop("extends", None)
        layers.insert(0, (f"{file} [profile.{name}]", overlay))
        name = following
    return layers


def override_layers(overrides: Sequence[str], problems: list[Problem]) -> list[Layer]:
    """One layer for each `key.sub=value`, the value in TOML syntax."""
    layers: list[Layer] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        try:
            layers.append((f"--set {text}", tomllib.loads(f"{key} = {value}\n")))
        except tomllib.TOMLDecodeError as error:
            remedy = "values are TOML: text in quotes, as in --set 'source.model=\"name\"'" if equals else "write --set key.sub=value"
            problems.append(Problem(f"--set {text}", key.strip() or "key", str(error), remedy))
    return layers


def with_corpora(layers: Sequence[Layer], problems: list[Problem]) -> list[Layer]:
    """The layers, `corpus.declared = "NAME"` replaced by the [corpus] table of declared/corpora/NAME.toml, just below who names it."""
    written: list[Layer] = []
    for place, tables in layers:
        corpus = tables.get("corpus")
        if isinstance(corpus, Mapping) and "declared" in corpus:
            name = corpus["declared"]
            file = DECLARED / "corpora" / f"{name}.toml"
            known = sorted(path.stem for path in file.parent.glob("*.toml"))
            if name in known:
                content = read_toml(file)
                written.append((str(file), {"corpus": content.get("corpus", content)}))
            else:
                remedy = did_you_mean(str(name), known, what="declared")
                problems.append(Problem(place, "corpus.declared", f"no declared corpus {name!r}", remedy))
            tables = {**tables, "corpus": {key: value for key, value in corpus.items() if key != "declared"}}
        written.append((place, tables))
    return written


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """All layers in order. A layer that names another corpus drops what lower layers said of the former one's contents."""
    tables: dict[str, Any] = {}
    for _, layer in layers:
        new, former = _corpus(layer), _corpus(tables)
        if "name" in new and ("sources" in new or new["name"] != former.get("name", "six_domains")):
            tables["corpus"] = {key: value for key, value in former.items() if key not in OF_ONE}
        tables = deep_merge(tables, layer)
    return tables


def deep_merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `overlay`; tables are merged, everything else is replaced."""
    joined = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = deep_merge(joined[key], value) if both else value
    return joined


def written_out(tables: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Shorthands in full.

    The testbed takes the experiment's seed unless it has its own, a datasets corpus the domains of its sources;
    `corpus.num_samples` documents are shared out over the domains.
    """
    full = dict(tables)
    testbed = full.get("testbed", {})
    if isinstance(testbed, Mapping) and "seed" in full:
        full["testbed"] = {"seed": full["seed"], **testbed}
    corpus = dict(_corpus(full))
    sources = corpus.get("sources")
    if corpus.get("name") == "datasets" and isinstance(sources, list):
        corpus["domains"] = list(dict.fromkeys(str(source.get("domain")) for source in sources if isinstance(source, Mapping)))
    samples = corpus.pop("num_samples", None)
    if isinstance(samples, int) and not isinstance(samples, bool) and samples > 0:
        corpus = _shared_out(corpus, samples)
    elif samples is not None:
        problems.append(Problem("corpus", "corpus.num_samples", f"{samples!r} is not a number of documents", "give a whole number above 0"))
    return {**full, "corpus": corpus} if "corpus" not in full or isinstance(full["corpus"], Mapping) else full


def _shared_out(corpus: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """A corpus table in which each domain may have its part of `samples` documents."""
    full = dict(corpus)
    sources, domains = full.get("sources"), full.get("domains", CorpusSpec().domains)
    if full.get("name") == "datasets" and isinstance(sources, list):
        each = math.ceil(samples / max(len(sources), 1))
        full["sources"] = [{**source, "cap": each} if isinstance(source, Mapping) else source for source in sources]
    each = math.ceil(samples / max(len(domains), 1))
    per_document = full.get("max_bytes_per_document", CorpusSpec().max_bytes_per_document)
    floor = full.get("max_bytes_per_domain", CorpusSpec().max_bytes_per_domain)
    if isinstance(per_document, int) and isinstance(floor, int):
        full["max_bytes_per_domain"] = max(floor, each * per_document)
    return full | {"documents_per_domain": each}


def _corpus(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    corpus = tables.get("corpus", {})
    return corpus if isinstance(corpus, Mapping) else {}
