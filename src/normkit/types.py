"""The frozen values that travel between rooms; nothing else does.

Sums.  A matrix of sums has one row per name in `SUMS` and one column per tensor, float64:

    sum         sum of w                      abs         sum of |w|
    sq          sum of w^2                    max         max of |w|
    zeros       entries equal to 0 (or -0.0)  nonfinite   entries that are NaN or infinite
    dot         sum of w * q, where q is the gradient or the update (not for quantity "weight")

Every entrywise norm follows from them (room `norms`), and they merge: all add, `max` takes the maximum.
A column of NaN means "there was none" (a parameter without a gradient).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from normkit.errors import ArgumentError, in_brief

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

SUMS = ("sum", "abs", "sq", "max", "zeros", "nonfinite", "dot")
QUANTITIES = ("weight", "grad", "update")
ROLES = ("kernel", "bias", "scale", "embedding", "buffer", "other")

Role = Literal["kernel", "bias", "scale", "embedding", "buffer", "other"]
Part = Literal["whole", "g", "v", "effective"]
Quantity = Literal["weight", "grad", "update"]


@dataclass(frozen=True)
class Param:
    """What a rule may know of one parameter.

    Axes are positions in `shape`; `None` means that the layer does not say. `layer` is the class name of the
    owning layer, `layer_type` the class itself (absent when read from a file), `rule` the reason for `role`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    aliases: tuple[str, ...] = ()
    layer: str = ""
    out_axes: tuple[int, ...] | None = None
    in_axes: tuple[int, ...] | None = None
    trainable: bool = True
    part: Part = "whole"
    rule: str = ""
    layer_type: type | None = field(default=None, compare=False, repr=False)

    @property
    def count(self) -> int:
        """Number of entries."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Stats:
    """The mergeable sums of one array; `a + b` is the Stats of both together.

    `dot` is the sum of products with a second array where there was one, else NaN.
    """

    count: int
    sum: float
    abs: float
    sq: float
    max: float
    zeros: int
    nonfinite: int
    dot: float = float("nan")

    def __add__(self, other: Stats) -> Stats:
        if not isinstance(other, Stats):
            return NotImplemented
        return Stats(
            self.count + other.count,
            self.sum + other.sum,
            self.abs + other.abs,
            self.sq + other.sq,
            _max_with_nan(self.max, other.max),
            self.zeros + other.zeros,
            self.nonfinite + other.nonfinite,
            self.dot + other.dot,
        )


def _max_with_nan(a: float, b: float) -> float:
    return a if math.isnan(a) or a >= b else b


@dataclass(frozen=True)
class Reading:
    """One record: the sums of every tensor of a layout at one optimizer step.

    `values` maps a quantity to its matrix of sums ([6][N] for "weight", [7][N] for "grad" and "update").
    `layout` is the number that the writer gave the ordered list of tensors; `wall` is seconds since the epoch.
    """

    step: int
    layout: int
    wall: float
    values: Mapping[str, Matrix]
    epoch: int | None = None
    attempt: int = 0
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a run, with its evidence and where its threshold comes from.

    `text` says what was seen, with figures; `remedy` what to do. `basis` is "theorem" (exact arithmetic),
    "model" (a model of training, with a predicted spread) or "heuristic".
    """

    rule: str
    severity: Literal["error", "warning", "note"]
    text: str
    remedy: str = ""
    tensors: tuple[str, ...] = ()
    basis: Literal["theorem", "model", "heuristic"] = "theorem"
    source: str = ""
    step: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Every:
    """When to record: each of the first `first` steps, then every `steps` optimizer steps, or every `epochs` epochs.

    Step 0 (before training) and the last step are recorded in any case. Epochs are counted by the framework's
    own epoch end (Keras) or by `rec.epoch()` (torch, JAX).

    Raises: ArgumentError unless exactly one of `steps` and `epochs` is given, as a whole number of at least 1.

    >>> Every(100, first=1000)
    Every(steps=100, first=1000, epochs=None)
    """

    steps: int | None = None
    first: int = 0
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ArgumentError(
                f"Every(steps={in_brief(self.steps)}, epochs={in_brief(self.epochs)}): expected one of the two, as in "
                "Every(100) or Every(epochs=1)"
            )
        for label, value, least in (("steps", self.steps, 1), ("epochs", self.epochs, 1), ("first", self.first, 0)):
            if value is not None:
                object.__setattr__(self, label, _whole(label, value, least))

    def __str__(self) -> str:
        unit, number = ("epoch", self.epochs) if self.steps is None else ("step", self.steps)
        rest = f"every {unit}" if number == 1 else f"every {number} {unit}s"
        return f"each of the first {self.first} steps, then {rest}" if self.first else rest


def _whole(label: str, value: object, least: int) -> int:
    """`value` as a plain int, whichever library's integer it is."""
    try:
        number = least - 1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(f"Every({label}={in_brief(value)}): expected a whole number of at least {least}")
    return number


When = Every | int | Literal["auto"] | Callable[[int], bool]
