"""The length of each group of an array's entries: safe at zero and out of reach of squares, differentiable twice.

    |v|_p = (sum of |v|^p)^(1/p)          over all axes that `per` does not keep

Lengths are taken of v / s, s the power of two at the largest entry of the group, so 1e-23 and 1e25 are neither zero nor
infinite in float32. float16 and bfloat16 are worked out in float32. Derivatives at a group that is zero (all its
entries are) are 0.
"""

from __future__ import annotations

import math
from numbers import Real
from types import ModuleType
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.ops import math_of


def norm_except_dim(v: Any, per: Per = 0, *, p: float = 2) -> Any:
    """The length of each group, with the shape that `g` has.

        |v|_p = (sum of |v|^p)^(1/p)          over all axes that `per` does not keep

    As `torch.norm_except_dim(v, p, per)`, with several axes too, negative ones that count from the end (there, -1 means
    the whole tensor, which is "tensor" here), any p from 1 to infinity, and no overflow. Its derivative at a zero group
    is 0.

    Shapes: v [any] -> [size of each axis in `per`, 1 for the others], in v's dtype.
    Raises: ArgumentError for an axis that v does not have, p below 1, what is no array of floating-point numbers.

    >>> import numpy as np
    >>> v = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> norm_except_dim(v), norm_except_dim(v, -1), norm_except_dim(v, "tensor")
    (array([[5.],
           [0.]]), array([[3., 4.]]), array([[5.]]))
    """
    xp = math_for(v)
    _, scale, length, zero = measured(xp, xp.widened(v), other_axes(per, v.shape), checked(p))
    return xp.as_type_of(xp.where(zero, xp.ones(length) * 0, scale * length), v)


def measured(xp: ModuleType, v: Any, axes: tuple[int, ...], p: float) -> tuple[Any, Any, Any, Any]:
    """v / s, s, the length of v / s, and which groups are zero: there the length is 1, and so is s."""
    top = xp.constant(xp.largest(v, axes))
    scale, zero = xp.power_of_two(top), top == 0
    scaled = v / scale
    return scaled, scale, _length(xp, scaled, axes, p, zero), zero


def math_for(v: Any) -> ModuleType:
    """The fine operations for v.

    Raises: ArgumentError where v is no array of floating-point numbers.
    """
    xp = math_of(v)
    if "float" not in str(getattr(v.dtype, "name", v.dtype)):  # NumPy's text of a dtype of another byte order is >f4
        raise ArgumentError(f"an array of {v.dtype} was given; weights of floating-point numbers were expected")
    return xp


EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}  # other floating-point numbers: 2^-52


TINIEST = {"float16": 2.0**-25, "bfloat16": 2.0**-126, "float32": 2.0**-126}


def epsilon(x: Any) -> float:
    """The distance from 1 to the next number in x's dtype; a value is rounded by half of that at most."""
    return EPSILON.get(str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch."), 2.0**-52)


def tiniest(x: Any) -> float:
    """What rounding to x's dtype changes at most in a number near 0, where it may count as nothing."""
    return TINIEST.get(str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch."), 2.0**-1022)


def other_axes(per: Per, shape: Any) -> tuple[int, ...]:
    """The axes that `per` does not keep: those that a length is taken over."""
    kept = kept_axes(per, shape)
    return tuple(axis for axis in range(len(shape)) if axis not in kept)


def shape_of(x: Any, name: str) -> Any:
    """Raises: ArgumentError where x is no array."""
    if not hasattr(x, "shape"):
        raise ArgumentError(f"{name} is {in_brief(x)}; expected an array, with size 1 along the axes not kept")
    return x.shape


def refuse_shape(g: Any, v: Any, axes: tuple[int, ...], name: str = "g", beside: str = "v") -> None:
    """Raises: ArgumentError where g has not the shape of v with size 1 along `axes`."""
    expected = tuple(1 if axis in axes else size for axis, size in enumerate(v))
    if tuple(g) != expected:
        raise ArgumentError(f"{name} has shape {tuple(g)} beside {beside} of shape {tuple(v)}; expected {expected}")


def refuse_lengths(given: Any, found: Any, name: str) -> None:
    """Raises: ArgumentError where these are neither one number nor one for each group: they would be repeated."""
    shape = tuple(getattr(given, "shape", ()))
    if shape and shape != tuple(found.shape):
        raise ArgumentError(f"{name} has shape {shape}; expected a number, or one for each group: {tuple(found.shape)}")


def checked(p: float) -> float:
    """p as Python's number. Raises: ArgumentError where p is no number of at least 1."""
    if isinstance(p, bool) or not isinstance(p, Real) or not p >= 1:
        raise ArgumentError(f"p={in_brief(p)}: expected a number of at least 1, or math.inf")
    return p if isinstance(p, int) else float(p)


def _length(xp: ModuleType, x: Any, axes: tuple[int, ...], p: float, zero: Any) -> Any:
    """The length of each group, 1 for those that are zero; no derivative looks at these."""
    if p == math.inf:
        raw = xp.largest(x, axes)
    elif p == 2:
        raw = xp.total(x * x, axes)
    elif p == 1:
        raw = xp.total(xp.absolute(x), axes)
    else:
        top = xp.constant(xp.largest(x, axes))
        top = xp.where(zero, xp.ones(top), top)  # up to 2, and its power may be beyond all numbers
        shares = xp.where(zero, xp.ones(x), xp.absolute(x) / top)
        return xp.where(zero, xp.ones(top), top * xp.power(xp.total(xp.power(shares, p), axes), 1 / p))
    raw = xp.where(zero, xp.ones(raw), raw)
    return xp.sqrt(raw) if p == 2 else raw
