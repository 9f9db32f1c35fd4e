"""Parameters that take the place of others: in the optimizers' groups, their names and states."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.torch.arguments import DRIVERS, is_optimizer

State = Literal["carry", "reset"]
Places = Mapping[int, int]  # id of a parameter -> its number in the model


@dataclass(frozen=True)
class Change:
    """`old` parameters, which the `new` ones replace; names end in `old_names` and `new_names`.

    The new ones stand where the last of the old ones that the optimizer holds stood; that one's state is carried, all
    of it: v and the weight have one shape.
    """

    weight: str
    old: tuple[Tensor, ...]
    new: tuple[nn.Parameter, ...]
    old_names: tuple[str, ...]
    new_names: tuple[str, ...]


def optimizers_of(given: Any) -> list[Any]:
    """One optimizer, a list or a dict of them, or None, as a list; a training library's wrapper is taken off.

    Raises: ArgumentError for anything else.
    """
    if given is None:
        return []
    if is_optimizer(given):
        return [_inside(given)]
    many = list(given.values()) if isinstance(given, Mapping) else given
    if not isinstance(many, Iterable) or isinstance(many, str | Tensor | nn.Module):
        raise ArgumentError(f"optimizer={_told(given)}")
    many = list(many)
    if not many:
        raise ArgumentError(f"optimizer={in_brief(given)} is empty; give one, or leave it out")
    for one in many:
        if not is_optimizer(one):
            raise ArgumentError(f"optimizer=[...]: among them {_told(one)}")
    return list({id(inner): inner for inner in map(_inside, many)}.values())


def _told(thing: Any) -> str:
    """What to say of a thing that is no optimizer."""
    if isinstance(thing, type):
        return f"{thing.__name__} is a class; give an instance, such as {thing.__name__}(model.parameters())"
    if isinstance(thing, DRIVERS):
        return f"{type(thing).__name__}: give the optimizer it drives"
    given = in_brief(thing) if isinstance(thing, str | int | float) else type(thing).__name__
    return f"{given}: expected a torch.optim optimizer or a list of them"


def _inside(optimizer: Any) -> Any:
    while not isinstance(optimizer, torch.optim.Optimizer) and is_optimizer(getattr(optimizer, "optimizer", None)):
        optimizer = optimizer.optimizer
    return optimizer


def refuse_strangers(optimizers: Sequence[Any], trained: Mapping[str, Sequence[Tensor]], verb: str) -> None:
    """Raises: ModelError for an optimizer that holds no part of any of the `trained` weights."""
    wanted = {id(part) for tensors in trained.values() for part in tensors}
    for optimizer in optimizers:
        held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        if wanted and not any(id(tensor) in wanted for tensor in held):
            raise ModelError(
                f"{verb}: {type(optimizer).__name__} holds {len(held)} parameters, and {next(iter(trained))} is not "
                "among them: was it made from another model, or from a copy?"
            )


def hand_over(
    optimizers: Sequence[Any], changes: Sequence[Change], before: Places, after: Places, state: State = "reset"
) -> None:
    """Put the new parameters in the place of the old ones; the lists stay the same objects, as schedulers need it.

    A group that was in the model's order `before` is in its order `after`: so its state fits an optimizer that is made
    of the model as it is then, which knows parameters by their number only.
    """
    for optimizer in optimizers:
        in_order = [group for group in optimizer.param_groups if _ascends(group, before)]
        for change in changes:
            _replace(optimizer, change, state)
        for group in in_order:
            _put_in_order(group, after)
        if isinstance(optimizer, torch.optim.LBFGS):  # its state is of all parameters in one
            optimizer._params, optimizer._numel_cache = optimizer.param_groups[0]["params"], None
            optimizer.state.clear()


def places(module: nn.Module) -> Places:
    """Where each parameter stands in the model's order."""
    return {id(tensor): place for place, tensor in enumerate(module.parameters())}


def _ascends(group: Mapping[str, Any], known: Places) -> bool:
    found = [known[id(tensor)] for tensor in group["params"] if id(tensor) in known]
    return found == sorted(found)


def _put_in_order(group: dict[str, Any], known: Places) -> None:
    """Sort the parameters that are known among the slots that they have; the names go along."""
    slots = [slot for slot, tensor in enumerate(group["params"]) if id(tensor) in known]
    sources = sorted(slots, key=lambda slot: known[id(group["params"][slot])])
    for entries in (group["params"], group.get("param_names")):
        if entries is not None:
            for slot, entry in zip(slots, [entries[source] for source in sources], strict=True):
                entries[slot] = entry


def _replace(optimizer: Any, change: Change, state: State) -> None:
    old = {id(tensor): number for number, tensor in enumerate(change.old)}
    found = [
        (group, old[id(tensor)]) for group in optimizer.param_groups for tensor in group["params"] if id(tensor) in old
    ]
    if not found:
        return
    main = max(number for _, number in found)
    for group in {id(group): group for group, _ in found}.values():
        _in_group(group, change, main)
    states = [optimizer.state.pop(tensor, {}) for tensor in change.old]
    if state == "carry" and len(change.new) == 1 and main == len(change.old) - 1 and states[main]:
        optimizer.state[change.new[0]] = dict(states[main])


def _in_group(group: dict[str, Any], change: Change, main: int) -> None:
    params, names = group["params"], group.get("param_names")
    for i in reversed(range(len(params))):
        number = next((k for k, tensor in enumerate(change.old) if tensor is params[i]), None)
        if number is None:
            continue
        here = number == main
        if names is not None:
            stem = names[i].removesuffix(change.old_names[number])
            names[i : i + 1] = [stem + own for own in change.new_names] if here else []
        params[i : i + 1] = change.new if here else []


class Orphans:
    """Parameters that have been replaced: does an optimizer that nobody gave still hold them?"""

    def __init__(self, changes: Sequence[Change], given: Sequence[Any], verb: str) -> None:
        self._refs = [(change.weight, weakref.ref(tensor)) for change in changes for tensor in change.old]
        self._given, self._verb = {id(optimizer) for optimizer in given}, verb

    def warn(self) -> None:
        """Say so in one sentence. Only where some are still alive, all objects are looked through."""
        alive = {id(tensor): weight for weight, ref in self._refs if (tensor := ref()) is not None}
        if not alive:
            return
        for optimizer in _optimizers_alive():
            if id(optimizer) in self._given:
                continue
            held = [alive[id(x)] for group in optimizer.param_groups for x in group["params"] if id(x) in alive]
            if held:
                more = f" and {len(set(held)) - 1} more" if len(set(held)) > 1 else ""
                warnings.warn(
                    f"{type(optimizer).__name__} was made before {self._verb}: what it holds of {held[0]}{more} trains "
                    f"nothing now; give it as {self._verb}(..., optimizer=...), or make a new one",
                    UserWarning,
                    stacklevel=3,
                )


def _optimizers_alive() -> list[torch.optim.Optimizer]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.optim.Optimizer)]
