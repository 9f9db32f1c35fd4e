"""The weight-normed weights of a model, whatever made them: ours, torch's parametrization, or its old hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm as Hook

from normkit.groups import Per
from normkit.normalize import norm_except_dim
from normkit.torch.effective import WEIGHT_NORMS
from normkit.torch.names import wrapped_child
from normkit.torch.normal import WeightNorm


@dataclass(frozen=True)
class Normed:
    """One weight `name` of `layer`: its parts, how it is computed; `hook` is the number of an old hook."""

    layer: nn.Module
    name: str
    path: str  # of the layer, as in `named_modules`
    g: Tensor
    v: Tensor
    compute: Callable[[], Tensor]
    normal: Any
    holder: ParametrizationList | None = None
    hook: int | None = None

    @property
    def full(self) -> str:
        """The weight's name in the model."""
        return f"{self.path}.{self.name}" if self.path else self.name

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """g and v for a weight of this layer."""
        if isinstance(self.normal, WeightNorm):
            return self.normal.length(w), w
        per: Per = "tensor" if self.normal.dim == -1 else self.normal.dim
        return norm_except_dim(w, per).reshape(self.g.shape), w

    @torch.no_grad()
    def set(self, w: Tensor) -> None:
        """Put `w` into the parts as they stand."""
        w = w.to(self.v)
        length, _ = self.split(w)
        self.v.copy_(w)
        self.g.copy_(length)
        if self.hook is not None:
            setattr(self.layer, self.name, self.compute())  # the hook itself does so at each forward


def normed(model: nn.Module) -> Iterator[Normed]:
    """Those of `model`, in its order, each layer once."""
    for path, layer in model.named_modules():
        lists = layer._modules.get("parametrizations")
        for name, holder in lists.items() if isinstance(lists, nn.ModuleDict) else ():
            if isinstance(holder, ParametrizationList) and isinstance(holder[0], WEIGHT_NORMS):
                g, v = holder.get_parameter("original0"), holder.get_parameter("original1")
                yield Normed(layer, name, path, g, v, holder, holder[0], holder)
        for number, hook in layer._forward_pre_hooks.items():
            if isinstance(hook, Hook) and f"{hook.name}_v" in layer._parameters:
                g, v = (layer.get_parameter(f"{hook.name}_{part}") for part in "gv")
                yield Normed(layer, hook.name, path, g, v, _of(hook, layer), hook, hook=number)


def _of(hook: Hook, layer: nn.Module) -> Callable[[], Tensor]:
    return lambda: hook.compute_weight(layer)


def unwrapped(path: str, model: nn.Module) -> str:
    """`path`, of a layer or a parameter, without the names that wrappers put into it."""
    kept: list[str] = []
    at: nn.Module | None = model
    for step in path.split("."):
        if at is None or step != wrapped_child(at):
            kept.append(step)
        at = None if at is None else at._modules.get(step)
    return ".".join(kept)
