"""Kernels made ready to be called: one signature per dtype, compiled when first met, and kept on the disk.

They are kept beside the source, or in the user's cache folder where that cannot be written; where nothing can be, they
are compiled again by each process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import numba
import numpy as np
from numba import types
from numba.core import event

from normkit.ops import kernels
from normkit.ops.announce import say_once

_SIGNATURE_TAIL = (types.int64[:, ::1], types.int64[:, ::1], types.int64[::1], types.int64, types.float64[:, ::1])


@cache
def compiled(name: str, stored: type[np.generic]) -> Callable[..., None]:
    """The kernel of that name for elements stored so: from the disk, or compiled and put there for the next time."""
    kernel = getattr(kernels, name)
    like = numba.from_dtype(np.dtype(stored))[::1]
    signature = types.void(like, *_SIGNATURE_TAIL)
    with _announced():
        try:
            return _compile(kernel, signature, keep=True)
        except (RuntimeError, OSError):  # no folder for the cache can be written, or its disk is full
            return _compile(kernel, signature, keep=False)


def _compile(kernel: Callable[..., None], signature: Any, *, keep: bool) -> Callable[..., None]:
    return cast(Callable[..., None], numba.njit(signature, fastmath=kernels.FAST, nogil=True, cache=keep)(kernel))


@contextmanager
def _announced() -> Iterator[None]:
    """Say so, once, where the compiler really starts; reading a kernel from the disk is silent."""
    listener = event.RecordingListener()
    listener.on_start = lambda _: say_once()
    with event.install_listener("numba:compile", listener):
        yield
