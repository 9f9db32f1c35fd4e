"""Weight normalization: a weight as a length times a direction, for each group of its entries.

    w = g v / |v|_p          |v|_p over everything that `per` does not keep; g keeps its axes, the others have size 1

Where a group of v is zero (all its entries are), its length counts as 1: w = g v = 0 there, dL/dg = <dL/dw, v> = 0 and
dL/dv = g dL/dw, and of the second derivatives only d2w/dg dv = 1 is not zero. So everything is finite, to any order.

Lengths are taken of v / s, s the power of two at its largest entry, so 1e-23 and 1e25 are neither zero nor infinite in
float32, and where g is the length of v the result is v to the last bit. float16 and bfloat16 are worked out in float32.
"""

from __future__ import annotations

from typing import Any

from normkit.groups import Per
from normkit.lengths import checked, math_for, measured, other_axes, refuse_shape, shape_of
from normkit.ops import math_of


def normalized(v: Any, g: Any, per: Per = 0, *, p: float = 2) -> Any:
    """The weight that `v` and `g` stand for.

        w = g v / |v|_p

    Shapes: v [any], g [size of each axis in `per`, 1 for the others] -> [as v], in v's dtype.
    Keeps:  v itself, bit by bit, where g is `norm_except_dim(v, per, p=p)` and not rounded to half precision; but for
            entries that are subnormal, also as a share of the largest of their group (below 1e-38 in float32).
    Raises: ArgumentError for a g of another shape, an axis that v does not have, p below 1, and for what is no array of
        floating-point numbers.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, equation 2.

    >>> import numpy as np
    >>> normalized(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[10.0], [7.0]]))
    array([[6., 8.],
           [0., 0.]])
    """
    xp = math_for(v)
    axes = other_axes(per, v.shape)
    refuse_shape(shape_of(g, "g"), v.shape, axes)
    scaled, _, length, _ = measured(xp, xp.widened(v), axes, checked(p))
    return xp.as_type_of(scaled * (xp.widened(g) / length), v)


def gradients(grad_w: Any, v: Any, g: Any, length: Any, per: Per = 0) -> tuple[Any, Any]:
    """What a gradient of w is for v and for g, in closed form, p = 2.

        dL/dg = <dL/dw, v> / |v|          dL/dv = g / |v| (dL/dw - dL/dg v / |v|)

    `length` is |v|, 1 for a zero group. Each of v's gradients is orthogonal to its v.

    Shapes: grad_w, v [any], g and length [kept axes, 1 for the others] -> [as v], [as g].
    Source: Salimans & Kingma 2016, arXiv:1602.07868, equation 3.

    >>> import numpy as np
    >>> gradients(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]]), np.array([[10.0]]), np.array([[5.0]]))
    (array([[ 1.28, -0.96]]), array([[0.6]]))
    """
    xp = math_of(v)
    grad_g = xp.total(grad_w * v, other_axes(per, v.shape)) / length
    return (grad_w - v * (grad_g / length)) * (g / length), grad_g
