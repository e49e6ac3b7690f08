"""What the seed's own rule is fed: its forms computed from single tokens, and p over trainings; I(E;D) by weight; experts without a selection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from analysis.metrics.diversity import diversity_nmi_topk_seed
from analysis.metrics.specialization import expert_affinity_seed, mi_E_D, purity_seed
from analysis.metrics.usage import RULE_OF_THREE
from hypotheses import spectra_rows
from hypotheses.h05_spectra import evaluate
from hypotheses.seed_rules import seed_004
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_runs import RunCounts
from hypotheses.spectra_seed import CONFIDENCE, FLAGS, WEIGHTED, weight_forms
from tests.hypotheses import spectra_worlds as worlds

WORLD = worlds.World(layers=2)
SMALL = worlds.World(layers=1, seeds=3, test=20, calibration=2, length=16)
SETTINGS = SpectraSettings(n_bootstrap=49)


def tokens_of(run, layer):
    """Ids, weights and domain number of every test token."""
    (batch,) = run.trace.batches(split="test", layers=[layer])
    domain = {row.document: worlds.DOMAINS.index(row.domain) for row in run.trace.documents}
    return batch.ids[0].astype(int), batch.weights[0].astype(np.float64), np.array([domain[one] for one in batch.document.tolist()])


@pytest.fixture(scope="module")
def run():
    return worlds.run("spectra", 0, worlds.SPECIALISED, WORLD)


def test_the_seeds_forms_are_those_of_its_single_tokens(run, monkeypatch):
    monkeypatch.setattr(spectra_rows, "ROWS_AT_ONCE", 700)  # in several parts
    draws, rows = weight_forms(RunCounts(run, SETTINGS))
    found = {(row["layer"], row["reference"]): row["value"] for row in rows}
    tables = []
    for layer in range(2):
        ids, weights, domain = tokens_of(run, layer)
        share = weights / weights.sum(axis=1, keepdims=True)
        for flag, given in ((True, share), (False, weights)):
            assert found[layer, f"confidence_seed, {FLAGS[flag]}"] == pytest.approx((given**2).sum(axis=1).mean())
            assert found[layer, f"gini_simpson_seed, {FLAGS[flag]}"] == pytest.approx(1 - (given**2).sum(axis=1).mean())
        counts = np.zeros((3, 8), int)
        np.add.at(counts, (domain[:, None], ids), 1)
        assert found[layer, "expert_affinity_seed"] == pytest.approx(float(expert_affinity_seed(counts)))
        assert found[layer, "purity_seed"] == pytest.approx(float(purity_seed(counts)))
        chosen = np.zeros((len(ids), 8), bool)
        np.put_along_axis(chosen, ids, True, axis=1)
        assert found[layer, "diversity_nmi_seed"] == pytest.approx(diversity_nmi_topk_seed(chosen))
        by_weight = np.zeros((3, 8))
        np.add.at(by_weight, (domain[:, None], ids), weights)
        tables.append(by_weight)
    assert draws[WEIGHTED].plug_in[:2] == pytest.approx(mi_E_D(np.stack(tables)))
    assert draws[WEIGHTED].plug_in[2] == pytest.approx(float(mi_E_D(np.stack(tables)).mean()))


def test_slots_of_one_weight_are_slots_alike(run):
    """The weighted form is the headline's with other cells: the same documents, groups and interval."""
    (batch,) = run.trace.shards
    alike = replace(batch, weights=tuple(np.full_like(one, 0.5) for one in batch.weights))
    counts = RunCounts(replace(run, trace=replace(run.trace, shards=[alike])), SETTINGS)
    weighted, plain = weight_forms(counts)[0][WEIGHTED].estimates(), counts.domain_draws()["mi_E_D"].estimates()
    for a, b in zip(weighted, plain, strict=True):
        assert (a.value, a.low, a.high, a.unit) == pytest.approx((b.value, b.low, b.high, b.unit))


