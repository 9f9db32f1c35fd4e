"""How variables stand in what was given, in lists, dicts and modules, and which gradient stands beside which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from normkit.tensorflow.walk import is_variable, key_of

Keys = list[int]  # of variables
Structure = Any  # lists and dicts of `Leaf`s


class Leaf(NamedTuple):
    """A variable, or a module with its variables in its own order."""

    trainable: Keys
    every: Keys
    bare: bool  # is it a variable?


def structure(given: Any) -> Structure:
    """The lists and dicts that were given, with keys of variables in place of these."""
    if is_variable(given):
        key = [key_of(given)]
        return Leaf(key if given.trainable else [], key, bare=True)
    if isinstance(given, Mapping):
        return {name: structure(each) for name, each in given.items()}
    if isinstance(given, list | tuple):
        return [structure(each) for each in given]
    trainable, every = ([key_of(each) for each in of] for of in (given.trainable_variables, given.variables))
    return Leaf(trainable, every, bare=False)


def orders(whole: Structure, *, as_nest: bool = False) -> list[Keys]:
    """The trainable variables, and all of them, as the user lists them: `trainable_variables` of a module or model.

    `as_nest`: dicts of variables in the order of their sorted keys, as `tf.nest.flatten` has them.
    """
    leaves = _leaves(whole, as_nest=as_nest)
    return [[key for leaf in leaves for key in leaf.trainable], [key for leaf in leaves for key in leaf.every]]


def _leaves(whole: Structure, *, as_nest: bool) -> list[Leaf]:
    if isinstance(whole, Leaf):
        return [whole]
    several = _values(whole, as_nest=as_nest) if isinstance(whole, dict) else whole
    return [leaf for part in several for leaf in _leaves(part, as_nest=as_nest)]


def _values(whole: dict[Any, Structure], *, as_nest: bool) -> list[Structure]:
    """The values; `tf.nest` takes no module apart, so nobody flattens a dict of modules by it."""
    if not as_nest or not all(leaf.bare for leaf in _leaves(whole, as_nest=False)):
        return list(whole.values())
    try:
        return [whole[key] for key in sorted(whole)]
    except TypeError:  # keys of several kinds: `tf.nest` refuses them, too
        return list(whole.values())


def holds_dicts(grads: Any) -> bool:
    """Is there a dict among them?"""
    return isinstance(grads, Mapping) or (isinstance(grads, list | tuple) and any(map(holds_dicts, grads)))


def paired(whole: Structure, grads: Any) -> list[tuple[int, Any]] | None:
    """The key of each variable and its gradient, where both stand in the same lists and dicts; None where not."""
    if grads is None:
        return []
    if isinstance(whole, Leaf):
        return _at(whole, grads)
    if isinstance(whole, dict):
        if not isinstance(grads, Mapping) or not grads.keys() <= whole.keys():
            return None
        parts = [(whole[name], each) for name, each in grads.items()]
    else:
        if not isinstance(grads, list | tuple) or len(grads) != len(whole):
            return None
        parts = list(zip(whole, grads, strict=True))
    found = [paired(*part) for part in parts]
    return None if any(pairs is None for pairs in found) else [pair for pairs in found for pair in pairs or ()]


def _at(leaf: Leaf, grads: Any) -> list[tuple[int, Any]] | None:
    if holds_dicts(grads) or isinstance(grads, list | tuple) == leaf.bare:
        return None
    several = [grads] if leaf.bare else list(grads)
    keys = next((keys for keys in (leaf.trainable, leaf.every) if len(keys) == len(several)), None)
    return None if keys is None else list(zip(keys, several, strict=True))
