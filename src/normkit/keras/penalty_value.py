"""`penalty`: the terms as one number, for a training step of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.keras.penalized import kept_of, named, references_of, taken
from normkit.keras.regularizer import OF_MATRIX, Penalty
from normkit.keras.walk import check_model
from normkit.penalize.coefficients import coefficients


def penalty(
    model: Any,
    *,
    l1: float | None = None,
    l2: float | None = None,
    group: float | None = None,
    toward: float | None = None,
    orthogonality: float | None = None,
    spectral: float | None = None,
    select: Any = None,
    per: Per | None = None,
    reference: Any = None,
) -> Any:
    """The same terms as one number, for a training step of one's own: `loss = loss + nk.penalty(model, l2=1e-4)`.

    model      a Keras model; or a tensor, a list or a dict of them, as a stateless step has them on JAX: there the
               weights that a model holds are constants for `jax.grad`
    select     which weights of a model (docs: select); default: kernels
    per        "out" for a model, where its layers know; of tensors the axes kept, or "tensor"
    reference  of `toward`: {name: array} for a model or a dict, a list for a list, an array for a tensor

    The formulas, their units and what is refused are those of `add_penalty`. The value is in Keras' `floatx`.
    """
    terms = coefficients(named(l1, l2, group, toward, orthogonality, spectral))
    if isinstance(reference, str):
        raise ArgumentError(
            f"reference={reference!r}: the weights of this very call are at distance 0; expected arrays that you keep, "
            "as {name: array}, or call add_penalty"
        )
    if isinstance(model, keras.layers.Layer):
        chosen = taken(model, select)
        names, tensors = [each.param.name for each in chosen], [each.variable for each in chosen]
        kept = kept_of(chosen, terms, "out" if per is None else per)
    else:
        names, tensors = _tensors(model, select)
        apart = any(name in terms for name in OF_MATRIX)
        kept = [kept_axes("out" if per is None else per, tuple(each.shape)) if apart else () for each in tensors]
        reference = reference if reference is None or isinstance(model, Mapping) else _listed(reference, model, names)
    found = dict(zip(names, tensors, strict=True))
    references = references_of(found, reference, terms)
    values = [
        Penalty(terms, kept=axes, reference=references.get(name))(each)
        for (name, each), axes in zip(found.items(), kept, strict=True)
    ]
    return sum(values[1:], start=values[0])


def _tensors(given: Any, select: Any) -> tuple[list[str], list[Any]]:
    """Names and tensors of what is no model."""
    if select is not None:
        raise ArgumentError(f"select={in_brief(select)} chooses among a model's weights; give those tensors alone")
    if isinstance(given, Mapping):
        named = {str(name): each for name, each in given.items()}
    else:
        several = isinstance(given, list | tuple)
        named = {str(i): each for i, each in enumerate(given if several else [given])}
    if not named:
        raise ArgumentError(f"model={in_brief(given)} is empty: expected a Keras model, or tensors")
    for name, each in named.items():
        if not hasattr(each, "shape") or not hasattr(each, "dtype"):
            if isinstance(given, list | tuple | Mapping):
                raise ArgumentError(f"model has {in_brief(each)} at {name!r}: expected a tensor")
            check_model(each)
    return list(named), list(named.values())


def _listed(reference: Any, given: Any, names: Sequence[str]) -> dict[str, Any]:
    several = isinstance(given, list | tuple)
    arrays = list(reference) if several and isinstance(reference, list | tuple) else [reference]
    if len(arrays) != len(names):
        raise ArgumentError(f"reference has {len(arrays)} arrays for {len(names)} tensors; give one for each")
    return dict(zip(names, arrays, strict=True))
