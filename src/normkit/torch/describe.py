"""What a recording says of the optimizers that it was attached to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from normkit.recording.rank import told_rank
from normkit.torch.walk import Located

Hook = Callable[..., None]


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


def rates(optimizers: Sequence[torch.optim.Optimizer], before: Mapping[str, Any]) -> dict[str, Any]:
    """The learning rates now: `lr` is the first group's of the first optimizer, `lr.1` its second group's.

    Another optimizer's are `optimizer1.lr`, `optimizer1.lr.1`. A group equal to the first is left out, unless it has
    differed `before`.
    """
    named: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        named |= named_rates(group_rates(optimizer), before, f"optimizer{number}." if number else "")
    return named


def group_rates(optimizer: torch.optim.Optimizer) -> list[Any]:
    """The learning rate of each group, as it stands there."""
    return [group.get("lr") for group in optimizer.param_groups]


def named_rates(every: Sequence[Any], before: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The rates of one optimizer's groups under their names."""
    names = [f"{prefix}lr.{i}" if i else f"{prefix}lr" for i in range(len(every))]
    return {
        name: rate
        for name, rate in zip(names, every, strict=True)
        if rate is not None and (name == names[0] or name in before or not _same(rate, every[0]))
    }


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


def steps_made(optimizers: Sequence[torch.optim.Optimizer]) -> int | None:
    """How many steps the first optimizer has made in its life, where its state says so."""
    states = optimizers[0].state.values() if optimizers else ()
    counts = [state["step"] for state in states if isinstance(state, Mapping) and "step" in state]
    return max((int(count) for count in counts), default=None)


def untraced(hook: Hook) -> Hook:
    """The hook, as one that a compiled training step steps over."""
    disabled: Hook = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return disabled


def capturing() -> bool:
    """Is a CUDA graph being captured? What is done then is done again at each replay, unseen; so nothing is."""
    return bool(torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())  # type: ignore[no-untyped-call]


def rank() -> int:
    """Which process of a distributed run this is; 0 where there is only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_rank())
    return told_rank()
