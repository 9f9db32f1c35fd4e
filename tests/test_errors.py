"""How a sentence shows a value: short, on one line, and never the content of a tensor or a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from normkit.errors import MOST, in_brief


class Large:
    """As a model: many lines of repr."""

    def __repr__(self):
        return "Large(\n" + "  (layer): Layer()\n" * 50 + ")"


class Broken:
    def __repr__(self):
        raise RuntimeError("no words for it")


class Pair(NamedTuple):
    """As a transformation of optax: two functions."""

    init: Callable
    update: Callable


def often(step):
    return step > 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "5"),
        (None, "None"),
        ("often", "'often'"),
        (["bias", "conv*"], "['bias', 'conv*']"),
        ((1,), "(1,)"),
        ({1, 2}, "{1, 2}"),
        (np.int64(5), "np.int64(5)"),
        (np.zeros((200, 300)), "<ndarray of shape (200, 300)>"),
        ([np.zeros(9)], "[<ndarray of shape (9,)>]"),
        (np.ndarray, "<class 'numpy.ndarray'>"),
        (Large(), "<Large>"),
        ([Large(), 2], "[<Large>, 2]"),
        (Broken(), "<Broken>"),
        (often, "function often"),
        (partial(often, 2), "function partial"),
        (Pair(often, often), "<Pair>"),
        ({"a": np.zeros(9), "b": {"c": often}}, "{'a': <ndarray of shape (9,)>, 'b': {'c': function often}}"),
    ],
)
def test_values_in_brief(value, words):
    assert in_brief(value) == words


@pytest.mark.parametrize("value", ["x" * 500, list(range(500)), {n: "x" * n for n in range(50)}, [Large()] * 50])
def test_a_long_value_is_cut(value):
    assert len(in_brief(value)) <= MOST
    assert in_brief(value).endswith("...") or in_brief(value).endswith("...]")
