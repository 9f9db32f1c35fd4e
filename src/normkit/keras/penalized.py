"""Which weights a penalty is on, the axes that it keeps of each, and what they are pulled to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, check_per, kept_axes
from normkit.keras.effective import settled
from normkit.keras.regularizer import OF_MATRIX, TERMS
from normkit.keras.walk import Located, check_model, walk
from normkit.penalize.terms import refuse_reference
from normkit.select import select as select_params


def named(*coefficients: Any) -> dict[str, Any]:
    return dict(zip(TERMS, coefficients, strict=True))


def taken(model: Any, select: Any) -> list[Located]:
    """The weights that a rule takes; of a normalized one the effective weight.

    Raises: ArgumentError for what is no model, and where nothing is taken.
    """
    check_model(model)
    whole = [item for item in walk(model) if item.param.part in ("whole", "effective")]
    names = {param.name for param in select_params([each.param for each in whole], select, default="kernel").chosen}
    found = [each for each in whole if each.param.name in names and each.param.trainable]
    if not found:
        roles = ", ".join(dict.fromkeys(each.param.role for each in whole if each.param.trainable)) or "nothing"
        raise ArgumentError(
            f"{model.name} has no trainable weight with the role kernel, which a penalty takes by default; it trains "
            f"{roles}: say which with select="
        )
    for each in found:
        if "float" not in each.param.dtype:
            raise ArgumentError(f"{each.param.name} is of {each.param.dtype}; a penalty is of floating-point numbers")
    return found


def kept_of(chosen: Sequence[Located], terms: Mapping[str, float], per: Per) -> list[tuple[int, ...]]:
    check_per(per)
    if not any(name in terms for name in OF_MATRIX):
        return [() for _ in chosen]
    return [kept_axes(per, each.param.shape, each.param) for each in chosen]


def references_of(found: Mapping[str, Any], given: Any, terms: Mapping[str, float]) -> dict[str, Any]:
    """{name: array} for `toward`; nothing without it.

    Raises: ArgumentError for a reference that is missing, of another shape, or of no weight that is taken.
    """
    if "toward" not in terms:
        if given is not None and not isinstance(given, str):
            raise ArgumentError(f"reference={in_brief(given)} is for toward=, which was not given")
        return {}
    if isinstance(given, str) and given == "initial":
        return {name: _array(variable) for name, variable in found.items()}
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"toward= needs reference=, {{name: array}} as nk.norms calls the weights, and it is {in_brief(given)}"
        )
    for name in given:
        if name not in found:
            raise ArgumentError(f"reference has {name!r}, and the weights taken are {', '.join(list(found)[:8])}")
    for name, tensor in found.items():
        if name not in given:
            raise ArgumentError(
                f"reference has no array for {name}, only for {', '.join(list(given)[:8]) or 'nothing'}; add it, or "
                f"leave it out with select='!{name}'"
            )
        refuse_reference(tensor, given[name])
    return {name: _array(value) for name, value in given.items()}


def _array(value: Any) -> Any:
    """A copy in NumPy, of float32 at least."""
    array = np.array(keras.ops.convert_to_numpy(settled(value) if isinstance(value, keras.Variable) else value))
    return array if array.dtype == np.float64 else array.astype(np.float32)
