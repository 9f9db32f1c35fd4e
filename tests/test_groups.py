"""Which axes `per` keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normkit.errors import ArgumentError
from normkit.groups import kept_axes
from normkit.types import Param

CONV = Param("conv.weight", (64, 3, 5, 5), "float32", "kernel", layer="Conv2d", out_axes=(0,), in_axes=(1,))
SCALE = Param("bn.weight", (64,), "float32", "scale", layer="BatchNorm2d")


@pytest.mark.parametrize(
    ("per", "kept"),
    [
        ("tensor", ()),
        (0, (0,)),
        (-1, (3,)),
        ((1, -4), (1, 0)),
        ([2], (2,)),
        ((), ()),
        (np.int64(1), (1,)),
        ("out", (0,)),
        ("in", (1,)),
    ],
)
def test_kept_axes(per, kept):
    assert kept_axes(per, CONV.shape, CONV) == kept


@settings(deadline=None)  # the first call may compile
@given(st.integers(1, 6), st.data())
def test_negative_axes_are_the_same_axes(ndim, data):
    axes = data.draw(st.lists(st.integers(0, ndim - 1), unique=True))
    assert kept_axes(axes, [1] * ndim) == kept_axes([each - ndim for each in axes], [1] * ndim) == tuple(axes)


WRONG = {
    "too large": (4, None, r"per is 4, and an array of shape \(64, 3, 5, 5\) has no axis 4"),
    "too small": ((0, -5), None, r"per is \(0, -5\), and an array of shape \(64, 3, 5, 5\) has no axis -5"),
    "twice": ((1, -3), None, r"per is \(1, -3\), which names an axis of shape \(64, 3, 5, 5\) twice; name each once"),
    "a word": ("rows", None, "per is 'rows'; it must be 'tensor', 'out', 'in', or the number"),
    "truth": (True, None, "per is True; it must be"),
    "float": (1.0, None, "per is 1.0; it must be"),
    "None": (None, None, "per is None; it must be"),
    "words in a tuple": (("out",), None, "per is .* it must be"),
    "no parameter": ("out", None, r"per is 'out', but an array of shape \(64, 3, 5, 5\) does not say which these are"),
    "a layer that does not say": (
        "in",
        SCALE,
        "per is 'in', but BatchNorm2d does not say which axes of bn.weight of shape .*: give the numbers of the",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_per(name):
    per, param, sentence = WRONG[name]
    with pytest.raises(ArgumentError, match=sentence):
        kept_axes(per, CONV.shape, param)
