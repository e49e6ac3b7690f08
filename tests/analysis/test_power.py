import pytest

from analysis.power import design_effect, documents_needed, effective_tokens, minimum_detectable_effect
from tests.references.cases import case


def test_documents_needed_m06():
    given, expected = case("M06")
    assert documents_needed(given["sd_between_documents"], given["detectable_difference"]) == expected["n_documents"]


def test_design_effect_k04():
    given, expected = case("K04")
    assert design_effect(given["icc"], given["mean_doc_len"], given["cv_doc_len"]) == pytest.approx(expected["deff"], abs=1e-9)
    assert effective_tokens(given["n_docs"], given["mean_doc_len"], given["icc"]) == pytest.approx(expected["n_eff"], abs=1e-9)


def test_detectable_effect_is_143_hundredths_of_the_half_width():
    assert minimum_detectable_effect(1.0) == pytest.approx(1.43, abs=0.001)  # metrics specification 7


def test_no_difference_needs_no_number():
    with pytest.raises(ValueError, match="no number of documents"):
        documents_needed(0.25, 0.0)
