"""`WeightNorm`: an nnx module whose weights are in two parts. Imports flax, so it is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per
from normkit.jax.choice import chosen
from normkit.jax.parts import Normalized, joined, parted
from normkit.jax.walk import walk
from normkit.lengths import checked

UNITS = (nnx.Pytree, nnx.Variable, Normalized)


class WeightNorm(nnx.Module):  # type: ignore[misc]  # flax is not followed
    """A layer, or a whole model, that computes with w = g v / |v|_p; each of g and v is an `nnx.Param`.

        self.fc = nk.WeightNorm(nnx.Linear(64, 10, rngs=rngs))          or    model = nk.WeightNorm(model)
        optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    layer   any nnx module. It is not changed; variables that are not chosen are shared with it
    select, per, p   as `nk.weight_norm` has them

    It computes what the layer did, to the last bit where it is called outside jit in float32 or float64. The parts
    stand at `.layer.<weight>.g` and `.v`, and the weight itself nowhere: it is worked out at each call, once however
    often the layer uses it, and never stored. What a call changes in the layer (moving averages, random counts, caches)
    stays changed. Attributes and methods of the layer are there too, with the weights as they are now; what is written
    into such a weight is lost.

    Raises: ArgumentError and ModelError as `nk.weight_norm`.
    """

    def __init__(self, layer: nnx.Module, select: Any = None, per: Per = "out", *, p: float = 2) -> None:
        p = checked(p)
        _refuse(layer)
        kept = {id(item.variable): axes for item, axes in chosen(walk(layer, "layer"), select, per)}

        def swap(unit: Any) -> Any:
            return parted(unit, kept[id(unit)], p) if id(unit) in kept else unit

        self.layer = _Copies(swap).of(layer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # whatever the layer is called with
        copies = _Copies(_weight)
        result = copies.of(self.layer)(*args, **kwargs)
        copies.give_back()
        return result

    def fold(self) -> Any:
        """The plain layer with the weights as they are now; it shares the other variables with this one."""
        return plain(self)

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_" or "layer" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(_Copies(_weight).of(self.layer), name)

    def __setattr__(self, name: str, value: Any) -> None:
        layer = vars(self).get("layer")
        if layer is not None and isinstance(vars(layer).get(name), Normalized):
            raise ArgumentError(
                f"{type(self).__name__}({type(layer).__name__}).{name} = {in_brief(value)}: {name} is worked out at "
                f"each call; set its parts, .layer.{name}.g[...] and .layer.{name}.v[...]"
            )
        super().__setattr__(name, value)


def plain(module: Any) -> Any:
    """The module with each `WeightNorm` in it replaced by its layer, and that with plain weights."""
    return _Copies(_weight, unwrap=True).of(module)


def _weight(unit: Any) -> Any:
    return joined(unit) if isinstance(unit, Normalized) else unit


def _refuse(layer: Any) -> None:
    if isinstance(layer, nnx.Module):
        return
    name = layer.__name__ if isinstance(layer, type) else type(layer).__name__
    if isinstance(layer, type):
        raise ArgumentError(f"WeightNorm({name}): this is a class; give an instance: {name}(..., rngs=rngs)")
    if "flax.linen" in str(type(layer).__mro__):
        raise ModelError(f"WeightNorm({name}): a linen module holds no weights; use nk.weight_norm(params)")
    raise ArgumentError(f"WeightNorm({name}): expected an nnx module; a tree of arrays goes to nk.weight_norm(params)")


@dataclass
class _Copies:
    """Copies of modules that share the variables of the originals, but those that `swap` changes.

    A call of a copy leaves the variables of the original as it would itself; what it sets as an attribute (`sow`, a
    cache) is given back besides.
    """

    swap: Callable[[Any], Any]
    unwrap: bool = False
    _made: dict[int, tuple[Any, Any, dict[str, Any]]] = field(default_factory=dict)  # original, copy, as it was made

    def of(self, node: Any) -> Any:
        """A copy of `node`; a container in which nothing changes, itself."""
        if isinstance(node, WeightNorm) and self.unwrap:
            return self.of(node.layer)
        if isinstance(node, nnx.Pytree):
            return self._module(node)
        if isinstance(node, UNITS):
            return self.swap(node)
        leaves, structure = jax.tree.flatten(node, is_leaf=lambda child: isinstance(child, UNITS))
        copies = [self.of(leaf) if isinstance(leaf, UNITS) else leaf for leaf in leaves]
        same = all(old is new for old, new in zip(leaves, copies, strict=True))
        return node if same else jax.tree.unflatten(structure, copies)

    def _module(self, node: Any) -> Any:
        if id(node) not in self._made:
            copy = object.__new__(type(node))
            self._made[id(node)] = (node, copy, {})
            for name, value in vars(node).items():
                vars(copy)[name] = self.of(value)
            self._made[id(node)][2].update(vars(copy))
        return self._made[id(node)][1]

    def give_back(self) -> None:
        """Set on the originals what was set on their copies."""
        for original, copy, before in self._made.values():
            for name, value in vars(copy).items():
                if name != "_pytree__nodes" and (name not in before or before[name] is not value):
                    setattr(original, name, value)
