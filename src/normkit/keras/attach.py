"""`decay`, `constrain` and `proximal`: rules put around the steps of a Keras optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from normkit.asked import number
from normkit.constrain.asked import one_limit
from normkit.decay.asked import checked_request
from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per, check_per
from normkit.keras.asked import (
    check_optimizer,
    checked_rate,
    checked_schedule,
)
from normkit.keras.inside import rate_now
from normkit.keras.ring_hooks import inner_of, leaves_of
from normkit.keras.rule import Decay, Limit, Proximal
from normkit.keras.ruled import RuledOptimizer
from normkit.keras.ruling import Ruling, refuse_own_decay, refuse_rate
from normkit.keras.walk import check_model
from normkit.penalize.coefficients import coefficients
from normkit.select.rules import parse


def decay(
    optimizer: Any,
    weight_decay: float,
    *,
    kind: str = "decoupled",
    select: Any = None,
    schedule: Any = None,
    lr_ref: float | None = None,
    reference: Any = None,
    length: Any = None,
    per: Per = "tensor",
    model: Any = None,
) -> Any:
    """An optimizer that decays weights besides: `model.compile(nk.decay(keras.optimizers.Adam(1e-3), 0.1), loss)`.

        l2             g <- g + lambda f w                      through momentum and preconditioner
        decoupled      w <- w - lr lambda f w                   what Keras' own weight_decay does, to all variables
        independent    w <- w - (lr / lr_ref) lambda f w        lr's schedule counts, its size does not
        corrected      w <- w - (lr^2 / lr_ref) lambda f w      lr_ref: the highest rate
        cautious       w <- w - lr lambda f w                   entries that the step does not move away from 0
        toward         w <- w - lr lambda f (w - reference)     or (1 - length / |w|) w in the place of the bracket

    Units: lambda is `weight_decay`, per optimizer step (never per batch that only accumulates, token, sample or epoch),
    times the lr of that step as above; f is `schedule(step)`, steps counted from 0, or 1. The update is worked out from
    the gradient at the weight as it was; "l2" comes before accumulation and clipping, as a penalty would.

    optimizer   any Keras optimizer; one that has rules gets one more
    select      which weights (docs: select); default: kernels, so no bias, scale or embedding. A weight-normed weight
                decays in its length g, never in its direction v (select="*.v" takes v all the same)
    schedule    a factor on lambda: a function of the step that keras.ops can trace, or a LearningRateSchedule
    lr_ref      for "independent" and "corrected"; default: the rate now, or the schedule's at step 0
    reference   for "toward": "initial", or {name: array}, which is saved with the optimizer's variables only
    length      for "toward": a number, or "initial"; of the whole tensor, or of each group that `per` says
    model       with it the rule is checked at once, and "initial" is now; without it both are when the optimizer is
                built: by `fit`, or by `optimizer.build(model.trainable_variables)`. Then names and roles are those of
                the model that is training; in a loop without one those of the variables' paths

    Exclusions are saved by the weights' places, so `save` and `load_model` keep them on every backend.
    Raises: ArgumentError for a bad argument, a rule that matches nothing, lr_ref that is 0, and a step that would take
        twice the weight or more, at the rate and f now or at a rate that is set; a schedule, of lr or of f, that gets
        there later is not seen. ModelError for an optimizer that decays these itself, as AdamW does, for two decays of
        one weight, and for an optimizer that is inside another one's rules. A refused call leaves the optimizer as it
        was.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; Defazio 2025, arXiv:2506.02285 (corrected); arXiv:2510.12402
        (cautious); arXiv:2311.11446 (toward a length).

    >>> optimizer = decay(keras.optimizers.Adam(1e-3), 0.1, select="!head.*")
    >>> optimizer = decay(optimizer, 0.01, select="head.*")
    """
    check_optimizer("decay", optimizer)
    found = checked_request(kind, lr_ref=lr_ref, reference=reference, length=length, per=per)
    if reference is not None and not isinstance(reference, str | Mapping):
        raise ArgumentError(f"reference={in_brief(reference)}: expected 'initial' or a dict of arrays by name")
    rule = Decay(
        select=select,
        per=per,
        kind=found.name,
        weight_decay=number(
            weight_decay, "weight_decay", advice=", such as 0.01; what changes with the step is schedule="
        ),
        schedule=checked_schedule(schedule),
        lr_ref=checked_rate(optimizer, found.name, lr_ref),
        reference="given" if isinstance(reference, Mapping) else reference,
        length=length if length is None or length == "initial" else float(length),
    )
    for leaf in leaves_of(inner_of(optimizer)):
        refuse_rate(rule, rate_now(leaf))
        if not hasattr(leaf, "_exclude_from_weight_decay"):
            refuse_own_decay(leaf, None, "a weight")
    return _ruled("decay", optimizer, Ruling(rule, given=reference if isinstance(reference, Mapping) else None), model)


def constrain(
    optimizer: Any,
    *,
    max_norm: float | None = None,
    unit_norm: bool = False,
    min_max_norm: tuple[float, float] | None = None,
    hold: Any = None,
    spectral_cap: float | None = None,
    select: Any = None,
    per: Per = "out",
    model: Any = None,
) -> Any:
    """An optimizer that brings weights within a limit after each step, one of

        max_norm=c              w_g <- w_g min(1, c / |w_g|)             for each group g
        unit_norm=True          w_g <- w_g / |w_g|
        min_max_norm=(lo, hi)   w_g <- w_g clip(|w_g|, lo, hi) / |w_g|
        hold=r                  w_g <- w_g r / |w_g|                     "initial": the length that it has to begin with
        spectral_cap=s          W <- W with no singular value above s    `per` says the rows of W

    optimizer   any Keras optimizer; one that has rules gets one more, and limits work in the order of the calls
    select      which weights (docs: select); default: kernels
    per         what is a group: "out", "in", "tensor" or kept axes
    model       as of `decay`; without it "out" and "in" are asked of the model that is training

    Units: lengths in weight space; nothing is times lr. What satisfies a limit comes back bit by bit, and a second
    application changes no bit. A group of zeros stays zero. A weight-normed weight is limited in its length g. The
    weights stay as they are until the first step; `optimizer.project()` applies the limits now.
    Raises: ArgumentError for none or several limits, a limit that cannot be, a rule that reaches nothing, unknown axes,
        and hold="initial" of a group that is zero; ModelError for a weight-normed weight whose groups are others, and
        for a weight whose layer has a constraint.
    """
    check_optimizer("constrain", optimizer)
    given = {
        "max_norm": max_norm,
        "unit_norm": unit_norm,
        "min_max_norm": min_max_norm,
        "hold": hold,
        "spectral_cap": spectral_cap,
    }
    return _ruled("constrain", optimizer, Ruling(Limit(select, per, *one_limit(given))), model)


def proximal(
    optimizer: Any,
    *,
    l1: float | None = None,
    group: float | None = None,
    select: Any = None,
    per: Per = "out",
    model: Any = None,
) -> Any:
    """An optimizer that makes exact zeros: after each step the proximal step of l1, of the group lasso, or of both.

        l1      w <- sign(w) max(|w| - lr lambda, 0)
        group   w_g <- w_g max(0, 1 - lr lambda sqrt(n) / |w_g|)          n entries in each group

    Units: lambda as that of a penalty; lr is that of the step. With an optimizer that divides by a running size of
    gradients, such as Adam, this is not the proximal step of its own metric: zeros are exact, how many is another
    matter. `optimizer`, `select`, `per` and `model` are as of `constrain`.

    Raises: ArgumentError for coefficients that are no finite numbers of at least 0 or none above 0, and a rule that
        reaches nothing; ModelError for l1 of a weight-normed weight, and for groups that its g does not have.
    """
    check_optimizer("proximal", optimizer)
    found = coefficients({"l1": l1, "group": group}, "proximal")
    rule = Proximal(select, per, l1=found.get("l1", 0.0), group=found.get("group", 0.0))
    return _ruled("proximal", optimizer, Ruling(rule), model)


def _ruled(verb: str, optimizer: Any, ruling: Ruling, model: Any) -> Any:
    """The optimizer with one more rule: itself, where it has some, else a new one around it."""
    parse(ruling.rule.select)
    check_per(ruling.rule.per)
    if model is not None:
        check_model(model)
        _warn_compiled(verb, optimizer, model)
    around, inner = None, optimizer
    while not isinstance(inner, RuledOptimizer) and hasattr(inner, "inner_optimizer"):
        around, inner = inner, inner.inner_optimizer
    if isinstance(inner, RuledOptimizer):
        inner.add(ruling, model)
        inner.shown_by(optimizer)
        return optimizer
    _refuse_unusable(verb, inner)
    before = vars(inner).get("apply")
    made = RuledOptimizer(inner)
    try:
        made.add(ruling, model)
    except Exception:
        vars(inner).pop("apply") if before is None else vars(inner).update(apply=before)
        raise
    if around is None:
        return made
    around.inner_optimizer = made
    made.shown_by(optimizer)
    return optimizer


def _refuse_unusable(verb: str, inner: Any) -> None:
    """Raises: ModelError for an optimizer that has rules around it already, or lacks what rules take hold of."""
    held = getattr(vars(inner).get("apply"), "__self__", None)
    if isinstance(held, RuledOptimizer):
        raise ModelError(
            f"this {type(inner).__name__} has rules around it already ({held.told}); give nk.{verb} the optimizer that "
            "came back from the first call"
        )
    for leaf in leaves_of(inner):
        for name in ("_backend_apply_gradients", "_backend_update_step"):
            if not callable(getattr(leaf, name, None)):
                raise ModelError(
                    f"{verb} needs {type(leaf).__name__}.{name}, which Keras {keras.__version__} does not have"
                )


def _warn_compiled(verb: str, optimizer: Any, model: Any) -> None:
    compiled = getattr(model, "optimizer", None)
    if compiled is None or isinstance(optimizer, RuledOptimizer):
        return
    chain = [compiled]
    while hasattr(chain[-1], "inner_optimizer"):
        chain.append(chain[-1].inner_optimizer)
    if any(each is optimizer for each in chain) and not any(isinstance(each, RuledOptimizer) for each in chain):
        warnings.warn(
            f"{model.name} is compiled with this {type(optimizer).__name__} itself, without the rules: call "
            f"model.compile again, with what nk.{verb} gives back",
            stacklevel=4,
        )
