"""One model in several `fit`s, and after the last step of one: is it still what a recording is of?"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.errors import NormkitError
from normkit.keras.columns import Columns
from normkit.keras.walk import walk
from normkit.recording.search import find
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

SAME = 1e-6  # relative: sums of equal weights, which a device without float64 adds in another order each time


class Weakly:
    """A thing that is not kept alive, and that copies and pickles of its holder leave behind."""

    def __init__(self, thing: Any = None) -> None:
        self._thing = None if thing is None else weakref.ref(thing)

    def __reduce__(self) -> tuple[type[Weakly], tuple[()]]:
        return Weakly, ()

    def get(self) -> Any:
        """The thing, while it is alive."""
        return None if self._thing is None else self._thing()

    def holds(self, thing: Any) -> bool:
        """Is it that very thing?"""
        return thing is not None and self._thing is not None and self._thing() is thing


def is_newest(model: Any, path: Path) -> bool:
    """Are the weights of `model` those of the newest record at `path`, as after `load_model`?"""
    try:
        past = find(True, path)
        if past is None or past.newest is None:
            return False
        params, newest = past.newest
        located = {item.param.name: item for item in walk(model)}
        there = [located[param.name] for param in params]
        weights = newest.values["weight"][:-1]
    except (NormkitError, LookupError):  # no such file, other tensors, or no record that says
        return False
    shapes = [item.param.shape == param.shape for item, param in zip(there, params, strict=True)]
    return bool(there) and all(shapes) and alike(weights, Columns(there).measure()[0].late.wait()[0])


def note_left(writer: Any, step: int, sums: Mapping[str, NDArray[np.float64]]) -> None:
    """Say in the file what training leaves where no step has made it; the record of the last step stays its own."""
    text = f"weights were changed after step {step} without a step; meta['left'] has the l2 of what is left"
    writer.event("left", text, step=step)
    writer.update_meta({"left": {name: math.sqrt(column[SUMS.index("sq")]) for name, column in sums.items()}})


def alike(one: Matrix, other: Matrix) -> bool:
    """Are these the sums of the same weights?"""
    return one.shape == other.shape and np.allclose(one, other, rtol=SAME, atol=1e-12, equal_nan=True)
