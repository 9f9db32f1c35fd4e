"""Something to do when a module is imported, whenever that is: how a script is watched without touching it.

Every Python process below `normkit run` comes by here as it starts, so nothing is imported that Python has not loaded.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Call `then` once, as soon as the top-level module `name` has been imported; now, if it has been already."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Watch(name, then))


def forget_imports() -> None:
    """Whatever `when_imported` still waits for is waited for no longer."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Watch)]


class _Watch:
    """A finder that finds nothing by itself: it hangs itself on what the others find."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then, self._asking = name, then, False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name or self._asking:
            return None
        self._asking = True
        try:
            spec = self._found(name, path, target)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self)  # type: ignore[assignment]  # a Loader by its methods
        return spec

    def _found(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """What Python would find without this watch."""
        others = (finder for finder in list(sys.meta_path) if finder is not self and hasattr(finder, "find_spec"))
        specs = (finder.find_spec(name, path, target) for finder in others)
        return next((spec for spec in specs if spec is not None), None)

    def done(self) -> None:
        """The module is there: watch no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()


class _Then:
    """The module's own loader; afterwards everything is as without it."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self._loader, self._watch = loader, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        for holder in (module, module.__spec__):
            setattr(holder, "__loader__" if holder is module else "loader", self._loader)
        self._loader.exec_module(module)
        self._watch.done()
