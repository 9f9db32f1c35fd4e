"""The error kinds, by cause, and how a sentence shows a value. The low level raises the fact; the door adds which
parameter.
"""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any

MOST = 60  # characters of a value in a sentence
MANY = 8  # of its items


class NormkitError(Exception):
    """Parent of every error that normkit raises on purpose."""


class ArgumentError(NormkitError, ValueError):
    """An argument has a value that cannot be used."""


class ModelError(NormkitError):
    """The model or optimizer given does not allow what was asked of it."""


class FileError(NormkitError, OSError):
    """A file is missing, is not what it should be, or cannot be written."""


class StateError(NormkitError, RuntimeError):
    """An object was used at a moment when it cannot serve."""


def in_brief(value: object) -> str:
    """A value as a sentence shows it: its repr where that is short, and never a tensor's or a model's content.

    >>> in_brief("often"), in_brief([1, 2]), in_brief("x" * 100)
    ("'often'", '[1, 2]', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...")
    """
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        return f"<{kind} of shape {tuple(shape)}>"
    if isinstance(value, list | tuple | dict):
        return _cut(_of_items(value))
    if isinstance(value, FunctionType | MethodType | partial):  # whose repr is an address
        return _cut(f"function {getattr(value, '__name__', kind)}")
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever it is, the sentence about it must be said
        return f"<{kind}>"
    return _cut(text) if len(text) <= MOST or isinstance(value, str | bytes | dict | set) else f"<{kind}>"


def _of_items(value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> str:
    if hasattr(value, "_fields"):  # a named tuple, such as an optimizer that is two functions
        return f"<{type(value).__name__}>"
    more = ", ..." * (len(value) > MANY)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{in_brief(key)}: {in_brief(value[key])}" for key in list(value)[:MANY]) + more + "}"
    items = ", ".join(map(in_brief, value[:MANY])) + more
    return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"


def _cut(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."
