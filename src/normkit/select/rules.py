"""The language of `select`, taken apart: roles, terms (names, layer classes, callables) and what "!" takes away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Literal

from normkit.errors import ArgumentError, in_brief
from normkit.types import ROLES, Param

WORDS = (*ROLES, "all")


@dataclass(frozen=True)
class Term:
    """One item of a rule: as it was written, what it is, and whether a parameter meets it."""

    text: str
    kind: Literal["name", "role", "class", "callable"]
    meets: Callable[[Param], bool]


@dataclass(frozen=True)
class Parsed:
    """A rule taken apart: one of `roles` and one of `terms`, and none of `away`; empty ones do not count."""

    roles: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    away: tuple[Term, ...] = ()
    text: str = ""


def parse(rule: object) -> Parsed:
    """Take a rule apart; ArgumentError for what is none."""
    if rule is None:
        return Parsed()
    items = list(rule) if isinstance(rule, list | tuple | set | frozenset) else [rule]
    if not items:
        raise ArgumentError(f"select={rule!r} is empty; give roles, names or layer classes, or leave it out")
    roles = [item for item in items if isinstance(item, str) and item in WORDS]
    away = [_taken_away(item) for item in items if isinstance(item, str) and item.startswith("!")]
    rest = [item for item in items if not (isinstance(item, str) and (item in WORDS or item.startswith("!")))]
    return Parsed(tuple(roles), tuple(_term(item) for item in rest), tuple(away), written(items))


def written(items: Iterable[object]) -> str:
    """The items as a user would write them: `['bias', 'conv*']`, or `'conv*'` for a single one."""
    texts = [repr(item) if isinstance(item, str) else _label(item) for item in items]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def matches(pattern: str, param: Param) -> bool:
    """Does the pattern match the name or an alias, from its start or from any dot, to its end?

    >>> conv = Param("layer1.0.conv1.weight", (8, 3, 3, 3), "float32", "kernel")
    >>> [matches(p, conv) for p in ("conv*", "layer1/*", "conv1", "onv1.*", "Conv*")]
    [True, True, False, False, False]
    """
    regex = _regex(pattern)
    return any(regex.match(name.replace("/", ".")) for name in (param.name, *param.aliases))


def barred(param: Param, roles: Sequence[str]) -> str:
    """Why none of `roles` takes the parameter; "" when one does. The word "trainable" stands for every role."""
    if "all" in roles:
        return ""
    if param.role == "buffer":
        return "" if "buffer" in roles else "role buffer"
    if "trainable" not in roles and param.role not in roles:
        return f"role {param.role}"
    return "" if param.trainable else "frozen"


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(r"(?s:.*\.)?" + translate(pattern.replace("/", ".")))


def _term(item: object) -> Term:
    if isinstance(item, str):
        if not item.strip():
            raise ArgumentError(
                f"select={item!r} is an empty name; give a pattern such as 'encoder.*', or leave it out"
            )
        return Term(repr(item), "name", lambda p: matches(item, p))
    if isinstance(item, type):
        return Term(item.__name__, "class", lambda p: _is_layer(p, item))
    if not callable(item):
        raise ArgumentError(
            f"select={in_brief(item)} is of type {type(item).__name__}; expected a role, a name pattern, a layer "
            "class, a callable, or a list of these"
        )
    if any(cls.__name__ in ("Module", "Layer") for cls in type(item).__mro__):
        label = type(item).__name__
        raise ArgumentError(f"select={label}(...) is a layer; give the class {label}, or the name of this layer")
    return Term(_label(item), "callable", lambda p: _asked(item, p))


def _taken_away(item: str) -> Term:
    rest = item[1:]
    if not rest.strip("! "):
        raise ArgumentError(f"select={item!r} takes nothing away; write one name pattern or role after one '!'")
    if rest in WORDS:
        return Term(repr(item), "role", lambda p: rest in ("all", p.role))
    return Term(repr(item), "name", lambda p: matches(rest, p))


def _is_layer(param: Param, cls: type) -> bool:
    if param.layer_type is None:  # read from a file: only the name of the class is known
        return param.layer == cls.__name__
    return issubclass(param.layer_type, cls)


def _asked(function: Callable[[Param], object], param: Param) -> bool:
    answer = function(param)
    if type(answer).__name__ not in ("bool", "bool_"):  # Python's, and NumPy's under its two names
        raise ArgumentError(
            f"select={_label(function)} returned {in_brief(answer)} for {param.name}; it must return True or False"
        )
    return bool(answer)


def _label(item: object) -> str:
    return str(getattr(item, "__name__", in_brief(item)))
