"""A gate before a function of Python's that the threads of a C library call: shut for good when the interpreter ends.

A thread that comes to Python after that never returns, and the library waits for it for ever: a script whose last
steps are still under way would not end. Who comes to the shut gate goes back at once, and nobody reads what is missing.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import time
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ENTERED, LEFT, SHUT = range(3)  # of the state: calls begun, calls ended, 1 once the gate is shut


@intrinsic  # type: ignore[untyped-decorator]
def _add(_context: Any, address: Any, number: Any) -> Any:
    """Add to the number at `address`, whatever other threads do; what stood there."""

    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _call(_context: Any, address: Any, argument: Any) -> Any:
    """Call the C function at `address`."""

    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        return builder.call(builder.inttoptr(args[0], ir.FunctionType(word, [word]).as_pointer()), [args[1]])

    return types.int64(types.int64, types.int64), generate


class Gate:
    """The C function at `address` leads to `function`, a ctypes function of one pointer that returns none."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._state = np.zeros(3, np.int64)
        self._process = os.getpid()
        self._code = _compiled(ctypes.cast(function, ctypes.c_void_p).value or 0, self._state.ctypes.data)
        self.address: int = self._code.address

    def shut(self) -> None:
        """Let nobody in any more, and wait for those inside."""
        self._state[SHUT] = 1
        while os.getpid() == self._process and self._state[ENTERED] != self._state[LEFT]:
            time.sleep(0.001)


def _compiled(function: int, state: int) -> Any:
    entered, left, shut = (state + 8 * i for i in (ENTERED, LEFT, SHUT))

    def pass_on(pointer: int) -> int:
        _add(entered, 1)
        if _add(shut, 0) == 0:
            _call(function, pointer)
        _add(left, 1)
        return 0

    return numba.cfunc(types.int64(types.int64))(pass_on)


_gates: list[Gate] = []


def gated(function: Any) -> Any:
    """`function` behind a gate, as a ctypes function."""
    _gates.append(Gate(function))
    return type(function)(_gates[-1].address)


@atexit.register  # before any recorder registers its own end, which comes first therefore and may wait for results
def _shut_all() -> None:
    for gate in _gates:
        gate.shut()
