"""Checks of a declaration's fields against each other, on the merged tables, so that they come together with all other errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import hypotheses
from experiments.problems import did_you_mean
from experiments.specs import CorpusSpec, EntropyKnob, SourceSpec, TestbedSpec, UncertaintySpec, entropy_share
from experiments.testbed.arms import ARMS
from experiments.testbed.campaign_spec import CampaignSpec
from hypotheses.spectra_evidence import BASELINE

Found = tuple[tuple[int | str, ...], str, str]  # location, message, remedy


def crosschecks(tables: Mapping[str, Any]) -> list[Found]:
    """Every disagreement; a check whose own fields are mistyped stays silent, since the types are reported elsewhere."""
    found: list[Found] = []
    for check in CHECKS:
        try:
            found += check(tables)
        except (TypeError, ValueError, AttributeError, KeyError):
            continue
    return found


def _table(tables: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        tables = tables.get(key, {})
    return tables


def _known_hypotheses(tables: Mapping[str, Any]) -> Iterator[Found]:
    known = hypotheses.names()
    listed = tables.get("hypotheses", ())
    if isinstance(listed, list) and not listed:
        yield ("hypotheses",), "no hypothesis is named", f"known: {', '.join(known)}"
    for index, name in enumerate(listed if isinstance(listed, list) else ()):
        if name not in known:
            yield ("hypotheses", index), f"no hypothesis named {name!r}", f"{did_you_mean(str(name), known)} (known: {', '.join(known)})"


def _level(tables: Mapping[str, Any]) -> Iterator[Found]:
    level = _table(tables, "uncertainty").get("level", UncertaintySpec().level)
    for name in tables["hypotheses"]:
        for criterion in hypotheses.find(name).criteria if name in hypotheses.names() else ():
            if criterion.level != level and criterion.level == UncertaintySpec().level:  # an equivalence test has a level of its own
                yield (("uncertainty", "level"), f"intervals at {level}, but {name}: {criterion.name} is judged at {criterion.level}",
                       f"write level = {criterion.level}")
                return


def _shares(tables: Mapping[str, Any]) -> Iterator[Found]:
    corpus = _table(tables, "corpus")
    defaults = CorpusSpec()
    calibration, test = corpus.get("calibration_share", defaults.calibration_share), corpus.get("test_share", defaults.test_share)
    if calibration + test >= 1:
        yield (("corpus", "test_share"), f"calibration {calibration} and test {test} leave no training documents",
               "the two shares must sum to less than 1; the rest is for training and frequencies")


def _domains(tables: Mapping[str, Any]) -> Iterator[Found]:
    corpus = _table(tables, "corpus")
    kind, one_domain = corpus.get("name", "six_domains"), corpus.get("one_domain", False)
    if kind == "datasets":
        domains = [source["domain"] for source in corpus.get("sources", ())]
        where, empty = "sources", "add [[corpus.sources]] with name, domain and cap"
    else:
        domains = list(corpus.get("domains", CorpusSpec().domains))
        where, empty = "domains", "name the domains to read"
    if not domains:
        yield ("corpus", where), "the corpus has no domain", empty
    elif len(set(domains)) == 1 and not one_domain:
        yield (("corpus", where), f"the corpus has one domain, {domains[0]!r}: nothing separates the claim from that source",
               "add a second domain, or set corpus.one_domain = true and the verdict speaks of this source only")
    if where == "domains" and len(set(domains)) < len(domains):
        yield ("corpus", where), "a domain is named twice", "name each domain once"


def _corpus_place(tables: Mapping[str, Any]) -> Iterator[Found]:
    corpus = _table(tables, "corpus")
    kind = corpus.get("name", "six_domains")
    if kind in ("jsonl", "parquet", "text") and not corpus.get("path"):
        yield ("corpus", "path"), f"a {kind} corpus needs a path", "set corpus.path"
    if kind != "datasets" and corpus.get("sources"):
        yield ("corpus", "sources"), f"sources belong to a datasets corpus, not to {kind}", 'set corpus.name = "datasets", or drop them'


def _trace(tables: Mapping[str, Any]) -> Iterator[Found]:
    trace = _table(tables, "trace")
    paths, labels = trace.get("paths", ()), trace.get("domains", ())
    if labels and len(labels) != len(paths):
        yield ("trace", "domains"), f"{len(labels)} labels for {len(paths)} paths", "give one for each path, or none"
    model = _table(tables, "source").get("model", SourceSpec().model)
    if paths and not model.startswith("testbed:"):
        yield ("source", "model"), f"{model!r} would not be run: the routing is read from trace.paths", "give one of the two"
    for key in ("format", "model", "n_experts", "top_k", "layers", "moe_layers", "leave_out_first", "mapping", "domains"):
        if trace.get(key) and not paths:
            yield ("trace", key), "says something of files that are not named", "add trace.paths"


def _testbed(tables: Mapping[str, Any]) -> Iterator[Found]:
    testbed = TestbedSpec().model_dump() | dict(_table(tables, "testbed"))
    if testbed["hidden"] % testbed["heads"]:
        yield ("testbed", "heads"), f"{testbed['heads']} heads do not divide hidden size {testbed['hidden']}", "choose a divisor"
    if testbed["top_k"] >= testbed["experts"]:
        yield (("testbed", "top_k"), f"top-{testbed['top_k']} of {testbed['experts']} experts leaves the router nothing to choose",
               "choose top_k below experts")


def _campaign(tables: Mapping[str, Any]) -> Iterator[Found]:
    if not tables.get("campaign"):
        return
    campaign = CampaignSpec().model_dump() | dict(tables["campaign"])
    model = _table(tables, "source").get("model", SourceSpec().model)
    if not model.startswith("testbed:") or _table(tables, "trace").get("paths"):
        yield (("source", "model"), f"a campaign trains its own models, so that {model!r} or a recorded trace would not be used",
               'leave source.model = "testbed:mixtral", or give an experiment without [campaign]')
    for key in ("arms", "beside"):
        for index, name in enumerate(campaign[key]):
            if name not in ARMS:
                yield ("campaign", key, index), f"no arm named {name!r}", f"{did_you_mean(str(name), tuple(ARMS))} (known: {', '.join(ARMS)})"
    if campaign["umap"] is True and find_spec("umap") is None:
        from analysis.embedding import UMAP_REMEDY

        yield ("campaign", "umap"), "the package umap-learn is not installed", UMAP_REMEDY
    if BASELINE not in campaign["arms"]:
        yield ("campaign", "arms"), f"the baseline {BASELINE} is not among them", "every arm is compared with it: name it"


def _knobs(tables: Mapping[str, Any]) -> Iterator[Found]:
    sizes = _table(tables, "sweep", "knobs").get("table_k", [1])
    if not sizes or sorted(set(sizes)) != list(sizes):
        yield ("sweep", "knobs", "table_k"), f"{sizes} is not ascending, or empty", "write for example table_k = [1, 2]"
    for name in ("min_count", "max_entropy"):
        knob = _table(tables, "sweep", "knobs").get(name, {})
        if "low" in knob and "high" in knob and not knob["low"] < knob["high"]:
            yield ("sweep", "knobs", name), f"low {knob['low']} is not below high {knob['high']}", "exchange them"


def _entropy_knob(tables: Mapping[str, Any]) -> Iterator[Found]:
    knob = _table(tables, "sweep", "knobs").get("max_entropy")
    if knob is None:
        return
    if "unit" not in knob:
        why = "the range has no unit: nats, bits and shares of ln E differ"
        yield ("sweep", "knobs", "max_entropy"), why, 'add unit = "nats at 8 experts"'
        return
    defaults = EntropyKnob()
    for end in ("low", "high"):
        try:
            entropy_share(f"{knob.get(end, getattr(defaults, end))} {knob['unit']}")
        except ValueError as error:
            context = getattr(error, "context", None) or {}
            yield ("sweep", "knobs", "max_entropy", end), str(context.get("message", error)), str(context.get("remedy", "correct the unit"))


CHECKS: tuple[Callable[[Mapping[str, Any]], Iterator[Found]], ...] = (
    _known_hypotheses, _level, _shares, _domains, _corpus_place, _trace, _testbed, _campaign, _knobs, _entropy_knob)
