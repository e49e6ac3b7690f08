"""The register on disk and the protocol's fingerprint (fault case 17, reference case M08)."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest

import hypotheses
from experiments import registration
from experiments.declaration import load
from hypotheses.claim import Evaluation, canonical_json
from hypotheses.judge import judge
from hypotheses.register import RegisterError

VAR = hypotheses.find("var")
CHANGED = replace(VAR, criteria=(replace(VAR.criteria[0], below=-0.3), *VAR.criteria[1:]))
NOV = datetime.datetime(2026, 11, 22, 23, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=-3)))  # the 23rd in UTC
DEC = datetime.datetime(2026, 12, 5, tzinfo=datetime.UTC)


def test_every_shipped_hypothesis_is_registered():
    assert registration.check() == []


def test_a_threshold_edited_after_registration_fails_the_check_and_shows_until_registered_again(tmp_path):
    file = tmp_path / "registered.json"
    assert registration.register("var", NOV, 0, file) == "registered on 2026-11-23; 0 runs looked at test documents before this one"
    current = {"var": CHANGED.fingerprint}
    assert [one.split(";")[0].split(" (")[0] for one in registration.check(file, current)] == [
        "var: changed since its registration on 2026-11-23"]
    said = registration.finding_registration(load("var"), CHANGED, {"var": 4}, registration.read(file))
    finding = judge(CHANGED, Evaluation({}), registration=said)
    assert finding.registration["note"] == "changed since its registration on 2026-11-23, not registered again: post hoc, after 4 runs"

    assert registration.register("var", DEC, 4, file, claim=CHANGED) == "changed on 2026-12-05 after 4 runs"
    assert registration.check(file, current) == []
    assert registration.read(file)["var"]["history"] == [{"fingerprint": VAR.fingerprint, "date": "2026-11-23", "runs": 4}]
    said = registration.finding_registration(load("var"), CHANGED, {"var": 6}, registration.read(file))
    assert said["note"] == "changed on 2026-12-05 after 4 runs"


def test_reading_checking_and_noting_write_nothing(tmp_path):
    file = tmp_path / "registered.json"
    registration.register("var", NOV, 0, file)
    before = file.read_bytes()
    registration.check(file)
    registration.finding_registration(load("var"), VAR, {}, registration.read(file))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["registered.json"]


def test_an_absent_register_is_empty_and_a_broken_one_is_refused(tmp_path):
    assert registration.read(tmp_path / "none.json") == {}
    (tmp_path / "broken.json").write_text('{"var": ')
    with pytest.raises(RegisterError, match=r"broken.json: line 1"):
        registration.read(tmp_path / "broken.json")


def test_a_time_without_zone_is_refused(tmp_path):
    with pytest.raises(RegisterError, match="UTC"):
        registration.register("var", datetime.datetime(2026, 11, 22), 0, tmp_path / "r.json")


def test_thresholds_other_than_the_claims_make_the_finding_post_hoc():
    assert registration.departures(load("var"), VAR) == []
    other = load("var", "quick", ['analysis.entropy_threshold = "0.9 nats at 8 experts"', "analysis.min_type_count = 20"])
    assert [one.split(" = ")[0] for one in registration.departures(other, VAR)] == ["analysis.entropy_threshold", "analysis.min_type_count"]
    assert registration.finding_registration(other, VAR, {})["post_hoc"] is True


@pytest.mark.parametrize("profile", ["quick", "full", "tiny", "gpu", "gpu_six_domains"])
def test_no_shipped_profile_departs_from_the_claim(profile):
    assert registration.departures(load("var", profile), VAR) == []


def test_the_protocol_is_canonical_json_and_has_no_paths():
    experiment = load("var", "quick", ['corpus.name = "jsonl"', 'corpus.path = "/somewhere/mine.jsonl"', 'source.model = "/models/mine"'])
    text = canonical_json(registration.protocol(experiment, [VAR])).decode()
    assert json.loads(text)["source"]["model"] == "mine"
    assert "somewhere" not in text
    assert "/models" not in text


@pytest.mark.parametrize("override", ["source.batch_size = 3", 'source.device = "cpu"', "source.documents_per_shard = 7"])
def test_what_does_not_decide_the_verdict_leaves_the_fingerprint(override):
    changed, plain = load("var", "quick", [override]), load("var")
    assert registration.protocol_fingerprint(changed, [VAR]) == registration.protocol_fingerprint(plain, [VAR])


def test_where_a_corpus_lies_leaves_the_fingerprint():
    here, there = (load("var", "quick", ['corpus.name = "jsonl"', f'corpus.path = "{path}"']) for path in ("x", "y"))
    assert registration.protocol_fingerprint(here, [VAR]) == registration.protocol_fingerprint(there, [VAR])


@pytest.mark.parametrize("override", [
    "seed = 1", 'corpus.salt = "other"', "corpus.test_share = 0.3", "analysis.min_type_count = 20", "uncertainty.n_null = 199",
    "sweep.n_trials = 40", "testbed.steps = 301", 'source.model = "a/b"', "source.max_length = 255", "corpus.documents_per_domain = 399",
    "audit.accept = ['warm_up']"])
def test_what_decides_the_verdict_changes_the_fingerprint(override):
    assert registration.protocol_fingerprint(load("var", "quick", [override]), [VAR]) != (
        registration.protocol_fingerprint(load("var"), [VAR]))


def test_a_changed_threshold_changes_the_fingerprint():
    assert registration.protocol_fingerprint(load("var"), [CHANGED]) != registration.protocol_fingerprint(load("var"), [VAR])
