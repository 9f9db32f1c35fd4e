"""Which tensors of an optimizer a rule reaches, and what is left out and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.select.selection import Row
from normkit.torch.arguments import is_optimizer
from normkit.torch.handover import optimizers_of, refuse_strangers
from normkit.torch.walk import Located, memory_key, walk

COMPUTED = "computed from its parts"


@dataclass(frozen=True)
class Target:
    """One tensor that a verb acts on, the optimizer's own object; `group` is the number of its parameter group.

    `located` is what is known of that tensor; where it is the length g of a weight-normed weight, `weight` is that
    weight, which the rule chose.
    """

    located: Located
    tensor: Tensor
    group: int
    weight: Located | None = None

    @property
    def name(self) -> str:
        return self.located.param.name


@dataclass(frozen=True)
class Aim:
    """What a rule reaches in one optimizer; `rows` says of every parameter what happens to it and why."""

    targets: tuple[Target, ...]
    rows: tuple[Row, ...]

    def explain(self, told: Callable[[Target], str], what: str = "chosen") -> Explanation:
        """The table; `told` says what happens to a target, such as "l1 0.1", and `what` to all of them."""
        said = {target.name: told(target) for target in self.targets}
        rows = (
            replace(row, told=said[name]) if row.chosen else row
            for row in self.rows
            for name in [row.name.partition(" = ")[0]]
        )
        return Explanation(tuple(rows), what)


def optimizer_of(given: Any, verb: str) -> torch.optim.Optimizer:
    """The torch optimizer inside what was given, whose steps hooks can be put around.

    Raises: ArgumentError for what is none, and for several.
    """
    if isinstance(given, nn.Module):
        raise ArgumentError(
            f"{verb}: optimizer={type(given).__name__} is a model; give the torch.optim optimizer of its parameters, "
            "and the model as model="
        )
    found = optimizers_of(given)
    if len(found) != 1:
        said = "None" if given is None else f"{len(found)} optimizers"
        raise ArgumentError(f"{verb}: optimizer={said}; give one torch.optim optimizer, and call it for each")
    inner = found[0]
    while not hasattr(inner, "_optimizer_step_pre_hooks") and is_optimizer(getattr(inner, "optimizer", None)):
        inner = inner.optimizer  # a training library's subclass, which was never initialized as an optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        raise ArgumentError(
            f"{verb}: optimizer={type(inner).__name__} has no step hooks; give the torch.optim optimizer inside it"
        )
    return inner


def aim(
    optimizer: torch.optim.Optimizer,
    rule: Any,
    *,
    model: nn.Module | None = None,
    default: str = "kernel",
    verb: str = "decay",
    again: bool = False,
) -> Aim:
    """What `rule` reaches among the parameters of `model`, or of the optimizer alone, that the optimizer holds.

    A weight-normed weight is resolved to its g; its v is reached only by a rule that does not reach the weight. With
    `again`, for a model that has changed since, a rule that reaches nothing is no error.

    Raises: ArgumentError for a rule that matches nothing, ModelError for an optimizer of another model.
    """
    everything = walk(model, [optimizer])
    params = [item.param for item in everything]
    if model is not None and not again:
        own = (item for item in everything if item.module is not None and item.param.trainable)
        refuse_strangers([optimizer], {item.param.name: [item.tensor] for item in own if item.tensor is not None}, verb)
    try:
        selection = select_params(params, rule, default=default)
    except ArgumentError:
        if not again:
            raise
        return Aim((), ())
    return reached(everything, selection.verdicts, selection.explain().rows, held_by(optimizer))


def held_by(optimizer: torch.optim.Optimizer) -> dict[Any, tuple[Tensor, int]]:
    """The optimizer's tensors with the numbers of their groups, by their memory; of two that share it the first."""
    held: dict[Any, tuple[Tensor, int]] = {}
    for number, group in enumerate(optimizer.param_groups):
        for tensor in group["params"]:
            held.setdefault(memory_key(tensor), (tensor, number))
    return held


def reached(
    everything: Sequence[Located],
    verdicts: Sequence[tuple[bool, str]],
    rows: Sequence[Row],
    held: Mapping[Any, tuple[Tensor, int]],
) -> Aim:
    """What was chosen, among the tensors `held`; weight-normed weights resolved to their lengths."""
    computed = {item.param.name: item for item in everything if item.param.part == "effective"}
    taken = {item.param.name: why for item, (chosen, why) in zip(everything, verdicts, strict=True) if chosen}
    targets, told = [], []
    for item, (chosen, why), row in zip(everything, verdicts, rows, strict=True):
        weight = computed.get(item.param.name[:-2]) if item.param.part in ("g", "v") else None
        by_weight = weight if weight is not None and weight.param.name in taken else None
        is_length = by_weight is not None and item.param.part == "g"
        at = None if item.tensor is None else held.get(memory_key(item.tensor))
        by_length = by_weight is not None or f"{item.param.name[:-2]}.g" in taken
        no = _left_out(item, at, by_length) if chosen or is_length else why
        yes = f"length of {by_weight.param.name}, {taken[by_weight.param.name]}" if is_length and by_weight else why
        told.append(Row(row.name, row.role, row.role_from, not no, no or yes))
        if not no and at is not None:
            targets.append(Target(item, *at, by_weight))
    return Aim(tuple(targets), tuple(told))


def _left_out(item: Located, at: tuple[Tensor, int] | None, by_length: bool) -> str:
    """Why a chosen parameter is left alone all the same; "" where it is not."""
    if item.tensor is None:
        return COMPUTED
    if by_length and item.param.part == "v":
        return "direction of a weight-normed weight"
    if not item.tensor.is_floating_point():
        return f"{item.param.dtype}, not floating-point"
    if at is None:
        return "frozen" if not item.param.trainable else "not in this optimizer"
    return "" if at[0].requires_grad else "frozen"
