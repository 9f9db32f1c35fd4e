"""The arithmetic of a thread: the threads of XLA and TensorFlow take float32 numbers below 1e-38 for zeros."""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def _mathematics() -> tuple[Any, Any] | None:
    """The C library that switches the arithmetic of a thread, and the state that a thread of Python's has."""
    try:
        library, usual = c.CDLL(None), c.create_string_buffer(256)
        library.fegetenv(usual)
        library.fesetenv.argtypes = (c.c_void_p,)
    except (OSError, AttributeError, TypeError):  # no such library here: numbers below 1e-38 count as nothing
        return None
    return library, usual


_mathematics()  # asked for now, in a thread of Python's


@contextmanager
def usual_arithmetic() -> Iterator[None]:
    """Inside, this thread and those it starts work with subnormal numbers, as Python's do."""
    if (found := _mathematics()) is None:
        yield
        return
    library, usual = found
    before = c.create_string_buffer(256)
    library.fegetenv(before)
    library.fesetenv(c.addressof(usual))
    try:
        yield
    finally:
        library.fesetenv(c.addressof(before))
