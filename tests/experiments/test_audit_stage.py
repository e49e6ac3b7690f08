"""The audit in a run: audit.json, criteria of a flawed trace without an outcome, and what --accept changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hypotheses
from analysis.audit import FAMILIES
from analysis.estimate import Estimate
from experiments import claims, evaluation_files, projection
from experiments.cli import overrides_of, parser
from experiments.declaration import DeclarationError, load
from experiments.progress import Silent
from experiments.registration import departures, protocol
from experiments.stages import audit, audit_arms, judge
from experiments.stages.audit_arms import ARMS_AUDIT
from experiments.stages.context import Context
from hypotheses.claim import Evaluation
from hypotheses.findings import findings_from_json
from tests.synthetic_trace import make_batch, make_documents, make_meta, make_trace
from tracking.traces import StoredTrace, TraceWriter

CLEAR = {"freq_entropy_rho": (-0.62, -0.69, -0.56, "rho"), "entropy_share_below": (0.55, 0.51, 0.58, "share of occurrences"),
         "fastpath_coverage": (0.5, 0.45, 0.55, "share of occurrences")}  # every criterion of VAR is supported
FACTS = {"n_documents": 400, "n_documents_per_domain": {"code": 200, "news": 200}, "n_types_judged": 500}


def context(directory: Path, *accept: str) -> Context:
    overrides = [f"audit.accept={json.dumps(list(accept))}"] if accept else []
    return Context(load("var", "tiny", overrides), directory, directory.parent, Silent())


def doubled(directory: Path) -> None:
    """A stored trace in which ten documents are copies of ten others."""
    documents, meta = make_documents(60), make_meta()
    batch = make_batch(np.random.default_rng(0), meta, documents[:50])
    writer = TraceWriter.create_or_resume(directory, meta, documents)
    writer.write_shard(0, batch, list(range(50)))
    rows = batch.document < 10
    again = replace(batch, document=batch.document[rows] + np.int32(50), position=batch.position[rows], token_id=batch.types[rows],
                    ids=tuple(one[rows] for one in batch.ids), weights=tuple(one[rows] for one in batch.weights or ()),
                    **{name: getattr(batch, name)[:, rows] for name in ("entropy_nats", "simpson", "top1_prob")})
    writer.write_shard(1, again, list(range(50, 60)))
    writer.finish()


def supported(directory: Path) -> None:
    """Evaluations of a run and its controls on which the verdict would be SUPPORTED."""
    estimates = {name: Estimate(value, low, high, unit, "document", 400, "test") for name, (value, low, high, unit) in CLEAR.items()}
    negative = {name: Estimate(value, low, high, CLEAR[name][3], "document", 400, "test") for name, (value, low, high) in
                {"freq_entropy_rho": (0.0, -0.1, 0.1), "entropy_share_below": (0.1, 0.05, 0.15), "fastpath_coverage": (0.1, 0.05, 0.15)}.items()}
    evaluation_files.save(Evaluation(estimates, facts=FACTS), directory / "analysis" / "var")
    for kind, of in (("positive", estimates), ("negative", negative)):
        evaluation_files.save(Evaluation(of, facts=FACTS), directory / "controls" / kind / "var")


def test_a_clean_trace_leaves_the_verdict(tmp_path: Path) -> None:
    make_trace(tmp_path / "run" / "trace", np.random.default_rng(0), 60)
    one = context(tmp_path / "run")
    assert audit.run(one) == {"findings": [], "accepted": []}
    assert audit.flawed(one, "var") == {}
    supported(one.directory)
    assert judge.run(one) == {"var": "supported"}
    before = (one.directory / "findings.json").read_bytes()
    (one.directory / "audit.json").unlink()  # a run that was made before there was an audit
    assert judge.run(one) == {"var": "supported"} and (one.directory / "findings.json").read_bytes() == before


def test_a_flawed_trace_is_never_supported_until_the_flaw_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    doubled(tmp_path / "run" / "trace")
    one = context(tmp_path / "run")
    assert audit.run(one)["findings"] == ["counted_twice"]
    supported(one.directory)
    assert judge.run(one) == {"var": "inconclusive"}
    (finding,) = findings_from_json((one.directory / "findings.json").read_text())
    assert all(judged.outcome == "inconclusive" and "counted_twice (10 of 60 documents)" in judged.reason for judged in finding.criteria)
    assert all("--accept counted_twice" in (judged.settle or "") for judged in finding.criteria)
    assert {control["status"] for control in finding.controls.values()} == {"not judged"}

    known = context(tmp_path / "run", "counted_twice")
    audit.run(known)
    kept = json.loads((one.directory / "audit.json").read_text())
    assert kept["accepted"] == ["counted_twice"] and [entry["accepted"] for entry in kept["findings"]] == [True]
    assert judge.run(known) == {"var": "supported"}
    (finding,) = findings_from_json((one.directory / "findings.json").read_text())
    assert "accepted finding of the audit: counted_twice" in finding.registration["note"] or finding.registration["post_hoc"]


def test_only_what_a_claim_rests_on_spoils_it(tmp_path: Path) -> None:
    one = context(tmp_path)
    entry = {"code": "repeated_layers", "count": 1, "of": 4, "unit": "layers", "words": "one is a copy", "remedy": "keep one",
             "accepted": False, "invalidates": ["layers"]}
    (tmp_path / "audit.json").write_text(json.dumps({"findings": [entry]}))
    assert audit.flawed(one, "var") == {}
    assert set(audit.flawed(one, "topology")) == {criterion.metric for criterion in hypotheses.find("topology").criteria}


def test_a_flaw_of_an_arm_spoils_the_claim_where_the_arm_is_judged(tmp_path: Path) -> None:
    one = Context(load("spectra", "tiny"), tmp_path, tmp_path.parent, Silent())
    (tmp_path / "audit.json").write_text(json.dumps({"findings": []}))
    entry = {"code": "duplicate_keys", "count": 3, "of": 90, "unit": "rows", "words": "three are there twice", "remedy": "keep one row",
             "accepted": False, "invalidates": list(FAMILIES)}
    (tmp_path / "arms").mkdir()

    def arms(**changed: object) -> None:
        arm = {"arm": "spectra", "seed": 3, "judged": True, "findings": [entry]} | changed
        (tmp_path / ARMS_AUDIT).write_text(json.dumps({"arms": [{"arm": "hash", "seed": 0, "judged": False, "findings": [entry]}, arm]}))

    arms()
    spoilt = audit.flawed(one, "spectra")
    assert set(spoilt) == {criterion.metric for criterion in hypotheses.find("spectra").criteria}
    assert all(why == "duplicate_keys (3 of 90 rows): three are there twice (in spectra, seed 3)" for why, _ in spoilt.values())
    arms(findings=[entry | {"invalidates": ["sequence"]}])  # of which no criterion is made
    assert audit.flawed(one, "spectra") == {}
    arms(findings=[entry | {"accepted": True}])
    assert audit.flawed(one, "spectra") == {}


def test_the_arms_audit_looks_at_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = {}
    for name in ("switch_top2", "spectra"):
        (tmp_path / name).mkdir()
        (doubled if name == "spectra" else lambda to: make_trace(to, np.random.default_rng(0), 60))(tmp_path / name / "trace")
        traces[name] = [SimpleNamespace(arm=name, seed=0, trace=StoredTrace.open(tmp_path / name / "trace"))]
    monkeypatch.setattr(audit_arms, "collected", lambda _: traces)
    (tmp_path / "arms").mkdir()
    one = Context(load("spectra", "tiny"), tmp_path, tmp_path.parent, Silent())
    assert audit_arms.run(one)["findings"] == {"spectra-0": ["counted_twice"]}
    (found,) = claims.further_findings(claims.of("spectra"), one)
    assert (found["code"], found["trace"], found["accepted"]) == ("counted_twice", "spectra, seed 0", False)


def test_findings_are_logged_with_their_share_and_whether_they_withhold() -> None:
    def entry(code: str, share: float, invalidates: list[str], accepted: bool) -> dict[str, object]:
        return {"code": code, "share": share, "invalidates": invalidates, "accepted": accepted}

    audited = {"findings": [entry("few_documents", 0.5, [], False), entry("padding", 0.1, ["loads"], False), entry("warm_up", 0.2, ["loads"], True)]}
    assert projection.audit_metrics(audited) == [("audit/findings", 3.0, 0), ("audit/withholding", 1.0, 0), ("audit/few_documents", 0.5, 0),
                                                 ("audit/padding", 0.1, 0), ("audit/warm_up", 0.2, 0)]
    assert projection.audit_tags(audited) == {"audit.findings": "few_documents, padding, warm_up", "audit.withholding": "padding",
                                              "audit.accepted": "warm_up"}
    assert projection.audit_metrics({"findings": []}) == [("audit/findings", 0.0, 0), ("audit/withholding", 0.0, 0)]
    assert projection.audit_metrics({}) == [] and projection.audit_tags({}) == {}


@pytest.mark.parametrize(("details", "spoilt"), [
    ({}, {"repetition": "slot_order_unknown", "topology": "slot_order_unknown"}), ({"slot_order": "falling score"}, {}),
    ({"slot_order": "falling score", "documents_are": "passes of a server"},
     {"repetition": "documents_not_texts", "topology": "documents_not_texts", "domain_specialisation": "documents_not_texts"}),
])
def test_what_rests_on_first_choices_or_texts_is_withheld_where_nobody_vouches(details: dict, spoilt: dict[str, str], tmp_path: Path) -> None:
    documents, meta = make_documents(60), replace(make_meta(weights_mean="absent"), details=details)
    batch = replace(make_batch(np.random.default_rng(0), make_meta(), documents), weights=None)
    (tmp_path / "run").mkdir()
    writer = TraceWriter.create_or_resume(tmp_path / "run" / "trace", meta, documents)
    writer.write_shard(0, batch, [row.document for row in documents])
    writer.finish()
    one = context(tmp_path / "run")
    audit.run(one)
    for name in ("repetition", "topology", "domain_specialisation"):
        found = audit.flawed(one, name)
        assert set(found) == ({criterion.metric for criterion in hypotheses.find(name).criteria} if name in spoilt else set())
        assert all(spoilt[name] in why and f"--accept {spoilt[name]}" in remedy for why, remedy in found.values())


def test_every_claim_rests_on_families_that_there_are() -> None:
    for name in ("var", "topology", "repetition", "domain_specialisation", "spectra"):
        rests = claims.rests_on(claims.of(name))
        assert rests and set(rests) <= set(FAMILIES)


def test_accepting_is_declared_and_recorded() -> None:
    plain, accepting = load("var"), load("var", "quick", ["audit.accept=['warm_up']"])
    claim = hypotheses.find("var")
    assert "audit" not in protocol(plain, [claim]) and protocol(accepting, [claim])["audit"] == {"accept": ["warm_up"]}
    assert departures(plain, claim) == [] and departures(accepting, claim) == ["accepted finding of the audit: warm_up"]
    assert overrides_of(parser().parse_args(["run", "var", "--accept", "warm_up", "--accept", "padding"])) == ['audit.accept=["warm_up", "padding"]']
    shortened = load("var", "quick", ["trace.paths=['a.npz']", "trace.leave_out_first=16"])
    assert departures(shortened, claim) == ["the first 16 rows of every document left out"]
    with pytest.raises(DeclarationError, match="no finding of the audit has this code"):
        load("var", "quick", ["audit.accept=['nonsense']"])
