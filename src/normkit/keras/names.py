"""Names of layers and weights that are the same for two builds of a model in one process.

Keras numbers what the user did not name by counters of the process: the same function gives `dense`, `dense_1` the
first time and `dense_2`, `dense_3` the second. Here such names are numbered anew among the children of one layer. A
name that the user gave stays what it is, also where it looks like one of Keras': `Dense(name="dense_1")`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras

from normkit.keras.effective import Unseen
from normkit.keras.inside import names_made
from normkit.select.names import distinct

_GIVEN: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # a layer's name does not change while Keras counts on


def layer_names(parent: Any, children: Sequence[Any]) -> list[str]:
    """What the children of one layer are called: their own names, with Keras' numbers as a fresh process gives them.

    A name that the user gave is first to have it.
    """
    stems = [_stem(parent, child) for child in children]
    numbers: dict[str, list[int]] = {}
    for stem, number in stems:
        if number is not None:
            numbers.setdefault(stem, []).append(number)
    ranks = {stem: sorted(set(given)) for stem, given in numbers.items()}
    names = [stem if number is None else _numbered(stem, ranks[stem].index(number)) for stem, number in stems]
    given_first = sorted(range(len(names)), key=lambda i: stems[i][1] is not None)
    found = dict(zip(given_first, distinct(names[i] for i in given_first), strict=True))
    return [found[i] for i in range(len(names))]


def weight_names(owner: Any, variables: Sequence[Any]) -> list[str]:
    """What the weights of one layer are called. One that has no name of its own bears that of its attribute."""
    names: list[str] = []
    nameless = 0
    for variable in variables:
        name = str(getattr(variable, "name", None) or "variable").rpartition("/")[2].partition(":")[0]
        if re.fullmatch(r"variable(_\d+)?", name):
            name = _attribute(owner, variable) or _numbered("variable", nameless)
            nameless += name.startswith("variable")
        names.append(name.replace(".", "_"))
    return distinct(names)


def _stem(parent: Any, child: Any) -> tuple[str, int | None]:
    """The child's name without Keras' number, and that number (0 for none); None where the user gave the name."""
    name = str(getattr(child, "name", "") or type(child).__name__)
    halves = ("forward_", "backward_") if isinstance(parent, keras.layers.Bidirectional) else ()
    before = next((half for half in halves if name.startswith(half)), "")
    kind = type(child.layer if isinstance(child, Unseen) else child)
    own = re.fullmatch(rf"{re.escape(snake(kind.__name__))}(?:_(\d+))?", name.removeprefix(before))
    if own is None or (own[1] and _is_given(child, own[0].removesuffix(f"_{own[1]}"), int(own[1]))):
        return name.replace(".", "_").replace("/", "_"), None
    return before + name.removeprefix(before).removesuffix(f"_{own[1]}"), int(own[1] or 0)


def _is_given(layer: Any, stem: str, number: int) -> bool:
    """Did the user give this name, which looks like one of Keras'? Keras does not say so itself.

    It has not come to that number, or the name stands in a program: Python keeps one string of each that does, and
    one that Keras puts together is another. What is neither, as f"dense_{i}" after many unnamed layers, passes for
    Keras' own.
    """
    if layer not in _GIVEN:
        name = str(layer.name)
        _GIVEN[layer] = number >= names_made(stem) or sys.intern(name[:1] + name[1:]) is layer.name
    return _GIVEN[layer]


def snake(name: str) -> str:
    """A class name as Keras makes a layer's name of it.

    >>> snake("BatchNormalization"), snake("Conv2D"), snake("LSTM"), snake("MyMLP")
    ('batch_normalization', 'conv2d', 'lstm', 'my_mlp')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _numbered(stem: str, number: int) -> str:
    return f"{stem}_{number}" if number else stem


def _attribute(owner: Any, variable: Any) -> str | None:
    held = vars(owner) if hasattr(owner, "__dict__") else {}
    return next((name.lstrip("_") for name, value in held.items() if value is variable), None)
