"""The error kinds, by cause, and how a sentence shows a value. The low level raises the fact; the door adds which
parameter.
"""

from __future__ import annotations

MOST = 60  # characters of a value in a sentence


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
    if isinstance(value, list | tuple):
        items = ", ".join([in_brief(item) for item in value[:8]] + ["..."] * (len(value) > 8))
        return _cut(f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})")
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever it is, the sentence about it must be said
        return f"<{kind}>"
    return _cut(text) if len(text) <= MOST or isinstance(value, str | bytes | dict | set) else f"<{kind}>"


def _cut(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."
