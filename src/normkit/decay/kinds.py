"""The kinds of weight decay, by name: what a step takes from a weight, and whether that is times lr.

    share of a weight that one step takes        lr: the rate of this step        f: the schedule's factor, 1 without

    l2            (through the gradient: g + lambda f w; what is taken is the optimizer's affair)
    decoupled     lr lambda f
    independent   lr / lr_ref lambda f             lr_ref: the rate at the start
    corrected     lr^2 / lr_ref lambda f           lr_ref: the highest rate
    cautious      lr lambda f                      only of entries that the step does not move away from 0
    toward        lr lambda f                      of the distance to a reference, or to a length

Every share is per optimizer step, never per token, sample or epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from normkit.errors import ArgumentError, in_brief


@dataclass(frozen=True)
class Kind:
    """One kind: its update, its units in words, what it needs besides, and where it comes from.

    `share(lr, weight_decay, lr_ref)` is the part of a weight that a step takes; for "l2" what its gradient gets.
    """

    name: str
    update: str
    units: str
    share: Callable[[Any, Any, Any], Any]
    source: str
    needs_ref: bool = False


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "l2",
            "g <- g + lambda w",
            "times lr as every gradient is; through momentum and preconditioner",
            lambda lr, weight_decay, lr_ref: weight_decay,
            "Loshchilov & Hutter 2019, arXiv:1711.05101",
        ),
        Kind(
            "decoupled",
            "w <- w - lr lambda w",
            "times lr, per step",
            lambda lr, weight_decay, lr_ref: lr * weight_decay,
            "Loshchilov & Hutter 2019, arXiv:1711.05101",
        ),
        Kind(
            "independent",
            "w <- w - (lr / lr_ref) lambda w",
            "times the schedule of lr, not times its size; per step",
            lambda lr, weight_decay, lr_ref: lr / lr_ref * weight_decay,
            "Loshchilov & Hutter 2019, arXiv:1711.05101",
            needs_ref=True,
        ),
        Kind(
            "corrected",
            "w <- w - (lr^2 / lr_ref) lambda w",
            "times lr squared over the highest lr, per step",
            lambda lr, weight_decay, lr_ref: lr * (lr / lr_ref) * weight_decay,
            "Defazio 2025, arXiv:2506.02285",
            needs_ref=True,
        ),
        Kind(
            "cautious",
            "w <- w - lr lambda w where the step does not move w away from 0",
            "times lr, per step",
            lambda lr, weight_decay, lr_ref: lr * weight_decay,
            "Cautious weight decay, arXiv:2510.12402",
        ),
        Kind(
            "toward",
            "w <- w - lr lambda (w - reference)",
            "times lr, per step",
            lambda lr, weight_decay, lr_ref: lr * weight_decay,
            "Weight norm control, arXiv:2311.11446 (toward a length)",
        ),
    )
}


OF_OPTIMIZERS = {"adamw": "decoupled", "adam": "l2", "sgd": "l2", "adamc": "corrected"}  # what each does by itself


def checked_kind(kind: object) -> Kind:
    """Raises: ArgumentError for what names no kind."""
    found = KINDS.get(kind) if isinstance(kind, str) else None
    if found is None:
        own = OF_OPTIMIZERS.get(kind.lower()) if isinstance(kind, str) else None
        more = f"; that of {kind} is {own!r}" if own else ""
        raise ArgumentError(f"kind={in_brief(kind)}: expected one of {', '.join(map(repr, KINDS))}{more}")
    return found


def share(kind: str, weight_decay: Any, *, lr: Any, lr_ref: Any = None, factor: Any = 1.0) -> Any:
    """The part of a weight that one step takes; for "l2" the coefficient of w in its gradient.

    Units:  see the table of kinds; `factor` is the value of a schedule, 1 without one.
    Raises: ArgumentError for an unknown kind, and where a kind needs `lr_ref` and it is absent or not above 0.

    >>> share("decoupled", 0.1, lr=0.01), share("independent", 0.1, lr=0.01, lr_ref=0.02)
    (0.001, 0.05)
    """
    found = checked_kind(kind)
    if found.needs_ref:
        _refuse_ref(kind, lr_ref)
    return found.share(lr, weight_decay, lr_ref) * factor


def refuse_divergent(taken: float, said: str) -> None:
    """Raises: ArgumentError where a step takes twice the weight or more: |1 - share| >= 1, so it grows for ever."""
    if taken >= 2:
        raise ArgumentError(
            f"{said}: each step would take {taken:g} times the weight, so it would change its sign and not shrink; "
            "expected below 2, and well below 1"
        )


def _refuse_ref(kind: str, lr_ref: Any) -> None:
    if lr_ref is None or (isinstance(lr_ref, Real) and not float(lr_ref) > 0):
        raise ArgumentError(
            f"kind={kind!r} needs lr_ref, and it is {in_brief(lr_ref)}; give the rate to compare with, above 0 (once a "
            "warmup scheduler is made, lr is 0)"
        )
