import numpy as np
import pytest

from analysis.metrics.token_class import covariates, token_class, token_length


@pytest.mark.parametrize(("text", "name"), [
    ("the", "latin"), (" the", "space+latin"), ("\u0120the", "space+latin"), ("\u2581\u0434\u0430", "space+cyrillic"), ("7", "digit"),
    (" 1990", "space+digit"), ("(", "symbol"), ("  ", "whitespace"), ("\n", "whitespace"), ("\u010a", "whitespace"), ("", "whitespace"),
    ("\u4e2d", "cjk"),
])
def test_classes(text, name):
    assert token_class(text) == name


def test_length_leaves_out_the_mark_of_a_space():
    assert token_length("\u0120the") == 3 and token_length(" a") == 1


def test_dummies_leave_out_the_most_common_class_and_strings_may_be_missing():
    length, dummies = covariates(["the", "of", "7"], [0, 1, 2, 5])
    assert length.tolist() == [3, 2, 1, 0] and dummies.shape == (2, 4)
    assert np.array_equal(np.sort(dummies.sum(axis=1)), [1, 1])
