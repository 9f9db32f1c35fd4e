"""`Penalty`: what `add_penalty` puts on a weight, as a regularizer that Keras saves with the layer."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from normkit import penalize
from normkit.keras.inside import outright, tensor_of
from normkit.penalize.coefficients import coefficients
from normkit.spectrum import spectral_start

ITERATIONS = 10  # of the power iteration, from the same start at each call: Keras gives a regularizer no state

Term = Callable[[Any, tuple[int, ...], Any], Any]

TERMS: dict[str, Term] = {  # name -> (w, axes kept, reference) -> one number
    "l1": lambda w, kept, reference: penalize.l1(w),
    "l2": lambda w, kept, reference: penalize.l2(w),
    "group": lambda w, kept, reference: penalize.group(w, kept),
    "toward": lambda w, kept, reference: penalize.toward(w, reference),
    "orthogonality": lambda w, kept, reference: penalize.orthogonality(w, kept),
    "spectral": lambda w, kept, reference: penalize.spectral(w, spectral_start(w, kept), kept, iterations=ITERATIONS)[
        0
    ],
}
OF_MATRIX = ("group", "orthogonality", "spectral")  # those that ask which axes are kept


@keras.saving.register_keras_serializable(package="normkit")
class Penalty(keras.regularizers.Regularizer):  # type: ignore[misc]
    """A sum of terms of one weight, and of the regularizer that was there before.

        penalty = sum of lambda * term(w)          terms: l1, l2, group, toward, orthogonality, spectral

    terms      {name: lambda}
    kept       the axes that `group`, `orthogonality` and `spectral` keep: the rows of the layer's matrix
    reference  the array that `toward` pulls to; it is written into the configuration, as text
    also       the regularizer that was there before, whose value is added
    weights    the names of the weights that it is on

    The value is in Keras' `floatx`; half precision is worked out in float32.
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        *,
        kept: Any = (),
        reference: Any = None,
        also: Any = None,
        weights: Any = (),
    ) -> None:
        self.terms = coefficients(terms)
        self.kept = tuple(int(axis) for axis in kept)
        self.reference = _decoded(reference)
        self.also = keras.regularizers.get(also)
        self.weights = tuple(weights)

    def __call__(self, x: Any) -> Any:
        value = sum(self.values(x).values())
        return value if self.also is None else value + keras.ops.cast(self.also(x), _floatx())

    def values(self, x: Any) -> dict[str, Any]:
        """{name: lambda * term} of its own terms."""
        w = tensor_of(x)
        given = [] if self.reference is None else [_like(self.reference, w)]
        return {
            name: keras.ops.cast(outright(partial(_term, TERMS[name], times, self.kept), w, *given), _floatx())
            for name, times in self.terms.items()
        }

    def get_config(self) -> dict[str, Any]:
        return {
            "terms": dict(self.terms),
            "kept": list(self.kept),
            "reference": None if self.reference is None else _encoded(self.reference),
            "also": keras.regularizers.serialize(self.also) if self.also is not None else None,
            "weights": list(self.weights),
        }


def _term(term: Term, times: float, kept: tuple[int, ...], w: Any, reference: Any = None) -> Any:
    return times * term(w, kept, reference)


def _floatx() -> str:
    return str(keras.config.floatx())


def _like(array: Any, w: Any) -> Any:
    return keras.ops.convert_to_tensor(array, keras.backend.standardize_dtype(w.dtype))


def _encoded(array: Any) -> dict[str, Any]:
    data = np.ascontiguousarray(array)
    text = base64.b64encode(data.astype(data.dtype.newbyteorder("<")).tobytes()).decode("ascii")
    return {"shape": list(data.shape), "dtype": data.dtype.name, "base64": text}


def _decoded(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    raw = base64.b64decode(given["base64"])
    return np.frombuffer(raw, np.dtype(given["dtype"]).newbyteorder("<")).reshape(given["shape"])
