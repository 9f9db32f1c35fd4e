"""A weight after decay, and a gradient with it, for loops without an optimizer object as for those with one."""

from __future__ import annotations

from typing import Any

from normkit.decay.kinds import checked_kind, share
from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.lengths import math_for, norm_except_dim


def coupled(grad: Any, w: Any, weight_decay: Any) -> Any:
    """The gradient with the pull of an L2 penalty in it: kind "l2".

        g <- g + lambda w

    Shapes: grad, w [any] -> [as grad].
    Units:  as the gradient: times lr by the optimizer, and through its momentum and preconditioner.

    >>> import numpy as np
    >>> coupled(np.array([1.0, 1.0]), np.array([2.0, -4.0]), 0.5)
    array([ 2., -1.])
    """
    return grad + weight_decay * w


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
        what it needs, and for what is no array of floating-point numbers.
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
        moved = xp.widened(_needed(update, "update", kind))
        return xp.as_type_of(xp.where(moved * wide <= 0, wide * (1 - taken), wide), w)
    if kind != "toward":
        return xp.as_type_of(wide * (1 - taken), w)
    if length is not None:
        found = xp.widened(norm_except_dim(wide, per))
        zero = found == 0
        excess = xp.where(zero, xp.ones(found) * 0, 1 - length / xp.where(zero, xp.ones(found), found))
        return xp.as_type_of(wide - taken * excess * wide, w)
    return xp.as_type_of(wide - taken * (wide - xp.widened(_needed(reference, "reference", kind))), w)


def _needed(value: Any, name: str, kind: str) -> Any:
    if value is None:
        also = " or length" if name == "reference" else ""
        raise ArgumentError(f"kind={kind!r} needs {name}{also}=, an array like the weight; none was given")
    return value


def _refuse_l2(kind: str) -> None:
    if kind == "l2":
        raise ArgumentError(
            "kind='l2' goes through the gradient: give the optimizer the gradient plus weight_decay times the weight, "
            "or add a penalty with l2= to the loss"
        )
