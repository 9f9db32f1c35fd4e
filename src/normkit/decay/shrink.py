"""A weight after decay, and a gradient with it, for loops without an optimizer object as for those with one."""

from __future__ import annotations

from typing import Any

from normkit.decay.kinds import checked_kind, share
from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.lengths import math_for, norm_except_dim, refuse_lengths


def coupled(grad: Any, w: Any, weight_decay: Any) -> Any:
    """The gradient with the pull of an L2 penalty in it: kind "l2".

        g <- g + lambda w

    Shapes: grad, w [any] -> [as grad], in grad's dtype.
    Units:  as the gradient: times lr by the optimizer, and through its momentum and preconditioner.
    Raises: ArgumentError for a gradient of another shape, and for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> coupled(np.array([1.0, 1.0]), np.array([2.0, -4.0]), 0.5)
    array([ 2., -1.])
    """
    _refuse_other(grad, "gradient", w)
    xp = math_for(w)
    return xp.as_type_of(xp.widened(grad) + weight_decay * xp.widened(w), grad)


def decayed(
    w: Any,
    weight_decay: Any,
    *,
    lr: Any,
    kind: str = "decoupled",
    lr_ref: Any = None,
    factor: Any = 1.0,
    update: Any = None,
    reference: Any = None,
    length: Any = None,
    per: Per = "tensor",
) -> Any:
    """The weight after one step of decay; the step of the optimizer, worked out from the gradient at `w`, comes on top.

        w <- w - s w                             decoupled: s = lr lambda; independent: s = lr / lr_ref lambda;
                                                 corrected: s = lr^2 / lr_ref lambda
        w <- w - s w where update * w <= 0       cautious: s = lr lambda; `update` is what the optimizer adds to w
        w <- w - s (w - reference)               toward a reference: s = lr lambda
        w <- w - s (1 - length / |w|) w          toward a length: s = lr lambda; 0 stays 0

    Shapes: w [any], update and reference [as w], length a number or [kept axes, 1 for the others] -> [as w], w's dtype.
    Units:  per optimizer step; times lr as above; times `factor`, the value of a schedule.
    Raises: ArgumentError for an unknown kind, for "l2" (which goes through the gradient: `coupled`), where a kind lacks
        what it needs or gets it in another shape, and for what is no array of floating-point numbers.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; Defazio 2025, arXiv:2506.02285 (corrected); arXiv:2510.12402
        (cautious); arXiv:2311.11446 (toward a length).

    >>> import numpy as np
    >>> decayed(np.array([1.0, -2.0]), 0.5, lr=0.1)
    array([ 0.95, -1.9 ])
    >>> decayed(np.array([1.0, -2.0]), 0.5, lr=0.1, kind="cautious", update=np.array([0.3, 0.3]))
    array([ 1. , -1.9])
    """
    _refuse_l2(checked_kind(kind).name)
    xp = math_for(w)
    wide, taken = xp.widened(w), share(kind, weight_decay, lr=lr, lr_ref=lr_ref, factor=factor)
    if kind == "cautious":
        moved = xp.widened(_needed(update, "update", kind, w))
        return xp.as_type_of(xp.where(moved * wide <= 0, wide * (1 - taken), wide), w)
    if kind != "toward":
        return xp.as_type_of(wide * (1 - taken), w)
    if length is not None:
        found = xp.widened(norm_except_dim(wide, per))
        refuse_lengths(length, found, "length")
        zero = found == 0
        excess = xp.where(zero, xp.ones(found) * 0, 1 - length / xp.where(zero, xp.ones(found), found))
        return xp.as_type_of(wide - taken * excess * wide, w)
    return xp.as_type_of(wide - taken * (wide - xp.widened(_needed(reference, "reference", kind, w))), w)


def _needed(value: Any, name: str, kind: str, w: Any) -> Any:
    if value is None:
        also = " or length" if name == "reference" else ""
        raise ArgumentError(f"kind={kind!r} needs {name}{also}=, an array like the weight; none was given")
    _refuse_other(value, name, w)
    return value


def _refuse_other(value: Any, name: str, w: Any) -> None:
    """Raises: ArgumentError where it has not w's shape: it would be repeated along the axes that it lacks."""
    if not hasattr(value, "shape") or tuple(value.shape) != tuple(w.shape):
        given = f"of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise ArgumentError(f"the {name} is {given} beside a weight of shape {tuple(w.shape)}; expected one like it")


def _refuse_l2(kind: str) -> None:
    if kind == "l2":
        raise ArgumentError(
            f"kind={kind!r} goes through the gradient: give the optimizer the gradient plus weight_decay times the "
            "weight, or add a penalty with l2= to the loss"
        )
