"""Which weights a penalty pulls, and why the others not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.select.selection import Row
from normkit.torch.arguments import is_optimizer, joined
from normkit.torch.effective import WEIGHT_NORMS
from normkit.torch.kept import kept_for
from normkit.torch.layers import kind_of
from normkit.torch.normal import WeightNorm
from normkit.torch.normed import normed
from normkit.torch.walk import Located, memory_key, walk
from normkit.types import Param

OLD_SHARDING = "torch.distributed.fsdp.fully_sharded_data_parallel"


@dataclass(frozen=True)
class Pulled:
    """One weight: its tensor, or what works it out anew at each call, with a graph; g where that has its lengths."""

    param: Param
    tensor: Tensor | None
    live: Callable[[], Tensor] | None = None
    lengths: Tensor | None = None

    def now(self) -> Tensor:
        """The weight, through which derivatives reach its parameters."""
        if self.tensor is not None:
            return self.tensor
        assert self.live is not None  # one of the two there always is
        return self.live()

    def kept(self, per: Per) -> tuple[int, ...]:
        """The axes whose indices are groups. Raises: ArgumentError, with the weight's name."""
        return kept_for(self.param, per)


@dataclass(frozen=True)
class Found:
    """The weights that a rule chose, and the table of all."""

    pulled: tuple[Pulled, ...]
    table: Explanation


Source = nn.Module | dict[str, Tensor]


def source_of(model: Any) -> Source:
    """One module, or named tensors, of what was given as `model`.

    Raises: ArgumentError for anything else; ModelError for a model sharded in a way that hides its weights.
    """
    if is_optimizer(model):
        given = type(model).__name__
        raise ArgumentError(f"model={given}: a penalty is of a model's weights: nk.penalty(model, l2=...)")
    tensors = _named_tensors(model)
    if tensors is None:
        module = joined(model)
        if any(f"{cls.__module__}" == OLD_SHARDING for each in module.modules() for cls in type(each).__mro__):
            raise ModelError(
                f"model={type(module).__name__} is sharded by FullyShardedDataParallel, which flattens the weights: "
                "use fully_shard, which leaves them whole"
            )
        return module
    if len(tensors) > 1 and not any(w.requires_grad for w in tensors.values()):
        raise ArgumentError(
            f"model={in_brief(list(tensors))}: none of these {len(tensors)} tensors requires a gradient, so a penalty "
            "would pull nothing; give the model itself, or its parameters"
        )
    return tensors


def _named_tensors(model: Any) -> dict[str, Tensor] | None:
    """Names for a tensor, a list or a dict of them; None for what is of modules, or of anything else."""
    if isinstance(model, Tensor):
        return {"tensor": model}
    if isinstance(model, nn.Module | str | type) or not isinstance(model, Iterable):
        return None
    if isinstance(model, Mapping):
        items = [(str(name), value) for name, value in model.items()]
    else:
        items = [
            (str(each[0]), each[1]) if isinstance(each, tuple) and len(each) == 2 else (str(number), each)
            for number, each in enumerate(model)
        ]
    named = dict(items)
    if named and all(isinstance(value, Tensor) for value in named.values()):
        return named
    if any(isinstance(value, Tensor) for value in named.values()) or not isinstance(model, Mapping | list | tuple):
        other = next((type(value).__name__ for value in named.values() if not isinstance(value, Tensor)), "nothing")
        raise ArgumentError(f"model={type(model).__name__} holds {other}; expected a module, or tensors only")
    return None


def found_in(source: Source, rule: Any, *, again: bool = False) -> Found:
    """What the rule chooses. With `again` one that reaches nothing any more is no error.

    Raises: ArgumentError for a rule that matches nothing, StateError for a lazy layer that has seen no batch.
    """
    located = _bare(source) if isinstance(source, dict) else walk(source, uninitialized="error")
    default = "all" if isinstance(source, dict) else "kernel"
    try:
        selection = select_params([item.param for item in located], rule, default=default)
    except ArgumentError:
        if not again:
            raise
        return Found((), Explanation(()))
    chosen = {param.name for param in selection.chosen}
    pulled, rows = [], []
    for item, row in zip(located, selection.explain().rows, strict=True):
        no = _left_out(item, chosen, bare=isinstance(source, dict)) if row.chosen else row.why
        rows.append(Row(row.name, row.role, row.role_from, not no, no or row.why))
        if not no:
            pulled.append(Pulled(item.param, item.tensor, item.live, _lengths(item)))
    if not pulled and not again:
        raise ArgumentError(
            f"select={in_brief(rule)} leaves nothing to pull: {rows[0].name} is {rows[0].why}"
            if rows
            else f"model={type(source).__name__} has no parameters to pull"
        )
    return Found(tuple(pulled), Explanation(tuple(rows)))


def _bare(tensors: Mapping[str, Tensor]) -> list[Located]:
    """Tensors without a layer, each once."""
    located: dict[Any, Located] = {}
    for name, w in tensors.items():
        kind = kind_of(None, name, tuple(w.shape))
        param = Param(
            name,
            tuple(w.shape),
            str(w.dtype).removeprefix("torch."),
            kind.role,
            out_axes=kind.out_axes,
            in_axes=kind.in_axes,
            trainable=w.requires_grad,
            rule=kind.rule,
        )
        key = memory_key(w)
        if key in located:
            first = located[key].param
            param = replace(first, aliases=(*first.aliases, name))
        located[key] = Located(param, w)
    return list(located.values())


def _left_out(item: Located, chosen: set[str], *, bare: bool) -> str:
    """Why a weight that the rule reaches is not pulled all the same; "" where it is."""
    name, part = item.param.name, item.param.part
    computed = name.rpartition(".")[0]
    if (
        part in ("g", "v", "whole")
        and computed in chosen
        and name.rpartition(".")[2].startswith(("g", "v", "original"))
    ):
        return f"part of {computed}"
    if "float" not in item.param.dtype:
        return f"{item.param.dtype}, not floating-point"
    if item.param.dtype.startswith(("float8", "float4")):
        return f"{item.param.dtype}, quantized"
    if item.param.role == "buffer" and not bare:
        return "buffer: nothing trains it"
    return "" if item.param.trainable or bare else "frozen"


def _lengths(item: Located) -> Tensor | None:
    """The g whose entries are the lengths of this weight's groups; None where there is none, or p is not 2."""
    if item.param.part != "effective" or item.module is None:
        return None
    name = item.param.name.rpartition(".")[2]
    for each in normed(item.module):
        alone = each.holder is None or (len(each.holder) == 1 and isinstance(each.normal, WEIGHT_NORMS))
        if each.layer is item.module and each.name == name and alone:
            return each.g if getattr(each.normal, "p", 2) == 2 or not isinstance(each.normal, WeightNorm) else None
    return None
