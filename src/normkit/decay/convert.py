"""One weight decay in the units of another library: what each means by its number, and what is equal to what.

Five families; f is the schedule of lr, lr / lr at the start:

    coupled     g <- g + lambda w           times lr by the optimizer, through its momentum and preconditioner
    times lr    w <- w - lr lambda w
    times f     w <- w - f lambda w
    per step    w <- w - lambda w           whatever lr is
    corrected   w <- w - lr^2 / lr_max lambda w
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real

from normkit.errors import ArgumentError, in_brief


@dataclass(frozen=True)
class Convention:
    """What a library does with the number that it calls weight decay."""

    name: str
    family: str
    update: str
    source: str
    times: float = 1.0  # of what the family says
    adaptive: bool = False  # through a preconditioner


_TIMES_LR, _COUPLED = "w <- w - lr lambda w", "g <- g + lambda w"
_CORRECTED = "w <- w - lr^2 / lr_max lambda w"

CONVENTIONS: dict[str, Convention] = {
    row.name: row
    for row in (
        Convention("torch.SGD", "coupled", _COUPLED, "torch/optim/sgd.py"),
        Convention(
            "torch.Adam", "coupled", _COUPLED, "torch/optim/adam.py; RMSprop, Adagrad, NAdam too", adaptive=True
        ),
        Convention("torch.AdamW", "times lr", _TIMES_LR, "torch/optim/adamw.py; decoupled_weight_decay=True too"),
        Convention("torch.Muon", "times lr", _TIMES_LR, "torch/optim/_muon.py: by lr, not by the adjusted one"),
        Convention("keras", "times lr", _TIMES_LR, "keras/src/optimizers/base_optimizer.py: of every optimizer"),
        Convention("keras.L2", "coupled", "g <- g + 2 l w", "keras/src/regularizers/regularizers.py", times=2.0),
        Convention("optax.adamw", "times lr", _TIMES_LR, "optax/_src/alias.py; lion, lamb, nadamw too"),
        Convention("optax.adafactor", "per step", "w <- w - lambda w", "optax/_src/alias.py: added after the rate"),
        Convention("tfa", "per step", "w <- w - lambda w", "tensorflow_addons weight_decay_optimizers.py"),
        Convention("timm.AdamW", "times lr", _TIMES_LR, "timm/optim/adamw.py"),
        Convention("timm.corrected", "corrected", _CORRECTED, "timm/optim/adamw.py with corrected_weight_decay=True"),
        Convention("composer", "times f", "w <- w - lr / lr0 lambda w", "composer/optim/decoupled_weight_decay.py"),
        Convention("normkit.l2", "coupled", _COUPLED, "normkit.decay, and l2= of normkit's penalty"),
        Convention("normkit.decoupled", "times lr", _TIMES_LR, "normkit.decay"),
        Convention("normkit.independent", "times f", "w <- w - lr / lr_ref lambda w", "normkit.decay"),
        Convention("normkit.corrected", "corrected", _CORRECTED, "normkit.decay"),
    )
}


def convert_decay(
    weight_decay: float,
    *,
    source: str,
    target: str,
    lr: float | None = None,
    momentum: float = 0.0,
    dampening: float = 0.0,
    constant_lr: bool = False,
    exact: bool = True,
) -> float:
    """The number that does with `target` what `weight_decay` does with `source`.

        coupled <-> coupled         by the factor before lambda w; the same penalty, whatever the optimizer
        times lr <-> times f        lambda_f = lr lambda_lr, at every rate of the schedule
        per step, corrected         equal to the others only while lr stays as it is: say constant_lr=True
        coupled <-> the others      equal only for SGD without momentum: lambda = lambda_lr

    With momentum, decay by the gradient is delayed and added up: in the long run it takes lr lambda (1 - dampening) /
    (1 - momentum) of a weight in a step. That number is given with exact=False; through a preconditioner (torch.Adam)
    there is none.

    Units:  `lr` is the rate at the start of the schedule; for the corrected ones the highest. `momentum` and
        `dampening` are the optimizer's on the coupled side, in torch's words. Per step always, never per token.
    Raises: ArgumentError where no number is equal (with the reason, and the number of the same long-run shrink), where
        lr is needed and absent, for a name that is not in `CONVENTIONS`, and for numbers out of range.
    Source: the files named in `CONVENTIONS`.

    >>> convert_decay(0.01, source="torch.AdamW", target="composer", lr=0.5)
    0.005
    >>> convert_decay(0.01, source="torch.SGD", target="keras.L2")
    0.005
    """
    given, wanted = _convention(source, "source"), _convention(target, "target")
    weight_decay = number(weight_decay, "weight_decay", least=0.0)
    momentum, dampening = below_one(momentum, "momentum"), below_one(dampening, "dampening")
    if given.family == wanted.family:
        return weight_decay * given.times / wanted.times
    gathered = (1 - dampening) / (1 - momentum) if momentum else 1.0
    _refuse_adaptive(given, wanted)
    if (given.family in _BY_LR) == (wanted.family in _BY_LR):
        lr = 1.0  # on both sides, or on none
    taken = weight_decay * _share(given, lr, gathered) / _share(wanted, lr, gathered)
    if exact:
        _refuse_momentum(given, wanted, momentum, taken)
        _refuse_schedule(given, wanted, constant_lr, taken)
    return taken


_BY_LR = ("coupled", "times lr", "corrected")  # families whose share has lr in it


def _share(row: Convention, lr: float | None, gathered: float) -> float:
    """What a step at the rate `lr` takes of a weight, for a weight decay of 1."""
    times = row.times * (gathered if row.family == "coupled" else 1.0)
    return times * (_rate(lr, row.name) if row.family in _BY_LR else 1.0)


def _refuse_adaptive(given: Convention, wanted: Convention) -> None:
    for row, other in ((given, wanted), (wanted, given)):
        if row.adaptive:
            raise ArgumentError(
                f"{row.name} takes its decay through the preconditioner, so a weight loses a part that depends on its "
                f"gradients, and no number does the same with {other.name}; choose one for {other.name} by a timescale "
                "or a length: solve_decay"
            )


def _refuse_momentum(given: Convention, wanted: Convention, momentum: float, taken: float) -> None:
    if momentum and "coupled" in (given.family, wanted.family):
        raise ArgumentError(
            f"with momentum={momentum:g}, decay by the gradient ({_coupled(given, wanted).name}) is delayed, so no "
            f"number does the same with {_other(given, wanted).name}; {taken:g} has the same long-run shrink: take it "
            "with exact=False"
        )


def _refuse_schedule(given: Convention, wanted: Convention, constant_lr: bool, taken: float) -> None:
    for row, other in ((given, wanted), (wanted, given)):
        if row.family in ("per step", "corrected") and not constant_lr:
            raise ArgumentError(
                f"the decay of {row.name} ({row.update}) and that of {other.name} ({other.update}) are equal only "
                f"while lr stays as it is; then {taken:g} is the number: say constant_lr=True, or exact=False where lr "
                "changes"
            )


def _coupled(given: Convention, wanted: Convention) -> Convention:
    return given if given.family == "coupled" else wanted


def _other(given: Convention, wanted: Convention) -> Convention:
    return wanted if given.family == "coupled" else given


def _convention(name: object, argument: str) -> Convention:
    found = CONVENTIONS.get(name) if isinstance(name, str) else None
    if found is None:
        near = _near(str(name))
        meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ArgumentError(f"{argument}={in_brief(name)}: {meant}expected one of {', '.join(map(repr, CONVENTIONS))}")
    return found


def _near(name: str) -> list[str]:
    """What `torch.optim.AdamW`, `AdamW`, `keras.Adam` and `torch.adamW` could mean."""
    library, _, kind = name.lower().rpartition(".")
    library = library.split(".")[0]
    alike = [known for known in CONVENTIONS if known.lower().split(".")[-1] == kind]
    same = [known for known in alike if known.split(".")[0] == library]
    whole = [library] if library in CONVENTIONS else []
    of_library = [known for known in CONVENTIONS if known.split(".")[0] == library]
    return same or whole or alike or of_library or get_close_matches(name, CONVENTIONS, n=1)


def _rate(lr: float | None, name: str) -> float:
    if lr is None:
        raise ArgumentError(
            f"lr is needed: the decay of {name} is times lr and the other is not; give the rate at the start"
        )
    return number(lr, "lr", above=0.0)


def number(value: object, name: str, *, least: float = -math.inf, above: float = -math.inf) -> float:
    """Raises: ArgumentError unless it is a finite number of at least `least`, above `above`."""
    usual = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not usual or not (least <= float(value) and above < float(value)):  # type: ignore[arg-type]
        bound = f"of at least {least:g}" if least > -math.inf else f"above {above:g}"
        raise ArgumentError(f"{name}={in_brief(value)}: expected a finite number {bound}")
    return float(value)  # type: ignore[arg-type]


def below_one(value: object, name: str) -> float:
    found = number(value, name, least=0.0)
    if not found < 1:
        raise ArgumentError(f"{name}={in_brief(value)}: expected a number of at least 0 and below 1")
    return found
