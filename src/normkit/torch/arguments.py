"""The model and the optimizers that `record` was given, in whatever form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from normkit.errors import ArgumentError, ModelError


class Holder(torch.nn.Module):
    """Several models that are recorded together; nobody trains it."""


Models = torch.nn.Module | Mapping[str, torch.nn.Module] | Sequence[torch.nn.Module]


def sort_out(model: Any, optimizer: Any) -> tuple[torch.nn.Module | None, list[torch.optim.Optimizer]]:
    """The model (several joined under their names) and the list of optimizers, in whatever form they were given."""
    if optimizer is None and _is_optimizer(model):
        model, optimizer = None, model
    if model is None and optimizer is None:
        raise ArgumentError("record(): expected a model, an optimizer, or both, as in nk.record(model, optimizer)")
    whole = None if model is None else joined(model)
    optimizers = [] if optimizer is None else _optimizers(optimizer)
    if whole is not None and optimizers:
        _check_overlap(whole, optimizers)
    return whole, optimizers


def _is_optimizer(thing: Any) -> bool:
    return hasattr(thing, "param_groups") and hasattr(thing, "step")


def _optimizers(given: Any) -> list[torch.optim.Optimizer]:
    if _is_optimizer(given):
        return [_unwrapped(given)]
    if isinstance(given, Mapping):
        given = list(given.values())
    if not isinstance(given, Iterable) or isinstance(given, str | torch.Tensor):
        raise ArgumentError(f"optimizer={type(given).__name__}: expected a torch.optim optimizer or a list of them")
    many = list(given)
    for one in many:
        if not _is_optimizer(one):
            raise ArgumentError(f"optimizer=[... {type(one).__name__} ...]: expected torch.optim optimizers only")
    return list(dict.fromkeys(_unwrapped(one) for one in many))


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside wrappers such as those of training libraries."""
    while not hasattr(optimizer, "register_step_post_hook") and hasattr(optimizer, "optimizer"):
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
    for module in named.values():
        if not isinstance(module, torch.nn.Module):
            raise ArgumentError(
                f"model={type(module).__name__}: expected a torch.nn.Module, or several in a dict or list"
            )
    holder = Holder()
    for name, module in named.items():
        holder.add_module(name.replace(".", "_"), module)
    return holder


def _check_overlap(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    params = {id(param) for param in model.parameters()}
    for optimizer in optimizers:
        held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        if params and held and not any(id(tensor) in params for tensor in held):
            raise ModelError(
                f"{type(optimizer).__name__} holds {len(held)} parameters, none of them among "
                f"the model's {len(params)}: was it made from another model, or from a copy?"
            )
