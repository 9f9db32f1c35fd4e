"""The model and the optimizers that `record` was given, in whatever form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from normkit.errors import ArgumentError, ModelError, in_brief

DRIVERS = (torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)  # what is often given in its stead


class Holder(torch.nn.Module):
    """Several models that are recorded together; nobody trains it."""


Models = torch.nn.Module | Mapping[str, torch.nn.Module] | Sequence[torch.nn.Module]


def sort_out(model: Any, optimizer: Any) -> tuple[torch.nn.Module | None, list[torch.optim.Optimizer]]:
    """The model (several joined under their names) and the list of optimizers, in whatever form they were given."""
    if optimizer is None and is_optimizer(model):
        model, optimizer = None, model
    if is_optimizer(model) and isinstance(optimizer, torch.nn.Module):
        given = f"model={type(model).__name__}, optimizer={type(optimizer).__name__}"
        raise ArgumentError(f"{given}: the model comes first: nk.record(model, optimizer)")
    if model is None and optimizer is None:
        raise ArgumentError("record(): expected a model, an optimizer, or both, as in nk.record(model, optimizer)")
    whole = None if model is None else joined(model)
    optimizers = [] if optimizer is None else _optimizers(optimizer)
    if whole is not None and optimizers:
        _check_overlap(whole, optimizers)
    return whole, optimizers


def is_optimizer(thing: Any) -> bool:
    """Has it what an optimizer has? Those of training libraries are wrapped, and no subclass of torch's."""
    return not isinstance(thing, type) and hasattr(thing, "param_groups") and hasattr(thing, "step")


def _optimizers(given: Any) -> list[torch.optim.Optimizer]:
    if is_optimizer(given):
        return [_unwrapped(given)]
    many = list(given.values()) if isinstance(given, Mapping) else given
    if not isinstance(many, Iterable) or isinstance(many, str | torch.Tensor | torch.nn.Module):
        raise ArgumentError(_no_optimizer(given, type(given).__name__))
    many = list(many)
    for one in many:
        if not is_optimizer(one):
            raise ArgumentError(_no_optimizer(one, f"[... {type(one).__name__} ...]"))
    if not many:
        raise ArgumentError(f"optimizer={in_brief(given)} is empty; give one, or leave it out and call rec.step()")
    return list(dict.fromkeys(_unwrapped(one) for one in many))


def _no_optimizer(thing: Any, given: str) -> str:
    """What to say of a thing that is no optimizer."""
    if isinstance(thing, type):
        return f"optimizer={thing.__name__} is a class; give an instance, such as {thing.__name__}(model.parameters())"
    if isinstance(thing, DRIVERS):
        return f"optimizer={given}: give the optimizer it drives, as in nk.record(model, optimizer)"
    return f"optimizer={given}: expected a torch.optim optimizer or a list of them"


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside wrappers such as those of training libraries.

    Some are subclasses of torch's that were never initialized as such: they have its methods, and no hooks.
    """
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"optimizer={type(optimizer).__name__}: it has no step hooks; give the torch.optim optimizer inside it, "
            "or only the model and call rec.step() after each step"
        )
    return optimizer


def joined(model: Any) -> torch.nn.Module:
    """One module of what was given: itself, or a holder of several under their names."""
    if isinstance(model, torch.nn.Module):
        return model
    if isinstance(model, Mapping):
        named = {str(name): module for name, module in model.items()}
    elif isinstance(model, list | tuple):
        named = {str(number): module for number, module in enumerate(model)}
    else:
        named = {"": model}
    if not named:
        raise ArgumentError(f"model={in_brief(model)} is empty; give a torch.nn.Module, or several in a dict or list")
    for module in named.values():
        if not isinstance(module, torch.nn.Module):
            raise ArgumentError(_no_model(module))
    holder = Holder()
    for name, module in named.items():
        holder._modules[name.replace(".", "_") or "model"] = module  # add_module refuses names such as "half"
    if len(holder._modules) < len(named):
        raise ArgumentError(
            f"model={{{', '.join(map(in_brief, named))}}}: two of these are one name; a dot becomes '_'"
        )
    return holder


def _no_model(thing: Any) -> str:
    """What to say of a thing that is no module."""
    if isinstance(thing, type):
        return f"model={thing.__name__} is a class; give an instance, such as {thing.__name__}(...)"
    given = "None" if thing is None else type(thing).__name__
    return f"model={given}: expected a torch.nn.Module, or several in a dict or list"


def _check_overlap(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    params = {id(param) for param in model.parameters()}
    for optimizer in optimizers:
        held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        if params and held and not any(id(tensor) in params for tensor in held):
            raise ModelError(
                f"{type(optimizer).__name__} holds {len(held)} parameters, none of them among "
                f"the model's {len(params)}: was it made from another model, or from a copy?"
            )


def checked_module(thing: Any, verb: str) -> None:
    """Raises: ArgumentError where the first argument of `verb` is no module."""
    if isinstance(thing, type):
        raise ArgumentError(f"{verb}({thing.__name__}): a class; give an instance, such as {thing.__name__}(...)")
    if not isinstance(thing, torch.nn.Module):
        raise ArgumentError(f"{verb}: the first argument is of type {type(thing).__name__}, not torch.nn.Module")
