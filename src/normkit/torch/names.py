"""Where a wrapper keeps the module it wraps: that child's name is left out of the names of parameters.

A wrapper is known by its type, so a user's own submodule called `module` keeps its name; the types stand here as
text, so that none of their packages is imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from normkit.types import Part

WRAPPERS: dict[str, str] = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": "_checkpoint_wrapped_module",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
}
# Segments that only a wrapper can have put into a name: taken out of an optimizer's `param_names` too.
MARKS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")


def wrapped_child(module: nn.Module) -> str | None:
    """The name under which `module` keeps what it wraps, None if it is no wrapper."""
    for cls in type(module).__mro__:
        if child := WRAPPERS.get(f"{cls.__module__}.{cls.__qualname__}"):
            return child
    return None


def without_marks(name: str) -> str:
    """`_orig_mod.fc.weight` -> `fc.weight`; `module.` stays, since a name alone cannot say whose it is."""
    return ".".join(segment for segment in name.split(".") if segment not in MARKS)


# How torch's two ways of weight norm, which `weight_norm` takes over, name the length and the direction.
_PARTS: tuple[tuple[str, str], ...] = (
    (r"(?:(.*)\.)?parametrizations\.([^.]+)\.original([01])", "01"),
    (r"(?:(.*)\.)?([^.]+)_([gv])", "gv"),
)


def part_by_name(name: str, names: Sequence[str]) -> tuple[str, Part]:
    """`fc.parametrizations.weight.original0` or `fc.weight_g` -> `fc.weight.g`, where the other part is named too."""
    for pattern, marks in _PARTS:
        found = re.fullmatch(pattern, name)
        if found is None:
            continue
        layer, weight, mark = found.groups()
        other = name[: -len(mark)] + marks[1 - marks.index(mark)]
        if other in names:
            part: Part = "g" if mark == marks[0] else "v"
            return f"{layer}.{weight}.{part}" if layer else f"{weight}.{part}", part
    return name, "whole"