def test_without_weights_or_scores_there_is_no_confidence(run):
    (batch,) = run.trace.shards
    bare = replace(run, trace=replace(run.trace, shards=[replace(batch, weights=None)]))
    draws, rows = weight_forms(RunCounts(bare, SETTINGS))
    assert draws == {}
    assert all(np.isnan(row["value"]) for row in rows if "confidence" in row["reference"] or "gini" in row["reference"])
    _, rows = weight_forms(RunCounts(replace(run, scored=False), SETTINGS))
    unknown = {row["reference"] for row in rows if np.isnan(row["value"])}
    assert unknown == {f"{name}, {words}" for name in ("confidence_seed", "gini_simpson_seed") for words in FLAGS.values()}


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(worlds.evidence(worlds.COLLAPSING, worlds.SPECIALISED, SMALL, settings=SETTINGS))


def test_the_seeds_rule_is_fed_the_seeds_forms(evaluation):
    references, runs = ({name: np.array(values) for name, values in evaluation.tables[table].items()} for table in ("references", "runs"))
    rows = {row["label"]: row for row in evaluation.facts["seed_rule"]["rows"]}
    sources = {"Routing Confidence": (references, "reference", CONFIDENCE, "value"),
               "Silhouette Score": (references, "reference", "silhouette value", "value"),
               "Expert Diversity (NMI)": (references, "reference", "diversity_nmi_seed", "value"),
               "Domain Purity (avg)": (runs, "metric", "purity_seed", "plug_in"),
               "Expert Collapse Rate": (runs, "metric", "collapse_rate", "plug_in")}
    for label, (table, column, name, value) in sources.items():
        arms = []
        for arm, words in (("baseline", "switch_top2"), ("treatment", "spectra")):
            of_arm = table[value][(table[column] == name) & (table["arm"] == words) & (table["layer"] == 0)].astype(float)
            assert len(of_arm) == 3
            assert rows[label][arm] == pytest.approx(of_arm.mean())
            arms.append(of_arm)
        assert rows[label]["p"] == pytest.approx(ttest_ind(*arms).pvalue)
    assert 0.5 <= rows["Routing Confidence"]["baseline"] <= 1  # of two experts' weights that sum to 1
    corrected = dict(zip(evaluation.tables["comparison"]["metric"], evaluation.tables["comparison"]["baseline"], strict=True))
    assert rows["Domain Purity (avg)"]["baseline"] != pytest.approx(corrected["purity_cross_fitted"], rel=1e-3)


def row_of(**changed):
    return {"label": "Purity", "form": "in-sample", "baseline": 0.3, "treatment": 0.4, "better": "higher", "expected": ["", ""], "p": 0.001} | changed


@pytest.mark.parametrize(("changed", "supported", "reason"), [
    ({}, True, None), ({"p": 0.02}, False, None), ({"treatment": 0.2}, False, None), ({"better": "lower"}, False, None),
    ({"p": None}, None, "no p of Purity, which needs two trainings that differ"), ({"p": None, "treatment": 0.3}, False, None),
    ({"treatment": None}, None, "no Purity")])
def test_the_seed_asks_for_the_better_number_and_for_p(changed, supported, reason):
    found = seed_004({"rows": [row_of(**changed)]})
    assert (found["supported"], found.get("reason")) == (supported, reason)
    assert all(line["text"].startswith("Purity (in-sample): 0.300 to ") for line in found["lines"])


def test_experts_without_a_selection_have_the_bound_that_documents_give(evaluation):
    table = {name: np.array(values) for name, values in evaluation.tables["collapse"].items()}
    assert table["n_dead"][table["arm"] == "switch_top2"].tolist() == [2, 3, 2]
    assert table["n_dead"][table["arm"] == "spectra"].tolist() == [0] * 3
    assert table["dead"][table["arm"] == "switch_top2"].tolist() == ["0 1", "0 1 2", "0 1"]
    assert table["load_bound"][table["arm"] == "switch_top2"] == pytest.approx(np.full(3, RULE_OF_THREE / (3 * 20) * 8))
    assert np.isnan(table["load_bound"][table["arm"] == "spectra"]).all()
