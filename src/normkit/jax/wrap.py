"""`weight_norm`, `materialize` and `fold`: the weights of a tree in two parts, joined for a step, and for good."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per
from normkit.jax.choice import chosen
from normkit.jax.layers import classes_of
from normkit.jax.parts import content, is_boxed, is_normalized, joined, parted, tell_flax
from normkit.jax.walk import walk
from normkit.lengths import checked

MODULE, STATE = "flax.nnx.module.Module", "flax.nnx.statelib.State"
MADE = "what nk.weight_norm or nk.WeightNorm made"


def weight_norm(params: Any, select: Any = None, per: Per = "out", *, p: float = 2) -> Any:
    """The same tree with each chosen weight w in two parts, g and v, both trained.

        w = g v / |v|_p          v = w and g = |w|_p to begin with, so the model computes what it did

        params = nk.weight_norm(params)
        opt_state = optimizer.init(params)                                   # after, so that it trains g and v
        loss = lambda params: criterion(model.apply(nk.materialize(params), x), y)
        ...
        params = nk.fold(params)                                             # plain arrays again

    params  a tree of arrays: dicts, linen's variables or params, an equinox module, an nnx State; not a TrainState.
            An nnx module is wrapped by `nk.WeightNorm`
    select  which weights (docs: select); default: kernels
    per     "out" (a length for each output unit), "in", "tensor", or the numbers of the axes kept
    p       of the norm, 1 to infinity

    Where a weight w [any] was, a node has `.v` [as w] and `.g` [size of each kept axis, else 1], in w's dtype; in
    float16 and bfloat16 g is rounded, and w with it. g lies on the devices of a mesh as w does. A group that is zero
    stays so: neither of its parts has a gradient. Works inside jit and `jax.eval_shape` too. The tree given is not
    changed.

    Raises: ArgumentError for a rule that reaches nothing, a weight that is already normalized, tied (one nnx variable
    in two places), of integers or complex numbers, axes that are unknown or not there; ModelError for a module of linen
    or nnx. Source: Salimans & Kingma 2016, arXiv:1602.07868.

    >>> tree = weight_norm({"kernel": np.array([[3.0, 0.0], [4.0, 0.0]])})
    >>> tree["kernel"].g, materialize(tree)["kernel"][:, 0]
    (array([[5., 0.]]), array([3., 4.]))
    """
    p = checked(p)
    tell_flax()
    _refuse_state(params, "weight_norm")
    if _modules_in(params):
        raise ModelError(
            f"weight_norm({type(params).__name__}): the weights of an nnx module are variables of it; wrap it, or a "
            "layer of it: nk.WeightNorm(model)"
        )
    kept = {item.param.name: axes for item, axes in chosen(walk(params), select, per)}
    marked = jax.tree.map(_mark, params)
    axes_of = {id(item.array): kept[item.param.name] for item in walk(marked) if item.param.name in kept}
    leaves, structure = jax.tree.flatten(params, is_leaf=is_boxed)
    marks = [id(content(mark)) for mark in jax.tree.leaves(marked, is_leaf=is_boxed)]
    nodes = [
        parted(leaf, axes_of[mark], p) if mark in axes_of else leaf for leaf, mark in zip(leaves, marks, strict=True)
    ]
    return jax.tree.unflatten(structure, nodes)


def materialize(tree: Any) -> Any:
    """The tree with plain arrays in place of weights in two parts, as a model takes it; for use inside jit.

        w = g v / |v|_p

    Derivatives of any order go through it to g and v, finite where v is zero. Of what holds nothing to join, the tree
    itself. An nnx module is not changed: what comes back shares its other variables. Inside `shard_map` the lengths are
    those of a device's part: join before it, or split kept axes only.

    >>> materialize(weight_norm({"kernel": np.array([[3.0], [4.0]])}))
    {'kernel': array([[3.],
           [4.]])}
    """
    _refuse_state(tree, "materialize")
    return _joined(tree) if _holds_parts(tree) else tree


def fold(tree: Any) -> Any:
    """The end of it: the tree that `weight_norm` was given, with the weights that g and v stand for by now.

    Its structure is that of the tree before. Make the optimizer's state anew; that of the parts has no place in it.

    Raises: ArgumentError where nothing is in two parts, and inside jit, where `materialize` is meant.

    >>> fold(weight_norm({"kernel": np.array([[3.0], [4.0]])}))["kernel"].tolist()
    [[3.0], [4.0]]
    """
    _refuse_state(tree, "fold")
    if not _holds_parts(tree):
        raise ArgumentError(
            f"fold({type(tree).__name__}): none of its {len(jax.tree.leaves(tree))} arrays is in two parts, g and v; "
            f"expected {'the module, as nnx.merge makes it' if STATE in classes_of(tree) else MADE}"
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise ArgumentError(
            f"fold({type(tree).__name__}): its arrays are being traced; inside jit take nk.materialize instead"
        )
    return _joined(tree)


def _joined(tree: Any) -> Any:
    return jax.tree.map(_plain, tree, is_leaf=_is_unit)


def _plain(node: Any) -> Any:
    if is_normalized(node):
        return joined(node)
    if not _is_module(node):
        return node
    from normkit.jax.wrapper import plain

    return plain(node)


def _holds_parts(tree: Any) -> bool:
    return any(is_normalized(leaf) for leaf in jax.tree.leaves(tree, is_leaf=is_normalized))


def _is_unit(node: Any) -> bool:
    return is_normalized(node) or _is_module(node)


def _is_module(node: Any) -> bool:
    return MODULE in classes_of(node)


def _modules_in(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=_is_module) if _is_module(leaf)]


def _mark(leaf: Any) -> Any:
    """Shape and dtype in place of an array, which may stand in the tree twice; a mark does not."""
    array = isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if array else leaf


def _refuse_state(tree: Any, verb: str) -> None:
    """What holds weights beside an optimizer's state, and that state alone: g and v of a moment are no weight."""
    name = type(tree).__name__
    if hasattr(tree, "tx") and hasattr(tree, "opt_state"):
        raise ArgumentError(
            f"{verb}({name}): its optimizer state belongs to the weights as they are; give the params alone, and make "
            f"the {name} of what comes back"
        )
    for state in filter(_is_state, jax.tree.leaves(tree, is_leaf=_is_state)):
        raise ArgumentError(
            f"{verb}({type(state).__name__}): this is an optimizer's state, no weights; make it anew by "
            "optimizer.init(params)"
        )


def _is_state(node: Any) -> bool:
    """Of optax; not its `MaskedNode`, which stands in trees of weights, nor its `LookaheadParams`."""
    kind = type(node)
    return kind.__module__.partition(".")[0] == "optax" and kind.__name__.endswith("State")
