"""Forks wait while a writer's thread is inside SQLite: a child would inherit SQLite's own locks as held, for ever."""

from __future__ import annotations

import os
import threading
import weakref

PATIENCE = 1.0  # seconds that a fork may wait for the disk

_guards: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_taken: dict[int, list[threading.Lock]] = {}  # thread that forks -> what it holds meanwhile
_registered: list[bool] = []


def guard() -> threading.Lock:
    """A lock that its owner holds while it is inside SQLite."""
    if not _registered and hasattr(os, "register_at_fork"):
        _registered.append(True)
        os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
    made = threading.Lock()
    _guards.add(made)
    return made


def _before() -> None:
    _taken[threading.get_ident()] = [each for each in list(_guards) if each.acquire(timeout=PATIENCE)]


def _after() -> None:
    for each in _taken.pop(threading.get_ident(), []):
        each.release()
