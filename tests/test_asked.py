"""Numbers as users give them, of whichever library, and one of several arguments."""

from __future__ import annotations

import numpy as np
import pytest

from normkit import ArgumentError
from normkit.asked import known, number, one_of
from normkit.constrain.asked import one_limit
from normkit.decay.asked import checked_request
from normkit.penalize.coefficients import TERMS, coefficients

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5, dtype=torch.bfloat16)], ids=repr
)
def test_a_single_number_of_any_library_is_one(value):
    assert number(value, "l2") == 0.5


@pytest.mark.parametrize("value", [0, 1, np.int64(1), torch.tensor(1)])
def test_a_whole_number_is_a_number(value):
    assert number(value, "l2") == float(value)


REFUSED = {
    "True": True,
    "'0.1'": "0.1",
    "None": None,
    "-1": -1,
    "nan": float("nan"),
    "inf": float("inf"),
    "[0.1]": [0.1],
    "<ndarray of shape (2,)>": np.ones(2),
    "<Tensor of shape (1,)>": torch.ones(1),
    "tensor(True)": torch.tensor(True),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_number_of_at_least_0_is_refused(said):
    with pytest.raises(ArgumentError) as refused:
        number(REFUSED[said], "l2", advice=", such as 1e-4")
    assert str(refused.value) == f"l2={said}: expected a finite number of at least 0, such as 1e-4"


def test_a_number_that_is_trained_is_refused():
    with pytest.raises(ArgumentError, match="of at least 0 without a gradient"):
        number(torch.tensor(0.1, requires_grad=True), "l2")


def test_a_number_without_a_value_is_not_known():
    assert known(torch.empty((), device="meta")) is None


def test_above_excludes_the_bound():
    assert number(1e-9, "lr", above=0.0) == 1e-9
    with pytest.raises(ArgumentError, match="lr=0: expected a finite number above 0"):
        number(0, "lr", above=0.0)


@pytest.mark.parametrize(
    ("given", "said"), [({"a": None, "b": False}, "none of them"), ({"a": 1, "b": 2.5}, "a=1, b=2.5")]
)
def test_none_and_several_are_refused(given, said):
    with pytest.raises(ArgumentError, match=f"constrain takes one of a, b in a call, and was given {said}"):
        one_of(given, "constrain")


def test_coefficients_are_those_above_0():
    assert coefficients(dict.fromkeys(TERMS) | {"l1": 0, "l2": 1e-4}) == {"l2": 1e-4}
    with pytest.raises(ArgumentError, match="penalty: no coefficient above 0 among l1, l2; give one"):
        coefficients({"l1": 0.0, "l2": None})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"max_norm": 3}, ("max_norm", 3.0)),
        ({"unit_norm": True, "hold": None}, ("unit_norm", True)),
        ({"min_max_norm": [1, 2]}, ("min_max_norm", (1.0, 2.0))),
        ({"hold": "initial"}, ("hold", "initial")),
    ],
)
def test_a_limit_and_its_value(given, found):
    assert one_limit(given) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hold": "first"}, "hold='first': expected a length"),
        ({"unit_norm": 2.0}, "unit_norm=2.0: expected True"),
        ({"max_norm": 0}, "max_norm=0: expected a length, a finite number above 0"),
        ({"min_max_norm": 2.0}, "min_max_norm=2.0: expected two lengths"),
    ],
)
def test_what_is_no_limit_is_refused(given, said):
    with pytest.raises(ArgumentError, match=said):
        one_limit(given)


NOTHING = {"lr_ref": None, "reference": None, "length": None, "per": "tensor"}


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("adamw", {}, "kind='adamw': expected one of 'l2', 'decoupled'"),
        (
            "decoupled",
            {"lr_ref": 0.1},
            "lr_ref=0.1 is of no use with kind='decoupled'; it belongs to 'independent' and",
        ),
        ("l2", {"reference": "initial"}, "reference='initial' is of no use with kind='l2'; it belongs to 'toward'"),
        ("toward", {}, "kind='toward' needs one of reference= and length=, and neither was given"),
        ("toward", {"reference": "initial", "length": 1.0}, "and both were given"),
        ("toward", {"reference": "start"}, "reference='start': expected 'initial', or arrays by name"),
        ("toward", {"length": -1}, "length=-1: expected a finite number of at least 0, or 'initial'"),
        ("decoupled", {"per": "out"}, "per='out': only a length has groups"),
    ],
)
def test_what_a_kind_has_no_use_for_is_refused(kind, given, said):
    with pytest.raises(ArgumentError, match=said):
        checked_request(kind, **NOTHING | given)


def test_a_request_gives_its_kind():
    assert checked_request("toward", **NOTHING | {"length": "initial", "per": "out"}).name == "toward"
