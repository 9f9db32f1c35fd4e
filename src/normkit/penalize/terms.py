"""The terms of a penalty, each without its coefficient: `penalty = lambda * term(w)`, summed over the weights.

Each is one number in w's dtype, in float32 for half precision, and has finite first and second derivatives everywhere:
at a zero tensor and at a zero group the first is the subgradient 0. None is divided by the number of entries or of
samples, and none is times lr: the optimizer multiplies the gradient by its rate.
"""

from __future__ import annotations

from math import prod
from typing import Any

from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.lengths import math_for, measured, other_axes
from normkit.spectrum import stretched
from normkit.spectrum.power import as_matrix


def l1(w: Any) -> Any:
    """Sum of the absolute values.

        sum |w|          gradient sign(w), 0 at 0

    Shapes: w [any] -> one number.
    Raises: ArgumentError for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> float(l1(np.array([[3.0, -4.0]])))
    7.0
    """
    xp = math_for(w)
    return _number(xp, xp.absolute(xp.widened(w)))


def l2(w: Any) -> Any:
    """Half the sum of squares: `lambda * l2(w)` pulls as the coupled `weight_decay=lambda` of an optimizer does.

        1/2 sum w^2          gradient w

    Without the half (Keras' `L2(l)`: `l sum w^2`) the coefficient is another: lambda = 2 l.

    Shapes: w [any] -> one number.
    Raises: ArgumentError for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> float(l2(np.array([[3.0, -4.0]])))
    12.5
    """
    xp = math_for(w)
    wide = xp.widened(w)
    return 0.5 * _number(xp, wide * wide)


def group(w: Any, per: Per = 0) -> Any:
    """Group lasso: the length of each group, not squared, so that whole groups go to zero.

        sum_g sqrt(n) |w_g|_2          n entries in each group; gradient sqrt(n) w_g / |w_g|, 0 for a zero group

    Shapes: w [any], a group per index of the axes in `per` -> one number.
    Raises: ArgumentError for an axis that w does not have, and for what is no array of floating-point numbers.
    Source: Yuan & Lin 2006 (group lasso, weighted by the square root of the size).

    >>> import numpy as np
    >>> round(float(group(np.array([[3.0, 4.0], [0.0, 0.0]]))), 6)
    7.071068
    """
    xp = math_for(w)
    others = other_axes(per, w.shape)
    _, scale, length, zero = measured(xp, xp.widened(w), others, 2)
    size = prod([int(w.shape[axis]) for axis in others])
    return size**0.5 * _number(xp, xp.where(zero, xp.ones(length) * 0, scale * length))


def toward(w: Any, reference: Any) -> Any:
    """Half the squared distance from a reference, such as the weights before fine-tuning (L2-SP).

        1/2 sum (w - reference)^2          gradient w - reference

    Shapes: w [any], reference [as w] -> one number. The reference is a constant.
    Raises: ArgumentError for a reference of another shape, and for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> float(toward(np.array([3.0, -4.0]), np.array([3.0, -2.0])))
    2.0
    """
    refuse_reference(w, reference)
    xp = math_for(w)
    apart = xp.widened(w) - xp.widened(xp.constant(reference))
    return 0.5 * _number(xp, apart * apart)


def orthogonality(w: Any, per: Per = 0) -> Any:
    """How far the rows of the layer's matrix W are from orthonormal; its columns where they are fewer.

        |W W' - 1|_F^2          or |W'W - 1|_F^2          gradient 4 (W W' - 1) W

    Shapes: w [any], a row of W per index of the axes in `per` -> one number. The smaller of the two products is made.
    Raises: ArgumentError for an axis that w does not have, and for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> float(orthogonality(np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])))
    9.0
    """
    xp = math_for(w)
    matrix = as_matrix(xp, xp.widened(w), other_axes(per, w.shape))
    back = xp.transposed(matrix, (1, 0))
    wide = int(matrix.shape[0]) <= int(matrix.shape[1])
    product = xp.matrix_product(matrix, back) if wide else xp.matrix_product(back, matrix)
    place = xp.places(product)
    off = product - xp.as_type_of(place == xp.transposed(place, (1, 0)), product)
    return _number(xp, off * off)


def spectral(w: Any, u: Any, per: Per = 0, *, iterations: int = 1) -> tuple[Any, Any]:
    """Half the square of the largest singular value, estimated from below, and the `u` for the next call.

        1/2 sigma^2          sigma = |W'u|, u after `iterations` of power iteration; gradient sigma u v', 0 at W = 0

    u and v = W'u / |W'u| are constants for derivatives. `spectrum.spectral_start` gives a u to begin with; from step to
    step one iteration suffices for a weight that changes slowly.

    Shapes: w [any], u [size of each axis in `per`, 1 for the others] -> one number, [as u].
    Raises: ArgumentError for a u of another shape, an axis that w does not have, iterations below 0.
    Source: Yoshida & Miyato 2017, arXiv:1705.10941.

    >>> import numpy as np
    >>> value, u = spectral(np.array([[3.0, 0.0], [0.0, 4.0]]), np.ones((2, 1)), iterations=50)
    >>> round(float(value), 6)
    8.0
    """
    found = stretched(w, u, per, iterations=iterations)
    return 0.5 * found.sigma * found.sigma, found.u


def refuse_reference(w: Any, reference: Any) -> None:
    """Raises: ArgumentError where the reference is no array of w's shape."""
    if not hasattr(reference, "shape") or tuple(reference.shape) != tuple(w.shape):
        given = f"of shape {tuple(reference.shape)}" if hasattr(reference, "shape") else type(reference).__name__
        raise ArgumentError(f"the reference is {given} beside a weight of shape {tuple(w.shape)}; expected one like it")


def _number(xp: Any, x: Any) -> Any:
    return xp.reshaped(xp.total(x, tuple(range(len(x.shape)))), ())
