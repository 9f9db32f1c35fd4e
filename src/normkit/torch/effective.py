"""Weights that a layer computes from other parameters: which they are, their parts, and how to see them untouched.

torch has two ways: parametrizations (`parametrizations.<name>.original...`), and the older forward hooks (weight and
spectral norm, pruning), which leave `<name>_g`, `<name>_v` or `<name>_orig` behind. Either way the layer's weight is
worked out here as the layer itself would in evaluation, and nothing in the model is any different afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from normkit.torch.normal import WeightNorm as OurWeightNorm
from normkit.types import Part

WEIGHT_NORMS = (OurWeightNorm, parametrizations._WeightNorm)
# The classes whose result has the shape and dtype of their (last) part: theirs need not be computed to be known.
KEEPS_SHAPE = (*WEIGHT_NORMS, parametrizations._SpectralNorm, parametrizations._Orthogonal)


@dataclass(frozen=True)
class Computed:
    """One weight `name` of a layer, computed by `compute` from `parts` (suffix, part, tensor, name in the layer)."""

    name: str
    parts: tuple[tuple[str, Part, Tensor, str], ...]
    compute: Callable[[], Tensor]
    trainable: bool
    like: Tensor | None  # a tensor of the same shape and dtype, where one is known without computing
    live: Callable[[], Tensor]  # as `compute`, and derivatives reach the parts


def computed_weights(module: nn.Module) -> Iterator[Computed]:
    """The weights of this one layer that are computed from parameters, by either of torch's ways."""
    lists = module._modules.get("parametrizations")
    for name, holder in lists.items() if isinstance(lists, nn.ModuleDict) else ():
        if isinstance(holder, ParametrizationList):
            yield _parametrized(name, holder)
    for hook in module._forward_pre_hooks.values():
        if found := _hooked(module, hook):
            yield found


def originals(holder: ParametrizationList) -> dict[str, Tensor]:
    """The tensors from which a parametrization starts, under their names in the list."""
    names = ["original"] if holder.is_tensor else [f"original{i}" for i in range(holder.ntensors)]
    return {name: getattr(holder, name) for name in names}


def _parametrized(name: str, holder: ParametrizationList) -> Computed:
    found = originals(holder)
    first: nn.Module = holder[0]
    if isinstance(first, WEIGHT_NORMS):
        g, v = found.values()
        parts: tuple[tuple[str, Part, Tensor, str], ...] = (("g", "g", g, ""), ("v", "v", v, ""))
    else:
        parts = tuple((part, "whole", tensor, "") for part, tensor in found.items())
    like = parts[-1][2] if all(isinstance(step, KEEPS_SHAPE) for step in holder) else None
    trainable = any(p.requires_grad for p in holder.parameters())
    return Computed(name, parts, lambda: _evaluate(holder), trainable, like, lambda: _live(holder))


def _hooked(module: nn.Module, hook: object) -> Computed | None:
    own = module._parameters
    if isinstance(hook, WeightNorm):
        g, v = own.get(f"{hook.name}_g"), own.get(f"{hook.name}_v")
        if g is None or v is None:
            return None
        parts: tuple[tuple[str, Part, Tensor, str], ...] = (
            ("g", "g", g, f"{hook.name}_g"),
            ("v", "v", v, f"{hook.name}_v"),
        )
        trainable = g.requires_grad or v.requires_grad
        live = partial(hook.compute_weight, module)
        return Computed(hook.name, parts, lambda: _detached(live), trainable, v, live)
    if isinstance(hook, SpectralNorm):
        name, live = hook.name, partial(hook.compute_weight, module, False)  # False: no power iteration
    elif isinstance(hook, prune.BasePruningMethod):
        name, live = hook._tensor_name, partial(hook.apply_mask, module)
    else:
        return None
    whole = own.get(f"{name}_orig")
    if whole is None:
        return None
    parts = (("original", "whole", whole, f"{name}_orig"),)
    return Computed(name, parts, lambda: _detached(live), whole.requires_grad, whole, live)


def _detached(live: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return live().detach()


def _evaluate(holder: ParametrizationList) -> Tensor:
    with torch.no_grad(), _left_as_it_was(holder):
        weight: Tensor = holder()
        return weight.detach()


def _live(holder: ParametrizationList) -> Tensor:
    weight: Tensor
    if all(isinstance(step, WEIGHT_NORMS) for step in holder):  # nothing to put back, and a compiler can follow
        weight = holder()
        return weight
    with _left_as_it_was(holder):
        weight = holder()
        return weight


@contextmanager
def _left_as_it_was(holder: ParametrizationList) -> Iterator[None]:
    """Evaluate in eval mode on copies of the buffers; then put back every attribute and the random state."""
    modules = list(holder.modules())
    before = [dict(module.__dict__) for module in modules]
    ours = all(isinstance(step, KEEPS_SHAPE) for step in holder)  # torch's own draw nothing and write no buffer in eval
    states = [] if ours else _random_states(holder)
    try:
        for module in modules:
            module.__dict__["training"] = False
            if module._buffers and not ours:
                copies = {name: None if b is None else b.clone() for name, b in module._buffers.items()}
                module.__dict__["_buffers"] = copies
        yield
    finally:
        for module, attributes in zip(modules, before, strict=True):
            for added in module.__dict__.keys() - attributes.keys():
                del module.__dict__[added]
            module.__dict__.update(attributes)
        for put_back, state in states:
            put_back(state)


def _random_states(holder: ParametrizationList) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    states: list[tuple[Callable[[Tensor], None], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    devices = {p.device for p in holder.parameters() if p.device.type == "cuda"}
    states += [(partial(torch.cuda.set_rng_state, device=at), torch.cuda.get_rng_state(at)) for at in devices]
    return states
