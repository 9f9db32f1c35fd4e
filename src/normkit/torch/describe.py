"""What a recording says of the optimizers that it was attached to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from normkit.torch.walk import Located


def described(everything: Sequence[Located], optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Framework, optimizers with their groups, and the trainable tensors that none of them holds."""
    names = {id(item.tensor): item.param.name for item in everything if item.tensor is not None}
    held = {id(tensor) for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"]}
    loose = [item.param.name for item in everything if _trains(item) and id(item.tensor) not in held]
    return {
        "framework": f"torch {torch.__version__}",
        "optimizers": [_describe(optimizer, names) for optimizer in optimizers],
        "untrained": loose if optimizers else [],
    }


def _trains(item: Located) -> bool:
    return item.tensor is not None and item.tensor.requires_grad and item.param.role != "buffer"


def rates(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The learning rate of each group, those equal to the first left out."""
    rates = [group.get("lr") for group in optimizer.param_groups]
    named = {"lr" if i == 0 else f"lr.{i}": rate for i, rate in enumerate(rates) if rate is not None}
    return {name: rate for name, rate in named.items() if name == "lr" or not _same(rate, rates[0])}


def _same(a: Any, b: Any) -> bool:
    """Equal, as far as that can be told without waiting for a device."""
    return a is b or (not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a == b)


def _describe(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    groups = []
    for group in optimizer.param_groups:
        plain = {key: _plain_value(value) for key, value in group.items() if key not in ("params", "param_names")}
        plain["params"] = [names.get(id(tensor), "") for tensor in group["params"]]
        groups.append(plain)
    return {"name": type(optimizer).__name__, "groups": groups}


def _plain_value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 and value.device.type == "cpu" else "tensor"
    if isinstance(value, tuple | list):
        return [_plain_value(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def rank() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_rank())
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0
