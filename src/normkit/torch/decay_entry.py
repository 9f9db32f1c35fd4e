"""`decay`: any kind of weight decay on any torch optimizer, through its step hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normkit.groups import Per
from normkit.torch.arguments import Models
from normkit.torch.decay_handle import Decay
from normkit.torch.decay_terms import Schedule, checked_terms


def decay(
    optimizer: Any,
    weight_decay: float,
    *,
    kind: str = "decoupled",
    select: Any = None,
    schedule: Schedule | None = None,
    lr_ref: float | None = None,
    reference: str | Mapping[str, Any] | None = None,
    length: float | str | None = None,
    per: Per = "tensor",
    model: Models | None = None,
) -> Decay:
    """Decay weights at each step of `optimizer`; gives a handle with `explain()`, `remove()` and `weight_decay`.

        l2             g <- g + lambda f w                      through momentum and preconditioner
        decoupled      w <- w - lr lambda f w                   what AdamW does
        independent    w <- w - (lr / lr_ref) lambda f w        lr's schedule counts, its size does not
        corrected      w <- w - (lr^2 / lr_ref) lambda f w      lr_ref: the highest rate
        cautious       w <- w - lr lambda f w                   entries that the step does not move away from 0
        toward         w <- w - lr lambda f (w - reference)     or (1 - length / |w|) w in the place of the bracket

    Units: lambda is `weight_decay`, per optimizer step (never per token, sample or epoch), times the lr of that step as
    above; f is `schedule(step)`, steps counted from 0, or 1. The optimizer works its update out from the gradient at
    the weight as it was, then this share is taken, then the update is added: the order of torch's AdamW, and with Adam
    kind "decoupled" gives its bits.

    select      which weights (docs: select); default: kernels. A weight-normed weight decays in its length g, never in
                its direction v (select="*.v" takes v all the same). Tied weights decay once
    lr_ref      for "independent" and "corrected"; default: the group's `max_lr` where OneCycleLR has set one (its
                `initial_lr` is what its warmup begins with), else its `initial_lr`, else its lr now. Give it where a
                scheduler goes above that, as CyclicLR does
    reference   for "toward": "initial" (the values now), or arrays by name, such as a state dict
    length      for "toward": a number, or "initial"; of the whole tensor, or of each group that `per` says
    model       says which parameters are kernels; without it the optimizer's `param_names` do (it was made from
                `model.named_parameters()`), and without these only the shapes: embeddings then decay, too

    Left alone: parameters without gradient in a step, frozen ones, integer ones; steps that a GradScaler skips.
    Parameters that are added, frozen or freed later are seen at the next step. "l2" changes no `p.grad` beyond the
    step, and with LBFGS stands in gradient and loss. Under `torch.compile` the hooks run outside the compiled graphs.
    A fused optimizer's skipped steps on an accelerator count for `schedule`, since asking would wait for the device.

    The optimizer's state dict takes along the steps, lr_ref, reference and lengths; call `decay` first, then load.
    `weight_decay` and the arguments given here are the script's. Copies of an optimizer (deepcopy, pickle) have no
    hooks: call `decay` on the copy. A closure's loss comes back without the penalty except from LBFGS.

    Raises: ArgumentError for a bad argument, a rule that matches nothing, lr_ref that is 0 (a warmup has begun), and a
        step that would take twice the weight or more, here or when lr or the schedule comes there (of "l2" known only
        for SGD without momentum); ModelError where nothing of the optimizer's is left to decay, for an
        optimizer that decays these itself, for an optimizer of another model, for two decays of one parameter, for a
        sparse gradient with "l2". A refused call leaves the optimizer as it was.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; Defazio 2025, arXiv:2506.02285 (corrected); arXiv:2510.12402
        (cautious); arXiv:2311.11446 (toward a length).

    >>> import torch
    >>> layer = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> handle = decay(optimizer, 0.5, model=layer)
    >>> handle, handle.shares
    (Decay(0.5, kind='decoupled': 1 parameter), [0.05])
    """
    terms = checked_terms(kind, schedule, lr_ref, reference=reference, length=length, per=per)
    handle = Decay(optimizer, weight_decay, terms, select, model)
    handle.attach()
    return handle
