"""Declarations: profiles, overrides, and every mistake at once with file, field and remedy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from experiments import crosschecks
from experiments.declaration import (
    AnalysisSpec,
    CorpusSpec,
    DeclarationError,
    EntropyKnob,
    Experiment,
    choose_profile,
    declared_names,
    declared_path,
    load,
    resolved,
)
from experiments.problems import Problem

PROFILES = ["quick", "full", "gpu", "gpu_six_domains", "tiny"]


def problems(file, profile="quick", overrides=()) -> dict[str, Problem]:
    with pytest.raises(DeclarationError) as caught:
        load(file, profile, overrides)
    assert all(one.file and one.field and one.message and one.remedy for one in caught.value.problems)
    return {one.field: one for one in caught.value.problems}


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(f'title = "Mine"\nhypotheses = ["var"]\n{text}')
    return file


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_of_var_loads(profile):
    experiment = load("var", profile)
    assert (experiment.name, experiment.profile, experiment.hypotheses) == ("var", profile, ("var",))


def test_quick_is_the_seeds_thresholds_on_the_testbed_defaults():
    quick = load("var")
    assert quick.testbed.steps == 300
    assert (quick.analysis.frequency_threshold, quick.analysis.min_type_count) == (50, 50)
    assert quick.source.max_length == 256
    assert quick.uncertainty.model_dump() == {"unit": "document", "n_bootstrap": 999, "n_null": 99, "level": 0.95}
    # the smallest domain must clear the floor of 50 test documents by far: 400 x .28 = 112, sd 9
    assert quick.corpus.documents_per_domain * quick.corpus.test_share > 100
    assert quick.corpus.documents_per_domain * quick.corpus.calibration_share > 40


def test_full_is_longer_tiny_is_below_the_floors_and_gpu_is_the_seeds_run():
    quick, full, tiny, gpu = (load("var", profile) for profile in ("quick", "full", "tiny", "gpu"))
    assert full.testbed.steps >= 1000
    assert full.corpus.documents_per_domain is None
    assert quick.testbed.steps > tiny.testbed.steps == 20
    assert tiny.corpus.documents_per_domain * tiny.corpus.test_share < 50
    assert (gpu.corpus.sources[0].name, gpu.corpus.sources[0].cap, gpu.source.max_length) == ("allenai/c4", 10_000, 512)
    assert gpu.corpus.domains == ("c4",)


def test_a_model_on_the_default_corpus():
    experiment = load("var", "gpu_six_domains", ['source.model = "some/moe"'])
    assert (experiment.source.model, experiment.source.is_testbed, experiment.corpus.name) == ("some/moe", False, "six_domains")
    assert len(experiment.corpus.domains) == 6
    assert experiment.corpus.sources == ()
    assert load("var", "gpu", ['corpus.name = "six_domains"']).corpus.sources == ()


def test_a_model_selects_gpu_unless_a_profile_is_given():
    assert [choose_profile(None, None), choose_profile(None, "some/moe"), choose_profile("quick", "some/moe")] == ["quick", "gpu", "quick"]


def test_overrides_are_toml_values_last_and_recorded():
    said = ["seed = 3", 'source.model="some/moe"', "source.layers=[0, 2]", "corpus = { salt = 'x' }"]
    experiment = load("var", "quick", said)
    assert (experiment.seed, experiment.source.model, experiment.source.layers, experiment.corpus.salt) == (3, "some/moe", (0, 2), "x")
    assert experiment.corpus.documents_per_domain == 400  # tables are merged, not replaced
    assert experiment.overrides == tuple(said)


def test_the_testbed_takes_the_experiments_seed_unless_it_states_its_own():
    assert load("var", "quick", ["seed=7"]).testbed.seed == 7
    assert load("var", "quick", ["seed=7", "testbed.seed=1"]).testbed.seed == 1


def test_another_kind_of_corpus_drops_what_was_said_of_the_former():
    one = load("var", "gpu", ['corpus.path = "x.jsonl"', 'corpus.name = "jsonl"'])  # in either order
    assert (one.corpus.name, one.corpus.path, one.corpus.sources, one.corpus.one_domain) == ("jsonl", "x.jsonl", (), False)


def test_num_samples_is_shared_out_over_domains():
    assert load("var", "quick", ["corpus.num_samples = 601"]).corpus.documents_per_domain == 101
    million = load("var", "gpu", ["corpus.num_samples = 1_000_000"]).corpus
    assert (million.sources[0].cap, million.documents_per_domain) == (1_000_000, 1_000_000)
    assert million.max_bytes_per_domain >= 1_000_000 * million.max_bytes_per_document
    assert "not a number of documents" in problems("var", overrides=["corpus.num_samples = -4"])["corpus.num_samples"].message


def test_resolved_is_the_whole_declaration_and_loads_back():
    experiment = load("var", "gpu", ["seed=2"])
    assert Experiment.model_validate(resolved(experiment)) == experiment.model_copy(update={"file": ""})
    assert resolved(experiment)["sweep"]["knobs"]["max_entropy"]["unit"] == "nats at 8 experts"


def test_nothing_changes_after_loading():
    with pytest.raises(ValidationError):
        load("var").corpus.salt = "other"


def test_declared_experiments_are_found_by_name():
    assert "var" in declared_names()
    assert declared_path("var").name == "var.toml"
    with pytest.raises(DeclarationError, match="did you mean 'var'"):
        declared_path("vra")


def test_a_plain_file_needs_no_profile(tmp_path):
    assert load(write(tmp_path, "")).name == "mine"
    assert "no such profile" in problems(write(tmp_path, ""), "full")["profile.full"].message


def test_three_planted_mistakes_come_together(tmp_path):
    file = write(tmp_path, '[corpus]\ndocuments_per_domain = "many"\n[uncertainty]\nlevle = 0.9\n[source]\nquantize = "8bits"\n')
    found = problems(file)
    assert set(found) == {"corpus.documents_per_domain", "uncertainty.levle", "source.quantize"}
    assert "valid integer" in found["corpus.documents_per_domain"].message
    assert found["uncertainty.levle"].remedy == "did you mean 'level'?"
    assert found["source.quantize"].remedy == "did you mean '8bit'?"
    assert {one.file for one in found.values()} == {str(file)}


def test_mistyped_misspelt_and_contradictory_fields_come_together(tmp_path):
    file = write(tmp_path, '[corpus]\ncalibration_share = 0.5\ntest_share = 0.5\nsalt = 3\n'
                           "[sweep]\nknobs.min_count = { low = 9, high = 2 }\n"
                           "[anlysis]\n[source]\nbatch_size = 0\n[profile.quick]\ntestbed.heads = 3\nextra = 1\n")
    found = problems(file, overrides=['hypotheses = ["vra"]', "seed = maybe"])
    assert set(found) == {"corpus.test_share", "corpus.salt", "sweep.knobs.min_count", "anlysis", "source.batch_size", "testbed.heads",
                          "extra", "hypotheses.0", "seed"}
    assert found["anlysis"].remedy == "did you mean 'analysis'?"
    assert found["testbed.heads"].file.endswith("[profile.quick]")
    assert found["hypotheses.0"].file.startswith("--set")
    assert "known: var" in found["hypotheses.0"].remedy
    assert "in quotes" in found["seed"].remedy


def test_the_message_lists_every_problem_with_its_file():
    with pytest.raises(DeclarationError, match=r"2 mistakes") as caught:
        load("var", "quick", ["uncertainty.levle = 1", "sweep.n_trials = 3"])
    assert str(caught.value).count("\n") == 2


def test_a_syntax_error_has_line_and_column(tmp_path):
    found = problems(write(tmp_path, "[corpus\n"))
    assert "line 3, column 8" in found["syntax"].message


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b'title = "\xff"\n')
    assert "not UTF-8" in problems(file)["encoding"].message


@pytest.mark.parametrize("number", ["true", "3.5", '"3"', "nan"])
def test_a_count_is_a_whole_number(number):
    assert set(problems("var", overrides=[f"source.batch_size = {number}"])) == {"source.batch_size"}


@pytest.mark.parametrize("unit", ["token", "tokens", "paragraph"])
def test_only_documents_are_resampled(unit):
    found = problems("var", overrides=[f'uncertainty.unit = "{unit}"'])["uncertainty.unit"]
    assert found.remedy == 'write unit = "document"'
    assert ("25 %" in found.message) == unit.startswith("token")


@pytest.mark.parametrize("threshold", ["0.5", '"0.5"', '"0.5 nats"', '"half"', '"0.5 nats at 1 experts"', '"1.2.3 nats at 8 experts"'])
def test_an_entropy_threshold_without_its_unit_is_refused(threshold):
    found = problems("var", overrides=[f"analysis.entropy_threshold = {threshold}"])["analysis.entropy_threshold"]
    assert "0.5 nats at 8 experts" in found.remedy


@pytest.mark.parametrize("threshold", ["3 nats at 8 experts", "0 nats at 8 experts", "1 of ln E"])
def test_an_entropy_threshold_that_everything_or_nothing_passes_is_refused(threshold):
    found = problems("var", overrides=[f'analysis.entropy_threshold = "{threshold}"'])
    assert "every or no token" in found["analysis.entropy_threshold"].message


def test_the_entropy_threshold_scales_with_ln_E():
    seed = AnalysisSpec()
    assert seed.entropy_nats(8) == pytest.approx(0.5)
    assert seed.entropy_share == pytest.approx(0.2404, abs=5e-5)  # metrics specification 2.4
    assert seed.entropy_nats(16) == pytest.approx(0.667, abs=5e-4)  # metrics specification 2.4
    bits = AnalysisSpec(entropy_threshold="0.5 bits at 8 experts")
    assert bits.entropy_nats(8) == pytest.approx(0.5 * math.log(2))
    assert AnalysisSpec(entropy_threshold="0.24 of ln E").entropy_share == 0.24
    assert AnalysisSpec(entropy_threshold="0.24 normalised").entropy_share == 0.24


def test_the_swept_range_has_a_unit():
    assert EntropyKnob(low=0.1, high=1.0).low_share == pytest.approx(0.1 / math.log(8))
    knob = "sweep.knobs.max_entropy"
    assert "cannot read" in problems("var", overrides=[f'{knob}.unit = "nits"'])[f"{knob}.low"].message
    assert "every or no token" in problems("var", overrides=[f"{knob}.high = 3.0"])[f"{knob}.high"].message


def test_a_swept_range_without_unit_is_refused(tmp_path):
    found = problems(write(tmp_path, "[sweep]\nknobs.max_entropy = { low = 0.1, high = 0.9 }\n"))
    assert found["sweep.knobs.max_entropy"].remedy == 'add unit = "nats at 8 experts"'


def test_a_study_has_at_least_32_trials():
    assert set(problems("var", overrides=["sweep.n_trials = 31"])) == {"sweep.n_trials"}


@pytest.mark.parametrize(("said", "field", "words"), [
    (['corpus.domains = ["code"]'], "corpus.domains", "one domain"),
    (["corpus.domains = []"], "corpus.domains", "no domain"),
    (['corpus.domains = ["code", "code", "news"]'], "corpus.domains", "named twice"),
    (['corpus.name = "datasets"'], "corpus.sources", "no domain"),
    (['corpus.name = "jsonl"'], "corpus.path", "needs a path"),
    (['corpus.sources = [{ name = "a/b", domain = "c" }]'], "corpus.sources", "belong to a datasets corpus"),
    (["corpus.calibration_share = 0.8"], "corpus.test_share", "no training documents"),
    (["sweep.knobs.table_k = [2, 1]"], "sweep.knobs.table_k", "not ascending"),
    (["uncertainty.level = 0.9"], "uncertainty.level", "rank_correlation is judged at 0.95"),
    (["testbed.top_k = 16"], "testbed.top_k", "nothing to choose"),
    (["hypotheses = []"], "hypotheses", "no hypothesis"),
    (['corpus.declared = "nowhere"'], "corpus.declared", "no declared corpus")])
def test_fields_that_contradict_each_other(said, field, words):
    assert words in problems("var", overrides=said)[field].message


def test_one_domain_is_allowed_where_it_is_meant():
    assert load("var", "quick", ['corpus.domains = ["code"]', "corpus.one_domain = true"]).corpus.domains == ("code",)


def test_profiles_extend_each_other_but_not_themselves(tmp_path):
    text = "[profile.a]\nextends = 'b'\nseed = 1\n[profile.b]\nseed = 2\ncorpus.salt = 'b'\n[profile.c]\nextends = 'c'\n"
    one = load(write(tmp_path, text), "a")
    assert (one.seed, one.corpus.salt) == (1, "b")
    assert "extends itself" in problems(write(tmp_path, text), "c")["profile.c"].message


def test_what_the_loader_sets_may_not_stand_in_the_file(tmp_path):
    assert set(problems(write(tmp_path, 'overrides = ["seed=1"]\n'))) == {"overrides"}


def test_specs_are_usable_directly():
    assert CorpusSpec(name="jsonl", path="x", domains=("a", "b")).documents_per_domain is None


@pytest.mark.parametrize("profile", ["gpu_wikitext", "gpu_seed000", "gpu_seed001", "gpu_seed004"])
def test_the_seeds_own_corpora_are_profiles(profile):
    experiment = load("var", profile)
    assert experiment.corpus.name == "datasets"
    assert set(experiment.corpus.domains) == {source.domain for source in experiment.corpus.sources}
    assert (experiment.source.model, experiment.corpus.test_share) == ("mistralai/Mixtral-8x7B-v0.1", 0.63)  # from the profile it extends


def test_umap_is_declared_and_refused_where_its_package_is_missing(monkeypatch):
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: object())
    assert load("spectra", "tiny", ["campaign.umap=true"]).campaign.umap
    assert not load("spectra").campaign.umap
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: None)
    with pytest.raises(DeclarationError) as raised:
        load("spectra", "tiny", ["campaign.umap=true"])
    assert "campaign.umap: the package umap-learn is not installed" in str(raised.value)
    assert "moe-assay[umap]" in str(raised.value)
    load("spectra", "tiny")  # not asked for
