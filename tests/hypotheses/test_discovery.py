"""Hypotheses are found by name, and each of them answers the same questions."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hypotheses
from hypotheses.claim import canonical_json
from hypotheses.seed_rules import GRADES, RULES


def test_var_is_found_and_the_template_is_not():
    assert "var" in hypotheses.names()
    assert "template" not in hypotheses.names()


def test_an_unknown_name_lists_the_known_and_the_closest():
    with pytest.raises(hypotheses.UnknownHypothesisError, match=r"did you mean 'var'\? known: var"):
        hypotheses.find("vra")


@pytest.mark.parametrize("name", hypotheses.names())
def test_every_hypothesis_keeps_the_contract(name):
    claim = hypotheses.find(name)
    assert claim.name == name
    assert callable(hypotheses.evaluator(name))
    assert claim.criteria and len({one.name for one in claim.criteria}) == len(claim.criteria)
    assert all(one.source and one.unit and one.population for one in claim.criteria)
    assert set(claim.bands) <= {one.name for one in claim.criteria}
    assert all(band.grade in GRADES for bands in claim.bands.values() for band in bands)
    assert claim.seed_rule is None or claim.seed_rule in RULES
    assert canonical_json(claim.declaration())  # plain values only
    assert claim.fingerprint == claim.fingerprint


def test_var_has_the_bounds_of_seed_003():
    var = hypotheses.find("var")
    assert {one.name: one.inequality for one in var.criteria} == {
        "rank_correlation": "< -0.4", "low_entropy_share": ">= 0.3", "fastpath_coverage": "> 0.4"}


def test_listing_hypotheses_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'mlflow', 'optuna', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'numba', 'polars', 'pyarrow'}"
    code = f"import sys, hypotheses; hypotheses.find('var'); import hypotheses.judge; print({heavy} & set(sys.modules) or 'none')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "none"
