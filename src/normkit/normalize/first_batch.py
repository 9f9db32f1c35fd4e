"""Data-dependent initialization: lengths and biases from what a first batch makes of the directions."""

from __future__ import annotations

from math import prod
from typing import Any

from normkit.groups import Per
from normkit.lengths import math_for, other_axes

LEAST = 1e-12  # of the largest |t| of a channel: a sigma up to this is what rounding leaves of a constant


def started(t: Any, per: Per) -> tuple[Any, Any, Any]:
    """g and b with which g t + b has mean 0 and variance 1 in each channel, and the channels that are constant.

        g = 1 / sigma[t]          b = -mu[t] / sigma[t]          over all axes but those of the channels, `per`

    sigma is of the population, in two passes. Where t is constant, or not finite, no g does it: g = 1, b = -mu.

    Shapes: t = v.x / |v| [any] -> three [size of each axis in `per`, 1 for the others], the last of truth values.
    Raises: ArgumentError for an axis that t does not have, and for what is no array of floating-point numbers.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3.

    >>> import numpy as np
    >>> started(np.array([[1.0, 5.0], [3.0, 5.0]]), 1)
    (array([[1., 1.]]), array([[-2., -5.]]), array([[False,  True]]))
    """
    xp, axes = math_for(t), other_axes(per, t.shape)
    count = max(prod([int(t.shape[axis]) for axis in axes]), 1)
    mean = xp.total(t, axes) / count
    sigma = xp.sqrt(xp.total((t - mean) ** 2, axes) / count)
    constant = ~(sigma > LEAST * xp.largest(t, axes))
    g = 1 / xp.where(constant, xp.ones(sigma), sigma)
    return g, -mean * g, constant
